//go:build lab

package lab_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// A rekeyCase is who rekeys the Child SA every two seconds. Without jitter, so
// that where both do they do it at the same moment.
type rekeyCase struct {
	name       string
	we, they   bool
	runs       int
	run        time.Duration // of each run at least
	rekeys     int           // in each run at least
	weAreSwans bool          // strongSwan in our place, to compare with
}

func rekeyCases() []rekeyCase {
	alone := rekeyCase{runs: 1, run: form(12*time.Second, time.Minute), rekeys: form(5, 250)}
	both := rekeyCase{we: true, they: true, runs: form(1, 10), run: form(12*time.Second, time.Minute), rekeys: form(4, 20)}
	we, they := alone, alone
	we.name, we.we = "only we rekey", true
	they.name, they.they = "only they rekey", true
	both.name = "both rekey at once"
	list := []rekeyCase{we, they, both}
	if *full {
		for _, c := range []rekeyCase{we, both} {
			c.weAreSwans = true
			c.name = strings.Replace(c.name, "only we rekey", "only the initiator rekeys", 1)
			list = append(list, c)
		}
	}
	return list
}

// swanLimits are the limits of a child that is, or is not, to rekey by itself.
func swanLimits(rekeys bool) string {
	if rekeys {
		return "rekey_time = 2s\nlife_time = 30s\nrand_time = 0s\n"
	}
	return "rekey_time = 0\n"
}

// TestStrongSwanRekeys has the one side, the other, and both at once rekey with
// strongSwan, hundreds of times. Where only one does no packet may be lost; where
// both do, each lost packet must be one that strongSwan's kernel has dropped.
// The long form has two strongSwans do the same.
func TestStrongSwanRekeys(t *testing.T) {
	t.Parallel()
	for _, c := range rekeyCases() {
		peers := "peer strongSwan"
		if c.weAreSwans {
			peers = "two strongSwans"
		}
		row := harness.NewRow(soakGroup, c.name, peers)
		t.Run(c.name+"/"+peers, func(t *testing.T) {
			t.Parallel()
			row.Of(t)
			n := harness.NewNet(t, "a", "b")
			theirs := swanBetween(n.B(), n.A())
			theirs.Child.Extra = swanLimits(c.they)
			swan := harness.StartCharon(t, n.B())
			swan.Load(theirs.String(), nil)
			var us initiator
			if c.weAreSwans {
				ours := swanBetween(n.A(), n.B())
				ours.Child.Extra = swanLimits(c.we)
				d := harness.StartCharon(t, n.A())
				d.Load(ours.String(), nil)
				us = swanInitiator{d}
			} else {
				file := between(n.A(), n.B())
				if c.we {
					file.lifetime = `time = { soft = "2s", hard = "30s" }`
				}
				us = quickInitiator{harness.NewQuick(t, n.A(), "rekeys", file.String())}
			}
			var all losses
			for range c.runs {
				all.add(c.once(t, n, us, swan))
			}
			row.Notef("%v", &all)
		})
	}
}

// An initiator is what TestStrongSwanRekeys needs of the side that stands in our
// place.
type initiator interface {
	up()
	down()
	rekeys() int // since up
}

type quickInitiator struct{ *harness.Quick }

func (q quickInitiator) up()         { q.Up() }
func (q quickInitiator) down()       { q.Down() }
func (q quickInitiator) rekeys() int { return q.Peer().Rekeys.Child }

type swanInitiator struct{ *harness.Charon }

func (s swanInitiator) up()   { s.Initiate("net") }
func (s swanInitiator) down() { s.Terminate("gw") }

// rekeys is the number by which strongSwan calls its latest Child SA.
func (s swanInitiator) rekeys() int {
	children := s.Children("INSTALLED")
	var id int
	for _, child := range children {
		var n int
		if _, err := fmt.Sscan(child.Values["uniqueid"], &n); err == nil {
			id = max(id, n)
		}
	}
	return id - 1
}

// losses is what runs of a rekeyCase have cost.
type losses struct {
	rekeys, sent, lost, duplicated, refused int
	gap                                     time.Duration
	peers                                   map[string]int // what the peer's kernel has counted
}

