package ike

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"ipsec-quick/ike/wire"
)

// maxFuzzSAs bounds what two hosts may have installed, whatever happens: a few
// rekeys under way at once, and as many that retire.
const maxFuzzSAs = 64

// FuzzStep is the simulation with a script in place of a seed: each octet decides
// what comes next, after the last one a generator does. What holds for seeds holds
// for scripts.
func FuzzStep(f *testing.F) {
	f.Fuzz(func(t *testing.T, script []byte) {
		w := &world{rand: rand.New(&scriptedRand{script, rand.NewPCG(1, 2)}), record: true}
		if failed := w.play(rand.NewChaCha8([32]byte{1})); failed != nil {
			t.Fatalf("%s\n%s", strings.Join(failed.trace[max(0, len(failed.trace)-*traced):], "\n"), failed.text)
		}
	})
}

// scriptedRand draws the upper octet of each number from a script.
type scriptedRand struct {
	script []byte
	rest   *rand.PCG
}

// Uint64 is rand.Source's.
func (s *scriptedRand) Uint64() uint64 {
	n := s.rest.Uint64()
	if len(s.script) > 0 {
		n = n>>8 | uint64(s.script[0])<<56
		s.script = s.script[1:]
	}
	return n
}

// FuzzDatagrams plays a script on two connected hosts: each octet is what happens
// next to the datagrams under way, which may change on their way, to the time or
// to a host. No script may end in a panic, a nonce used twice, SAs without end or
// a deadline that stays. Left alone afterwards the two must come together, unless
// the script closed one.
func FuzzDatagrams(f *testing.F) {
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 200 {
			return
		}
		n := newNetwork(t, 1, func(a, b *Peer) {
			a.DPD, b.DPD = 10*time.Second, 10*time.Second
			if len(script) > 0 && script[0]&1 != 0 {
				b.Start = StartNow
			}
			if len(script) > 0 && script[0]&2 != 0 {
				a.Encap = true
			}
			if len(script) > 0 && script[0]&4 != 0 {
				a.Fragment, b.Fragment = 200, 200
			}
		})
		n.step(n.a(), Tick{})
		n.step(n.b(), Tick{})
		for len(script) > 0 {
			script = n.play(script)
			for _, h := range n.hosts {
				if len(h.in) > maxFuzzSAs || len(h.e.LocalSPIs()) > maxFuzzSAs || len(h.e.halfOpen) > maxFuzzSAs {
					t.Fatalf("%s: %d SAs, %d IKE SAs, %d half-open", h.name, len(h.in), len(h.e.LocalSPIs()), len(h.e.halfOpen))
				}
			}
			if len(n.queue) > 64 {
				n.queue = n.queue[:64]
			}
		}
		for _, h := range n.hosts {
			h.failSPI, h.failInstall, h.noResolve = false, false, false
		}
		n.run(3 * time.Minute)
		n.mustFlow()
	})
}

