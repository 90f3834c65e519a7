package userspace

import "ipsec-quick/apply/userspace/packet"

// fragments remembers of which ports a datagram is that comes in fragments: only
// the first of them says so, and policies may ask (RFC 4301, Section 7). The
// kernel's data plane sees datagrams before they are fragmented and after they are
// put together.
//
// A fragment that comes before the first has no ports, and neither has one whose
// first was forgotten for another. The zero value is empty.
type fragments [64]struct {
	flow packet.Flow
	id   uint32
}

// flow is the flow of a packet, with the ports of its datagram.
func (f *fragments) flow(h *packet.Header) packet.Flow {
	if !h.IsFragment() {
		return h.Flow
	}
	e := &f[h.ID%uint32(len(f))]
	if h.Offset == 0 {
		e.flow, e.id = h.Flow, h.ID
		return h.Flow
	}
	first := e.flow
	first.SrcPort, first.DstPort = 0, 0
	if e.id == h.ID && first == h.Flow {
		return e.flow
	}
	return h.Flow
}
