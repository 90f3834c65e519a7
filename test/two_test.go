//go:build lab

package lab_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// TestTwoTunnels has two tunnels on one host at once, one that initiates and
// one that answers: to the same peer address and to different ones.
func TestTwoTunnels(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, peer string }{
		{"same peer", "strongSwan"},
		{"same peer", "ipsec-quick"},
		{"different peers", "strongSwan"},
		{"different peers", "ipsec-quick"},
	} {
		row := harness.NewRow("6. Two tunnels at once", c.name, "peer "+c.peer)
		t.Run(c.name+"/"+c.peer, func(t *testing.T) {
			t.Parallel()
			row.Of(t)
			twoTunnels(t, c.name == "same peer", c.peer == "strongSwan", row)
		})
	}
}

// second is a host's second inner address, in the upper half of its network.
func second(h *harness.Host) netip.Addr {
	b := h.Inner4.As4()
	b[2] = 128
	return netip.AddrFrom4(b)
}

// half is the half of a network that an address lies in.
func half(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, 17).Masked() }

func twoTunnels(t *testing.T, samePeer, swan bool, row *harness.Row) {
	n := harness.NewNet(t, "a", "b", "c")
	a, b, c := n.A(), n.B(), n.Hosts[2]
	if samePeer {
		c = b
	}
	for _, h := range []*harness.Host{a, b, n.Hosts[2]} {
		h.Run("ip", "addr", "add", second(h).String()+"/32", "dev", "lo")
	}
	before := a.Snapshot()

	// The first tunnel covers the lower half and we initiate it, the second
	// the upper half and we answer.
	one, two := between(a, b), between(a, c)
	one.id, one.peerID = "a1.example", "b1.example"
	two.id, two.peerID, two.psk, two.start = "a2.example", "c2.example", "another secret", "passive"
	one.localTS, one.remoteTS = half(a.Inner4), half(b.Inner4)
	two.localTS, two.remoteTS = half(second(a)), half(second(c))
	answer, call := otherEnd(t, swan, samePeer, b, c, a, one, two)
	answer()
	q1 := harness.NewQuick(t, a, "one", one.String())
	q2 := harness.NewQuick(t, a, "two", two.String())
	q1.Up()
	q2.Up()
	call()

	within(t, 10*time.Second, "both established", func() bool { return q1.Established() && q2.Established() })
	capture := harness.StartCapture(t, n)
	s1 := harness.StartStream(t, a, a.Inner4, b, b.Inner4, 100)
	s2 := harness.StartStream(t, a, second(a), c, second(c), 100)
	for _, q := range []*harness.Quick{q1, q2} {
		for _, flags := range [][]string{nil, {"--ike"}} {
			old := q.Peer()
			q.Rekey(flags...)
			within(t, 10*time.Second, fmt.Sprintf("%s rekeyed %v", q.Name, flags), func() bool {
				return rekeyed(old, q.Peer(), flags != nil)
			})
		}
	}
	var foreign []*harness.Host
	if swan {
		foreign = []*harness.Host{b, c}
	}
	notes := [2]string{s1.Lossless("first tunnel", foreign...), ""}
	q1.Down()
	if !q2.Established() {
		t.Error("the second tunnel went down with the first")
	}
	time.Sleep(500 * time.Millisecond)
	notes[1] = s2.Lossless("second tunnel", foreign...)
	capture.NothingClear()
	q2.Down()
	a.Unchanged(before, "two tunnels up and down")
	row.Notef("4 rekeys, %s; %s", notes[0], notes[1])
}

// otherEnd prepares the peers: answer makes them ready for the first tunnel,
// call makes them initiate the second.
func otherEnd(t *testing.T, swan, samePeer bool, b, c, a *harness.Host, one, two quickFile) (answer, call func()) {
	t.Helper()
	if !swan {
		// With one peer it has two tunnels itself.
		f1, f2 := between(b, a), between(c, a)
		f1.start = "passive"
		for _, f := range []struct{ file, of *quickFile }{{&f1, &one}, {&f2, &two}} {
			f.file.id, f.file.peerID, f.file.psk = f.of.peerID, f.of.id, f.of.psk
			f.file.localTS, f.file.remoteTS = f.of.remoteTS, f.of.localTS
		}
		q1 := harness.NewQuick(t, b, "peer1", f1.String())
		q2 := harness.NewQuick(t, c, "peer2", f2.String())
		return func() { q1.Up() }, func() { q2.Up() }
	}
	conn := func(h *harness.Host, name string, f quickFile) harness.Conn {
		x := swanBetween(h, a)
		x.Name, x.Child.Name = name, name
		x.LocalID, x.RemoteID = f.peerID, f.id
		if f.psk != "" {
			x.Secret = f.psk
		}
		x.Child.LocalTS, x.Child.RemoteTS = f.remoteTS.String(), f.localTS.String()
		return x
	}
	c1, c2 := conn(b, "one", one), conn(c, "two", two)
	first := harness.StartCharon(t, b)
	last := first
	if samePeer {
		first.Load(c1.String()+c2.String(), nil)
	} else {
		last = harness.StartCharon(t, c)
		first.Load(c1.String(), nil)
		last.Load(c2.String(), nil)
	}
	return func() {}, func() { last.Initiate("two") }
}
