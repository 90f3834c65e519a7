//go:build lab

package lab_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// killLimits have both ends rekey every few seconds, so that a kill at a random
// moment falls into the peer's rekeys too.
const killLimits = `time = { soft = "4s", hard = "120s" }`

// TestKill kills the loop with SIGKILL again and again, at random moments and in
// the middle of rekeys, while a service manager restarts it and packets flow.
func TestKill(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		args  []string
		both  bool
		kills int
	}{
		{"kill -9, up --foreground restarted", []string{"up", "--foreground", "--keep-trying"}, false, form(4, 200)},
		{"kill -9, watch restarted", []string{"watch"}, false, form(4, 200)},
		{"kill -9 of both ends at once", []string{"up", "--foreground", "--keep-trying"}, true, form(4, 50)},
	} {
		role := "initiator"
		if c.both {
			role = "both ends"
		}
		row := harness.NewRow(soakGroup, c.name, role)
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			row.Of(t)
			n := harness.NewNet(t, "a", "b")
			a, b := n.A(), n.B()
			beforeA, beforeB := a.Snapshot(), b.Snapshot()
			fa, fb := between(a, b), between(b, a)
			fa.lifetime, fb.lifetime, fb.start = killLimits, killLimits, "passive"
			qa, qb := harness.NewQuick(t, a, "killed", fa.String()), harness.NewQuick(t, b, "peer", fb.String())
			if !c.both {
				qb.Up()
			}
			if c.args[0] == "watch" {
				// watch goes on with a tunnel that up has left.
				qa.Up()
				a.Signal(qa.PID(), syscall.SIGKILL)
			}
			ends := []*victim{{Quick: qa, service: qa.Supervise(append(c.args, "killed")...)}}
			if c.both {
				ends = append(ends, &victim{Quick: qb, service: qb.Supervise(append(c.args, "peer")...)})
			}
			within(t, 20*time.Second, "established", func() bool {
				_, ok := qa.Status()
				return ok && qa.Established()
			})
			capture := harness.StartCapture(t, n)
			for _, v := range ends {
				v.first, v.policies = v.Peer(), policies(v.Host)
			}
			stream := harness.StartStream(t, a, a.Inner4, b, b.Inner4, soakRate())
			during := killOften(t, ends, c.kills)
			restarted := time.Now()
			for _, v := range ends {
				v.wantServed(t)
			}
			served := time.Since(restarted)
			for _, v := range ends {
				v.wantOnePair(t)
			}
			there, back := stream.Stop()
			if !c.both && !inUserspace() && there.Lost+back.Lost+there.Errors+back.Errors > 0 {
				t.Logf("the peer's loop:\n%s", b.Exec("tail", "-n", "500", "/run/ipsec-quick/peer/log").Stdout)
			}
			note := fmt.Sprintf("%d packets, %d lost", there.Sent+back.Sent, there.Lost+back.Lost)
			if !inUserspace() { // there what comes while no process is there is lost
				note = stream.Lossless("kill -9")
			}
			capture.NothingClear()
			row.Notef("%d kills, %d of them during a rekey, %d starts, %s, %d duplicated, longest gap %v, a rekey %.1f s after the last",
				c.kills, during, starts(ends), note, there.Duplicated+back.Duplicated,
				max(there.Gap, back.Gap).Round(time.Millisecond), served.Seconds())
			for _, v := range ends {
				v.service.Stop()
			}
			if !c.both {
				qb.Down()
			}
			a.Unchanged(beforeA, "kills, up and down")
			b.Unchanged(beforeB, "kills, up and down")
		})
	}
}

// A victim is an end whose loop is killed.
type victim struct {
	*harness.Quick
	service  *harness.Service
	first    harness.PeerStatus // when it was up
	policies []string
}

func starts(ends []*victim) (n int) {
	for _, v := range ends {
		n += v.service.Starts()
	}
	return n
}

