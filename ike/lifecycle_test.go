package ike

import (
	"slices"
	"testing"
	"time"

	"ipsec-quick/ike/wire"
)

// frozen loses all that a host sends or is sent.
func frozen(*network) func(Send) bool { return func(Send) bool { return true } }

func TestFrozenPeer(t *testing.T) {
	n := newNetwork(t, 1, nil)
	n.up()
	n.drop = frozen(n)
	n.run(5 * time.Minute)
	lost, ok := said[Lost](n.a())
	if !ok || !TimedOut(lost.Err) || Refused(lost.Err) {
		t.Fatalf("lost: %v", lost.Err)
	}
	nothingInstalled(t, n.a())
	n.drop = nil
	n.run(10 * time.Second)
	n.mustFlow()
	if got := len(n.b().e.LocalSPIs()); got != 1 {
		t.Errorf("%d IKE SAs", got)
	}
}

func nothingInstalled(t *testing.T, h *host) {
	t.Helper()
	if len(h.in)+len(h.out) != 0 || h.active != nil {
		t.Errorf("%s: %d inbound and %d outbound SAs", h.name, len(h.in), len(h.out))
	}
}

// TestNobodyThere: attempts go on for ever, and cost nothing in between.
func TestNobodyThere(t *testing.T) {
	for _, noName := range []bool{true, false} {
		n := newNetwork(t, 1, nil)
		n.drop = frozen(n)
		n.a().noResolve = noName
		n.up()
		steps := 0
		end := n.now.Add(time.Hour)
		for n.now.Before(end) {
			at := n.a().e.NextDeadline()
			if !at.After(n.now) {
				t.Fatalf("at %s the deadline %s is past", n.now, at)
			}
			n.now = at
			n.step(n.a(), Tick{})
			steps++
		}
		if steps > 1000 {
			t.Errorf("%d deadlines in an hour", steps)
		}
		lost, _ := said[Lost](n.a())
		if lost.Retry.IsZero() || !noName && !TimedOut(lost.Err) {
			t.Errorf("%+v", lost)
		}
	}
}

func TestExpire(t *testing.T) {
	for _, outbound := range []bool{true, false} {
		n := newNetwork(t, 1, nil)
		n.up()
		id := func(h *host) ChildID {
			if outbound {
				return h.active.OutID()
			}
			return h.active.InID()
		}
		n.flowing = true
		n.step(n.a(), Expire{Child: id(n.a())})
		n.step(n.a(), Expire{Child: id(n.a())}) // once more, as both SAs say so
		n.run(10 * time.Second)
		n.flowing = false
		if s := n.a().e.Status()[0]; s.Rekeys.Child != 1 || s.Expires.Soft != 1 || s.Expires.Hard != 0 {
			t.Errorf("%+v", s)
		}
		n.step(n.b(), Expire{Child: id(n.b()), Hard: true})
		if n.b().active != nil {
			t.Error("packets go somewhere after the hard limit")
		}
		n.run(10 * time.Second)
		n.mustFlow() // a made another one
		if s := n.b().e.Status()[0]; s.Expires.Hard != 1 {
			t.Errorf("%+v", s)
		}
		n.step(n.a(), Expire{Child: ChildID{addrA, 1}, Hard: true}) // of no SA of ours
		n.mustFlow()
	}
}

// TestLostSoftExpire: our timer stands behind the data plane's event, with jitter
// and with a hard limit that is close.
func TestLostSoftExpire(t *testing.T) {
	n := newNetwork(t, 1, func(a, b *Peer) {
		a.Soft, a.Hard, a.Jitter = Limits{Time: 8 * time.Second, Bytes: 1000}, Limits{Time: 12 * time.Second}, 0.5
		b.Soft, b.Hard = Limits{}, Limits{}
	})
	n.up()
	n.flowing = true
	n.run(5 * time.Minute)
	s := n.a().e.Status()[0]
	if s.Rekeys.Child < 30 || s.Rekeys.Failed != 0 {
		t.Errorf("%+v", s)
	}
	if c := n.a().active; c.Soft.Time > 8*time.Second || c.Soft.Time < 4*time.Second || c.Soft.Bytes > 1000 || c.Soft.Bytes < 500 {
		t.Errorf("%+v", c.Soft)
	}
}

func TestOnDemandAndPassive(t *testing.T) {
	n := newNetwork(t, 1, func(a, _ *Peer) { a.Start = StartOnDemand })
	n.up()
	n.step(n.b(), Acquire{"a"}) // it only listens
	n.run(time.Hour)
	if len(n.a().e.LocalSPIs())+len(n.b().e.LocalSPIs()) != 0 || !n.a().e.NextDeadline().IsZero() {
		t.Fatal("nobody asked for it")
	}
	n.step(n.a(), Acquire{"b"})
	n.step(n.a(), Acquire{"nobody"})
	n.run(time.Second)
	n.mustFlow()
	n.drop = frozen(n)
	n.run(5 * time.Minute)
	n.drop = nil
	n.run(time.Hour)
	nothing(t, n.a())
	n.step(n.a(), Acquire{"b"})
	n.run(time.Second)
	n.mustFlow()
}

