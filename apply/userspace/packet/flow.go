package packet

import (
	"fmt"
	"net/netip"
)

// A Flow is what policies tell packets apart by (RFC 4301, Section 4.4.1.1), as
// the packet has it: source and destination, not local and remote. It may be the
// key of a map.
type Flow struct {
	Src, Dst [16]byte // an IPv4 address in the first four octets
	// Ports where the protocol has them, else zero. As with the kernel's policies
	// ICMP and the mobility header have their type in SrcPort, ICMP its code in
	// DstPort, and a fragment but the first has none.
	SrcPort, DstPort uint16
	Protocol         uint8 // in IPv6 that behind the extension headers
	IPv6             bool
}

// Source is the address that the packet is from.
func (f Flow) Source() netip.Addr { return f.addr(f.Src) }

// Destination is the address that the packet is for.
func (f Flow) Destination() netip.Addr { return f.addr(f.Dst) }

func (f Flow) addr(a [16]byte) netip.Addr {
	if f.IPv6 {
		return netip.AddrFrom16(a)
	}
	return netip.AddrFrom4([4]byte(a[:4]))
}

// String is "10.1.0.1:7 > 10.2.0.1:9 [17]".
func (f Flow) String() string {
	return fmt.Sprintf("%v > %v [%d]",
		netip.AddrPortFrom(f.Source(), f.SrcPort), netip.AddrPortFrom(f.Destination(), f.DstPort), f.Protocol)
}
