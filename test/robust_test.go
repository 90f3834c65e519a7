//go:build lab

package lab_test

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// TestOnDemand brings a tunnel up with its first packet; until then nothing is
// sent, in clear or otherwise.
func TestOnDemand(t *testing.T) {
	row := harness.NewRow("8. More", "on demand, at the first packet", "initiator")
	t.Parallel()
	row.Of(t)
	n := harness.NewNet(t, "a", "b")
	a, b := n.A(), n.B()
	before := a.Snapshot()
	harness.StartCharon(t, b).Load(swanBetween(b, a).String(), nil)
	file := between(a, b)
	file.start = "on-demand"
	q := harness.NewQuick(t, a, "demand", file.String())
	capture := harness.StartCapture(t, n)
	q.Up()
	time.Sleep(time.Second)
	if capture.Count(harness.KindIKE) != 0 {
		t.Errorf("before the first packet: %v", capture)
	}
	start := time.Now()
	within(t, 10*time.Second, "a ping answered", func() bool { return a.Ping(a.Inner4, b.Inner4, 1) == 1 })
	row.Notef("first answer after %v", time.Since(start).Round(time.Millisecond))
	capture.NothingClear()
	q.Down()
	a.Unchanged(before, "up and down")
}

// TestPeerRestarts kills the peer's daemon and starts it anew: the tunnel comes
// back by itself.
func TestPeerRestarts(t *testing.T) {
	row := harness.NewRow("8. More", "the peer's daemon killed and restarted", "initiator")
	t.Parallel()
	row.Of(t)
	n := harness.NewNet(t, "a", "b")
	a, b := n.A(), n.B()
	before := a.Snapshot()
	swan := harness.StartCharon(t, b)
	swan.Load(swanBetween(b, a).String(), nil)
	file := between(a, b)
	file.ikeMore = `dpd = "2s"`
	q := harness.NewQuick(t, a, "restart", file.String())
	q.Up()
	capture := harness.StartCapture(t, n)
	stream := harness.StartStream(t, a, a.Inner4, b, b.Inner4, 20)
	swan.Kill()
	if !harness.Libipsec {
		b.Shell("ip xfrm state flush; ip xfrm policy flush")
	}
	b.Shell("rm -f /run/charon.*")
	swan = harness.StartCharon(t, b)
	swan.Load(swanBetween(b, a).String(), nil)
	start := time.Now()
	within(t, 60*time.Second, "established with the new daemon", func() bool {
		return len(swan.Children("INSTALLED")) == 1 && q.Established()
	})
	row.Notef("back after %.1f s", time.Since(start).Seconds())
	if got := a.Ping(a.Inner4, b.Inner4, 3); got != 3 {
		t.Errorf("%d of 3 pings were answered", got)
	}
	stream.Stop()
	capture.NothingClearFrom(a)
	q.Down()
	a.Unchanged(before, "up and down")
}

// TestBadDatagrams sends a tunnel that is up what is no IKE message: nothing
// happens, and no memory is kept.
func TestBadDatagrams(t *testing.T) {
	row := harness.NewRow("8. More", "malformed, truncated, oversized datagrams", "responder")
	t.Parallel()
	row.Of(t)
	n := harness.NewNet(t, "a", "b")
	a, b := n.A(), n.B()
	swan := harness.StartCharon(t, b)
	swan.Load(swanBetween(b, a).String(), nil)
	q := harness.NewQuick(t, a, "bad", between(a, b).String())
	q.Up()
	first, pid := q.Peer(), q.PID()
	conn, err := b.ListenUDP(netip.AddrPortFrom(b.Outer4, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	send := func(port uint16, data []byte) {
		if _, err := conn.WriteTo(data, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.Outer4, port))); err != nil {
			t.Fatal(err)
		}
	}
	good := initRequest(t)
	flood := func() {
		for i := range 2000 {
			junk := make([]byte, i%1500+1)
			if _, err := rand.Read(junk); err != nil {
				t.Fatal(err)
			}
			cut := append([]byte(nil), good[:i%len(good)]...)
			flipped := append([]byte(nil), good...)
			flipped[i%len(flipped)] ^= junk[0] | 1
			for _, data := range [][]byte{junk, cut, flipped} {
				send(500, data)
				send(4500, append([]byte{0, 0, 0, 0}, data...))
			}
			if i%20 == 0 {
				time.Sleep(5 * time.Millisecond)
			}
		}
		send(500, make([]byte, 65000))
		time.Sleep(time.Second)
	}
	flood() // buffers and pools reach their size
	small := residentKiB(t, pid)
	flood()
	large := residentKiB(t, pid)
	row.Notef("24,002 datagrams, resident memory %d KiB, then %d KiB", small, large)
	if large > small+8<<10 {
		t.Errorf("resident memory grew from %d KiB to %d KiB", small, large)
	}
	if p := q.Peer(); q.PID() != pid || p.IKE.SPIi != first.IKE.SPIi || p.State != "established" {
		t.Errorf("the loop was %d and is %d; the IKE SA was %s_i and is %s_i, %s",
			pid, q.PID(), first.IKE.SPIi, p.IKE.SPIi, p.State)
	}
	if got := a.Ping(a.Inner4, b.Inner4, 3); got != 3 {
		t.Errorf("%d of 3 pings were answered", got)
	}
	q.Down()
}

// residentKiB is a process's resident memory.
func residentKiB(t *testing.T, pid int) int {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var size, resident int
	if _, err := fmt.Fscan(f, &size, &resident); err != nil {
		t.Fatal(err)
	}
	return resident * os.Getpagesize() / 1024
}
