package ike

import (
	"slices"
	"strings"
	"testing"
	"time"

	"ipsec-quick/ike/auth"
	"ipsec-quick/ike/suite"
)

// neighbours adds to b's host another tunnel, c, that shares its ports: what b
// does not know is offered to c, and c's messages are handed to it.
func neighbours(t *testing.T, change func(a, b *Peer), own func(c *Peer)) (n *network, c *host) {
	n = newNetwork(t, 1, change)
	p := defaultPeer(t, "a", "secret")
	p.Start = StartPassive
	p.LocalTS, p.RemoteTS = prefixTS("10.2.0.0/16"), prefixTS("10.1.0.0/16")
	own(&p)
	c = n.add("c", addrB, n.b().cfg.Rand, p)
	n.hosts = n.hosts[:2]
	n.b().claim = func(claim Claim) bool {
		if !c.e.Accepts(claim) {
			return false
		}
		n.step(c, Adopt{claim})
		return true
	}
	n.drop = func(s Send) bool {
		if s.Remote.Addr() != addrB {
			return false
		}
		d := Datagram{Local: s.Remote, Remote: s.Local, NATT: s.NATT, Data: slices.Clone(s.Data)}
		for _, spi := range c.e.LocalSPIs() {
			if strings.Contains(string(s.Data[:16]), string(spiOctets(spi))) {
				n.step(c, d)
				return true
			}
		}
		n.step(n.b(), d)
		return true
	}
	return n, c
}

// TestAdopt: the peer's IKE_SA_INIT came to a tunnel that does not know it.
func TestAdopt(t *testing.T) {
	n, c := neighbours(t, func(a, b *Peer) { b.RemoteID = fqdn("somebody"); b.IKE = a.IKE }, func(*Peer) {})
	n.up()
	n.run(time.Minute)
	if err := n.flows(n.a(), c); err != nil {
		t.Fatal(err, n.log())
	}
	if err := n.flows(c, n.a()); err != nil {
		t.Fatal(err)
	}
	nothing(t, n.b())
	n.step(n.a(), RekeyIKE{"b"})
	n.step(n.a(), RekeyChild{"b"})
	n.run(10 * time.Second)
	if err := n.flows(n.a(), c); err != nil {
		t.Fatal(err)
	}
	n.step(n.a(), Close{"b"})
	n.run(10 * time.Second)
	nothing(t, c)
}

// TestNotAdopted: no tunnel of the host knows the peer, or none wants its
// selectors. In the second case the first tunnel says so.
func TestNotAdopted(t *testing.T) {
	n, c := neighbours(t, func(_, b *Peer) { b.RemoteID = fqdn("somebody") }, func(p *Peer) { p.Remote = auth.Remote{PSK: suite.Secret("other")} })
	n.up()
	if lost, _ := said[Lost](n.a()); lost.Err == nil || !strings.Contains(lost.Err.Error(), "AUTHENTICATION_FAILED") {
		t.Errorf("%v", lost.Err)
	}
	nothing(t, n.b())
	nothing(t, c)

	n, c = neighbours(t, func(_, b *Peer) { b.LocalTS = prefixTS("10.7.0.0/16") }, func(p *Peer) { p.LocalTS = prefixTS("10.8.0.0/16") })
	n.up()
	if lost, _ := said[Lost](n.a()); lost.Err == nil || !strings.Contains(lost.Err.Error(), "TS_UNACCEPTABLE") {
		t.Errorf("%v", lost.Err)
	}
	nothing(t, c)
}

// TestUnclaimedInit: an IKE_SA_INIT from an address that no peer of the tunnel
// has goes to the others as it came.
func TestUnclaimedInit(t *testing.T) {
	n := newNetwork(t, 1, func(_, b *Peer) { b.Addresses = append(b.Addresses, addrB) })
	n.step(n.a(), Tick{})
	n.settle()
	u, ok := said[Unclaimed](n.b())
	if !ok || len(u.Claim.SA) != 0 || len(n.b().e.LocalSPIs()) != 0 {
		t.Fatalf("%v %+v", ok, u.Claim)
	}
	c := newNetwork(t, 2, nil).b()
	if !c.e.Accepts(u.Claim) || n.b().e.Accepts(u.Claim) {
		t.Error("who accepts it is the wrong one")
	}
	n.step(n.b(), PeerAddresses{Peer: "a", Addresses: nil})
	n.step(n.b(), PeerAddresses{Peer: "nobody"})
	n.step(n.b(), Adopt(u))
	n.run(2 * time.Second)
	n.mustFlow()
}

// TestForgedClaim: what another process of ours hands over is checked all the same.
func TestForgedClaim(t *testing.T) {
	n, c := neighbours(t, func(_, b *Peer) { b.RemoteID = fqdn("somebody") }, func(*Peer) {})
	var claim Claim
	n.b().claim = func(c Claim) bool { claim = c; return false }
	n.up()
	for i := 0; i < len(claim.SA); i += 16 {
		bad := claim
		bad.SA = slices.Clone(claim.SA)
		bad.SA[i] ^= 0xff
		if c.e.Accepts(bad) {
			n.step(c, Adopt{bad})
		}
		c.e = New(c.cfg)
		clear(c.sent)
		bad.SA = claim.SA[:i]
		n.step(c, Adopt{bad})
	}
	bad := claim
	bad.Request = claim.Request[1:]
	if c.e.Accepts(bad) {
		t.Error("half a request is accepted")
	}
	if !c.e.Accepts(claim) {
		t.Error("the claim itself is not accepted")
	}
	clear(c.in)
	clear(c.out)
	n.step(c, Adopt{claim})
	if c.e.Accepts(claim) {
		t.Error("it is accepted twice")
	}
}
