package packet

import (
	"math/bits"

	"golang.org/x/sys/cpu"
)

// leastWide is from where on it is worth while, in octets.
const leastWide = 64

var wide = cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasBMI2

// addWide adds b by AVX-512, and returns the rest: nothing, or all of it.
func addWide(sum uint64, b []byte) (uint64, []byte) {
	if len(b) < leastWide || !wide {
		return sum, b
	}
	sum, carry := bits.Add64(sum, sumWords(&b[0], len(b)), 0)
	return sum + carry, nil
}

// sumWords is the sum of the words of 32 bits in n octets, the last one padded with
// zeros. n is below 2^32.
//
//go:noescape
func sumWords(b *byte, n int) uint64
