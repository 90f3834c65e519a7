//go:build amd64

package gcm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"math/rand/v2"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func random(r *rand.ChaCha8, n int) []byte {
	b := make([]byte, n)
	_, _ = r.Read(b)
	return b
}

func supported(t testing.TB) {
	t.Helper()
	if !Supported() {
		t.Skip("this CPU has no VAES, VPCLMULQDQ or AVX-512")
	}
}

func both(t testing.TB, key []byte) (ours, theirs cipher.AEAD) {
	t.Helper()
	ours, err := New(key)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err = cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

// compare seals with one and opens with the other, both ways, in place and not.
func compare(t *testing.T, key, nonce, text, aad []byte) {
	t.Helper()
	ours, theirs := both(t, key)
	want := theirs.Seal(nil, nonce, text, aad)
	got := ours.Seal([]byte("before"), nonce, text, aad)
	if !bytes.Equal(got[6:], want) || string(got[:6]) != "before" {
		t.Fatalf("%d octets, %d of additional data, key of %d: sealed\n%x, not\n%x", len(text), len(aad), len(key), got[6:], want)
	}
	if fresh := ours.Seal(nil, nonce, text, aad); !bytes.Equal(fresh, want) {
		t.Fatal("into nothing: not the same")
	}
	inPlace := append(append(make([]byte, 0, len(want)+1), text...), 0xa5)
	sealed := ours.Seal(inPlace[:0], nonce, inPlace[:len(text)], aad)
	if !bytes.Equal(sealed, want) {
		t.Fatal("in place: not the same")
	}
	plain, err := ours.Open(sealed[:0], nonce, sealed, aad)
	if err != nil || !bytes.Equal(plain, text) {
		t.Fatalf("opened in place: %v", err)
	}
	if plain, err = ours.Open(nil, nonce, want, aad); err != nil || !bytes.Equal(plain, text) {
		t.Fatalf("opened: %v", err)
	}
}

// Every length up to three groups and the edges of longer ones, all keys.
func TestLengths(t *testing.T) {
	supported(t)
	r := rand.NewChaCha8([32]byte{1})
	for _, keyLen := range []int{16, 24, 32} {
		lengths := make([]int, 0, 3*16*16+8)
		for n := range 3*16*16 + 2 {
			lengths = append(lengths, n)
		}
		for _, n := range append(lengths, 9000, 65515) {
			compare(t, random(r, keyLen), random(r, nonceLen), random(r, n), random(r, n%(blockLen+1)))
		}
	}
}

// Nothing is written beside the text.
func TestStaysWithin(t *testing.T) {
	supported(t)
	r := rand.NewChaCha8([32]byte{2})
	ours, _ := both(t, random(r, 16))
	nonce := random(r, nonceLen)
	for n := range 600 {
		room := bytes.Repeat([]byte{0xa5}, n+tagLen+128)
		sealed := ours.Seal(room[64:64], nonce, random(r, n), nil)
		if len(sealed) != n+tagLen || &sealed[0] != &room[64] {
			t.Fatal("not where there was room")
		}
		for i, b := range room {
			if (i < 64 || i >= 64+n+tagLen) && b != 0xa5 {
				t.Fatalf("%d octets: written to %d", n, i-64)
			}
		}
	}
}

// Nor is anything read there: there is nothing.
func TestReadsWithin(t *testing.T) {
	supported(t)
	page := unix.Getpagesize()
	end := func() []byte {
		b, err := unix.Mmap(-1, 0, 3*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Munmap(b) })
		for _, hole := range [][]byte{b[:page], b[2*page:]} {
			if err := unix.Mprotect(hole, unix.PROT_NONE); err != nil {
				t.Fatal(err)
			}
		}
		return b[page : 2*page : 2*page]
	}
	from, to := end(), end()
	r := rand.NewChaCha8([32]byte{4})
	ours, _ := both(t, random(r, 16))
	nonce := random(r, nonceLen)
	for n := range 600 {
		for _, at := range []int{0, page - n - tagLen} {
			text := from[at : at+n]
			if at > 0 {
				text = from[page-n:]
			}
			sealed := ours.Seal(to[at:at], nonce, text, nil)
			if opened, err := ours.Open(from[at:at], nonce, sealed, nil); err != nil || len(opened) != n {
				t.Fatalf("%d octets: %v", n, err)
			}
		}
	}
}

