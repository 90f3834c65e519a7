package watch

import (
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The loop's clock is CLOCK_BOOTTIME. Nobody sets it, it goes on while the host
// is suspended, and it means the same to the next process: deadlines in the state
// file, which does not outlive the boot, hold whatever becomes of the wall clock.
// A time on it is a time.Time, the Unix epoch plus the time since boot.
//
// Whatever is shown to people, or compared with the kernel's seconds since 1970,
// goes through wallTime.

// bootTime is the time on the loop's clock.
func bootTime() time.Time {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // every kernel since 2.6.39 has it
	return time.Unix(ts.Unix())
}

// wallTime is a time on the loop's clock by the wall clock as it is set now; the
// zero time stays what it is.
func wallTime(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return time.Now().Add(t.Sub(bootTime())).Round(0)
}

// clockSteps tells when somebody sets the wall clock.
type clockSteps struct {
	timer *os.File
	out   chan struct{}
}

// watchClock begins to watch. It costs no wake-up: a timer on CLOCK_REALTIME that
// never expires is cancelled when the clock is set (timerfd_create(2),
// TFD_TIMER_CANCEL_ON_SET), and when the host resumes, which the loop's timer
// does not count.
func watchClock() (*clockSteps, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("clock: %w", os.NewSyscallError("timerfd_create", err))
	}
	at := &unix.ItimerSpec{Value: unix.Timespec{Sec: math.MaxInt}}
	if err := unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, at, nil); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("clock: %w", os.NewSyscallError("timerfd_settime", err))
	}
	c := &clockSteps{timer: os.NewFile(uintptr(fd), "clock"), out: make(chan struct{}, 1)}
	go c.run()
	return c, nil
}

// run reads until the timer is closed.
func (c *clockSteps) run() {
	buf := make([]byte, 8)
	for {
		if _, err := c.timer.Read(buf); !errors.Is(err, unix.ECANCELED) {
			return
		}
		select {
		case c.out <- struct{}{}:
		default: // one is waiting
		}
	}
}

// steps may be asked of a nil one, which never tells.
func (c *clockSteps) steps() <-chan struct{} {
	if c == nil {
		return nil
	}
	return c.out
}

// close ends it.
func (c *clockSteps) close() {
	if c != nil {
		_ = c.timer.Close()
	}
}
