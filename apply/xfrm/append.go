package xfrm

import (
	"encoding/binary"
	"net/netip"
)

// message is the body of a request under construction: a fixed structure and
// attributes. This file and reader.go know about byte order and padding.
type message struct{ b []byte }

// newMessage has room enough for any request, so that append moves no keys.
func newMessage() *message { return &message{b: make([]byte, 0, typicalSAMessage)} }

// wipe overwrites all that was ever written.
func (m *message) wipe() { clear(m.b[:cap(m.b)]) }

func (m *message) u8(v uint8)     { m.b = append(m.b, v) }
func (m *message) u16(v uint16)   { m.b = binary.NativeEndian.AppendUint16(m.b, v) }
func (m *message) u32(v uint32)   { m.b = binary.NativeEndian.AppendUint32(m.b, v) }
func (m *message) u64(v uint64)   { m.b = binary.NativeEndian.AppendUint64(m.b, v) }
func (m *message) be16(v uint16)  { m.b = binary.BigEndian.AppendUint16(m.b, v) }
func (m *message) be32(v uint32)  { m.b = binary.BigEndian.AppendUint32(m.b, v) }
func (m *message) bytes(v []byte) { m.b = append(m.b, v...) }
func (m *message) pad(n int)      { m.b = append(m.b, make([]byte, n)...) }

// addr is an xfrm_address_t: 16 octets, an IPv4 address in the first four.
func (m *message) addr(a netip.Addr) {
	switch {
	case a.Is4():
		v := a.As4()
		m.bytes(v[:])
		m.pad(12)
	case a.IsValid():
		v := a.As16()
		m.bytes(v[:])
	default:
		m.pad(16)
	}
}

// name is an algorithm's name, padded with zeros.
func (m *message) name(s string) {
	m.b = append(m.b, s...)
	m.pad(algNameLen - len(s))
}

// attr appends an attribute whose value fill appends.
func (m *message) attr(kind uint16, fill func()) {
	start := len(m.b)
	m.u16(0)
	m.u16(kind)
	fill()
	binary.NativeEndian.PutUint16(m.b[start:], uint16(len(m.b)-start))
	m.pad(-len(m.b) & 3)
}

func (m *message) attrU8(kind uint16, v uint8)     { m.attr(kind, func() { m.u8(v) }) }
func (m *message) attrU32(kind uint16, v uint32)   { m.attr(kind, func() { m.u32(v) }) }
func (m *message) attrBytes(kind uint16, v []byte) { m.attr(kind, func() { m.bytes(v) }) }
