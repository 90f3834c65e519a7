package packet

import "encoding/binary"

// Quoted is the flow of the packet that an ICMP error answers, turned round: as
// a packet of that flow's answers would have it. It is false if h, which was
// parsed from b, is no ICMP error, quotes too little, or goes to another host than
// the one that sent what it quotes.
func Quoted(b []byte, h *Header) (Flow, bool) {
	if h.Offset > 0 || !isICMPError(h) || h.Len-h.Transport < icmpLen {
		return Flow{}, false
	}
	// The quote is cut off; what its header says of its length is made true.
	var quote [128]byte
	q := quote[:copy(quote[:], b[h.Transport+icmpLen:h.Len])]
	switch {
	case len(q) >= IPv4Len && q[0]>>4 == 4:
		binary.BigEndian.PutUint16(q[2:], uint16(min(len(q), int(binary.BigEndian.Uint16(q[2:])))))
	case len(q) >= IPv6Len && q[0]>>4 == 6:
		binary.BigEndian.PutUint16(q[4:], uint16(min(len(q)-IPv6Len, int(binary.BigEndian.Uint16(q[4:])))))
	}
	inner, err := Parse(q)
	if err != nil || inner.IPv6 != h.IPv6 || inner.Src != h.Dst {
		return Flow{}, false
	}
	f := inner.Flow
	f.Src, f.Dst = f.Dst, f.Src
	switch f.Protocol {
	case protoICMP, protoICMPv6, protoMobility: // type and code
	default:
		f.SrcPort, f.DstPort = f.DstPort, f.SrcPort
	}
	return f, true
}
