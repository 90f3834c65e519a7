package userspace

import (
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// A quit ends goroutines that wait for descriptors: its own can be read once it
// is given.
type quit struct{ fd int }

func newQuit() (*quit, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	return &quit{fd}, nil
}

// give ends who waits.
func (q *quit) give() {
	one := [8]byte{1}
	_, _ = unix.Write(q.fd, one[:]) // it has room
}

// take makes it as new, when all have ended.
func (q *quit) take() {
	var b [8]byte
	_, _ = unix.Read(q.fd, b[:])
}

// breatheEvery is how often a worker passes through the scheduler: half of what it
// allows.
const breatheEvery = 5 * time.Millisecond

// A breath is when a worker last passed through the scheduler. A goroutine that
// has not for 10 ms is taken for one that others wait for. The runtime's monitor
// then wakes up every 20 microseconds to take its processor away whenever it waits
// in a system call, at the cost of a tenth of all that the workers do.
type breath time.Time

// take is called before a system call that waits. It returns whether it passed through
// the scheduler.
func (b *breath) take() bool {
	now := time.Now()
	if now.Sub(time.Time(*b)) < breatheEvery {
		return false
	}
	*b = breath(now)
	runtime.Gosched()
	return true
}