// Each bit counts.
func TestForged(t *testing.T) {
	supported(t)
	r := rand.NewChaCha8([32]byte{3})
	ours, _ := both(t, random(r, 32))
	nonce, aad := random(r, nonceLen), random(r, 8)
	sealed := ours.Seal(nil, nonce, random(r, 300), aad)
	for _, part := range [][]byte{sealed, nonce, aad} {
		for i := range len(part) * 8 {
			part[i/8] ^= 1 << (i % 8)
			opened := bytes.Clone(sealed) // in place
			if _, err := ours.Open(opened[:0], nonce, opened, aad); err == nil {
				t.Fatalf("bit %d of %d octets does not count", i, len(part))
			}
			if n := len(opened) - tagLen; !bytes.Equal(opened[:n], make([]byte, n)) {
				t.Fatal("something is left of what is not authentic")
			}
			part[i/8] ^= 1 << (i % 8)
		}
	}
	for n := range tagLen {
		if _, err := ours.Open(nil, nonce, sealed[:n], aad); err == nil {
			t.Errorf("%d octets were opened", n)
		}
	}
}

// The modulus is 0, and POLYVAL's product is that of polynomials over x^128 (RFC
// 8452, Section 3).
func TestElement(t *testing.T) {
	h := element{lo: 0xd8ff1d2c45a49325, hi: 0x53e76b79b6d98f59} // any
	if got := h.times(element{lo: 1, hi: modulus}); got != h {
		t.Errorf("times x^128: %x", got)
	}
	x := element{lo: 2}
	if got, want := h.times(x), h.timesX().times(element{lo: 1}); got != want {
		t.Errorf("times x: %x, not %x", got, want)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, n := range []int{0, 15, 17, 31, 33} {
		if _, err := New(make([]byte, n)); err == nil {
			t.Errorf("a key of %d octets", n)
		}
	}
}

// The assembler's idea of where the fields are.
func TestLayout(t *testing.T) {
	var a aead
	if unsafe.Offsetof(a.rounds) != 0 || unsafe.Offsetof(a.keys) != 8 || unsafe.Offsetof(a.powers) != 248 ||
		unsafe.Sizeof(a) != 248+(21+2)*blockLen {
		t.Errorf("aead: %d %d %d, %d octets", unsafe.Offsetof(a.rounds), unsafe.Offsetof(a.keys), unsafe.Offsetof(a.powers), unsafe.Sizeof(a))
	}
	var m message
	if unsafe.Offsetof(m.additional) != 16 || unsafe.Offsetof(m.lengths) != 32 || unsafe.Offsetof(m.tag) != 48 || unsafe.Offsetof(m.sealing) != 64 {
		t.Errorf("message: %d %d %d %d", unsafe.Offsetof(m.additional), unsafe.Offsetof(m.lengths), unsafe.Offsetof(m.tag), unsafe.Offsetof(m.sealing))
	}
}

func FuzzAgainstStandardLibrary(f *testing.F) {
	supported(f)
	f.Add([]byte("sixteen octets.."), []byte("twelve bytes"), []byte("aad"), []byte("text"))
	f.Fuzz(func(t *testing.T, key, nonce, aad, text []byte) {
		if len(key) != 16 && len(key) != 24 && len(key) != 32 || len(nonce) != nonceLen {
			return
		}
		compare(t, key, nonce, text, aad[:min(len(aad), blockLen)])
	})
}

func BenchmarkSeal(b *testing.B) {
	supported(b)
	for _, keyLen := range []int{16, 32} {
		ours, theirs := both(b, make([]byte, keyLen))
		for _, n := range []int{64, 512, 1400} {
			for name, a := range map[string]cipher.AEAD{"ours": ours, "crypto": theirs} {
				b.Run(fmt.Sprintf("AES-%d/%d/%s", 8*keyLen, n, name), func(b *testing.B) {
					text, dst, nonce, aad := make([]byte, n), make([]byte, 0, n+tagLen), make([]byte, nonceLen), make([]byte, 8)
					b.SetBytes(int64(n))
					b.ReportAllocs()
					for b.Loop() {
						a.Seal(dst, nonce, text, aad)
					}
				})
			}
		}
	}
}
