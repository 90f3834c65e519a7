//go:build lab

package lab_test

import (
	"fmt"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// userspaceGroup is the table's heading of what is about ESP in user space.
const userspaceGroup = "10. ESP in user space"

// userspaceOnly skips a test that says nothing of the kernel's data plane.
func userspaceOnly(t *testing.T) {
	t.Helper()
	if !inUserspace() {
		t.Skip("about ESP in user space: -dataplane userspace")
	}
}

// TestOurselves runs those of the cases that are about ESP with ipsec-quick at
// both ends: what kernel-libipsec lacks is among them.
func TestOurselves(t *testing.T) {
	t.Parallel()
	for _, c := range cases {
		if !c.aboutESP() && c.name != "PSK" {
			continue
		}
		row := harness.NewRow(userspaceGroup, c.name, "both ends")
		t.Run(c.title(), func(t *testing.T) {
			userspaceOnly(t)
			t.Parallel()
			row.Of(t)
			n := c.network(t)
			a, b := n.A(), n.B()
			beforeA, beforeB := a.Snapshot(), b.Snapshot()
			endA, endB := ends(t, c, a, b, true)
			qa, qb := endA.quick(t, c), endB.quick(t, c)
			qb.Up()
			capture := harness.StartCapture(t, n)
			qa.Up()
			within(t, 5*time.Second, "established at both ends", func() bool { return qa.Established() && qb.Established() })
			note := c.traffic(t, a, b, form(400, 10_000), form(1_000, 1_000_000))
			capture.NothingClear()
			if got, want := capture.Count(espKind()), 12; got < want {
				t.Errorf("%d of %d packets were %v: %v", got, want, espKind(), capture)
			}
			row.Notef("%s%s", quickDaemon{qa}.describe(t), note)
			qa.Down()
			qb.Down()
			a.Unchanged(beforeA, "up and down")
			b.Unchanged(beforeB, "up and down")
		})
	}
}

// ours brings up a tunnel of ours between two hosts of a net, with these limits
// at both ends.
func ours(t *testing.T, n *harness.Net, lifetime string) (qa, qb *harness.Quick) {
	t.Helper()
	fa, fb := between(n.A(), n.B()), between(n.B(), n.A())
	fa.lifetime, fb.lifetime, fb.start = lifetime, lifetime, "passive"
	qa, qb = harness.NewQuick(t, n.A(), "ours", fa.String()), harness.NewQuick(t, n.B(), "ours", fb.String())
	qb.Up()
	qa.Up()
	return qa, qb
}

// everyTwoSeconds is a soft limit that both ends of a tunnel reach.
const everyTwoSeconds = `time = { soft = "2s", hard = "30s" }`

// TestFullRate has TCP take all that it gets through a tunnel whose keys change
// every two seconds, in turn with one whose keys stay. It does not run in parallel
// with other tests.
func TestFullRate(t *testing.T) {
	userspaceOnly(t)
	row := harness.NewRow(userspaceGroup, "TCP at full rate, rekeyed every 2 s", "both ends").Of(t)
	rekeyed, steady := harness.NewCable(t, "a", "b"), harness.NewCable(t, "a", "b")
	qa, _ := ours(t, rekeyed, everyTwoSeconds)
	ours(t, steady, "")
	type sum struct {
		rate        float64
		retransmits int
	}
	var sums [2]sum
	rounds, length := form(2, 12), form(3*time.Second, 5*time.Second)
	for _, n := range []*harness.Net{rekeyed, steady} {
		n.B().ServeIperf(t, n.B().Inner4)
	}
	for range rounds {
		for i, n := range []*harness.Net{rekeyed, steady} {
			r, err := n.A().Iperf(n.A().Inner4, n.B().Inner4, length)
			if err != nil {
				t.Fatal(err)
			}
			sums[i].rate += r.Rate / 1e9 / float64(rounds)
			sums[i].retransmits += r.Retransmits
		}
	}
	p, ratio := qa.Peer(), sums[0].rate/sums[1].rate
	row.Notef("%d rekeys; %.2f Gbit/s, %.2f with keys that stay, ratio %.2f; %d and %d segments sent again",
		p.Rekeys.Child, sums[0].rate, sums[1].rate, ratio, sums[0].retransmits, sums[1].retransmits)
	if want := int((length * time.Duration(rounds)).Seconds()) / 2; p.Rekeys.Child < want || p.Expires.Hard > 0 {
		t.Errorf("%d rekeys, not %d; %d hard expires", p.Rekeys.Child, want, p.Expires.Hard)
	}
	if least := form(0.6, 0.95); ratio < least {
		t.Errorf("the rate with rekeys is %.2f of the one without, less than %.2f", ratio, least)
	}
	// In a few seconds beside other tests chance has its share.
	if *full && sums[0].retransmits > sums[1].retransmits {
		t.Errorf("%d segments were sent again with rekeys, %d without", sums[0].retransmits, sums[1].retransmits)
	}
}

// TestCountedRekeys counts the packets of a stream over many rekeys. None may be
// lost but by a queue of the kernel's that was full.
func TestCountedRekeys(t *testing.T) {
	userspaceOnly(t)
	rate, rekeys := form(1000, 20_000), form(5, 100)
	row := harness.NewRow(userspaceGroup, fmt.Sprintf("%d packets a second each way, rekeyed every 2 s", rate), "both ends").Of(t)
	n := harness.NewNet(t, "a", "b")
	qa, qb := ours(t, n, everyTwoSeconds)
	stream := harness.StartStream(t, n.A(), n.A().Inner4, n.B(), n.B().Inner4, rate)
	within(t, time.Duration(rekeys)*4*time.Second, fmt.Sprintf("%d rekeys", rekeys), func() bool {
		time.Sleep(time.Second)
		return qa.Peer().Rekeys.Child >= rekeys
	})
	there, back := stream.Stop()
	// On a machine that is busy for long enough any queue is too short.
	dropped := n.A().QueueDrops() + n.B().QueueDrops() + n.Middle.QueueDrops()
	if lost := there.Lost + back.Lost; lost > dropped || there.Errors+back.Errors+there.Duplicated+back.Duplicated > 0 {
		t.Errorf("%d packets lost, %d of them by full queues:\n a → b: %v\n b → a: %v", lost, dropped, there, back)
	}
	if hard := qa.Peer().Expires.Hard + qb.Peer().Expires.Hard; hard > 0 {
		t.Errorf("%d hard expires", hard)
	}
	row.Notef("%d rekeys, %d packets, %d lost, %d dropped by full queues, longest gap %v", qa.Peer().Rekeys.Child,
		there.Sent+back.Sent, there.Lost+back.Lost, dropped, max(there.Gap, back.Gap).Round(time.Millisecond))
}

// TestKillTraffic kills the process that does ESP, again and again, under
// traffic: the next one goes on with the same SAs, at once, and uses no sequence
// number and no IV a second time. It does not run in parallel with other tests.
func TestKillTraffic(t *testing.T) {
	userspaceOnly(t)
	row := harness.NewRow(userspaceGroup, "kill -9 under traffic", "initiator").Of(t)
	kills, patience := form(5, 50), form(time.Second, 300*time.Millisecond)
	n := harness.NewNet(t, "a", "b")
	a, b := n.A(), n.B()
	fa, fb := between(a, b), between(b, a)
	fb.start = "passive"
	qa, qb := harness.NewQuick(t, a, "killed", fa.String()), harness.NewQuick(t, b, "peer", fb.String())
	qb.Up()
	service := qa.Supervise("up", "--foreground", "--keep-trying", "killed")
	within(t, 20*time.Second, "established", func() bool {
		_, ok := qa.Status()
		return ok && qa.Established()
	})
	first := qa.Peer()
	capture := harness.StartCapture(t, n)
	sequences := capture.Sequences()
	stream := harness.StartStream(t, a, a.Inner4, b, b.Inner4, 2000)
	var longest time.Duration
	for range kills {
		time.Sleep(500 * time.Millisecond)
		starts := service.Starts()
		if !service.Kill() {
			t.Fatal("there was no process to kill")
		}
		for service.Starts() == starts {
			time.Sleep(time.Millisecond)
		}
		thereThen, backThen := stream.Peek()
		within(t, 20*time.Second, "packets both ways again", func() bool {
			for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
				there, back := stream.Peek()
				if there.Received > thereThen.Received && back.Received > backThen.Received {
					return true
				}
			}
			return false
		})
		longest = max(longest, time.Since(service.Started()))
	}
	there, back := stream.Stop()
	capture.NothingClear()
	row.Notef("%d kills, traffic back after at most %v; %d packets of ESP, %d numbers or IVs twice; %d of %d packets lost, %d came twice",
		kills, longest.Round(time.Millisecond), sequences.Count(), len(sequences.Twice()),
		there.Lost+back.Lost, there.Sent+back.Sent, there.Duplicated+back.Duplicated)
	if longest > patience {
		t.Errorf("traffic was back after %v, not within %v", longest, patience)
	}
	if twice := sequences.Twice(); len(twice) > 0 {
		t.Errorf("%d sequence numbers or IVs twice, the first: %s", len(twice), twice[0])
	}
	if there.Duplicated+back.Duplicated > 0 {
		t.Errorf("packets came twice: %v\n%v", there, back)
	}
	p := qa.Peer()
	if p.IKE.SPIi != first.IKE.SPIi || len(p.Children) != 1 || p.Children[0].SPIIn != first.Children[0].SPIIn {
		t.Errorf("not the same SAs: %+v, at first %+v", p, first)
	}
	service.Stop()
}
