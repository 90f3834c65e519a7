package packet

import (
	"math/rand/v2"
	"testing"
)

// slowSum is RFC 1071, Section 4.1, as it stands there.
func slowSum(b []byte) uint16 {
	sum := uint32(0)
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) > 0 {
		sum += uint32(b[0]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

func TestSumOfAllLengths(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for n := range 1600 {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		if got, want := Sum(0).Add(b).Fold(), slowSum(b); got != want {
			t.Errorf("%d octets: %#04x, want %#04x", n, got, want)
		}
	}
}

func TestSumCarries(t *testing.T) {
	ones := make([]byte, 1500)
	for i := range ones {
		ones[i] = 0xff
	}
	for _, start := range []Sum{0, 1, 1<<64 - 1, 1<<64 - 2} {
		if got := start.Add(ones).Fold(); got != start.Fold() && got != 0xffff {
			t.Errorf("from %#x: %#04x", uint64(start), got)
		}
	}
}

func TestSumOfPieces(t *testing.T) {
	b := []byte{0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde}
	want := slowSum(b)
	if got := Sum(0).Add(b[:4]).Add(b[4:]).Fold(); got != want {
		t.Errorf("in pieces: %#04x, want %#04x", got, want)
	}
	if got := Sum(0).AddUint32(0x12345678).AddUint16(0x9abc).AddUint16(0xde00).Fold(); got != want {
		t.Errorf("in words: %#04x, want %#04x", got, want)
	}
}

// The example of RFC 1071, Section 3.
func TestSumExample(t *testing.T) {
	b := []byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}
	if got := Sum(0).Add(b).Fold(); got != 0xddf2 {
		t.Errorf("%#04x, want 0xddf2", got)
	}
	if got := Sum(0).Add(b).Checksum(); got != 0x220d {
		t.Errorf("complement %#04x, want 0x220d", got)
	}
}

func FuzzSum(f *testing.F) {
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if len(a)&1 != 0 {
			a = a[1:]
		}
		if got, want := Sum(0).Add(a).Add(b).Fold(), slowSum(append(a[:len(a):len(a)], b...)); got != want {
			t.Fatalf("%#04x, want %#04x", got, want)
		}
	})
}

func BenchmarkSum(b *testing.B) {
	data := make([]byte, 1400)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	sum := Sum(0)
	for b.Loop() {
		sum = sum.Add(data)
	}
	_ = sum
}
