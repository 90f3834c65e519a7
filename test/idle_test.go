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
	// maxWithESP is the same for a loop that does ESP itself.
	maxWithESP = 20 << 10
	// idleFor is how long the system calls of an idle loop are recorded.
	idleFor = 60 * time.Second
	// idleAfter is how long what was done before is not over: a replaced Child SA
	// is kept for a while, and the first comparisons find something to do.
	idleAfter = 30 * time.Second
	// maxRuntime is how often the Go runtime may wake up meanwhile.
	maxRuntime = 4
	// straceSettles is how long strace disturbs what it attaches to.
	straceSettles = 3 * time.Second
)

// TestIdle looks at the loops of an established tunnel that has nothing to do:
// how much memory they take, and that they sleep between their deadlines. With
// peers that need no proof of life the only one is the comparison with the
// kernel, once a minute. When the Go runtime wakes up for itself is counted apart.
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
		if inUserspace() {
			// There is no kernel to be asked, by which a deadline is told.
			w.due, w.other = w.other, 0
		}
		if w.due == 0 || w.due > 2 || w.other > 0 || w.runtime > maxRuntime {
			t.Errorf("%s: %d wake-ups between deadlines, %d of the runtime, %d at one:\n%s", q.Name, w.other, w.runtime, w.due, text)
		}
		memory := memoryOf(t, q.PID())
		most := maxResident
		if inUserspace() {
			most = maxWithESP
		}
		if memory["Rss"] > most {
			t.Errorf("%s: %d KiB resident, more than %d: %v", q.Name, memory["Rss"], most, memory)
		}
		rows[q.Name].Notef("%.1f MiB resident, %.1f of it its own; in %v %d wake-ups between deadlines beside %d of the Go runtime, %d at one; %d system calls",
			float64(memory["Rss"])/1024, float64(memory["Anonymous"])/1024, idleFor, w.other, w.runtime, w.due, w.calls)
	}
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
