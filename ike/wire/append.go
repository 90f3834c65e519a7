package wire

import (
	"encoding/binary"
	"math"
	"net/netip"
)

// Structures of variable length are appended with a length of zero that is
// set when their end is known. This file and reader.go are the only ones that
// index into octets.

func append16(b []byte, v uint16) []byte { return binary.BigEndian.AppendUint16(b, v) }
func append32(b []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(b, v) }
func append64(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

// appendReserved appends n zero octets, as RESERVED fields MUST be sent.
func appendReserved(b []byte, n int) []byte {
	for range n {
		b = append(b, 0)
	}
	return b
}

// appendAddr appends the four or sixteen octets of an address.
func appendAddr(b []byte, a netip.Addr) []byte { return append(b, a.AsSlice()...) }

// appendCount appends a number of elements or octets that has a one-octet field.
func appendCount(b []byte, n int) []byte { return append(b, uint8(fit(n, math.MaxUint8))) }

// setLength16 sets the 16-bit length field in octets 2 and 3 of the structure
// that starts at start and goes to the end of b: where the generic payload
// header, a proposal, a transform, a selector and an attribute have theirs.
func setLength16(b []byte, start, length int) {
	binary.BigEndian.PutUint16(b[start+2:], uint16(fit(length, math.MaxUint16)))
}

// setLength32 sets the length field of the message that starts at start.
func setLength32(b []byte, start, length int) {
	binary.BigEndian.PutUint32(b[start+24:], uint32(fit(length, MaxMessage)))
}

// fit returns n, or zero if n is over the limit. Its low bits instead would
// make payloads out of the data of one.
func fit(n, limit int) int {
	if n > limit {
		return 0
	}
	return n
}

// AppendPayloads appends a chain of payloads: what a message has after its
// header, or what goes into an SK.
func AppendPayloads(b []byte, ps []Payload) []byte {
	for i, p := range ps {
		b = appendPayload(b, p, FirstType(ps[i+1:]))
	}
	return b
}

// appendPayload appends one payload that one of type next follows.
func appendPayload(b []byte, p Payload, next PayloadType) []byte {
	start := len(b)
	var flags uint8
	switch p := p.(type) {
	case SK:
		next = p.First
	case SKF:
		next = p.First
	case Unknown:
		if p.Critical {
			flags = criticalBit
		}
	}
	b = append(b, uint8(next), flags)
	b = append16(b, 0)
	b = p.appendBody(b)
	setLength16(b, start, len(b)-start)
	return b
}

// FirstType returns the type of the first payload, NoNextPayload if there is none.
func FirstType(ps []Payload) PayloadType {
	if len(ps) == 0 {
		return NoNextPayload
	}
	return ps[0].Type()
}
