//go:build lab

package lab_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

const (
	// maxResident is how much memory an idle loop may have resident, in KiB.
	maxResident = 12 << 10
	// idleFor is how long the system calls of an idle loop are recorded.
	idleFor = 60 * time.Second
	// idleAfter is how long the commands before that leave timers behind: those
	// of their connections.
	idleAfter = 10 * time.Second
	// straceSettles is how long strace disturbs what it attaches to.
	straceSettles = 3 * time.Second
	// burst is the longest pause within one wake-up, under emulation.
	burst = time.Second
)

// TestIdle looks at the loops of an established tunnel that has nothing to do:
// how much memory they take, and that they sleep between their deadlines. With
// peers that need no proof of life the only one is the comparison with the
// kernel, once a minute.
func TestIdle(t *testing.T) {
	rows := map[string]*harness.Row{}
	for _, role := range []string{"initiator", "responder"} {
		rows[role] = harness.NewRow("9. An idle loop", "memory, wake-ups in a minute", role).Of(t)
	}
	t.Parallel()
	n := harness.NewNet(t, "a", "b")
	first, second := between(n.A(), n.B()), between(n.B(), n.A())
	first.ikeMore, second.ikeMore, second.start = `dpd = "off"`, `dpd = "off"`, "passive"
	quicks := []*harness.Quick{
		harness.NewQuick(t, n.B(), "responder", second.String()),
		harness.NewQuick(t, n.A(), "initiator", first.String()),
	}
	for _, q := range quicks {
		q.Up()
	}
	for _, q := range quicks {
		q.Rekey()
		q.Rekey("--ike")
	}
	time.Sleep(idleAfter)
	dir := t.TempDir()
	var traces []*exec.Cmd
	for _, q := range quicks {
		strace := exec.Command("strace", "-f", "-ttt", "-o", filepath.Join(dir, q.Name), "-p", strconv.Itoa(q.PID()))
		if err := strace.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = strace.Process.Kill() })
		traces = append(traces, strace)
	}
	time.Sleep(straceSettles)
	from := time.Now()
	time.Sleep(idleFor)
	to := time.Now()
	for i, q := range quicks {
		_ = traces[i].Process.Signal(syscall.SIGINT)
		_ = traces[i].Wait() // it says that it was interrupted
		text, err := os.ReadFile(filepath.Join(dir, q.Name))
		if err != nil {
			t.Fatal(err)
		}
		w, err := wakeUps(string(text), from, to)
		if err != nil {
			t.Fatal(err)
		}
		if w.due == 0 || w.other > 1 { // the Go runtime looks around once a minute
			t.Errorf("%s: %d wake-ups between deadlines, %d at one:\n%s", q.Name, w.other, w.due, text)
		}
		memory := memoryOf(t, q.PID())
		if memory["Rss"] > maxResident {
			t.Errorf("%s: %d KiB resident, more than %d: %v", q.Name, memory["Rss"], maxResident, memory)
		}
		rows[q.Name].Notef("%.1f MiB resident, %.1f of it its own; in %v %d wake-ups between deadlines, %d at one with %d system calls",
			float64(memory["Rss"])/1024, float64(memory["Anonymous"])/1024, idleFor, w.other, w.due, w.calls)
	}
}

// wakes are the times at which a process woke up.
type wakes struct {
	due   int // for the comparison with the kernel
	other int
	calls int // system calls in all
}

// wakeUps counts them in a record of strace.
func wakeUps(text string, from, to time.Time) (w wakes, err error) {
	var last time.Time
	due := false
	end := func() {
		switch {
		case last.IsZero():
		case due:
			w.due++
		default:
			w.other++
		}
		due = false
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
		due = due || strings.Contains(call, "NLM_F_REQUEST")
	}
	end()
	return w, nil
}

// memoryOf is /proc/PID/smaps_rollup, in KiB.
func memoryOf(t *testing.T, pid int) map[string]int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	memory := map[string]int{}
	for line := range strings.Lines(string(text)) {
		var name string
		var size int
		if n, _ := fmt.Sscanf(line, "%s %d kB", &name, &size); n == 2 {
			memory[strings.TrimSuffix(name, ":")] = size
		}
	}
	return memory
}
