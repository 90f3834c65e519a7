package ike

import (
	"ipsec-quick/ike/wire"
)

// Bounds of a message in fragments. A whole message of 64 KiB is far above
// what IKE sends; 256 fragments are that message at 256 octets each. Who is not
// authenticated yet sends an IKE_AUTH request, which has some KiB even with a
// chain of certificates.
const (
	maxFragments          = 256
	maxReassembly         = 64 << 10
	maxReassemblyHalfOpen = 16 << 10
)

// plaintext is the inside of an SK payload.
type plaintext struct {
	first wire.PayloadType
	data  []byte
}

// reassembly collects the fragments of one message (RFC 7383, Section 2.6). Only
// authentic fragments get here.
type reassembly struct {
	id    uint32
	total uint16
	first wire.PayloadType
	parts map[uint16][]byte
	size  int
}

// decrypt opens the SK or SKF payload of a message. It returns nothing when the
// message is not authentic, and not whole while fragments of it are missing.
// When a request comes again only its first fragment counts as whole.
func (e *Endpoint) decrypt(sa *ikeSA, d Datagram, m *wire.Message) (inner *plaintext, whole bool) {
	c, err := sa.open()
	if err != nil {
		return nil, false
	}
	data, err := c.Open(d.Data, m)
	if err != nil {
		e.stats.BadIntegrity++
		return nil, false
	}
	switch p := m.Payloads[len(m.Payloads)-1].(type) {
	case wire.SK:
		return &plaintext{p.First, data}, true
	case wire.SKF:
		again := !m.Response && m.MessageID != sa.Recv.ExpectID
		if again {
			return &plaintext{p.First, data}, p.Number == 1
		}
		return sa.collect(m, p, data)
	}
	return nil, false
}

// collect adds a fragment and returns the message when it is whole.
func (sa *ikeSA) collect(m *wire.Message, p wire.SKF, data []byte) (inner *plaintext, whole bool) {
	slot := &sa.fragments.request
	if m.Response {
		slot = &sa.fragments.response
	}
	r := *slot
	// A larger total means that the peer found a smaller path MTU and starts
	// over; a smaller one is old.
	if r == nil || r.id != m.MessageID || p.Total > r.total {
		r = &reassembly{id: m.MessageID, total: p.Total, parts: map[uint16][]byte{}}
		*slot = r
	}
	limit := maxReassembly
	if !sa.authenticated() {
		limit = maxReassemblyHalfOpen
	}
	partial := &plaintext{}
	if p.Total != r.total || p.Total > maxFragments || r.parts[p.Number] != nil || r.size+len(data) > limit {
		return partial, false
	}
	r.parts[p.Number] = append([]byte{}, data...)
	r.size += len(data)
	if p.Number == 1 {
		r.first = p.First
	}
	if len(r.parts) < int(r.total) {
		return partial, false
	}
	*slot = nil
	joined := make([]byte, 0, r.size)
	for n := uint16(1); n <= r.total; n++ {
		joined = append(joined, r.parts[n]...)
	}
	return &plaintext{r.first, joined}, true
}
