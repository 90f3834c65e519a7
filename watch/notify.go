package watch

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// notifyTimeout is how long the loop stands still at most for a service manager
// that does not read.
const notifyTimeout = 100 * time.Millisecond

// notify tells systemd how we are (sd_notify(3)): READY=1, STATUS=..., STOPPING=1,
// WATCHDOG=1. Without systemd it does nothing, and an answer there is none.
func notify(lines ...string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if strings.HasPrefix(path, "@") {
		path = "\x00" + path[1:] // an abstract address
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetWriteDeadline(time.Now().Add(notifyTimeout))
	_, _ = conn.Write([]byte(strings.Join(lines, "\n")))
}

// tellManager tells a service manager from now on how the loop is.
func (l *loop) tellManager() {
	l.managed = true
	l.watchdog = newWatchdog(l.now())
	l.onState = func() { notify("STATUS=" + l.summary()) }
	l.tellReady()
}

// summary is one line for systemctl status.
func (l *loop) summary() string {
	up := 0
	for _, p := range l.peers {
		if p.up {
			up++
		}
	}
	text := fmt.Sprintf("%d of %d peers established", up, len(l.peers))
	if pending := l.pending(); len(pending) > 0 {
		text += ", not " + strings.Join(pending, ", ")
	}
	return text
}

// watchdog tells systemd that the loop turns (WatchdogSec= in systemd.service(5)).
type watchdog struct {
	every time.Duration
	due   time.Time
}

// newWatchdog is nil when systemd does not ask for signs of life.
func newWatchdog(now time.Time) *watchdog {
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return nil
	}
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return nil
	}
	every := time.Duration(usec) * time.Microsecond / 2
	return &watchdog{every: every, due: now}
}

func (w *watchdog) next() time.Time {
	if w == nil {
		return time.Time{}
	}
	return w.due
}

func (w *watchdog) kick(now time.Time) {
	if w == nil || w.due.After(now) {
		return
	}
	notify("WATCHDOG=1")
	w.due = now.Add(w.every)
}

// tellReloading says that the loop reads its tunnel file again, until tellReady.
func (l *loop) tellReloading() {
	if !l.managed {
		return
	}
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // every kernel has it
	notify("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", ts.Nano()/1000))
}

func (l *loop) tellReady() {
	if l.managed {
		notify("READY=1", "STATUS="+l.summary())
	}
}
