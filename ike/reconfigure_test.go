package ike

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"ipsec-quick/ike/suite"
)

// newSettings are settings of one value.
func newSettings(sum uint64) Settings { return Settings{{Name: "key", Sum: sum}} }

// reconfigured gives a host a changed configuration of its first peer.
func (n *network) reconfigured(h *host, change func(*Peer)) {
	h.cfg.Peers = slices.Clone(h.cfg.Peers)
	change(&h.cfg.Peers[0])
	n.step(h, Reconfigure{h.cfg.Peers})
}

// withSettings is a network whose peers have settings.
func withSettings(t *testing.T) *network {
	n := newNetwork(t, 1, func(a, b *Peer) {
		a.IKESettings, a.ChildSettings = newSettings(1), newSettings(1)
		b.IKESettings, b.ChildSettings = newSettings(1), newSettings(1)
	})
	n.up()
	n.mustFlow()
	return n
}

// TestReconfigureSame: what is the same stays, and costs no message.
func TestReconfigureSame(t *testing.T) {
	n := withSettings(t)
	n.flowing = true
	before := *n.a().active
	n.drop = func(s Send) bool { t.Errorf("%v sends something", s.Local); return false }
	n.reconfigured(n.a(), func(p *Peer) { p.Start, p.Fragment = StartPassive, 0 })
	n.reconfigured(n.b(), func(*Peer) {})
	n.run(10 * time.Second)
	if n.a().active.SPIIn != before.SPIIn {
		t.Error("there is another Child SA")
	}
	n.drop = nil
	n.reconfigured(n.a(), func(p *Peer) { p.DPD = 2 * time.Second })
	heard := n.a().e.current("b").LastHeard
	n.run(3 * time.Second)
	if !n.a().e.current("b").LastHeard.After(heard) {
		t.Error("the peer was not asked for a sign of life")
	}
}

// TestReconfigureChild: other settings of the Child SA are a rekey, in which every
// packet passes; a rekey that is under way is followed by another.
func TestReconfigureChild(t *testing.T) {
	for _, busy := range []bool{false, true} {
		n := withSettings(t)
		n.flowing = true
		spi := n.a().e.Status()[0].SPIi
		if busy {
			n.step(n.a(), RekeyChild{"b"}) // the request is under way
		}
		n.reconfigured(n.a(), func(p *Peer) {
			p.ChildSettings = newSettings(2)
			p.Hard.Bytes, p.Soft.Bytes = 4000, 3000
			p.ESP = proposal(t, suite.ParseESP, "aes128gcm16-x25519-esn-noesn")
		})
		n.b().cfg.Peers[0].ESP = append(n.b().cfg.Peers[0].ESP, n.a().cfg.Peers[0].ESP...)
		n.reconfigured(n.b(), func(*Peer) {})
		n.run(20 * time.Second)
		n.mustFlow()
		now := n.a().e.Status()[0]
		if now.SPIi != spi || len(now.Children) != 1 {
			t.Fatalf("busy %t: %d Child SAs, IKE SA %v was %v\n%s", busy, len(now.Children), now.SPIi, spi, n.log())
		}
		if c := now.Children[0].Child; c.Hard.Bytes != 4000 || c.Choice.Encr.KeyLength != 128 {
			t.Errorf("busy %t: the Child SA is %v with %+v\n%s", busy, c.Choice, c.Hard, n.log())
		}
	}
}

// TestReconfigureIKE: other settings of the IKE SA end it, and another begins at
// once, whichever end is changed.
func TestReconfigureIKE(t *testing.T) {
	for who := range 2 {
		n := withSettings(t)
		h := n.hosts[who]
		n.reconfigured(h, func(p *Peer) { p.IKESettings = newSettings(2) })
		if h.active != nil || len(h.in)+len(h.out) > 0 {
			t.Errorf("%s goes on with the old SAs", h.name)
		}
		n.run(2 * time.Second)
		n.mustFlow()
		n.run(10 * time.Second)
		for _, o := range n.hosts {
			if len(o.e.LocalSPIs()) != 1 || len(o.in) != 1 || len(o.out) != 1 {
				t.Errorf("%s was changed: %s has %d IKE SAs, %d inbound and %d outbound SAs\n%s",
					h.name, o.name, len(o.e.LocalSPIs()), len(o.in), len(o.out), n.log())
			}
		}
	}
}

