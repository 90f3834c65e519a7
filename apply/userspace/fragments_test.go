package userspace

import (
	"testing"

	"ipsec-quick/apply/userspace/packet"
)

func TestFragmentsHaveTheirPorts(t *testing.T) {
	bare := leaves
	bare.SrcPort, bare.DstPort = 0, 0
	other := bare
	other.Src[3]++
	first := packet.Header{Flow: leaves, ID: 7, More: true}
	var f fragments
	for _, c := range []struct {
		name string
		h    packet.Header
		want packet.Flow
	}{
		{"before the first", packet.Header{Flow: bare, ID: 7, Offset: 1480}, bare},
		{"the first", first, leaves},
		{"a later one", packet.Header{Flow: bare, ID: 7, Offset: 1480, More: true}, leaves},
		{"another datagram's", packet.Header{Flow: bare, ID: 8, Offset: 1480}, bare},
		{"another datagram's, in the same place", packet.Header{Flow: bare, ID: 7 + uint32(len(f)), Offset: 1480}, bare},
		{"another host's", packet.Header{Flow: other, ID: 7, Offset: 1480}, other},
		{"a whole one", packet.Header{Flow: enters}, enters},
		{"the last", packet.Header{Flow: bare, ID: 7, Offset: 2960}, leaves},
		{"another first, in the same place", packet.Header{Flow: enters, ID: 7 + uint32(len(f)), More: true}, enters},
		{"a forgotten one's", packet.Header{Flow: bare, ID: 7, Offset: 1480}, bare},
	} {
		if got := f.flow(&c.h); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
