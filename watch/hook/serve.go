package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/conf"
)

const (
	// shell runs each command, with -c.
	shell = "/bin/sh"
	// prefix is that of our variables in a command's environment.
	prefix = "IPSEC_QUICK_"
	// leftOpen is how long the output of a command is read that has ended and left
	// a process behind which holds it.
	leftOpen = time.Second
	// maxLines is how many lines of a command's output are passed on.
	maxLines = 200
	// maxWaiting bounds requests: one, and one of each program before this one.
	maxWaiting = 16
)

// notOurs are variables that speak to this process, not to its children.
var notOurs = []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}

// Main is the process that Spawn starts.
func Main() error {
	conn, err := connOf(socketFD)
	if err != nil {
		return fmt.Errorf("this process was given no hooks: %w", err)
	}
	// A service manager may send these to all processes of a unit, while hooks are
	// still to be run. They are caught, not ignored, because commands would inherit
	// that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	return Serve(conn)
}

// Serve runs commands for the Runner at the other end until that has gone; then
// it kills the one that runs.
func Serve(conn net.Conn) error {
	defer conn.Close()
	// Go has its own so already; these are what this process was started with.
	_ = unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC) // a kernel before 5.11 cannot
	in := json.NewDecoder(conn)
	var first request
	if err := in.Decode(&first); err != nil {
		return err
	}
	if first.Hooks == nil {
		return errors.New("the first request has no hooks")
	}
	s := &server{hooks: first.Hooks, out: json.NewEncoder(conn)}
	requests := make(chan request, maxWaiting)
	gone := make(chan error, 1)
	go func() {
		defer close(requests)
		for {
			var r request
			if err := in.Decode(&r); err != nil {
				s.end()
				gone <- err
				return
			}
			if r.Cancel {
				s.cancelRunning()
				continue
			}
			requests <- r
		}
	}()
	for r := range requests {
		s.serve(&r)
	}
	err := <-gone
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
}

// server is one Serve.
type server struct {
	hooks *conf.Hooks

	mu     sync.Mutex
	out    *json.Encoder
	cancel context.CancelCauseFunc // of the command that runs; nil: none
	ended  bool                    // no more are begun
}

var (
	errCanceled = errors.New("interrupted")
	errTimeout  = errors.New("timeout")
)

// begin makes the context of a command; nil: there is no one left to run it for.
func (s *server) begin() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	s.cancel = cancel
	return ctx
}

func (s *server) cancelRunning() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel != nil {
		s.cancel(errCanceled)
	}
}

func (s *server) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.cancelRunning()
}

func (s *server) reply(r reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.out.Encode(r) // if the Runner has gone, the reader of requests finds out
}

// serve runs one command.
func (s *server) serve(r *request) {
	done := reply{ID: r.ID, Done: true}
	if err := s.run(r); err != nil {
		done.Error = err.Error()
	}
	s.reply(done)
}

func (s *server) run(r *request) error {
	list := s.hooks.Commands[r.Hook]
	if r.At < 0 || r.At >= len(list) {
		return fmt.Errorf("there is no command %d of %s", r.At, r.Hook)
	}
	ctx := s.begin()
	if ctx == nil {
		return errCanceled
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.hooks.Timeout, errTimeout)
	defer cancel()
	output := &lines{emit: func(line string) { s.reply(reply{ID: r.ID, Line: line}) }}
	cmd := exec.CommandContext(ctx, shell, "-c", list[r.At])
	cmd.Dir, cmd.Env = "/", environment(r.Env)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.WaitDelay = leftOpen
	// A group of its own, so that all of it can be killed. Without its parent the
	// shell has nobody who would do that.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err := cmd.Run()
	output.flush()
	switch {
	case errors.Is(context.Cause(ctx), errTimeout):
		return fmt.Errorf("killed after %v", s.hooks.Timeout)
	case ctx.Err() != nil:
		return errCanceled
	case errors.Is(err, exec.ErrWaitDelay):
		return nil // it has left a process behind, which may be its purpose
	}
	return err
}

// environment is ours with the variables of a hook.
func environment(own map[string]string) []string {
	env := slices.DeleteFunc(os.Environ(), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		_, replaced := own[strings.TrimPrefix(name, prefix)]
		return slices.Contains(notOurs, name) || replaced && strings.HasPrefix(name, prefix)
	})
	for name, value := range own {
		env = append(env, prefix+name+"="+value)
	}
	return env
}

// lines is a Writer that passes on what is written line by line, within bounds.
type lines struct {
	emit func(string)

	mu   sync.Mutex
	part []byte // of a line whose end has not come
	cut  bool   // more of it is left out
	n    int
}

// Write never fails: who prints too much goes on.
func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range b {
		switch {
		case c == '\n':
			l.end()
		case len(l.part) < maxLine:
			l.part = append(l.part, c)
		default:
			l.cut = true
		}
	}
	return len(b), nil
}

// end passes a line on.
func (l *lines) end() {
	l.n++
	switch {
	case l.n <= maxLines:
		text := strings.ToValidUTF8(string(l.part), "\ufffd")
		if l.cut {
			text += " ..."
		}
		l.emit(text)
	case l.n == maxLines+1:
		l.emit("(more output is left out)")
	}
	l.part, l.cut = l.part[:0], false
}

// flush passes on a last line without an end.
func (l *lines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.part) > 0 {
		l.end()
	}
}
