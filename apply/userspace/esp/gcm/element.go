//go:build amd64

package gcm

import "encoding/binary"

// An element of GF(2^128) as POLYVAL has it (RFC 8452, Section 3): bit i is the
// coefficient of x^i, modulo x^128 + x^127 + x^126 + x^121 + 1.
type element struct{ lo, hi uint64 }

// modulus is the upper half of the modulus without x^128; the lower half is 1.
const modulus = 0xc2 << 56

// elementOf reads a block of GHASH.
func elementOf(b *[blockLen]byte) element {
	return element{lo: binary.BigEndian.Uint64(b[8:]), hi: binary.BigEndian.Uint64(b[:])}
}

// timesX is e * x.
func (e element) timesX() element {
	carry := -(e.hi >> 63)
	return element{lo: e.lo<<1 ^ carry&1, hi: e.hi<<1 ^ e.lo>>63 ^ carry&modulus}
}

// times is e * f * x^-128, as POLYVAL multiplies (RFC 8452, Section 3).
func (e element) times(f element) element {
	x1, x0 := multiply(e.lo, f.lo)
	x3, x2 := multiply(e.hi, f.hi)
	a1, a0 := multiply(e.lo, f.hi)
	b1, b0 := multiply(e.hi, f.lo)
	x1, x2 = x1^a0^b0, x2^a1^b1
	// What is below x^128 is made 0, 64 bits at a time, by adding multiples of the
	// modulus: that leaves the product divided by x^128.
	a1, a0 = multiply(x0, modulus)
	b1, b0 = x0^a1, x1^a0
	a1, a0 = multiply(b0, modulus)
	return element{lo: x2 ^ b1 ^ a0, hi: x3 ^ b0 ^ a1}
}

// multiply multiplies polynomials, in the same time whatever they are.
func multiply(a, b uint64) (hi, lo uint64) {
	for i := range 64 {
		bit := -(b >> i & 1)
		lo ^= a << i & bit
		hi ^= a >> (64 - i) & bit
	}
	return hi, lo
}
