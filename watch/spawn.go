package watch

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// inheritVariable tells a background process which UDP sockets it was given:
// a digit for each slot, 1 or 0.
const inheritVariable = "IPSEC_QUICK_SOCKETS"

// The descriptors of a background process after stdin, stdout and stderr.
const (
	fdSignal = iota + 3 // a stream socket: "go" one way, "ready" the other
	fdLock
	fdControl
	fdHandover
	fdSockets // and those after it, in the order of the slots that are set
)

// What goes over fdSignal.
const (
	sayGo     = 'g'
	sayReady  = 'r'
	sayFailed = 'f' // then the error
)

// readyTimeout is how long a background process may take to take over.
const readyTimeout = 10 * time.Second

// background is the process that is to go on with the loop. It is started
// early and prepares itself, so that nothing waits for it in the end.
type background struct {
	pid    int
	signal *net.UnixConn
}

// spawn starts the background process.
func spawn(program string, p *parts) (*background, error) {
	fds, err := p.sockets.inheritance()
	defer func() { closeAll(fds) }()
	if err != nil {
		return nil, err
	}
	mask := ""
	for _, fd := range fds {
		if fd < 0 {
			mask += "0"
		} else {
			mask += "1"
		}
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	defer unix.Close(pair[1])
	signal, err := connOf(pair[0])
	if err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, errors.Join(err, signal.Close())
	}
	defer null.Close()
	crash, err := crashOutput(p.dir)
	if err != nil {
		return nil, errors.Join(err, signal.Close())
	}
	defer crash.Close()
	unixes := make([]int, 0, 2)
	defer func() { closeAll(unixes) }()
	for _, c := range []syscall.Conn{p.listener, p.handover} {
		fd, err := dup(c)
		if err != nil {
			return nil, errors.Join(err, signal.Close())
		}
		unixes = append(unixes, fd)
	}
	files := []uintptr{null.Fd(), null.Fd(), crash.Fd(), uintptr(pair[1]), p.dir.lock.Fd(), uintptr(unixes[0]), uintptr(unixes[1])}
	for _, fd := range fds {
		if fd >= 0 {
			files = append(files, uintptr(fd))
		}
	}
	pid, err := syscall.ForkExec(program, []string{"ipsec-quick", "watch", p.dir.name}, &syscall.ProcAttr{
		Dir:   "/", // keeps no file system busy
		Env:   append(os.Environ(), inheritVariable+"="+mask),
		Files: files,
		Sys:   &syscall.SysProcAttr{Setsid: true}, // no terminal's signals
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the loop in the background: %w", err), signal.Close())
	}
	return &background{pid: pid, signal: signal}, nil
}

// connOf makes a connection of a descriptor, which it takes.
func connOf(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "signal")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.New("inherited descriptor is no unix socket")
	}
	return u, nil
}

// abandon makes the process end without having touched anything, and waits for
// it: it holds our ports.
func (b *background) abandon() {
	if b == nil {
		return
	}
	_ = b.signal.Close()
	var status syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(b.pid, &status, 0, nil); !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}

// takeOver lets the process go on with the loop, and waits until it does.
func (b *background) takeOver() error {
	defer b.signal.Close()
	if err := b.signal.SetDeadline(time.Now().Add(readyTimeout)); err != nil {
		return err
	}
	if _, err := b.signal.Write([]byte{sayGo}); err != nil {
		return fmt.Errorf("the loop in the background has died: %w", err)
	}
	reply := make([]byte, 1)
	if _, err := io.ReadFull(b.signal, reply); err != nil {
		return fmt.Errorf("the loop in the background has not begun: %w", err)
	}
	if reply[0] == sayReady {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(b.signal, 4096))
	return fmt.Errorf("the loop in the background: %s", strings.TrimSpace(string(text)))
}

// inheritedSockets are the UDP sockets that a background process was given.
func inheritedSockets(port, natPort uint16) (*sockets, error) {
	mask := os.Getenv(inheritVariable)
	_ = os.Unsetenv(inheritVariable)
	if len(mask) != int(slotCount) {
		return nil, errors.New("this process was given no sockets")
	}
	var files [slotCount]*os.File
	fd := uintptr(fdSockets)
	for i := range mask {
		if mask[i] == '1' {
			files[i] = os.NewFile(fd, "udp")
			fd++
		}
	}
	return inheritSockets(files, port, natPort)
}
