package packet

import (
	"encoding/binary"
	"errors"
)

// ErrMalformed: not an IPv4 or IPv6 packet, or one that is shorter than its
// headers say.
var ErrMalformed = errors.New("malformed IP packet")

// Lengths of the IP headers without options and extension headers.
const (
	IPv4Len = 20
	IPv6Len = 40
)

// Protocol numbers.
const (
	protoHopByHop    = 0
	protoICMP        = 1
	protoTCP         = 6
	protoUDP         = 17
	protoDCCP        = 33
	protoRouting     = 43
	protoFragment    = 44
	protoICMPv6      = 58
	protoDestOptions = 60
	protoSCTP        = 132
	protoMobility    = 135
	protoUDPLite     = 136
)

// Flags of an IPv4 header, and what it shares with the IPv6 fragment header.
const (
	flagDF     = 0x4000
	flagMF     = 0x2000
	offsetMask = 0x1fff // in units of 8 octets
)

// maxExtensions is how many extension headers an IPv6 packet may have: one of
// each kind that there is, and destination options twice (RFC 8200, Section 4.1),
// is five.
const maxExtensions = 8

// A Header is what Parse has found in a packet.
type Header struct {
	Flow
	Len       int   // octets of the packet; behind it there may be padding
	HeaderLen int   // octets of the IPv4 header with its options; 40 for IPv6
	Transport int   // offset of what Protocol names, at most Len
	TOS       uint8 // TOS or traffic class: DSCP and ECN
	DF        bool  // no router may fragment it: always with IPv6

	// Of a fragment.
	Offset int    // of its data in the datagram, in octets
	More   bool   // it is not the last
	ID     uint32 // of the datagram
}

// IsFragment tells a fragment from a whole datagram.
func (h *Header) IsFragment() bool { return h.More || h.Offset > 0 }

// Parse reads the headers up to the ports. It looks at no checksum: the kernel
// does when it gets the packet. The error is ErrMalformed.
func Parse(b []byte) (Header, error) {
	if len(b) >= IPv4Len && b[0]>>4 == 4 {
		return parseIPv4(b)
	}
	if len(b) >= IPv6Len && b[0]>>4 == 6 {
		return parseIPv6(b)
	}
	return Header{}, ErrMalformed
}

func parseIPv4(b []byte) (Header, error) {
	h := Header{
		HeaderLen: int(b[0]&15) * 4,
		TOS:       b[1],
		Len:       int(binary.BigEndian.Uint16(b[2:])),
	}
	if h.HeaderLen < IPv4Len || h.Len < h.HeaderLen || h.Len > len(b) {
		return Header{}, ErrMalformed
	}
	fragment := binary.BigEndian.Uint16(b[6:])
	h.DF = fragment&flagDF != 0
	h.More = fragment&flagMF != 0
	h.Offset = int(fragment&offsetMask) * 8
	if h.IsFragment() {
		h.ID = uint32(binary.BigEndian.Uint16(b[4:]))
	}
	if h.Offset+h.Len > 0xffff {
		return Header{}, ErrMalformed // it would reach beyond the largest datagram
	}
	h.Transport = h.HeaderLen
	h.Protocol = b[9]
	copy(h.Src[:4], b[12:16])
	copy(h.Dst[:4], b[16:20])
	h.setPorts(b)
	return h, nil
}

