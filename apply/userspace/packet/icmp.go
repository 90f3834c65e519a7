package packet

import "encoding/binary"

// How long an ICMP error gets with the packet that it quotes.
const (
	maxICMP   = 576  // RFC 1812, Section 4.3.2.3
	maxICMPv6 = 1280 // RFC 4443, Section 3.2

	icmpLen = 8 // ICMP's header
)

// minMTUv6 is what each IPv6 link can carry (RFC 8200, Section 5). A sender is not
// told less (RFC 8201, Section 4).
const minMTUv6 = 1280

// AppendTooBig appends to dst what tells the sender of b, which may not be
// fragmented, that it has to make its packets at most mtu octets long: ICMP
// "fragmentation needed" (RFC 1191, Section 4) or ICMPv6 "packet too big" (RFC
// 4443, Section 3.2). It comes from where b was to go, as if from behind the
// tunnel. b is the packet that h was parsed from.
//
// dst is returned as it is where no ICMP error may answer: an ICMP error, an IPv4
// fragment but the first, an address that is not one host's (RFC 1122, Section
// 3.2.2; RFC 4443, Section 2.4).
func AppendTooBig(dst, b []byte, h *Header, mtu int) []byte {
	if h.Offset > 0 && !h.IPv6 || isICMPError(h) || !isHost(h.Flow) {
		return dst
	}
	back := Flow{Src: h.Dst, Dst: h.Src, IPv6: h.IPv6, Protocol: protoICMP}
	headerLen, longest := IPv4Len, maxICMP
	if h.IPv6 {
		back.Protocol = protoICMPv6
		headerLen, longest = IPv6Len, maxICMPv6
	}
	quote := b[:min(h.Len, longest-headerLen-icmpLen)]

	const internetControl = 6 << 5 // precedence (RFC 1812, Section 4.3.2.5)
	start := len(dst)
	dst = append(dst, make([]byte, headerLen+icmpLen)...)
	dst = append(dst, quote...)
	answer := dst[start:]
	icmp := answer[headerLen:]
	if h.IPv6 {
		const packetTooBig = 2
		icmp[0] = packetTooBig
		binary.BigEndian.PutUint32(icmp[4:], uint32(max(mtu, minMTUv6)))
		PutHeader(answer, back, 0, len(icmp))
		binary.BigEndian.PutUint16(icmp[2:], PseudoHeader(answer[8:40], protoICMPv6, len(icmp)).Add(icmp).Checksum())
		return dst
	}
	const unreachable, fragmentationNeeded = 3, 4
	icmp[0], icmp[1] = unreachable, fragmentationNeeded
	binary.BigEndian.PutUint16(icmp[6:], uint16(min(max(mtu, minMTU), 0xffff)))
	binary.BigEndian.PutUint16(icmp[2:], Sum(0).Add(icmp).Checksum())
	PutHeader(answer, back, internetControl, len(icmp))
	return dst
}

// isICMPError takes an ICMP message for an error unless it is known not to be.
func isICMPError(h *Header) bool {
	switch {
	case h.Protocol == protoICMPv6 && h.IPv6:
		const redirect = 137
		return h.SrcPort < 128 || h.SrcPort == redirect
	case h.Protocol == protoICMP && !h.IPv6:
		switch h.SrcPort { // those that RFC 1122, Section 3.2.2, lists
		case 3, 4, 5, 11, 12:
			return true
		}
		return h.Len-h.Transport < icmpLen
	}
	return false
}

// isHost reports whether both addresses can be those of one host.
func isHost(f Flow) bool {
	src, dst := f.Source(), f.Destination()
	if src.IsUnspecified() || dst.IsUnspecified() || src.IsMulticast() || dst.IsMulticast() {
		return false
	}
	const reserved = 240 // class E, with the broadcast address
	return f.IPv6 || src.As4()[0] < reserved && dst.As4()[0] < reserved
}