func (l *losses) add(m losses) {
	l.rekeys, l.sent, l.lost = l.rekeys+m.rekeys, l.sent+m.sent, l.lost+m.lost
	l.duplicated, l.refused = l.duplicated+m.duplicated, l.refused+m.refused
	l.gap = max(l.gap, m.gap)
	if l.peers == nil {
		l.peers = map[string]int{}
	}
	for name, n := range m.peers {
		l.peers[name] += n
	}
}

func (l *losses) String() string {
	s := fmt.Sprintf("%d rekeys, %d packets, %d lost", l.rekeys, l.sent, l.lost)
	for _, name := range slices.Sorted(maps.Keys(l.peers)) {
		s += fmt.Sprintf(", the peer's %s %d", name, l.peers[name])
	}
	if l.refused > 0 {
		s += fmt.Sprintf(", %d refused by the peer's kernel", l.refused)
	}
	return s + fmt.Sprintf(", %d duplicated, longest gap %v", l.duplicated, l.gap.Round(time.Millisecond))
}

// grown is what has been added to counters.
func grown(before, after map[string]int) map[string]int {
	d := map[string]int{}
	for name, n := range after {
		if n > before[name] {
			d[name] = n - before[name]
		}
	}
	return d
}

// once is one run: up, packets while the keys change, down.
func (c rekeyCase) once(t *testing.T, n *harness.Net, us initiator, swan *harness.Charon) losses {
	t.Helper()
	a, b := n.A(), n.B()
	us.up()
	first := us.rekeys()
	capture := harness.StartCapture(t, n)
	statA, statB := a.XfrmStat(), b.XfrmStat()
	stream := harness.StartStream(t, a, a.Inner4, b, b.Inner4, soakRate())
	start := time.Now()
	limit := c.run + time.Duration(c.rekeys)*3*time.Second
	var m losses
	for m.rekeys < c.rekeys || time.Since(start) < c.run {
		if time.Since(start) > limit {
			t.Errorf("%d rekeys in %v, not %d", m.rekeys, limit, c.rekeys)
			break
		}
		time.Sleep(2 * time.Second) // each question costs
		m.rekeys = us.rekeys() - first
	}
	there, back := stream.Stop()
	m.sent, m.lost = there.Sent+back.Sent, there.Lost+back.Lost
	m.duplicated, m.gap = there.Duplicated+back.Duplicated, max(there.Gap, back.Gap)
	m.refused, m.peers = back.Errors, grown(statB, b.XfrmStat())
	ours := grown(statA, a.XfrmStat())
	if m.lost > 0 || len(m.peers) > 0 || len(ours) > 0 {
		t.Logf("a → b: %v\nb → a: %v\nour kernel: %v\nstrongSwan's kernel: %v\n%s",
			there, back, ours, m.peers, around(swan.Log(), append(there.Holes, back.Holes...)))
	}
	if !c.weAreSwans {
		c.judge(t, m, ours, there.Errors)
		capture.NothingClearFrom(a)
	}
	us.down()
	return m
}

// judge says what of the losses is ours.
func (c rekeyCase) judge(t *testing.T, m losses, ours map[string]int, refused int) {
	t.Helper()
	dropped := 0
	for _, n := range m.peers {
		dropped += n
	}
	switch {
	case refused > 0 || m.duplicated > 0:
		t.Errorf("%d packets refused by our kernel, %d duplicated", refused, m.duplicated)
	case m.lost > 0 && !(c.we && c.they):
		t.Errorf("%d packets lost", m.lost)
	case m.lost > 0 && (len(ours) > 0 || dropped < m.lost):
		t.Errorf("%d packets lost; our kernel dropped %v, strongSwan's %v", m.lost, ours, m.peers)
	}
}

// around are the lines of strongSwan's log from the second in which a hole began
// and the ones before and after it.
func around(log string, holes []harness.Hole) string {
	seconds := map[string]bool{}
	for _, h := range holes[:min(len(holes), 5)] {
		for _, d := range []time.Duration{-time.Second, 0, time.Second} {
			seconds[h.From.Add(d).Format("15:04:05")] = true
		}
	}
	var out strings.Builder
	for line := range strings.Lines(log) {
		if len(line) >= 8 && seconds[line[:8]] {
			out.WriteString(line)
		}
	}
	return out.String()
}
