package ike

import (
	"testing"
	"time"
)

// TestRestart ends the process of one host after each single action of an
// exchange, and lets another go on from what was saved, over the same data plane.
// Packets must pass all the time, on the same IKE SA.
func TestRestart(t *testing.T) {
	exchanges := map[string]func(n *network){
		"rekey of the Child SA":       func(n *network) { n.step(n.a(), RekeyChild{"b"}) },
		"rekey of the IKE SA":         func(n *network) { n.step(n.a(), RekeyIKE{"b"}) },
		"both rekeyed by the other":   func(n *network) { n.step(n.b(), RekeyIKE{"a"}); n.step(n.b(), RekeyChild{"a"}) },
		"rekeys of the Child SA meet": func(n *network) { n.step(n.a(), RekeyChild{"b"}); n.step(n.b(), RekeyChild{"a"}) },
		"rekeys of the IKE SA meet":   func(n *network) { n.step(n.a(), RekeyIKE{"b"}); n.step(n.b(), RekeyIKE{"a"}) },
		"a sign of life":              func(n *network) { n.run(40 * time.Second) },
	}
	for name, exchange := range exchanges {
		t.Run(name, func(t *testing.T) {
			for who := range 2 {
				for after := 1; ; after++ {
					if !crashAfter(t, who, after, exchange) {
						if after < 3 {
							t.Errorf("host %d did nothing", who)
						}
						break
					}
				}
			}
		})
	}
}

// crashAfter reports whether the host did as many actions.
func crashAfter(t *testing.T, who, after int, exchange func(*network)) bool {
	n := newNetwork(t, uint64(after), nil)
	n.up()
	n.flowing = true
	h, actions := n.hosts[who], 0
	before := len(h.e.LocalSPIs())
	n.crash = func(o *host) bool {
		if o == h {
			actions++
		}
		return o == h && actions == after
	}
	exchange(n)
	n.run(70 * time.Second) // a DELETE whose answer was lost is given up by then
	n.crash = nil
	for _, o := range n.hosts {
		if len(o.in) != 1 || len(o.out) != 1 || len(o.e.LocalSPIs()) != before {
			t.Errorf("host %d crashes after action %d: %s has %d inbound and %d outbound SAs, %d IKE SAs\n%s",
				who, after, o.name, len(o.in), len(o.out), len(o.e.LocalSPIs()), n.log())
		}
		if lost, ok := said[Lost](o); ok {
			t.Errorf("host %d crashes after action %d: %s lost its peer: %v", who, after, o.name, lost.Err)
		}
		if s := o.e.Status()[0]; s.Expires.Hard != 0 {
			t.Errorf("host %d crashes after action %d: %s lost a Child SA", who, after, o.name)
		}
	}
	return actions >= after
}

// TestRestartInHandshake does the same while the two connect: nothing has to be
// kept, but they have to come together in the end.
func TestRestartInHandshake(t *testing.T) {
	for who := range 2 {
		for after := 1; ; after++ {
			n := newNetwork(t, uint64(after), func(a, _ *Peer) { a.DPD = 10 * time.Second })
			h, actions := n.hosts[who], 0
			n.crash = func(o *host) bool {
				if o == h {
					actions++
				}
				return o == h && actions == after && h.saved != nil
			}
			n.up()
			n.run(100 * time.Second)
			n.mustFlow()
			if len(n.a().in) != 1 || len(n.b().in) != 1 {
				t.Errorf("host %d crashes after action %d: %d and %d inbound SAs\n%s", who, after, len(n.a().in), len(n.b().in), n.log())
			}
			if actions < after {
				break
			}
		}
	}
}

// TestRestartsAreNoTries restarts again and again before the answer to a rekey can
// be heard: the peer is not given up for it, and the rekey is done in the end.
func TestRestartsAreNoTries(t *testing.T) {
	n := newNetwork(t, 1, nil)
	n.up()
	before := n.a().e.Status()[0]
	deaf := true
	n.drop = func(s Send) bool { return deaf && s.Remote.Addr() == n.a().addr }
	n.step(n.a(), RekeyChild{"b"})
	for range 2 * maxTries {
		n.run(2 * time.Second) // it is sent once more, and kept
		n.restart(n.a())
	}
	deaf = false
	n.run(10 * time.Second)
	n.mustFlow()
	after := n.a().e.Status()[0]
	if after.SPIi != before.SPIi || after.SPIr != before.SPIr || after.Rekeys.Child != before.Rekeys.Child+1 {
		t.Errorf("the IKE SA was %v and is %v, %d Child SAs rekeyed\n%s", before.SPIi, after.SPIi, after.Rekeys.Child, n.log())
	}
}

// TestRestartWithoutSAs restarts over a data plane that lost what it had: new
// Child SAs take the place of those that can't be installed again.
func TestRestartWithoutSAs(t *testing.T) {
	for who := range 2 {
		n := newNetwork(t, 1, nil)
		n.up()
		h := n.hosts[who]
		clear(h.in)
		clear(h.out)
		n.restart(h)
		n.run(20 * time.Second)
		n.mustFlow()
		if s := h.e.Status()[0]; s.Expires.Hard != 1 {
			t.Errorf("%+v", s.Expires)
		}
		for _, o := range n.hosts {
			if len(o.in) != 1 || len(o.out) != 1 {
				t.Errorf("%s: %d inbound, %d outbound SAs", o.name, len(o.in), len(o.out))
			}
		}
	}
}

// TestRestartWhileClosing: a DELETE of the IKE SA that was saved and never left is
// sent by the next process, however long that takes to start.
func TestRestartWhileClosing(t *testing.T) {
	n := newNetwork(t, 1, nil)
	n.up()
	n.step(n.a(), Close{"b"})
	n.queue = nil
	n.now = n.now.Add(10 * time.Second)
	n.restart(n.a())
	n.step(n.a(), Close{"b"})
	n.run(time.Second)
	if left := len(n.b().in) + len(n.a().in); left != 0 {
		t.Errorf("%d inbound SAs are left\n%s", left, n.log())
	}
}

// TestRestartInClose ends the process that takes the tunnel down. The next one is
// there to have it up, unless it is told otherwise.
func TestRestartInClose(t *testing.T) {
	n := newNetwork(t, 1, nil)
	n.up()
	n.step(n.a(), Close{"b"})
	n.restart(n.a())
	n.run(20 * time.Second)
	n.mustFlow()
	n.step(n.a(), Close{"b"})
	n.restart(n.a())
	n.step(n.a(), Close{"b"})
	n.run(20 * time.Second)
	if _, ok := said[Closed](n.a()); !ok {
		t.Error("it is not closed")
	}
	nothing(t, n.a())
}
