package userspace

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A wary worker waits for a lull first, and then for ever.
func TestWaitsForALullFirst(t *testing.T) {
	k := newWire(t, nil).worker
	thread, came := make(chan int, 1), make(chan int, 1)
	go func() {
		runtime.LockOSThread() // whose system call is looked at
		thread <- unix.Gettid()
		var events [4]unix.EpollEvent
		n, err := k.wait(events[:], true)
		for errors.Is(err, unix.EINTR) { // by the runtime
			n, err = k.wait(events[:], true)
		}
		came <- n
	}()
	path := fmt.Sprintf("/proc/self/task/%d/syscall", <-thread)
	waits := func(timeout int32) {
		t.Helper()
		want := fmt.Sprintf("%#x", uint64(int64(timeout)))
		var fields []string
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Skip("system calls of threads cannot be seen: ", err)
			}
			// number, epoll, events, their number, timeout
			if fields = strings.Fields(string(text)); len(fields) > 4 && fields[4] == want {
				return
			}
		}
		t.Fatalf("system call %v, want a timeout of %s", fields, want)
	}
	waits(lull)
	waits(-1)
	k.in.w.halted.give()
	if n := <-came; n != 1 {
		t.Errorf("%d events, want that of the end", n)
	}
}

// Only many octets, and only often, make a worker pause, and once.
func TestModeration(t *testing.T) {
	var m moderation
	at := int64(1e9)
	for _, step := range []struct {
		octets int
		after  int64
		due    bool
	}{
		{batchLen, 0, false},     // the first
		{batchLen, often, false}, // as long ago as it may not be
		{batchLen, often - 1, true},
		{batchLen - 1, 1, true}, // small ones change nothing
		{batchLen, 2 * often, false},
	} {
		at += step.after
		if m.moved(step.octets, at); m.due != step.due {
			t.Fatalf("%+v: due is %v", step, m.due)
		}
	}
	m.moved(batchLen, at)
	start := time.Now()
	m.pause()
	if took := time.Since(start); m.due || took < pause {
		t.Errorf("due is still %v after a pause of %v", m.due, took)
	}
}
