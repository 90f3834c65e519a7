package packet

import "encoding/binary"

// ECN in the lower two bits of TOS and traffic class (RFC 3168, Section 5).
const (
	ecnMask = 3
	notECT  = 0
	ect1    = 1
	ect0    = 2
	ce      = 3
)

// SetTOS changes the TOS of an IPv4 header, with its checksum, or the traffic
// class of an IPv6 header.
func SetTOS(b []byte, tos uint8) {
	before := binary.BigEndian.Uint16(b)
	if b[0]>>4 == 6 {
		binary.BigEndian.PutUint16(b, before&0xf00f|uint16(tos)<<4)
		return
	}
	after := before&0xff00 | uint16(tos)
	b[1] = tos
	// RFC 1624, Section 3.
	sum := Sum(0).AddUint16(^binary.BigEndian.Uint16(b[10:])).AddUint16(^before).AddUint16(after)
	binary.BigEndian.PutUint16(b[10:], sum.Checksum())
}

// DecapsulateTOS is the TOS of a packet that leaves the tunnel, from that of the
// outer and its own: its DSCP, and the ECN that RFC 6040, Section 4.2, says (in
// the way in, the outer header has a copy of both). With ok false the packet is
// to be dropped: a router meant it to tell of congestion, and nobody would hear.
func DecapsulateTOS(outer, inner uint8) (tos uint8, ok bool) {
	switch outer & ecnMask {
	case ce:
		return inner | ce, inner&ecnMask != notECT
	case ect1:
		if inner&ecnMask == ect0 {
			return inner&^ecnMask | ect1, true
		}
	}
	return inner, true
}
