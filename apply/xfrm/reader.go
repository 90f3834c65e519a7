package xfrm

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// errShort: a message of the kernel ends before its structure does.
var errShort = errors.New("short netlink message")

// reader consumes a message; after an error it yields zeros.
type reader struct {
	b   []byte
	err error
}

// take returns the next n octets, or nil.
func (r *reader) take(n int) []byte {
	if r.err != nil || n < 0 || n > len(r.b) {
		r.err = errShort
		r.b = nil
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) skip(n int) { r.take(n) }

func (r *reader) u8() uint8 {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.NativeEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.NativeEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.NativeEndian.Uint64(b)
	}
	return 0
}

func (r *reader) be16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) be32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// addr16 is an xfrm_address_t whose family stands elsewhere: see address.
func (r *reader) addr16() [16]byte {
	var a [16]byte
	copy(a[:], r.take(len(a)))
	return a
}

// sub is a reader of the next n octets, for structures with padding at their
// end or members that do not matter.
func (r *reader) sub(n int) *reader {
	b := r.take(n)
	return &reader{b: b, err: r.err}
}

// attrs calls visit for each attribute of the rest. A malformed one ends it
// with an error.
func (r *reader) attrs(visit func(kind uint16, value []byte)) error {
	const header = 4
	for r.err == nil && len(r.b) >= header {
		n := int(r.u16())
		kind := r.u16() &^ 0xc000 // NLA_F_NESTED, NLA_F_NET_BYTEORDER
		v := r.take(n - header)
		if r.err != nil {
			break
		}
		visit(kind, v)
		r.skip(min(-n&3, len(r.b)))
	}
	return r.err
}

// address makes an address of an xfrm_address_t.
func address(family uint16, a [16]byte) netip.Addr {
	switch family {
	case familyIPv4:
		return netip.AddrFrom4([4]byte(a[:4]))
	case familyIPv6:
		return netip.AddrFrom16(a)
	}
	return netip.Addr{}
}

// prefix makes a prefix; the zero Prefix if the length does not fit.
func prefix(family uint16, a [16]byte, bits uint8) netip.Prefix {
	return netip.PrefixFrom(address(family, a), int(bits))
}
