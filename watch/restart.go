package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// tryTimeout is how long a program may take to say its version.
	tryTimeout = 5 * time.Second
	// restartTimeout is how long a loop may take to become another program.
	restartTimeout = tryTimeout + 5*time.Second
)

// errRestart: the loop is to go on as another program.
var errRestart = errors.New("restart")

// Restart makes a tunnel's loop go on as the program that is at its path now, in
// the same process, with the same sockets and the same SAs. If that cannot be,
// the loop goes on as it was and the error says why. It waits for the new loop,
// whose status it returns. The error is ErrNotUp or ErrNoLoop if there is none.
func Restart(root, name string) (*Status, error) {
	if root == "" {
		root = RunDir
	}
	d := newDir(root, name)
	handed := false
	r, err := ask(d, &request{Verb: verbRestart}, restartTimeout, func(*response) { handed = true })
	switch {
	case err == nil:
		return nil, fmt.Errorf("the loop goes on as it was: %s", r.Error)
	case !handed || !errors.Is(err, ErrNoLoop):
		return nil, err
	}
	// The connection ended with the old program. The new one answers on the same
	// socket when it is ready.
	if r, err = ask(d, &request{Verb: verbStatus}, readyTimeout, nil); err != nil {
		return nil, fmt.Errorf("the new program does not go on with the tunnel, see its log: %w", err)
	}
	return r.Status, nil
}

// serveRestart tries what can be tried beforehand, and then lets the loop become
// another program. If the client hears of it, that has failed.
func (l *loop) serveRestart(out *json.Encoder, answer func(response, error)) {
	program := thisProgram()
	if err := l.mayRestart(program); err != nil {
		answer(response{}, err)
		return
	}
	if out.Encode(response{Change: program}) != nil {
		return
	}
	done := make(chan error, 1)
	if !l.call(func() {
		switch {
		case !l.settled:
			done <- errors.New("it is being brought up")
		case l.closing != nil:
			done <- errors.New("it is being taken down")
		case l.restarting != nil:
			done <- errors.New("it is being restarted")
		default:
			l.restarting = done
		}
	}) {
		return
	}
	select {
	case err := <-done:
		answer(response{}, err)
	case <-l.ctx.Done():
	}
}

// mayRestart reports what would keep a program from going on with the tunnel.
func (l *loop) mayRestart(program string) error {
	ctx, cancel := context.WithTimeout(l.ctx, tryTimeout)
	defer cancel()
	try := exec.CommandContext(ctx, program, "--version")
	try.WaitDelay = time.Second
	said, err := try.Output()
	if err == nil && !strings.HasPrefix(string(said), "ipsec-quick version ") {
		err = errors.New("it is another program")
	}
	if err != nil {
		return fmt.Errorf("%s --version: %w", program, err)
	}
	t, err := loadAgain(l.facts.Path)
	if err != nil {
		return err
	}
	if !l.call(func() { err = l.fixed(t) }) {
		return ErrNoLoop
	}
	return err
}

// runOn runs a loop that stays in this process, whatever program that is.
func (l *loop) runOn(ctx context.Context) error {
	l.settled = true
	for {
		err := l.run(ctx, func() (bool, error) { return l.restarting != nil, errRestart })
		if !errors.Is(err, errRestart) {
			return err
		}
		l.restarting <- l.become(thisProgram())
		l.restarting = nil
	}
}

// become ends the loop as if it had died and makes this process another program,
// which recovers it. It returns only if that fails; then the loop can go on.
func (l *loop) become(program string) error {
	l.control.stopServing()
	err := l.stop()
	if err == nil {
		err = l.exec(program)
	}
	l.log.Error("the loop goes on as it was", "err", err)
	l.sockets.resumeReading()
	l.hand.resume()
	l.control.resume()
	l.listening = false
	return err
}

// A bequeather is a data plane of this process: Bequeath stops it and returns
// descriptors for the next program, Resume makes it go on.
type bequeather interface {
	Bequeath() ([]int, error)
	Resume()
}

func (l *loop) exec(program string) error {
	h, err := bequeath(l.dir, l.sockets, l.control.listener, l.hand.conn)
	if err != nil {
		return err
	}
	defer h.close()
	h.Background = l.background
	if dp, ok := l.dp.(bequeather); ok {
		if h.ESP, err = dp.Bequeath(); err != nil {
			return err
		}
		defer dp.Resume()
	}
	if err := l.hooks.bequeath(h); err != nil {
		return err
	}
	variable, err := h.variable()
	if err != nil {
		return err
	}
	for _, fd := range h.all() {
		if *fd < 0 {
			continue
		}
		if _, err := unix.FcntlInt(uintptr(*fd), unix.F_SETFD, 0); err != nil {
			return os.NewSyscallError("fcntl", err)
		}
	}
	l.log.Info("the loop goes on as another program", "program", program)
	return &os.PathError{Op: "exec", Path: program, Err: syscall.Exec(program, os.Args, append(os.Environ(), variable))}
}