// killOften kills all ends at once, half of the times in the middle of a rekey
// of the first, and returns how often that was so.
func killOften(t *testing.T, ends []*victim, kills int) (during int) {
	t.Helper()
	longest := 100 * time.Millisecond // that a rekey has taken
	limit := time.Now().Add(time.Duration(kills)*6*time.Second + 30*time.Second)
	for random := 0; random+during < kills; {
		if time.Now().After(limit) {
			t.Errorf("only %d kills at random moments and %d during rekeys in time", random, during)
			return during
		}
		if random < kills/2 {
			// Also while it is starting, or recovering.
			time.Sleep(rand.N(1500 * time.Millisecond))
			if killAll(ends) {
				random++
			}
			continue
		}
		if !ends[0].Serves() {
			time.Sleep(20 * time.Millisecond) // it is starting
			continue
		}
		begun, rekey := time.Now(), ends[0].BeginRekey()
		select {
		case <-time.After(rand.N(longest)):
			killed := killAll(ends)
			if err := <-rekey; err != nil && killed {
				during++
			}
		case <-rekey:
			longest = max(longest, min(time.Since(begun), time.Second))
		}
	}
	return during
}

// killAll reports whether all of them were running.
func killAll(ends []*victim) bool {
	all := true
	for _, v := range ends {
		all = v.service.Kill() && all
	}
	return all
}

// wantServed wants the loop to be back, its next soft limit to end in a rekey,
// and the IKE SA to be the one from before all kills.
func (v *victim) wantServed(t *testing.T) {
	t.Helper()
	var before harness.PeerStatus
	within(t, 10*time.Second, v.Host.Name+": the loop is back", func() bool {
		s, ok := v.Status()
		if !ok || s.WatchPID == 0 || len(s.Peers) != 1 {
			return false
		}
		before = s.Peers[0]
		return true
	})
	if !harness.Poll(15*time.Second, func() bool {
		p := v.Peer()
		return p.Rekeys.Child > before.Rekeys.Child && p.Expires.Soft > before.Expires.Soft
	}) {
		t.Fatalf("%s: no soft limit served within 15 s:\n%s\nof %+v", v.Host.Name,
			v.Exec("status", v.Name, "--json").Stdout, before)
	}
	p := v.Peer()
	if p.IKE.SPIi != v.first.IKE.SPIi || p.IKE.SPIr != v.first.IKE.SPIr {
		t.Errorf("%s: the IKE SA is %s_i %s_r, at first %s_i %s_r", v.Host.Name,
			p.IKE.SPIi, p.IKE.SPIr, v.first.IKE.SPIi, v.first.IKE.SPIr)
	}
	if p.Expires.Hard > 0 {
		t.Errorf("%s: %d hard expires", v.Host.Name, p.Expires.Hard)
	}
}

// reservationLapses is after how long the kernel removes an SPI that was reserved
// for a rekey and never used (net.core.xfrm_acq_expires, 30 s).
const reservationLapses = 40 * time.Second

// wantOnePair wants no SA in the kernel that the loop does not know, and the
// policies of one Child SA.
func (v *victim) wantOnePair(t *testing.T) {
	t.Helper()
	var orphans []string
	if !harness.Poll(reservationLapses, func() bool {
		orphans = nil
		kernel, known := spis(v.Quick)
		for spi := range kernel {
			if !known[spi] {
				orphans = append(orphans, spi)
			}
		}
		return len(orphans) == 0
	}) {
		t.Errorf("%s: SAs that the loop does not know: %v", v.Host.Name, orphans)
	}
	if !harness.Poll(20*time.Second, func() bool {
		live := 0
		for _, child := range v.Peer().Children {
			if !child.Retiring {
				live++
			}
		}
		return live == 1
	}) {
		t.Errorf("%s: not one Child SA: %v", v.Host.Name, v.Peer().Children)
	}
	if now := policies(v.Host); !slices.Equal(now, v.policies) {
		t.Errorf("%s: policies:\n%s\nat first:\n%s", v.Host.Name, strings.Join(now, "\n"), strings.Join(v.policies, "\n"))
	}
}

var policySPI = regexp.MustCompile(` spi 0x[0-9a-f]+`)

// policies lists a host's policies but for the SPIs that they send on.
func policies(h *harness.Host) []string {
	lines := strings.Split(policySPI.ReplaceAllString(h.Run("ip", "-o", "xfrm", "policy"), " spi"), "\n")
	slices.Sort(lines)
	return lines
}
