package wire

import (
	"encoding/binary"
	"net/netip"
)

// reader takes fields off the front of a run of octets. The first error
// sticks: from then on every read returns zero and more reports false, so a
// parser reads a whole structure and looks at the error once.
//
// This file and append.go are the only ones that index into octets.
type reader struct {
	data    []byte      // what is left
	offset  int         // where data starts in what is parsed
	payload PayloadType // the payload it is in, for the error
	fault   *fault
}

// fault holds the first error of a reader and of all readers split from it.
type fault struct{ err *Error }

func newReader(data []byte) *reader { return &reader{data: data, fault: &fault{}} }

// err returns the error that stuck, as an error that is nil if there is none.
func (r *reader) err() error {
	if r.fault.err == nil {
		return nil
	}
	return r.fault.err
}

// fail makes an error of the given kind stick, unless one already does.
func (r *reader) fail(kind ErrorKind) {
	if r.fault.err == nil {
		r.fault.err = &Error{Kind: kind, Payload: r.payload, Offset: r.offset}
	}
}

// require makes an error of the given kind stick if the condition does not hold.
func (r *reader) require(ok bool, kind ErrorKind) {
	if !ok {
		r.fail(kind)
	}
}

// ok reports whether no error stuck.
func (r *reader) ok() bool { return r.fault.err == nil }

// more reports whether there is something left to read.
func (r *reader) more() bool { return r.ok() && len(r.data) > 0 }

// len returns how many octets are left.
func (r *reader) len() int { return len(r.data) }

// end makes TrailingBytes stick if something is left.
func (r *reader) end() { r.require(len(r.data) == 0, TrailingBytes) }

// take returns the next n octets; nil for none, and if there are not as many.
func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.data) {
		r.fail(Truncated)
	}
	if n == 0 || !r.ok() {
		return nil
	}
	b := r.data[:n:n] // capped: an append to a field must not write into the next one
	r.data = r.data[n:]
	r.offset += n
	return b
}

// rest returns all that is left, nil for none.
func (r *reader) rest() []byte { return r.take(len(r.data)) }

// sub splits off a reader of the next n octets. An error of either is one of both.
func (r *reader) sub(n int) *reader {
	s := &reader{offset: r.offset, payload: r.payload, fault: r.fault}
	s.data = r.take(n)
	return s
}

func (r *reader) u8() uint8 {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// reserved skips n octets that "MUST be ignored on receipt".
func (r *reader) reserved(n int) { r.take(n) }

func (r *reader) ipv4() netip.Addr {
	a, _ := netip.AddrFromSlice(r.take(4))
	return a
}

func (r *reader) ipv6() netip.Addr {
	a, _ := netip.AddrFromSlice(r.take(16))
	return a
}
