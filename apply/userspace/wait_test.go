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
