package userspace

import (
	"math"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// now is the time in nanoseconds since the boot, suspended or not
// (CLOCK_BOOTTIME): nobody sets this clock, and it means the same to the next
// process. Lifetimes are counted on it.
func now() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // every kernel since 2.6.39 has it
	return ts.Nano()
}

// A clock is now for a worker, who asks for each batch. Most of the time it makes no
// system call: it adds what the monotonic clock says to when it last made one. That
// clock does not count while the host is suspended, so a worker may be late for as
// long as it relies on it.
type clock struct {
	at   int64 // what now returned
	read time.Time
}

// relyFor is how long a clock relies on the monotonic one.
const relyFor = 5 * time.Millisecond

func (c *clock) now() int64 {
	passed := time.Since(c.read)
	if passed >= relyFor {
		c.at, c.read, passed = now(), time.Now(), 0
	}
	return c.at + int64(passed)
}

// An alarm wakes its reader at the earliest time that it was set to. Between
// deadlines it costs nothing, and it counts the time that the host is suspended.
type alarm struct {
	timer *os.File // a timerfd

	mu sync.Mutex
	at int64
}

const (
	atOnce = 1 // a time that has passed
	never  = math.MaxInt64
)

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	return &alarm{timer: os.NewFile(uintptr(fd), "lifetimes"), at: never}, nil
}

// set makes it go off at a time, unless it does so before.
func (a *alarm) set(at int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if at >= a.at {
		return
	}
	a.at = at
	raw, err := a.timer.SyscallConn()
	if err != nil {
		return // closed
	}
	_ = raw.Control(func(fd uintptr) {
		spec := &unix.ItimerSpec{Value: unix.NsecToTimespec(max(at, atOnce))}
		_ = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME, spec, nil)
	})
}

// wait returns when it has gone off, or false when it is closed. From then on it
// is set to never.
func (a *alarm) wait() bool {
	buf := make([]byte, 8)
	if _, err := a.timer.Read(buf); err != nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = never
	return true
}

func (a *alarm) close() { _ = a.timer.Close() }