func TestClose(t *testing.T) {
	tests := map[string]func(n *network){
		"before it began":         func(*network) {},
		"while it resolves":       func(n *network) { n.a().mute = true; n.step(n.a(), Tick{}); n.a().mute = false },
		"in IKE_SA_INIT":          func(n *network) { n.step(n.a(), Tick{}) },
		"established":             func(n *network) { n.up() },
		"in a rekey":              func(n *network) { n.up(); n.step(n.a(), RekeyChild{"b"}) },
		"in a rekey of the IKE":   func(n *network) { n.up(); n.step(n.a(), RekeyIKE{"b"}) },
		"the peer is gone":        func(n *network) { n.up(); n.drop = frozen(n) },
		"the peer is long silent": func(n *network) { n.up(); n.drop = frozen(n); n.run(61 * time.Second) },
	}
	for name, before := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t, 1, nil)
			before(n)
			n.a().said = nil
			n.step(n.a(), Close{"b"})
			n.step(n.a(), Initiate{Peer: "b", Local: ipPort(addrA), Remote: ipPort(addrB)}) // late
			n.run(10 * time.Second)
			nothing(t, n.a())
			closed := 0
			for _, a := range n.a().said {
				switch a.(type) {
				case Closed:
					closed++
				case Established:
					t.Error("established after Close")
				default:
				}
			}
			if closed != 1 {
				t.Errorf("Closed %d times", closed)
			}
			n.step(n.a(), Acquire{"b"})
			n.run(time.Minute)
			nothing(t, n.a())
			if got := n.a().e.Status()[0].State; got != "idle" {
				t.Errorf("state %q", got)
			}
			if n.drop == nil && len(n.b().in) != 0 {
				t.Error("the peer was not told")
			}
		})
	}
}

// TestInitialContact: a peer that begins anew does not leave the old SAs behind.
func TestInitialContact(t *testing.T) {
	n := newNetwork(t, 1, nil)
	n.up()
	n.step(n.a(), RekeyIKE{"b"})
	n.run(10 * time.Second)
	old := n.b().e.LocalSPIs()
	n.a().e = New(n.a().cfg)
	clear(n.a().in)
	clear(n.a().out)
	n.a().active = nil
	n.step(n.a(), Tick{})
	n.run(2 * time.Second)
	n.mustFlow()
	if now := n.b().e.LocalSPIs(); len(now) != 1 || slices.Contains(old, now[0]) || len(n.b().in) != 1 {
		t.Errorf("IKE SAs %v, before %v; %d Child SAs", now, old, len(n.b().in))
	}
}

func TestBothStart(t *testing.T) {
	for seed := range uint64(20) {
		n := newNetwork(t, seed, func(_, b *Peer) { b.Start = StartNow })
		n.up()
		n.run(15 * time.Second)
		n.mustFlow()
		for _, h := range n.hosts {
			if len(h.in) != 1 || len(h.e.LocalSPIs()) != 1 {
				t.Fatalf("seed %d: %s has %d inbound SAs, %d IKE SAs\n%s", seed, h.name, len(h.in), len(h.e.LocalSPIs()), n.log())
			}
		}
	}
}

// TestDataPlaneFails: no SPI, or no installation, on either side, at the start and
// in a rekey. Once it works again so does the tunnel.
func TestDataPlaneFails(t *testing.T) {
	for who := range 2 {
		for _, spi := range []bool{true, false} {
			for _, rekey := range []bool{true, false} {
				n := newNetwork(t, 1, nil)
				h := n.hosts[who]
				if rekey {
					n.up()
				}
				h.failSPI, h.failInstall = spi, !spi
				if rekey {
					n.step(n.a(), RekeyChild{"b"})
					n.run(5 * time.Second)
					n.mustFlow()
					if s := n.a().e.Status()[0]; s.Rekeys.Failed != 1 && who == 0 {
						t.Errorf("host %d, SPI %t: %+v", who, spi, s)
					}
				} else {
					n.up()
					nothingInstalled(t, n.a())
					if _, ok := said[Lost](n.a()); !ok {
						t.Errorf("host %d, SPI %t: nobody is told", who, spi)
					}
				}
				h.failSPI, h.failInstall = false, false
				n.run(2 * time.Minute)
				n.mustFlow()
				for _, o := range n.hosts {
					if len(o.in) != 1 || len(o.out) != 1 {
						t.Errorf("host %d, SPI %t, rekey %t: %s has %d inbound, %d outbound SAs\n%s", who, spi, rekey, o.name, len(o.in), len(o.out), n.log())
					}
				}
			}
		}
	}
}

// TestPeerDeletes: a DELETE of the Child SA, of the IKE SA, and AUTHENTICATION_FAILED
// after all.
func TestPeerDeletes(t *testing.T) {
	tests := map[string]struct {
		ps      func(n *network) []wire.Payload
		refused bool
	}{
		"Child SA": {func(n *network) []wire.Payload {
			return []wire.Payload{wire.Delete{Protocol: wire.ProtocolESP, SPIs: []uint32{n.a().active.SPIIn, 77, n.a().active.SPIIn}}}
		}, false},
		"IKE SA": {func(*network) []wire.Payload { return []wire.Payload{wire.Delete{Protocol: wire.ProtocolIKE}} }, false},
		"authentication failed": {func(*network) []wire.Payload {
			return []wire.Payload{wire.Notify{Kind: wire.NotifyAuthenticationFailed}}
		}, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t, 1, nil)
			n.up()
			n.ask(wire.Informational, n.b().e.current("a").Recv.ExpectID, test.ps(n)...)
			nothingInstalled(t, n.b())
			if lost, _ := said[Lost](n.b()); Refused(lost.Err) != test.refused {
				t.Errorf("%v", lost.Err)
			}
		})
	}
}
