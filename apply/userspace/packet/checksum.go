package packet

import (
	"encoding/binary"
	"math/bits"
)

// Sum is an Internet checksum on its way (RFC 1071): the one's complement sum
// of 16-bit words. Words are added in the machine's byte order, eight octets at
// a time; Fold puts that right (RFC 1071, Section 2, (B) and (C)). The zero
// value is the empty sum.
//
// Pieces may be added in any order; all but the last must be of even length.
type Sum uint64

// Add returns the sum with b added. An odd octet at the end is padded with a
// zero.
func (s Sum) Add(b []byte) Sum {
	sum, b := addWide(uint64(s), b)
	other := uint64(0)
	var carry, carry2 uint64
	// This loop sees every octet of TCP. The CPU adds up its two chains of carries
	// at the same time.
	for len(b) >= 64 {
		sum, carry = bits.Add64(sum, binary.NativeEndian.Uint64(b), 0)
		sum, carry = bits.Add64(sum, binary.NativeEndian.Uint64(b[8:]), carry)
		sum, carry = bits.Add64(sum, binary.NativeEndian.Uint64(b[16:]), carry)
		sum, carry = bits.Add64(sum, binary.NativeEndian.Uint64(b[24:]), carry)
		sum += carry // no overflow: after a carry the sum is below 2^64-1
		other, carry2 = bits.Add64(other, binary.NativeEndian.Uint64(b[32:]), 0)
		other, carry2 = bits.Add64(other, binary.NativeEndian.Uint64(b[40:]), carry2)
		other, carry2 = bits.Add64(other, binary.NativeEndian.Uint64(b[48:]), carry2)
		other, carry2 = bits.Add64(other, binary.NativeEndian.Uint64(b[56:]), carry2)
		other += carry2
		b = b[64:]
	}
	sum, carry = bits.Add64(sum, other, 0)
	sum += carry
	for len(b) >= 8 {
		sum, carry = bits.Add64(sum, binary.NativeEndian.Uint64(b), 0)
		sum += carry
		b = b[8:]
	}
	if len(b) > 0 {
		var last [8]byte
		copy(last[:], b)
		sum, carry = bits.Add64(sum, binary.NativeEndian.Uint64(last[:]), 0)
		sum += carry
	}
	return Sum(sum)
}

// AddUint16 returns the sum with one word added, as it stands in a header.
func (s Sum) AddUint16(v uint16) Sum {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return s.add(uint64(binary.NativeEndian.Uint16(b[:])))
}

// AddUint32 returns the sum with two words added.
func (s Sum) AddUint32(v uint32) Sum {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], v)
	return s.add(uint64(binary.NativeEndian.Uint32(b[:])))
}

func (s Sum) add(v uint64) Sum {
	sum, carry := bits.Add64(uint64(s), v, 0)
	return Sum(sum + carry)
}

// Fold is the sum in 16 bits, as a pseudo-header's stands in a header whose
// checksum someone else completes. Over data that includes a right checksum it
// is 0xffff.
func (s Sum) Fold() uint16 {
	sum := uint64(s)
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], uint16(sum))
	return binary.BigEndian.Uint16(b[:])
}

// Checksum is the sum's complement, what a header's checksum field holds.
func (s Sum) Checksum() uint16 { return ^s.Fold() }

// PseudoHeader is the sum of the pseudo-header of TCP and UDP over IPv4 and
// IPv6 (RFC 9293, Section 3.1; RFC 8200, Section 8.1). The addresses are those
// in the IP header, source and destination in one piece.
func PseudoHeader(addresses []byte, protocol uint8, length int) Sum {
	return Sum(0).Add(addresses).AddUint16(uint16(protocol)).AddUint32(uint32(length))
}
