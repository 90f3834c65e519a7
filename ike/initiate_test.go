package ike

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// pairs are the configurations of both ends of many tunnels.
func pairs(t *testing.T, count int) (initiators, responders []Peer) {
	t.Helper()
	for i := range count {
		a, b := defaultPeer(t, fmt.Sprintf("b%d", i), "secret"), defaultPeer(t, fmt.Sprintf("a%d", i), "secret")
		a.Start, b.Start = StartNow, StartPassive
		a.LocalID, b.RemoteID = fqdn(b.Name), fqdn(b.Name)
		a.RemoteID, b.LocalID = fqdn("b"), fqdn("b")
		a.LocalTS, b.RemoteTS = prefixTS(fmt.Sprintf("10.1.%d.0/24", i)), prefixTS(fmt.Sprintf("10.1.%d.0/24", i))
		a.RemoteTS, b.LocalTS = prefixTS("10.2.0.0/16"), prefixTS("10.2.0.0/16")
		initiators, responders = append(initiators, a), append(responders, b)
	}
	return initiators, responders
}

// established counts the peers of an endpoint that have an IKE SA.
func (h *host) established() (n int) {
	for _, p := range h.cfg.Peers {
		if h.e.current(p.Name) != nil {
			n++
		}
	}
	return n
}

// TestTakesTurns: a tunnel of many peers with one address begins a few at a time,
// and all are there without a request that was sent in vain.
func TestTakesTurns(t *testing.T) {
	n := &network{t: t, now: start}
	ours, theirs := pairs(t, 50)
	source := rand.NewChaCha8([32]byte{1})
	n.add("a", addrA, source, ours...)
	n.add("b", addrB, source, theirs...)
	most := 0
	n.drop = func(Send) bool {
		most = max(most, len(n.b().e.halfOpen))
		return false
	}
	n.step(n.a(), Tick{})
	n.settle() // no time passes
	if got := n.a().established(); got != len(ours) {
		t.Errorf("%d of %d established", got, len(ours))
	}
	if most > maxAttempts || n.b().e.Stats().Replayed > 0 {
		t.Errorf("%d half-open at once, %+v", most, n.b().e.Stats())
	}
	n.step(n.a(), Close{})
	n.settle()
	if got := len(n.a().e.LocalSPIs()) + len(n.b().e.LocalSPIs()); got > 0 {
		t.Errorf("%d IKE SAs after all were closed", got)
	}
}

// TestRekeysTakeTurns: the limits of many Child SAs are reached at once. All get
// new keys, and no request is sent in vain; a restart forgets none that waits.
func TestRekeysTakeTurns(t *testing.T) {
	for _, restart := range []bool{false, true} {
		n := &network{t: t, now: start}
		ours, theirs := pairs(t, 100)
		source := rand.NewChaCha8([32]byte{1})
		a := n.add("a", addrA, source, ours...)
		b := n.add("b", addrB, source, theirs...)
		n.step(a, Tick{})
		n.settle()
		most := 0
		n.drop = func(Send) bool {
			busy := 0
			for _, sa := range a.e.state.SAs {
				if sa.exchangesKeys() {
					busy++
				}
			}
			most = max(most, busy)
			return false
		}
		for _, p := range a.e.Status() {
			n.step(a, Expire{Child: p.Children[0].Child.OutID()})
			if !a.e.peerStatus(p.Name).Children[0].Rekeying {
				t.Fatalf("%s is not rekeyed", p.Name)
			}
		}
		if restart { // in good order: the loop saves all
			for _, p := range ours {
				a.do(n, Persist{p.Name})
			}
			n.queue = nil
			n.restart(a)
		}
		n.settle() // no time passes
		for _, p := range a.e.Status() {
			if p.Rekeys.Child != 1 || len(p.Children) > 2 {
				t.Errorf("%s: %d rekeys, %d Child SAs", p.Name, p.Rekeys.Child, len(p.Children))
			}
		}
		if got := b.e.Stats().Replayed; most != maxExchanges || got > 0 || len(a.e.parked) > 0 {
			t.Errorf("%d at once, %d sent again, %d still wait", most, got, len(a.e.parked))
		}
	}
}

// TestTurnsByAddress: an address that does not answer holds up no other, and who
// waits for his turn and is closed does not get it.
func TestTurnsByAddress(t *testing.T) {
	n := &network{t: t, now: start}
	ours, theirs := pairs(t, 3*maxAttempts)
	source := rand.NewChaCha8([32]byte{1})
	a := n.add("a", addrA, source, ours...)
	n.add("b", addrB, source, theirs...)
	a.mute = true
	n.step(a, Tick{})
	for i, p := range ours {
		ev := Initiate{Peer: p.Name, Local: ipPort(addrA), Remote: ipPort(netip.MustParseAddr("192.0.2.99"))}
		if i >= 2*maxAttempts {
			ev.Remote = ipPort(addrB)
		}
		n.step(a, ev)
		n.step(a, ev) // asked for twice
	}
	if got := len(a.e.LocalSPIs()); got != 2*maxAttempts {
		t.Fatalf("%d attempts", got)
	}
	closed := ours[maxAttempts].Name
	n.step(a, Close{closed})
	n.run(time.Second)
	if got := a.established(); got != maxAttempts {
		t.Errorf("%d established", got)
	}
	n.run(40 * time.Second) // the first give up, the next have their turn
	if got := len(a.e.waiting); got != 0 {
		t.Errorf("%d still wait", got)
	}
	if got := len(a.e.LocalSPIs()); got != 2*maxAttempts-1 || len(a.e.state.ByPeer[closed]) != 0 {
		t.Errorf("%d IKE SAs, %d with a peer that was closed", got, len(a.e.state.ByPeer[closed]))
	}
}

// TestOffice: hosts behind one NAT that all come at once, as after a power cut.
func TestOffice(t *testing.T) {
	n := &network{t: t, now: start, nat: map[netip.AddrPort]netip.AddrPort{}}
	ours, theirs := pairs(t, 200)
	source := rand.NewChaCha8([32]byte{1})
	for i, p := range ours {
		inside := netip.AddrFrom4([4]byte{192, 168, 77, byte(i)})
		n.add(p.Name, inside, source, p)
		for _, port := range []uint16{500, 4500} {
			n.nat[netip.AddrPortFrom(inside, port)] = netip.AddrPortFrom(addrA, port+uint16(i)+1)
		}
	}
	gateway := n.add("b", addrB, source, theirs...)
	for _, h := range n.hosts {
		n.step(h, Tick{})
	}
	n.settle()
	if got := gateway.established(); got < ofOneAddress {
		t.Errorf("%d of %d established at once", got, len(ours))
	}
	n.run(3 * time.Second)
	if got := gateway.established(); got != len(ours) {
		t.Errorf("%d of %d established after 3 s", got, len(ours))
	}
}
