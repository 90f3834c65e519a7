package packet

import (
	"math/bits"

	"golang.org/x/sys/cpu"
)

// leastWide is from where on it is worth while, in octets.
const leastWide = 256

// addWide adds what of b it can by AVX-512, and returns the rest.
func addWide(sum uint64, b []byte) (uint64, []byte) {
	if len(b) < leastWide || !cpu.X86.HasAVX512F {
		return sum, b
	}
	n := len(b) &^ 63
	sum, carry := bits.Add64(sum, sumWords(&b[0], n), 0)
	return sum + carry, b[n:]
}

// sumWords is the sum of the words of 32 bits in n octets, a multiple of 64 above 0
// and below 2^32.
//
//go:noescape
func sumWords(b *byte, n int) uint64
