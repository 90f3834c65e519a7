package watch

import (
	"strings"
	"testing"
	"time"

	"ipsec-quick/apply"
)

func TestClock(t *testing.T) {
	before := bootTime()
	time.Sleep(10 * time.Millisecond)
	if d := bootTime().Sub(before); d < 10*time.Millisecond || d > 5*time.Second {
		t.Errorf("10 ms are %v", d)
	}
	if !wallTime(time.Time{}).IsZero() {
		t.Error("a time that is not known became one")
	}
	if d := time.Since(wallTime(bootTime().Add(-time.Hour))) - time.Hour; d.Abs() > time.Second {
		t.Errorf("an hour ago is off by %v", d)
	}
}

// TestWatchClock: nobody sets the clock, so nothing is told, and closing ends it.
func TestWatchClock(t *testing.T) {
	c := &clockSteps{}
	if c = nil; c.steps() != nil {
		t.Error("one that is not there tells something")
	}
	c.close()
	c, err := watchClock()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { c.run(); close(ended) }() // beside its own
	select {
	case <-c.steps():
		t.Error("a step")
	case <-ended:
		t.Error("it ended")
	case <-time.After(50 * time.Millisecond):
	}
	c.close()
	<-ended
}

// backdate makes the data plane's SAs as old by its clock as if the wall clock
// had been set forward by some time, or back by a negative one.
func (h *host) backdate(by time.Duration) {
	for _, sa := range h.dp.SAs() {
		h.dp.SetUsage(sa.ID(), apply.Usage{Added: time.Now().Add(-by), Used: time.Now().Add(-by)})
	}
}

// TestClockStepped: whichever way the clock is set, the Child SAs get new keys
// once, and none is taken for expired.
func TestClockStepped(t *testing.T) {
	head := "[lifetime]\ntime = { soft = \"50m\", hard = \"60m\" }\nuse = { soft = \"40m\", hard = \"45m\" }\n"
	for name, by := range map[string]time.Duration{"forward": time.Hour, "back": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			ha, _, ra, _ := pair(t, func(a, b *site) { a.head, b.head = head, head })
			ha.backdate(0)
			ra.clock.out <- struct{}{} // as when the host resumes: nothing was set
			ra.call(func() {})
			before := ha.status("left").live()[0]
			if ha.status("left").Rekeys.Child != 0 {
				t.Fatal("rekeyed for nothing")
			}
			ha.backdate(by)
			ra.clock.out <- struct{}{}
			eventually(t, "rekeyed", func() bool { return ha.replaced("left", before) })
			ra.clock.out <- struct{}{}
			ra.call(func() {})
			now := ha.status("left")
			if now.Rekeys.Child != 1 || now.Expires != (ExpireCount{}) {
				t.Errorf("%+v %+v", now.Rekeys, now.Expires)
			}
			if moved := strings.Contains(strings.Join(ha.dp.Log(), "\n"), "UpdateSA"); moved != (by > 0) {
				t.Errorf("limits moved: %t", moved)
			}
			if n := strings.Count(ha.logs.String(), "the clock was set"); n != 1 {
				t.Errorf("%d lines", n)
			}
			ha.correct()
		})
	}
}

// TestClockSteppedWhileDead: the loop that revives the tunnel finds it out.
func TestClockSteppedWhileDead(t *testing.T) {
	ha, _, ra, _ := pair(t, nil)
	before := ha.status("left").live()[0]
	at := ra.core.Status()[0].RekeyAt
	if now := bootTime(); at.Before(now) || at.After(now.Add(24*time.Hour)) {
		t.Errorf("the IKE SA is rekeyed at %v, and it is %v", at, now)
	}
	tunnel := ra.tunnel
	ra.crash()
	ha.backdate(-time.Hour)
	r := ha.start(tunnel)
	r.call(func() {
		if again := r.core.Status()[0].RekeyAt; !again.Equal(at) {
			t.Errorf("the deadline moved by %v", again.Sub(at))
		}
	})
	eventually(t, "rekeyed", func() bool { return ha.replaced("left", before) })
}

// TestOverrunLooksTwice: a limit by time that was reached just before an overrun
// does not wait for the next minute.
func TestOverrunLooksTwice(t *testing.T) {
	head := "[lifetime]\nuse = { soft = \"20m\", hard = \"40m\" }\njitter = \"0%\"\n"
	ha, _, ra, _ := pair(t, func(a, b *site) { a.head, b.head = head, head })
	for _, sa := range ha.dp.SAs() {
		if sa.Direction == apply.In {
			ha.dp.SetUsage(sa.ID(), apply.Usage{Packets: 1, Used: time.Now().Add(-20*time.Minute - time.Second)})
		}
	}
	ha.dp.Inject(apply.Overrun{})
	if got := ha.status("left").Expires; got != (ExpireCount{}) {
		t.Errorf("at once, when the event may still come: %+v", got)
	}
	eventually(t, "rekeyed", func() bool { return ha.status("left").Rekeys.Child == 1 })
	if got := ha.status("left").Expires; got != (ExpireCount{Soft: 1}) {
		t.Errorf("%+v", got)
	}
	if !ra.call(func() {
		if wait := ra.reconcileAt.Sub(ra.now()); wait < reconcileEvery/2 {
			t.Errorf("a third look in %v", wait)
		}
	}) {
		t.Fatal("the loop has ended")
	}
}
