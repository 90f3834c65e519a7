package userspace

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
)

// killVariable has the run directory in the process that is killed.
const killVariable = "USERSPACE_KILL"

var (
	killOut = outSA(0xc0000001)
	killIn  = inSA(0xc0000002)
)

// TestKill kills processes that send, receive and change SAs. No sequence number is
// taken twice, and no packet that was accepted is accepted again.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	kills := 60
	if testing.Short() {
		kills = 10
	}
	killIn.ReplayWindow = apply.MaxReplayWindow
	p, _ := openBench(t, dir)
	must(t, p.InstallSA(killOut))
	must(t, p.InstallSA(killIn))
	must(t, p.SetPolicy(protect(killOut.SPI)))
	must(t, p.Close())
	var highest uint64
	taken, accepted, empty := 0, map[uint64]bool{}, 0
	rnd := rand.New(rand.NewPCG(9, uint64(time.Now().UnixNano())))
	for range kills {
		before := taken + len(accepted)
		for _, line := range killOne(t, dir, time.Duration(rnd.IntN(30_000))*time.Microsecond) {
			var a, b uint64
			if n, _ := fmt.Sscanf(line, "out %d %d.", &a, &b); n == 2 {
				if a <= highest {
					t.Fatalf("%q: %d was taken before", line, highest)
				}
				highest = a + b - 1
				taken++
			} else if n, _ := fmt.Sscanf(line, "in %d.", &a); n == 1 {
				if accepted[a] {
					t.Fatalf("packet %d was accepted again", a)
				}
				accepted[a] = true
			} else {
				t.Fatal(line)
			}
		}
		if taken+len(accepted) == before {
			empty++
		}
		p, b := openBench(t, dir)
		if b.said() != "" {
			t.Fatal(b.said())
		}
		e := p.tables.Load().outbound(&leaves)
		if e == nil || e.sa == nil || e.sa.slot.body.sequence < highest || p.tables.Load().find(killIn.SPI, us) == nil {
			t.Fatalf("lost: %+v", e)
		}
		in := lookup(p, killIn.ID())
		for seq := range accepted {
			if in.window.Check(seq) {
				t.Fatalf("packet %d would be accepted again", seq)
			}
		}
		must(t, p.Close())
	}
	t.Logf("%d kills, %d batches sent up to %d, %d packets received; %d were killed before they began", kills, taken, highest, len(accepted), empty)
	if empty > kills/2 || taken == 0 || len(accepted) == 0 {
		t.Error("that shows little")
	}
}

// killOne runs a process, kills it some time after it has begun, and returns what
// it said.
func killOne(t *testing.T, dir string, after time.Duration) (lines []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKillProcess$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), killVariable+"="+dir)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var killer *time.Timer
	for r := bufio.NewScanner(out); r.Scan(); {
		if killer == nil {
			killer = time.AfterFunc(after, func() { _ = cmd.Process.Signal(unix.SIGKILL) })
		}
		// The last line may be cut short.
		if line := r.Text(); strings.HasSuffix(line, ".") {
			lines = append(lines, line)
		}
	}
	_ = cmd.Wait()
	return lines
}

// TestKillProcess is the process that is killed. It says what it has done at once.
func TestKillProcess(t *testing.T) {
	dir := os.Getenv(killVariable)
	if dir == "" {
		t.Skip("only as a process of TestKill")
	}
	p, _ := openBench(t, dir)
	say := func(format string, args ...any) {
		if _, err := fmt.Printf(format+".\n", args...); err != nil {
			os.Exit(1)
		}
	}
	out, in := p.tables.Load().outbound(&leaves).sa, lookup(p, killIn.ID())
	rnd := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	for i := 0; ; i++ {
		if first, n := send(out, 1+rnd.IntN(64), 100); n > 0 {
			say("out %d %d", first, n)
		}
		top := in.slot.body.sequence
		if seq := top + 70 - min(top+69, rnd.Uint64N(200)); receive(in, uint32(seq), 100) {
			say("in %d", seq)
		}
		switch i % 8 {
		case 0:
			killOut.Dst = peer
			must(t, p.UpdateSA(killOut))
		case 2:
			killOut.Dst = moved
			must(t, p.UpdateSA(killOut))
		case 4:
			must(t, p.UpdateSA(killIn))
		case 6:
			must(t, p.InstallSA(outSA(0xc0001000+uint32(i))))
			must(t, p.RemoveSA(outSA(0xc0001000+uint32(i)).ID()))
		}
	}
}