func parseIPv6(b []byte) (Header, error) {
	h := Header{
		HeaderLen: IPv6Len,
		TOS:       b[0]<<4 | b[1]>>4,
		Len:       IPv6Len + int(binary.BigEndian.Uint16(b[4:])),
		DF:        true,
	}
	if h.Len > len(b) {
		return Header{}, ErrMalformed
	}
	h.IPv6 = true
	copy(h.Src[:], b[8:24])
	copy(h.Dst[:], b[24:40])
	next, at := b[6], IPv6Len
	for range maxExtensions + 1 {
		switch next {
		case protoHopByHop, protoRouting, protoDestOptions:
			if at+8 > h.Len {
				return Header{}, ErrMalformed
			}
			next, at = b[at], at+8+int(b[at+1])*8
			if at > h.Len {
				return Header{}, ErrMalformed
			}
			continue
		case protoFragment:
			if at+8 > h.Len || h.IsFragment() {
				return Header{}, ErrMalformed
			}
			fragment, id := binary.BigEndian.Uint16(b[at+2:]), binary.BigEndian.Uint32(b[at+4:])
			next, at = b[at], at+8
			h.Offset, h.More = int(fragment&^7), fragment&1 != 0
			if h.IsFragment() {
				h.ID = id
			}
			if h.Offset+h.Len-at > 0xffff {
				return Header{}, ErrMalformed
			}
			if h.Offset == 0 {
				continue
			}
		}
		h.Protocol, h.Transport = next, at
		h.setPorts(b)
		return h, nil
	}
	return Header{}, ErrMalformed
}

// setPorts leaves zeros where there is nothing to be read.
func (h *Header) setPorts(b []byte) {
	if h.Offset > 0 {
		return
	}
	t := b[h.Transport:h.Len]
	switch h.Protocol {
	case protoTCP, protoUDP, protoDCCP, protoSCTP, protoUDPLite:
		if len(t) >= 4 {
			h.SrcPort, h.DstPort = binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])
		}
	case protoICMP, protoICMPv6:
		if len(t) >= 2 {
			h.SrcPort, h.DstPort = uint16(t[0]), uint16(t[1])
		}
	case protoMobility:
		if len(t) >= 3 {
			h.SrcPort = uint16(t[2])
		}
	}
}

// PutHeader writes an IP header, of IPv4Len or IPv6Len octets, which it returns:
// how a packet got here in transport mode is not known, how it goes on is. An
// IPv4 packet is not to be fragmented further (RFC 6864, Section 4.1).
func PutHeader(b []byte, f Flow, tos uint8, payload int) int {
	const hops = 64
	if f.IPv6 {
		b = b[:IPv6Len]
		binary.BigEndian.PutUint32(b, 6<<28|uint32(tos)<<20)
		binary.BigEndian.PutUint16(b[4:], uint16(payload))
		b[6], b[7] = f.Protocol, hops
		copy(b[8:24], f.Src[:])
		copy(b[24:40], f.Dst[:])
		return IPv6Len
	}
	b = b[:IPv4Len]
	b[0], b[1] = 0x45, tos
	binary.BigEndian.PutUint16(b[2:], uint16(IPv4Len+payload))
	binary.BigEndian.PutUint32(b[4:], flagDF) // identification zero
	b[8], b[9], b[10], b[11] = hops, f.Protocol, 0, 0
	copy(b[12:16], f.Src[:4])
	copy(b[16:20], f.Dst[:4])
	setIPv4Checksum(b)
	return IPv4Len
}

// setIPv4Checksum of a header, of the length that b has.
func setIPv4Checksum(b []byte) {
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], Sum(0).Add(b).Checksum())
}

// SetChecksum makes the transport's checksum right, after the addresses that are
// part of it changed: in transport mode a NAT has changed them under way (RFC
// 3948, Section 3.1.2). b is the packet that h was parsed from, and not a
// fragment. UDP over IPv4 without a checksum stays so.
func SetChecksum(b []byte, h *Header) {
	t := b[h.Transport:h.Len]
	var at int
	switch h.Protocol {
	case protoTCP:
		at = 16
	case protoUDP:
		at = 6
	case protoICMPv6:
		at = 2
	default:
		return
	}
	if h.IsFragment() || len(t) < at+2 {
		return
	}
	udp := h.Protocol == protoUDP
	if udp && !h.IPv6 && t[6]|t[7] == 0 {
		return
	}
	addresses := b[12:20]
	if h.IPv6 {
		addresses = b[8:40]
	}
	t[at], t[at+1] = 0, 0
	sum := PseudoHeader(addresses, h.Protocol, len(t)).Add(t).Checksum()
	if udp && sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(t[at:], sum)
}
