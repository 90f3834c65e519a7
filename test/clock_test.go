//go:build lab

package lab_test

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/test/harness"
)

// TestClockStep sets the wall clock an hour forward and back, and an hour back
// and forward, under tunnels whose limits are by time and by use: the kernel
// counts both in wall-clock seconds. No packet is lost, no SA reaches its hard
// limit, and rekeys go on at their pace.
//
// All namespaces share the clock, so it runs in the VM alone and not in parallel
// with other tests.
func TestClockStep(t *testing.T) {
	kinds := []struct {
		name, file string
		calm       time.Duration // old enough for the kernel's second look at an SA to be near
	}{
		{"time", `time = { soft = "3s", hard = "15s" }`, time.Minute}, // which knows how to save it
		{"use", `use = { soft = "3s", hard = "15s" }`, 2300 * time.Millisecond},
	}
	rows := map[string]*harness.Row{}
	for _, k := range kinds {
		rows[k.name] = harness.NewRow(soakGroup, "the wall clock set by an hour, limits by "+k.name, "both ends").Of(t)
	}
	if os.Getenv("LAB") != "vm" {
		t.Skip("the clock is the host's: it is only set in the VM")
	}
	steps := form([]time.Duration{time.Hour, -time.Hour}, []time.Duration{time.Hour, -time.Hour, -time.Hour, time.Hour})
	phase := form(9*time.Second, 30*time.Second)

	var tunnels []*clockTunnel
	for _, k := range kinds {
		n := harness.NewNet(t, "a", "b")
		a, b := n.A(), n.B()
		fa, fb := between(a, b), between(b, a)
		fa.lifetime, fb.lifetime, fb.start = k.file, k.file, "passive"
		x := &clockTunnel{kind: k.name, calm: k.calm, capture: harness.StartCapture(t, n),
			a: harness.NewQuick(t, a, "clock", fa.String()), b: harness.NewQuick(t, b, "clock", fb.String())}
		x.b.Up()
		x.a.Up()
		x.stream = harness.StartStream(t, a, a.Inner4, b, b.Inner4, soakRate()/2)
		tunnels = append(tunnels, x)
	}
	rekeyed := func(when string) {
		t.Helper()
		// Each of them in its time, and a few seconds for a host that is emulated.
		for _, x := range tunnels {
			before := x.a.Peer().Rekeys.Child
			within(t, 8*time.Second, x.kind+": a rekey "+when, func() bool { return x.a.Peer().Rekeys.Child > before })
		}
	}
	rekeyed("before the clock is set")
	wall, mono := time.Now().Round(0), time.Now()
	offset := time.Duration(0)
	t.Cleanup(func() { setClock(t, wall.Add(time.Since(mono))) })
	for _, step := range steps {
		offset += step
		betweenLooks(t, tunnels)
		setClock(t, wall.Add(time.Since(mono)+offset))
		after := "after a step of " + step.String()
		rekeyed(after)
		start, counts := time.Now(), make([]int, len(tunnels))
		for i, x := range tunnels {
			counts[i] = x.a.Peer().Rekeys.Child
		}
		time.Sleep(phase)
		for i, x := range tunnels {
			if got, want := x.a.Peer().Rekeys.Child-counts[i], int(time.Since(start).Seconds()/6); got < want {
				t.Errorf("%s: %d rekeys in %v %s, not %d", x.kind, got, time.Since(start), after, want)
			}
		}
	}
	for _, x := range tunnels {
		note := x.stream.Lossless("the clock set, limits by " + x.kind)
		pa, pb := x.a.Peer(), x.b.Peer()
		if pa.Expires.Hard+pb.Expires.Hard != 0 {
			t.Errorf("%s: %d and %d hard expires", x.kind, pa.Expires.Hard, pb.Expires.Hard)
		}
		x.capture.NothingClear()
		there, back := x.stream.Stop()
		rows[x.kind].Notef("%d steps, %d rekeys, %s, longest gap %v", len(steps), pa.Rekeys.Child, note, max(there.Gap, back.Gap).Round(time.Millisecond))
		x.a.Down()
		x.b.Down()
	}
}

// A clockTunnel is one of TestClockStep's.
type clockTunnel struct {
	kind    string
	calm    time.Duration
	a, b    *harness.Quick
	capture *harness.Capture
	stream  *harness.Stream
}

// betweenLooks waits until the kernel's timer will look at none of the tunnels'
// SAs for half a second. It looks at an SA a second after it was installed, and at
// its soft limit; one that it looks at after the clock was set forward, and before
// the loop has moved the limits, has expired. Only a soft limit by time that it has
// seen before keeps it from that.
func betweenLooks(t *testing.T, tunnels []*clockTunnel) {
	t.Helper()
	counts, since := make([]int, len(tunnels)), make([]time.Time, len(tunnels))
	for i, x := range tunnels {
		counts[i] = x.a.Peer().Rekeys.Child
	}
	within(t, time.Minute, "between two looks of the kernel", func() bool {
		between := true
		for i, x := range tunnels {
			if n := x.a.Peer().Rekeys.Child; n != counts[i] {
				counts[i], since[i] = n, time.Now()
			}
			age := time.Since(since[i])
			between = between && age > 1100*time.Millisecond && age < x.calm
		}
		return between
	})
}

// setClock sets the wall clock.
func setClock(t *testing.T, to time.Time) {
	t.Helper()
	ts := unix.NsecToTimespec(to.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		t.Errorf("clock_settime: %v", err)
	}
}
