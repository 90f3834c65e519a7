package lab_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// burst is the longest pause within one wake-up, under emulation.
const burst = time.Second

// wakes are the times at which a process woke up.
type wakes struct {
	due     int // for the comparison with the kernel
	runtime int // the Go runtime's, in which no code of ours ran
	other   int
	calls   int // system calls in all
}

// runtimeCalls are the system calls of a wake-up of the Go runtime: what its
// threads sleep in, how it asks how many CPUs there are, of the kernel and of the
// control group, and how it gives memory back. One of its threads looks around once
// a minute; what the garbage collector starts in the background goes on seconds
// later, after a pause that is many times as long as what it did; and a timer that
// was put off wakes the scheduler at its old time.
//
// Code of ours cannot be taken for it: it waits for a descriptor, or for the loop's
// timer, after which the loop looks at its clock.
var runtimeCalls = map[string]bool{
	"futex": true, "restart_syscall": true, "nanosleep": true, "sched_getaffinity": true, "pread64": true,
	"epoll_pwait": true, "madvise": true,
}

// wakeUps counts them in a record of strace -f -ttt.
func wakeUps(text string, from, to time.Time) (w wakes, err error) {
	var last time.Time
	due, theirs := false, true
	some := false
	end := func() {
		switch {
		case !some:
		case due:
			w.due++
		case theirs:
			w.runtime++
		default:
			w.other++
		}
		due, theirs, some = false, true, false
	}
	for line := range strings.Lines(text) {
		_, rest, _ := strings.Cut(line, " ")
		stamp, call, _ := strings.Cut(strings.TrimSpace(rest), " ")
		seconds, err := strconv.ParseFloat(stamp, 64)
		if err != nil {
			return w, fmt.Errorf("strace: %q: %w", line, err)
		}
		at := time.UnixMicro(int64(seconds * 1e6))
		if at.Before(from) || at.After(to) {
			continue
		}
		if at.Sub(last) > burst {
			end()
		}
		last = at
		w.calls++
		name, _, _ := strings.Cut(strings.TrimPrefix(call, "<... "), "(")
		name, _, _ = strings.Cut(name, " ")
		some = true
		theirs = theirs && runtimeCalls[name] && !strings.Contains(call, "events=")
		due = due || strings.Contains(call, "NLM_F_REQUEST")
	}
	end()
	return w, nil
}

// TestWakeUps looks at records of strace that are like those of a loop.
func TestWakeUps(t *testing.T) {
	const monitor = `7 1000.500000 <... futex resumed>) = -1 ETIMEDOUT (Connection timed out)
7 1000.500100 sched_getaffinity(0, 8192, [0 1]) = 32
7 1000.500200 nanosleep({tv_sec=0, tv_nsec=20000}, NULL) = 0
7 1000.500300 futex(0x5ad400, FUTEX_WAIT_PRIVATE, 0, {tv_sec=60, tv_nsec=0} <unfinished ...>
`
	tests := map[string]struct {
		text string
		want wakes
	}{
		"asleep":      {"", wakes{}},
		"the monitor": {monitor, wakes{runtime: 1, calls: 4}},
		"the monitor twice, first after strace came": {strings.Replace(monitor, "futex resumed", "restart_syscall resumed", 1) +
			strings.ReplaceAll(monitor, " 1000.", " 1060."), wakes{runtime: 2, calls: 8}},
		"the monitor in a control group": {monitor + "7 1000.500400 pread64(3, \"max 100000\\n\", 64, 0) = 11\n", wakes{runtime: 1, calls: 5}},
		"the comparison with the kernel": {monitor + `5 1001.000000 <... epoll_pwait resumed>[], 128, 9000, NULL, 0) = 0
5 1001.000100 sendto(9, [{nlmsg_len=16, nlmsg_type=XFRM_MSG_GETSA, nlmsg_flags=NLM_F_REQUEST|NLM_F_DUMP}], 16, 0, NULL, 0) = 16
`, wakes{due: 1, calls: 6}},
		"a timer of the runtime's beside the monitor": {monitor + "5 1000.600000 <... epoll_pwait resumed>[], 128, 100, NULL, 0) = 0\n", wakes{runtime: 1, calls: 5}},
		"the scavenger": {`5 1000.000000 <... epoll_pwait resumed>[], 128, 33060, NULL, 0) = 0
5 1000.000100 madvise(0xc000080000, 65536, MADV_DONTNEED) = 0
5 1000.000200 epoll_pwait(6,  <unfinished ...>
`, wakes{runtime: 1, calls: 3}},
		"the loop's timer": {`5 1000.000000 <... epoll_pwait resumed>[], 128, 9000, NULL, 0) = 0
5 1000.000100 clock_gettime(CLOCK_BOOTTIME, {tv_sec=600, tv_nsec=0}) = 0
5 1000.000200 epoll_pwait(6,  <unfinished ...>
`, wakes{other: 1, calls: 3}},
		"a datagram": {`5 1000.000000 <... epoll_pwait resumed>[{events=EPOLLIN, data=0x1}], 128, -1, NULL, 0) = 1
5 1000.000100 recvmsg(8, {msg_namelen=16}, 0) = 92
5 1003.000000 recvmsg(8, {msg_namelen=16}, 0) = 92
`, wakes{other: 2, calls: 3}},
		"one thread wakes another": {monitor + "8 1000.500400 <... futex resumed>) = 0\n", wakes{runtime: 1, calls: 5}},
		"a thread that does not nap": {`8 1000.000000 <... futex resumed>) = 0
8 1000.000100 futex(0xc000080148, FUTEX_WAIT_PRIVATE, 0, NULL <unfinished ...>
`, wakes{runtime: 1, calls: 2}},
		"a descriptor that nothing is read from": {`5 1000.000000 <... epoll_pwait resumed>[{events=EPOLLIN, data=0x1}], 128, -1, NULL, 0) = 1
`, wakes{other: 1, calls: 1}},
		"a signal": {monitor + "7 1000.500400 --- SIGURG {si_signo=SIGURG, si_code=SI_TKILL} ---\n", wakes{other: 1, calls: 5}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			before, after := "5 899.000000 read(3, \"\", 1) = 0\n", "5 1101.000000 read(3, \"\", 1) = 0\n"
			got, err := wakeUps(before+test.text+after, time.Unix(900, 0), time.Unix(1100, 0))
			if err != nil || got != test.want {
				t.Errorf("%+v, %v, not %+v", got, err, test.want)
			}
		})
	}
	if _, err := wakeUps("strace: Process 5 attached\n", time.Unix(900, 0), time.Unix(1100, 0)); err == nil {
		t.Error("what is no record is read as one")
	}
}
