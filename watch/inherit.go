package watch

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"ipsec-quick/watch/hook"
)

// inheritVariable tells a process which descriptors of a tunnel it was given, as
// the JSON of an inheritance.
const inheritVariable = "IPSEC_QUICK_INHERIT"

// An inheritance are the descriptors that a loop hands down to the process or the
// program that goes on with it: nothing that is sent to the tunnel meanwhile is
// lost, because the sockets stay open. A descriptor of -1 is none.
type inheritance struct {
	Background bool           `json:"background"` // it is, or will be, no terminal's
	Signal     int            `json:"signal"`     // a stream socket: "go" one way, "ready" the other
	Lock       int            `json:"lock"`
	Control    int            `json:"control"`
	Handover   int            `json:"handover"`
	UDP        [slotCount]int `json:"udp"`
	ESP        []int          `json:"esp"`   // of the data plane
	Hooks      []int          `json:"hooks"` // to what runs hooks, one or none
	HooksPID   int            `json:"hooks_pid"`
}

// all are its descriptors.
func (h *inheritance) all() []*int {
	list := []*int{&h.Signal, &h.Lock, &h.Control, &h.Handover}
	for i := range h.UDP {
		list = append(list, &h.UDP[i])
	}
	for i := range h.ESP {
		list = append(list, &h.ESP[i])
	}
	for i := range h.Hooks {
		list = append(list, &h.Hooks[i])
	}
	return list
}

// variable is the entry of the environment.
func (h *inheritance) variable() (string, error) {
	b, err := json.Marshal(h)
	return inheritVariable + "=" + string(b), err
}

// close closes the descriptors that nobody took.
func (h *inheritance) close() {
	for _, fd := range h.all() {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
}

// bequeath duplicates the descriptors of a tunnel.
func bequeath(d *dir, s *sockets, listener *net.UnixListener, handover *net.UnixConn) (*inheritance, error) {
	h := new(inheritance)
	for _, fd := range h.all() {
		*fd = -1
	}
	var failed error
	take := func(to *int, c syscall.Conn) {
		fd, err := dup(c)
		if err == nil {
			*to = fd
		}
		failed = errors.Join(failed, err)
	}
	take(&h.Lock, d.lock)
	take(&h.Control, listener)
	take(&h.Handover, handover)
	for i, conn := range s.conns {
		if conn != nil {
			take(&h.UDP[i], conn)
		}
	}
	if failed != nil {
		h.close()
		return nil, failed
	}
	return h, nil
}

// dup duplicates the descriptor of a connection. The File methods of package
// net would do too, but starting a process with an os.File makes it blocking,
// and that is a property of the socket: our readers could not be stopped.
func dup(c syscall.Conn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var failed error
	err = raw.Control(func(old uintptr) { fd, failed = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(err, failed)
}

// inherited is what this process was given; nil: nothing.
func inherited() (*inheritance, error) {
	text := os.Getenv(inheritVariable)
	if text == "" {
		return nil, nil
	}
	h := new(inheritance)
	if err := json.Unmarshal([]byte(text), h); err != nil {
		return nil, fmt.Errorf("%s: %w", inheritVariable, err)
	}
	return h, nil
}

// take makes a tunnel's directory, which is locked, and its sockets of the
// descriptors. What is there in spite of an error is the caller's too.
func (h *inheritance) take(root, name string) (p parts, err error) {
	_ = os.Unsetenv(inheritVariable) // no process of ours is meant by it any more
	defer h.close()
	for _, fd := range h.all() {
		if *fd >= 0 {
			unix.CloseOnExec(*fd)
		}
	}
	p.inherited, h.ESP = h.ESP, nil
	p.dir = newDir(root, name)
	p.dir.lock, h.Lock = os.NewFile(uintptr(h.Lock), fileLock), -1
	if p.facts, err = p.dir.facts(); err != nil {
		return p, err
	}
	if len(h.Hooks) == 1 {
		if p.runner, err = hook.Adopt(h.Hooks[0], h.HooksPID); err != nil {
			return p, err
		}
		h.Hooks = nil
	}
	p.sockets = &sockets{ports: [2]uint16{p.facts.Port, p.facts.NATPort}}
	for i := range h.UDP {
		if h.UDP[i] < 0 {
			continue
		}
		if p.sockets.conns[i], err = adopt[*net.UDPConn](&h.UDP[i], net.FilePacketConn); err != nil {
			return p, err
		}
	}
	if p.listener, err = adopt[*net.UnixListener](&h.Control, net.FileListener); err != nil {
		return p, err
	}
	p.listener.SetUnlinkOnClose(false)
	p.handover, err = adopt[*net.UnixConn](&h.Handover, net.FileConn)
	return p, err
}

// adopt makes a socket of a descriptor, which it takes.
func adopt[T, Made any](fd *int, makeOf func(*os.File) (Made, error)) (T, error) {
	var none T
	f := os.NewFile(uintptr(*fd), "inherited")
	if f == nil {
		return none, errors.New("a socket was not inherited")
	}
	*fd = -1
	defer f.Close()
	made, err := makeOf(f)
	if err != nil {
		return none, fmt.Errorf("inherited socket: %w", err)
	}
	socket, ok := any(made).(T)
	if !ok {
		return none, fmt.Errorf("inherited socket is a %T", made)
	}
	return socket, nil
}

// inherit takes what a program before us left in this process, if one did.
func (u *upRun) inherit() error {
	h, err := inherited()
	if err != nil || h == nil {
		return err
	}
	u.again = true
	if u.parts, err = h.take(u.o.Dir, u.o.Tunnel.Name); err != nil {
		u.parts.drop()
		u.parts.dir.release()
	}
	return err
}
