package ike

import (
	"crypto/sha1"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"ipsec-quick/ike/wire"
)

// NAT traversal (RFC 7296, Section 2.23).

// natKeepalive is how long a mapping may be silent (RFC 3948, Section 4).
const natKeepalive = 20 * time.Second

// natHash is the hash of an end that the NAT detection notifications carry.
// That it is SHA-1 does no harm: it protects nothing.
func natHash(spii, spir wire.SPI, a netip.AddrPort) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(spii))
	b = binary.BigEndian.AppendUint64(b, uint64(spir))
	b = append(b, a.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, a.Port())
	sum := sha1.Sum(b)
	return sum[:]
}

// detectNAT compares the peer's hashes with what we see. A peer that sends none
// does not do NAT traversal.
func (sa *ikeSA) detectNAT(ps payloads) {
	destination := ps.notify(wire.NotifyNATDetectionDestinationIP)
	if destination == nil {
		return
	}
	// In a request the responder's SPI is still zero, as it was when the
	// request's hashes were made.
	spir := sa.SPIr
	if !sa.Original {
		spir = 0
	}
	sa.NATHere = !slices.Equal(destination.Data, natHash(sa.SPIi, spir, sa.Local))
	sa.NATThere = true
	source := natHash(sa.SPIi, spir, sa.Remote)
	for _, p := range ps {
		if n, ok := p.(wire.Notify); ok && n.Kind == wire.NotifyNATDetectionSourceIP && slices.Equal(n.Data, source) {
			sa.NATThere = false // a host of several addresses sends one for each
		}
	}
}

// float moves the IKE SA to the ports for NAT traversal.
func (sa *ikeSA) float(natPort uint16) {
	sa.NATT = true
	sa.Local = netip.AddrPortFrom(sa.Local.Addr(), natPort)
	if sa.Remote.Port() == 500 {
		sa.Remote = netip.AddrPortFrom(sa.Remote.Addr(), 4500)
	}
}

// mapping takes a new address that the data plane saw ESP come from.
func (e *Endpoint) mapping(ev Mapping) {
	sa, c := e.childByID(ev.Child)
	if c == nil || !sa.NATThere || sa.NATHere || sa.Remote == ev.Remote {
		return
	}
	e.move(sa, ev.Remote)
}
