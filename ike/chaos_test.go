package ike

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"
)

var seeds = flag.Int("seeds", 6, "how many seeds the chaos test plays")

// TestChaos plays rekeys of either side at random moments over a network that
// loses, duplicates and reorders. While the network is bad packets must still
// find their SAs; once it is kind again exactly one Child SA has to be left.
func TestChaos(t *testing.T) {
	for seed := range uint64(*seeds) {
		if !chaos(t, seed) {
			t.Fatalf("seed %d", seed)
		}
	}
}

func chaos(t *testing.T, seed uint64) bool {
	r := rand.New(rand.NewPCG(seed, 7))
	n := newNetwork(t, seed, func(a, b *Peer) {
		b.Start = StartNow
		a.IKESoft, a.IKEHard = 0, 0
		b.IKESoft, b.IKEHard = 0, 0
	})
	n.up()
	n.run(15 * time.Second) // both began: one IKE SA has to go
	n.mustFlow()
	n.flowing = true
	lost := map[string]int{} // no message is lost so often that its sender gives up
	n.drop = func(s Send) bool {
		switch p := r.IntN(100); {
		case p < 15 && lost[string(s.Data)] < 2:
			lost[string(s.Data)]++
			return true
		case p < 25:
			n.queue = append(n.queue, s) // again, later
		case p < 40 && len(n.queue) > 0:
			n.queue = append(n.queue, s)
			return true // later instead
		}
		return false
	}
	for range 40 {
		h := n.hosts[r.IntN(2)]
		peer := h.cfg.Peers[0].Name
		switch r.IntN(6) {
		case 0:
			n.step(h, RekeyIKE{peer})
		case 1:
			n.step(n.a(), RekeyChild{"b"})
			n.step(n.b(), RekeyChild{"a"})
		case 2:
			n.step(n.a(), RekeyIKE{"b"})
			n.step(n.b(), RekeyIKE{"a"})
		case 3:
			n.step(n.a(), RekeyIKE{"b"})
			n.step(n.b(), RekeyChild{"a"})
		default:
			n.step(h, RekeyChild{peer})
		}
		n.run(time.Duration(r.IntN(3000)) * time.Millisecond)
	}
	n.drop = nil
	n.run(3 * time.Minute)
	ok := true
	for _, h := range n.hosts {
		if len(h.in) != 1 || len(h.out) != 1 || len(h.e.LocalSPIs()) != 1 {
			t.Errorf("%s: %d inbound and %d outbound SAs, %d IKE SAs", h.name, len(h.in), len(h.out), len(h.e.LocalSPIs()))
			ok = false
		}
	}
	if !ok {
		t.Log(n.log())
	}
	return ok
}
