package ike

import (
	"slices"
	"testing"

	"ipsec-quick/ike/wire"
)

// A selector without addresses stands for the end's own address, with the
// protocol and ports that it names.
func TestDynamicSelectors(t *testing.T) {
	dns := []wire.Selector{{Protocol: 17, FromPort: 53, ToPort: 53}}
	n := newNetwork(t, 1, func(a, b *Peer) {
		a.LocalTS, a.RemoteTS = nil, dns
		b.LocalTS, b.RemoteTS = dns, nil
	})
	n.up()
	n.mustFlow()
	c := n.a().active
	if want := []wire.Selector{hostSelector(addrA)}; len(c.LocalTS) != 1 || c.LocalTS[0].From != want[0].From || c.LocalTS[0].To != want[0].To {
		t.Errorf("local selectors %v, not %v", c.LocalTS, want)
	}
	want := []wire.Selector{{Protocol: 17, FromPort: 53, ToPort: 53, From: addrB, To: addrB}}
	if !slices.Equal(c.RemoteTS, want) {
		t.Errorf("remote selectors %v, not %v", c.RemoteTS, want)
	}
	if dns[0].From.IsValid() {
		t.Error("the configuration was changed")
	}
}
