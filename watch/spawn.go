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

// What goes over the signal socket.
const (
	sayGo     = 'g'
	sayReady  = 'r'
	sayFailed = 'f' // then the error
)

// readyTimeout is how long a background process may take to take over: with a
// thousand peers on a slow machine that is seconds.
const readyTimeout = 30 * time.Second

// background is the process that is to go on with the loop. It is started
// early and prepares itself, so that nothing waits for it in the end.
type background struct {
	pid    int
	signal *net.UnixConn
}

// spawn starts the background process, with crash as its stderr.
func spawn(program string, p *parts, crash *os.File) (*background, error) {
	h, err := bequeath(p.dir, p.sockets, p.listener, p.handover)
	if err != nil {
		return nil, err
	}
	defer h.close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	h.Signal = pair[1]
	signal, err := adopt[*net.UnixConn](&pair[0], net.FileConn)
	if err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, errors.Join(err, signal.Close())
	}
	defer null.Close()
	files := []uintptr{null.Fd(), null.Fd(), crash.Fd()}
	there := *h // the same by the numbers that they have there
	there.Background = true
	for _, fd := range there.all() {
		if *fd >= 0 {
			files = append(files, uintptr(*fd))
			*fd = len(files) - 1
		}
	}
	variable, err := there.variable()
	if err != nil {
		return nil, errors.Join(err, signal.Close())
	}
	pid, err := syscall.ForkExec(program, []string{"ipsec-quick", "watch", p.dir.name}, &syscall.ProcAttr{
		Dir:   "/", // keeps no file system busy
		Env:   append(os.Environ(), variable),
		Files: files,
		Sys:   &syscall.SysProcAttr{Setsid: true}, // no terminal's signals
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the loop in the background: %w", err), signal.Close())
	}
	return &background{pid: pid, signal: signal}, nil
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

// thisProgram is our own file; /proc/self/exe where it was replaced meanwhile.
func thisProgram() string {
	path, err := os.Executable()
	if err != nil || strings.HasSuffix(path, " (deleted)") {
		return "/proc/self/exe"
	}
	return path
}
