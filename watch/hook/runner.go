// Package hook runs the commands of a tunnel's hooks, one at a time, each by a
// shell of its own. A Runner asks for them and hears how they go. What runs them
// is this process, or another one, which has kept the rights that this one gives
// up: that one is told the commands beforehand, and later only which of them to
// run with which environment.
package hook

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/conf"
)

// A request is what a Runner asks for, a line of JSON; the first one has the
// commands.
type request struct {
	Hooks  *conf.Hooks       `json:"hooks,omitempty"`
	Cancel bool              `json:"cancel,omitempty"` // end the command that runs
	ID     uint64            `json:"id,omitempty"`
	Hook   string            `json:"hook,omitempty"`
	At     int               `json:"at,omitempty"` // the command's place in its list
	Env    map[string]string `json:"env,omitempty"`
}

// A reply is a line that a command has printed, or its end.
type reply struct {
	ID    uint64 `json:"id"`
	Line  string `json:"line,omitempty"`
	Done  bool   `json:"done,omitempty"`
	Error string `json:"error,omitempty"` // why it has failed
}

// An Event tells of the command that runs.
type Event struct {
	Line string // printed by it
	Done bool   // it has ended
	Err  error  // and failed: its exit status, or why it was killed
}

// ErrGone: there is nobody any more who would run a command.
var ErrGone = errors.New("the process that runs hooks has ended")

// A Runner has one command at a time run. It is not for several goroutines.
type Runner struct {
	conn   net.Conn
	events chan Event
	stop   chan struct{} // closed by Close
	ended  chan struct{} // closed when what runs the commands has ended
	pid    int           // of the process that does; 0: this one

	first, last uint64 // IDs of requests
}

// Start makes a Runner whose commands this process runs.
func Start(h *conf.Hooks) (*Runner, error) {
	ours, theirs := net.Pipe()
	r := newRunner(ours)
	go func() {
		defer close(r.ended)
		_ = Serve(theirs)
	}()
	return r, r.send(&request{Hooks: h})
}

// socketFD is where a process of its own finds its end of the socket.
const socketFD = 3

// Spawn makes a Runner whose commands a process of its own runs, which is this
// program with the argument "hooks". It ends when the Runner does.
func Spawn(program, tunnel string, h *conf.Hooks) (*Runner, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "hooks")
	defer theirs.Close()
	conn, err := connOf(pair[0])
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{
		Path: program, Args: []string{"ipsec-quick", "hooks", tunnel}, Dir: "/",
		ExtraFiles:  []*os.File{theirs},                 // socketFD
		SysProcAttr: &syscall.SysProcAttr{Setsid: true}, // no terminal's signals
	}
	if err := cmd.Start(); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("start the process that runs hooks: %w", err)
	}
	r := newRunner(conn)
	r.pid = cmd.Process.Pid
	go r.reap(cmd.Process)
	if err := r.send(&request{Hooks: h}); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Adopt makes the Runner again that Bequeath described, which takes the
// descriptor.
func Adopt(fd, pid int) (*Runner, error) {
	conn, err := connOf(fd)
	if err != nil {
		return nil, err
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	r := newRunner(conn)
	r.pid = pid
	go r.reap(process)
	return r, nil
}

// Apart reports whether another process runs the commands.
func (r *Runner) Apart() bool { return r.pid != 0 }

// Bequeath describes a Runner that is Apart for the program that this process
// becomes: a new descriptor and the other process.
func (r *Runner) Bequeath() (fd, pid int, err error) {
	socket, ok := r.conn.(syscall.Conn)
	if !ok {
		return -1, 0, errors.ErrUnsupported
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return -1, 0, err
	}
	fd = -1
	var failed error
	err = raw.Control(func(old uintptr) { fd, failed = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, r.pid, errors.Join(err, failed)
}

// connOf takes a descriptor.
func connOf(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "hooks")
	if f == nil {
		return nil, os.ErrInvalid
	}
	defer f.Close()
	return net.FileConn(f)
}

// newRunner has IDs that differ from those of a program before this one.
func newRunner(conn net.Conn) *Runner {
	r := &Runner{conn: conn, events: make(chan Event), stop: make(chan struct{}), ended: make(chan struct{})}
	r.first = uint64(time.Now().UnixNano())
	r.last = r.first
	go r.read()
	return r
}

// maxLine bounds what a command prints in a line; longer ones are cut.
const maxLine = 1 << 10

// read passes replies on. What was meant for a program before this one, or is the
// end of a line that it had begun to read, is left out.
func (r *Runner) read() {
	defer close(r.events)
	lines := bufio.NewScanner(r.conn)
	lines.Buffer(nil, 16*maxLine) // JSON takes up to six octets for one
	for lines.Scan() {
		var p reply
		if json.Unmarshal(lines.Bytes(), &p) != nil || p.ID <= r.first {
			continue
		}
		ev := Event{Line: p.Line, Done: p.Done}
		if p.Error != "" {
			ev.Err = errors.New(p.Error)
		}
		select {
		case r.events <- ev:
		case <-r.stop:
			return
		}
	}
}

// Events tells how the command goes; it is closed when there will be no more.
func (r *Runner) Events() <-chan Event { return r.events }

// Begin has a hook's command run with variables added to the environment, whose
// names get a prefix. Events end with one that is Done.
func (r *Runner) Begin(hook string, at int, env map[string]string) error {
	r.last++
	return r.send(&request{ID: r.last, Hook: hook, At: at, Env: env})
}

// Cancel ends the command that runs.
func (r *Runner) Cancel() error { return r.send(&request{Cancel: true}) }

func (r *Runner) send(req *request) error {
	if err := json.NewEncoder(r.conn).Encode(req); err != nil {
		return fmt.Errorf("%w (%w)", ErrGone, err)
	}
	return nil
}

// reap waits for the process that runs the commands.
func (r *Runner) reap(process *os.Process) {
	defer close(r.ended)
	_, _ = process.Wait()
}

// closeTimeout is how long what runs the commands may take to end; it kills the
// command first that runs.
const closeTimeout = 3 * time.Second

// Close ends the Runner and with it the command that runs.
func (r *Runner) Close() {
	close(r.stop)
	_ = r.conn.Close()
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	select {
	case <-r.ended:
	case <-timer.C:
	}
}