// TestReconfigureMends: an attempt that failed, or is under way, does not keep a
// mended configuration waiting.
func TestReconfigureMends(t *testing.T) {
	n := newNetwork(t, 1, func(a, b *Peer) {
		a.IKESettings = newSettings(1)
		b.Remote.PSK, b.Local.PSK = suite.Secret("another"), suite.Secret("another")
	})
	n.up()
	n.run(5 * time.Minute) // refusals, up to a minute apart
	mend := func(p *Peer) {
		p.IKESettings = newSettings(2)
		p.Remote.PSK, p.Local.PSK = suite.Secret("another"), suite.Secret("another")
	}
	n.reconfigured(n.a(), mend)
	n.run(time.Second)
	n.mustFlow()

	n = newNetwork(t, 1, func(a, _ *Peer) { a.IKESettings = newSettings(1) })
	n.drop = frozen(n)
	n.up()
	n.drop = nil
	n.queue = nil
	n.reconfigured(n.a(), func(p *Peer) { p.IKESettings = newSettings(2) })
	n.run(500 * time.Millisecond) // before anything is sent again
	n.mustFlow()
	if got := len(n.a().e.LocalSPIs()); got != 1 {
		t.Errorf("%d IKE SAs", got)
	}
}

// TestReconfigureRemove: a peer that is gone hears of it, and is forgotten.
func TestReconfigureRemove(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		n := withSettings(t)
		if deaf {
			n.drop = frozen(n)
		}
		n.step(n.a(), Reconfigure{})
		nothingInstalled(t, n.a())
		n.run(10 * time.Second)
		if closed, ok := said[Closed](n.a()); !ok || closed.Peer != "b" {
			t.Errorf("deaf %t: closed: %+v", deaf, closed)
		}
		e := n.a().e
		if len(e.Status())+len(e.state.SAs)+len(e.state.Peers)+len(e.state.ByPeer)+len(e.peers)+len(e.quotas)+len(e.leaving) > 0 {
			t.Errorf("deaf %t: something is left of the peer", deaf)
		}
		if deaf {
			continue
		}
		if lost, ok := said[Lost](n.b()); !ok {
			t.Errorf("the peer was not told: %+v", lost)
		}
		nothingInstalled(t, n.b())
		n.step(n.a(), Reconfigure{n.a().cfg.Peers})
		n.run(time.Second)
		n.mustFlow()
	}
}

// TestReconfigureBack takes a peer out and puts it in again before it has
// answered.
func TestReconfigureBack(t *testing.T) {
	n := withSettings(t)
	n.step(n.a(), Reconfigure{})
	n.step(n.a(), Reconfigure{n.a().cfg.Peers})
	n.run(10 * time.Second)
	n.mustFlow()
	for _, h := range n.hosts {
		if len(h.e.LocalSPIs()) != 1 || len(h.in) != 1 {
			t.Errorf("%s has %d IKE SAs and %d inbound SAs\n%s", h.name, len(h.e.LocalSPIs()), len(h.in), n.log())
		}
	}
}

// TestReconfigureAdd adds a peer, takes another out and changes a third, and the
// fourth does not notice.
func TestReconfigureAdd(t *testing.T) {
	n := &network{t: t, now: start}
	source := newNetwork(t, 1, nil).a().cfg.Rand
	var ours []Peer
	for i := range 4 {
		p, q := defaultPeer(t, fmt.Sprintf("p%d", i), "secret"), defaultPeer(t, "a", "secret")
		p.Start, q.Start = StartPassive, StartNow
		p.IKESettings = newSettings(1)
		p.RemoteTS = prefixTS(fmt.Sprintf("10.2.%d.0/24", i))
		q.LocalTS = p.RemoteTS
		q.RemoteTS = prefixTS("10.1.0.0/16")
		p.LocalTS = q.RemoteTS
		addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)})
		p.Addresses = []netip.Addr{addr}
		ours = append(ours, p)
		n.add(p.Name, addr, source, q).resolved = addrA
	}
	a := n.add("a", addrA, source, ours[:3]...)
	n.up()
	states := func() (up []string) {
		for _, s := range a.e.Status() {
			if s.State == "established" {
				up = append(up, s.Name)
			}
		}
		return up
	}
	if got := states(); !slices.Equal(got, []string{"p0", "p1", "p2"}) {
		t.Fatalf("established: %v", got)
	}
	stays := a.e.Status()[0]
	changed := ours[1]
	changed.IKESettings = newSettings(2)
	n.step(a, Reconfigure{[]Peer{ours[0], changed, ours[3]}})
	n.run(20 * time.Second)
	if got := states(); !slices.Equal(got, []string{"p0", "p1", "p3"}) {
		t.Errorf("established: %v\n%s", got, n.log())
	}
	if now := a.e.Status()[0]; now.SPIi != stays.SPIi || now.Children[0].Child.SPIIn != stays.Children[0].Child.SPIIn {
		t.Error("the peer that did not change has other SAs")
	}
	if len(a.in) != 3 || len(a.out) != 3 {
		t.Errorf("%d inbound and %d outbound SAs", len(a.in), len(a.out))
	}
}

