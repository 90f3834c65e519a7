package ike

import (
	"testing"
	"time"
)

func TestHandshake(t *testing.T) {
	n := newNetwork(t, 1, func(a, b *Peer) { a.DPD, b.DPD = 10*time.Minute, 10*time.Minute })
	n.up()
	n.mustFlow()
	n.run(3 * time.Hour)
	n.mustFlow()
	for _, h := range n.hosts {
		if len(h.in) != 1 || len(h.out) != 1 {
			t.Errorf("%s: %d inbound and %d outbound SAs", h.name, len(h.in), len(h.out))
		}
		s := h.e.Status()[0]
		if s.Rekeys.Child < 3 || s.Expires.Hard != 0 || s.State != "established" {
			t.Errorf("%s: %+v", h.name, s)
		}
	}
	n.run(20 * time.Hour)
	n.mustFlow()
	if got := n.a().e.Status()[0].Rekeys.IKE; got < 4 {
		t.Errorf("%d rekeys of the IKE SA", got)
	}
	n.step(n.a(), Close{Peer: "b"})
	n.run(10 * time.Second)
	for _, h := range n.hosts {
		if len(h.in)+len(h.out) != 0 || h.active != nil || len(h.e.LocalSPIs()) != 0 {
			t.Errorf("%s: not all is gone after Close\n%s", h.name, n.log())
		}
	}
	if _, ok := said[Closed](n.a()); !ok {
		t.Error("no Closed")
	}
}
