package ike

import (
	"net/netip"
	"testing"
	"time"

	"ipsec-quick/ike/wire"
)

// behind puts a host behind a NAT with this outer port for its port 4500.
func (n *network) behind(h *host, outer uint16) {
	a := netip.MustParseAddr("203.0.113.1")
	n.nat = map[netip.AddrPort]netip.AddrPort{
		netip.AddrPortFrom(h.addr, 500):  netip.AddrPortFrom(a, outer-1),
		netip.AddrPortFrom(h.addr, 4500): netip.AddrPortFrom(a, outer),
	}
}

func TestNAT(t *testing.T) {
	for _, transport := range []bool{false, true} {
		for who := range 2 {
			n := newNetwork(t, 1, func(a, b *Peer) {
				a.Transport, b.Transport = transport, transport
				if transport {
					a.LocalTS, a.RemoteTS, b.LocalTS, b.RemoteTS = nil, nil, nil, nil
				}
				id := fqdn("inner")
				if who == 0 {
					a.LocalID, b.RemoteID = id, id
				} else {
					b.LocalID, a.RemoteID = id, id
				}
			})
			inside, outside := n.hosts[who], n.hosts[1-who]
			n.behind(inside, 40500)
			if who == 1 {
				// The initiator is told the NAT's address, which forwards the ports.
				n.nat = map[netip.AddrPort]netip.AddrPort{
					netip.AddrPortFrom(addrB, 500):  netip.MustParseAddrPort("203.0.113.1:500"),
					netip.AddrPortFrom(addrB, 4500): netip.MustParseAddrPort("203.0.113.1:4500"),
				}
				n.a().resolved = netip.MustParseAddr("203.0.113.1")
			}
			n.up()
			n.rekeyed()
			outer := n.nat[netip.AddrPortFrom(inside.addr, 4500)]
			if got := outside.active; !got.Encap || got.Remote != outer {
				t.Errorf("transport %t, host %d: ESP goes to %s, in UDP: %t", transport, who, got.Remote, got.Encap)
			}
			if got := inside.active; !got.Encap || got.Local.Addr() != inside.addr {
				t.Errorf("transport %t, host %d: ESP comes from %s, in UDP: %t", transport, who, got.Local, got.Encap)
			}
			if transport {
				if ts := outside.active.RemoteTS; len(ts) != 1 || ts[0].From != outer.Addr() || ts[0].To != outer.Addr() {
					t.Errorf("host %d: outside has the selectors %s", who, selectorText(ts))
				}
				if ts := inside.active.LocalTS; len(ts) != 1 || ts[0].From != inside.addr {
					t.Errorf("host %d: inside has the selectors %s", who, selectorText(ts))
				}
			}
		}
	}
}

func TestForcedEncap(t *testing.T) {
	n := newNetwork(t, 1, func(a, b *Peer) { a.Encap = true; a.DPD, b.DPD = 0, 0 })
	n.up()
	n.mustFlow()
	n.step(n.a(), RekeyIKE{"b"})
	n.mustFlow()
	n.step(n.a(), RekeyChild{"b"})
	n.mustFlow()
	for _, h := range n.hosts {
		if !h.active.Encap || h.active.Remote.Port() != 4500 {
			t.Errorf("%s: in UDP: %t, to %s", h.name, h.active.Encap, h.active.Remote)
		}
	}
	n.run(10 * time.Minute)
	for _, h := range n.hosts {
		if h.keepalives != 0 {
			t.Errorf("%s: %d keepalives, and there is no NAT", h.name, h.keepalives)
		}
	}
}

func TestKeepalive(t *testing.T) {
	n := newNetwork(t, 1, func(a, b *Peer) { a.LocalID, b.RemoteID = fqdn("inner"), fqdn("inner"); a.DPD, b.DPD = 0, 0 })
	n.behind(n.a(), 40500)
	n.up()
	n.run(10 * time.Minute)
	if got := n.a().keepalives; got < 28 || got > 31 {
		t.Errorf("%d keepalives in ten minutes", got)
	}
	if n.b().keepalives != 0 {
		t.Error("who sees the NAT before the other sends keepalives")
	}
}

func TestPeerMoves(t *testing.T) {
	n := newNetwork(t, 1, func(a, b *Peer) { a.LocalID, b.RemoteID = fqdn("inner"), fqdn("inner"); b.DPD = 0 })
	n.behind(n.a(), 40500)
	n.up()
	n.step(n.a(), RekeyChild{"b"})
	var replay Send
	n.drop = func(s Send) bool {
		if s.Local.Addr() == addrA {
			replay = s
		}
		return false
	}
	n.settle()
	b := n.b().e
	n.behind(n.a(), 50500)
	thief := netip.MustParseAddrPort("198.51.100.9:4500")
	n.step(n.b(), Datagram{Local: replay.Remote, Remote: thief, NATT: true, Data: replay.Data})
	if got := b.Status()[0].Remote.Port(); got != 40500 {
		t.Fatalf("an old message moved the peer to %d", got)
	}
	if got := n.queue; len(got) != 1 || got[0].Remote != thief {
		t.Errorf("the answer goes not where the request came from: %v", got)
	}
	n.queue = nil
	n.run(time.Minute) // a's sign of life
	if got := b.Status()[0].Remote.Port(); got != 50500 {
		t.Fatalf("the peer moved, and we send to %d", got)
	}
	for spi, c := range n.b().out {
		if c.Remote.Port() != 50500 {
			t.Errorf("the data plane sends %08x to %s", spi, c.Remote)
		}
	}
	// The data plane saw ESP come from somewhere else.
	c := n.b().active
	n.step(n.b(), Mapping{Child: c.InID(), Remote: netip.MustParseAddrPort("203.0.113.1:60500")})
	if got := b.Status()[0].Remote.Port(); got != 60500 {
		t.Errorf("a mapping did not move the peer: %d", got)
	}
	n.step(n.b(), Mapping{Child: ChildID{addrB, 1}, Remote: thief}) // of no SA
	n.step(n.a(), Mapping{Child: n.a().active.InID(), Remote: thief})
	if got := n.a().e.Status()[0].Remote; got.Addr() != addrB {
		t.Errorf("no NAT before the peer, and it moved to %s", got)
	}
}

// TestNoNATDetection: a peer without the notifications does not float.
func TestNoNATDetection(t *testing.T) {
	sa := &ikeSA{Local: netip.MustParseAddrPort("192.0.2.1:500"), Remote: netip.MustParseAddrPort("192.0.2.2:500")}
	sa.learn(payloads{wire.Notify{Kind: wire.NotifyNATDetectionSourceIP}}, false)
	if sa.NATHere || sa.NATThere {
		t.Error("a NAT by half a detection")
	}
}
