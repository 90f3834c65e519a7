package userspace

import (
	"os"
	"runtime"
	"time"
	"unsafe"

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

// breatheEvery is how often a worker passes through the scheduler: a little more often
// than it asks for.
const breatheEvery = 8 * time.Millisecond

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

const (
	// A batch is many octets that were moved at once, most of the time a train.
	batchLen = 16 << 10
	// often is how soon one follows another, in nanoseconds, if there are so many
	// that it pays not to be woken up for each: 5 Gbit/s.
	often = 100e3
	// pause is how long a worker then leaves what comes where it is, in nanoseconds:
	// some 40 KiB at 10 Gbit/s.
	pause = 30e3
)

// A moderation is what is called interrupt moderation of a network card. To wake up a
// thread whose processor is idle costs as much as to seal a train, in a virtual machine
// at least, so a worker that moves many batches and has come to the end of what there
// is pauses before it waits for more. It makes the CPU do a tenth less for a GiB.
type moderation struct {
	last int64 // when there was a batch
	due  bool
}

// prepare makes short pauses short: by default Linux adds 50 microseconds. It is for
// the thread that it is called by, as is end, which undoes it.
func (*moderation) prepare() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1000, 0, 0, 0) }

func (*moderation) end() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) }

// moved notes how many octets were moved at once, and when.
func (m *moderation) moved(octets int, at int64) {
	if octets >= batchLen {
		m.due = at-m.last < often
		m.last = at
	}
}

// pause pauses. Go's runtime is not told: it is shorter than what it would do about it.
func (m *moderation) pause() {
	m.due = false
	t := unix.NsecToTimespec(pause)
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0) // a signal may end it
}