// play does what the first octets of a script say, and returns the rest.
func (n *network) play(script []byte) []byte {
	what, script := script[0], script[1:]
	h := n.hosts[what>>7]
	peer := h.cfg.Peers[0].Name
	argument := byte(0)
	if len(script) > 0 {
		argument = script[0]
	}
	at := 0
	if len(n.queue) > 0 {
		at = int(argument) % len(n.queue)
	}
	switch what & 0x7f % 20 {
	case 0, 1, 2: // the oldest arrives
		if len(n.queue) > 0 {
			s := n.queue[0]
			n.queue = n.queue[1:]
			n.deliver(s)
		}
	case 3: // another one arrives before it
		if len(n.queue) > 0 {
			s := n.queue[at]
			n.queue = slices.Delete(n.queue, at, at+1)
			n.deliver(s)
		}
	case 4: // lost
		if len(n.queue) > 0 {
			n.queue = slices.Delete(n.queue, at, at+1)
		}
	case 5: // doubled
		if len(n.queue) > 0 {
			n.queue = append(n.queue, n.queue[at])
		}
	case 6, 7: // changed on its way, as well as arriving as it was
		if len(n.queue) > 0 && len(script) > 2 {
			s := n.queue[at]
			s.Data = slices.Clone(s.Data)
			s.Data[int(script[1])%len(s.Data)] ^= script[2] | 1
			script = script[3:]
			n.deliver(s)
		}
	case 8: // cut short
		if len(n.queue) > 0 {
			s := n.queue[at]
			s.Data = s.Data[:int(argument)%len(s.Data)]
			n.deliver(s)
		}
	case 9:
		n.settle()
	case 10: // time
		n.now = n.now.Add(time.Duration(argument) * 50 * time.Millisecond)
		n.step(n.a(), Tick{})
		n.step(n.b(), Tick{})
	case 11:
		n.step(h, RekeyChild{peer})
	case 12:
		n.step(h, RekeyIKE{peer})
	case 13:
		for _, c := range h.e.Status()[0].Children {
			n.step(h, Expire{Child: c.Child.OutID(), Hard: argument&1 != 0})
		}
	case 14:
		h.failSPI = !h.failSPI
	case 15:
		h.failInstall = !h.failInstall
	case 16:
		if h.saved != nil {
			n.restart(h)
		}
	case 17:
		h.noResolve = !h.noResolve
		n.step(h, Acquire{peer})
	case 18: // answers that nobody waits for
		n.step(h, Installed{Ref: Ref{SA: 1, N: uint64(argument)}})
		for _, spi := range h.e.LocalSPIs() {
			n.step(h, SPIAllocated{Ref: Ref{SA: spi, N: uint64(argument)}, SPI: 0xd0000000 + uint32(argument)})
			n.step(h, Claimed{SA: spi, Adopted: argument&1 != 0})
		}
	case 19:
		n.step(h, Datagram{Local: ipPort(h.addr), Remote: ipPort(addrA), Data: script})
	}
	return script
}

// FuzzRestore gives the core state files that it did not write: an error or an
// endpoint that works, but no panic and no deadline that stays in the past.
func FuzzRestore(f *testing.F) {
	f.Fuzz(func(t *testing.T, state []byte) {
		n := newNetwork(t, 1, nil)
		for _, h := range n.hosts {
			peer := h.cfg.Peers[0].Name
			e := New(h.cfg)
			if e.Restore(peer, state) != nil {
				continue
			}
			h.e = e
			n.drop = func(Send) bool { return true }
			present := map[ChildID]bool{}
			for _, s := range e.Status() {
				for _, c := range s.Children {
					present[c.Child.InID()], present[c.Child.OutID()] = true, true
				}
			}
			now := n.now
			for _, ev := range []Event{Recovered{Present: present}, RekeyChild{peer}, RekeyIKE{peer}, Tick{}, Close{peer}} {
				e.Step(now, ev)
				for range 50 {
					at := e.NextDeadline()
					if at.IsZero() || at.After(now.Add(time.Hour)) {
						break
					}
					if at.After(now) {
						now = at
					}
					e.Step(now, Tick{})
				}
				if at := e.NextDeadline(); !at.IsZero() && !at.After(now) {
					t.Fatalf("%T: a deadline that stays", ev)
				}
				if _, err := e.Snapshot(peer); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// FuzzClaim gives the core half-open IKE SAs of other tunnels, with the IKE_AUTH
// request to them: what is not accepted leaves nothing, and what is accepted is
// established or gone after half a minute.
func FuzzClaim(f *testing.F) {
	f.Fuzz(func(t *testing.T, sa []byte, first uint8, request []byte) {
		n := newNetwork(t, 2, nil)
		n.drop = func(Send) bool { return true }
		h := n.b()
		claim := Claim{
			Datagram: Datagram{Local: ipPort(addrB), Remote: ipPort(addrA)},
			SA:       sa, First: wire.PayloadType(first), Request: request,
		}
		accepts := h.e.Accepts(claim)
		n.step(h, Adopt{claim})
		if got := len(h.e.LocalSPIs()); got > 1 || got > 0 && !accepts {
			t.Fatalf("%d IKE SAs; accepted: %t", got, accepts)
		}
		n.run(halfOpenFor)
		for _, sa := range h.e.state.SAs {
			if !sa.authenticated() {
				t.Fatalf("half open for ever:\n%s", n.log())
			}
		}
	})
}