// TestRestartReconfigured: a process that dies before, in the middle of or after a
// change of its configuration ends with what the configuration says.
func TestRestartReconfigured(t *testing.T) {
	changes := map[string]func(h *host){
		"child":   func(h *host) { h.cfg.Peers[0].ChildSettings = newSettings(2) },
		"IKE":     func(h *host) { h.cfg.Peers[0].IKESettings = newSettings(2) },
		"removed": func(h *host) { h.cfg.Peers = nil },
	}
	for name, change := range changes {
		for after := 0; after < 30; after++ {
			n := withSettings(t)
			a := n.a()
			a.cfg.Peers = slices.Clone(a.cfg.Peers)
			change(a)
			if after == 0 {
				n.restart(a)
			} else {
				actions := 0
				n.crash = func(h *host) bool {
					if h == a {
						actions++
					}
					return h == a && actions == after
				}
				n.step(a, Reconfigure{a.cfg.Peers})
			}
			n.run(20 * time.Second)
			n.crash = nil
			n.run(70 * time.Second)
			for _, sa := range a.e.state.SAs {
				p := a.e.peers[sa.Peer]
				for _, c := range sa.Children {
					if !sa.Settings.fits(p.IKESettings) || !c.Settings.fits(p.ChildSettings) {
						t.Errorf("%s, crash after %d: old SAs stay", name, after)
					}
				}
			}
			if name == "removed" {
				if len(a.in)+len(a.out) > 0 || len(a.e.state.Peers) > 0 {
					t.Errorf("crash after %d: something is left of the peer", after)
				}
				nothingInstalled(t, n.b())
				continue
			}
			n.mustFlow()
			if len(a.in) != 1 || len(n.b().in) != 1 {
				t.Errorf("%s, crash after %d: %d and %d inbound SAs", name, after, len(a.in), len(n.b().in))
			}
		}
	}
}

// TestSettings: what only one of two versions of the program knows does not count.
func TestSettings(t *testing.T) {
	a := Settings{{"x", 1}, {"y", 2}}
	for _, fitting := range []Settings{nil, {{"x", 1}}, {{"z", 3}, {"y", 2}}} {
		if !a.fits(fitting) || !fitting.fits(a) {
			t.Errorf("%v does not fit %v", a, fitting)
		}
	}
	if b := (Settings{{"y", 3}}); a.fits(b) || b.fits(a) {
		t.Error("another value fits")
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%d"} {
		settings := Settings{{"x", 12345}}
		p := Peer{Name: "x", IKESettings: settings}
		p.Local.Key = ed25519.PrivateKey(bytes.Repeat([]byte{0x5a}, ed25519.PrivateKeySize))
		for _, v := range []any{settings, p, &p, Reconfigure{[]Peer{p}}} {
			if s := fmt.Sprintf(verb, v); strings.Contains(s, "12345") || strings.Contains(s, "3039") || strings.Contains(strings.ToLower(s), "5a") || strings.Contains(s, "90") {
				t.Errorf("%s prints %s", verb, s)
			}
		}
	}
}

// TestOtherAddresses: an address where nobody answers is given up soon when there
// are others.
func TestOtherAddresses(t *testing.T) {
	wait := func(others bool) time.Duration {
		n := newNetwork(t, 1, nil)
		n.a().mute = true
		n.drop = frozen(n)
		n.step(n.a(), Tick{})
		n.step(n.a(), Initiate{Peer: "b", Local: ipPort(addrA), Remote: ipPort(addrB), Others: others})
		for range 60 {
			n.run(time.Second)
			if _, ok := said[Lost](n.a()); ok {
				break
			}
		}
		return n.now.Sub(start)
	}
	if hurried, patient := wait(true), wait(false); hurried > 8*time.Second || patient < 20*time.Second {
		t.Errorf("given up after %v, and with no other address after %v", hurried, patient)
	}
}
