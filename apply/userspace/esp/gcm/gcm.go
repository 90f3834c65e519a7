//go:build amd64

// Package gcm is AES-GCM (NIST SP 800-38D) for CPUs that encrypt four blocks with
// one instruction (VAES and VPCLMULQDQ on the registers of AVX-512): more than
// twice as fast as crypto/cipher, which takes a block at a time. Nothing that it
// does takes time by what a key or a text is.
//
// GHASH is computed as POLYVAL (RFC 8452, Appendix A), whose bits are in the order
// that the CPU multiplies them in.
package gcm

import (
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/sys/cpu"
)

const (
	blockLen = 16
	nonceLen = 12
	tagLen   = 16

	// group is how many blocks are multiplied before the sum is reduced.
	group = 16
)

// Supported tells whether this CPU has the instructions.
func Supported() bool {
	x := &cpu.X86
	return x.HasAVX512F && x.HasAVX512BW && x.HasAVX512VL && x.HasAVX512VAES && x.HasAVX512VPCLMULQDQ && x.HasBMI2
}

// aead is plain data without a pointer, so that it can be wiped. The assembler
// knows where its fields are.
type aead struct {
	rounds uint64
	keys   [15][blockLen]byte // of the rounds
	// powers of the hash key, the highest first. Behind the first power there is
	// what lanes without a block are multiplied with.
	powers [group + 1 + 3]element
}

// New makes the AEAD of a key of 16, 24 or 32 octets, which is not retained; what
// is derived from it is, in one object without pointers. It is made for ESP: of a
// nonce the first 12 octets count, more than 16 octets of additional data are a
// panic, and destination and text are the same or do not overlap.
func New(key []byte) (cipher.AEAD, error) {
	switch len(key) {
	case 16, 24, 32:
	default:
		return nil, fmt.Errorf("AES with a key of %d octets", len(key))
	}
	a := new(aead)
	a.expand(key)
	a.hashKeys()
	return a, nil
}

// expand is the key schedule (FIPS 197, Section 5.2), in words of little endian.
func (a *aead) expand(key []byte) {
	n := len(key) / 4
	a.rounds = uint64(n + 6)
	var w [4 * 15]uint32
	defer clear(w[:])
	for i := range n {
		w[i] = binary.LittleEndian.Uint32(key[4*i:])
	}
	constant := uint32(1)
	for i := n; i < 4*int(a.rounds+1); i++ {
		t := w[i-1]
		switch {
		case i%n == 0:
			t = subWord(bits.RotateLeft32(t, -8)) ^ constant
			constant = constant<<1 ^ constant>>7*0x11b
		case n > 6 && i%n == 4:
			t = subWord(t)
		}
		w[i] = w[i-n] ^ t
	}
	for i, v := range w {
		binary.LittleEndian.PutUint32(a.keys[i/4][i%4*4:], v)
	}
}

// hashKeys makes the powers of the hash key, which is an encrypted block of zeros.
func (a *aead) hashKeys() {
	var h, zero [blockLen]byte
	defer clear(h[:])
	ctr(a, &h[0], &zero[0], blockLen, &zero)
	first := elementOf(&h).timesX()
	power := first
	for i := group; i >= 0; i-- {
		a.powers[i] = power
		power = power.times(first)
	}
}

// NonceSize is 12.
func (a *aead) NonceSize() int { return nonceLen }

// Overhead is 16, the length of the tag.
func (a *aead) Overhead() int { return tagLen }

// Seal is cipher.AEAD's.
func (a *aead) Seal(dst, nonce, plaintext, additionalData []byte) []byte {
	start := len(dst)
	dst = grow(dst, len(plaintext)+tagLen)
	out := dst[start:]
	c := counterOf(nonce)
	if len(plaintext) > 0 {
		ctr(a, &out[0], &plaintext[0], len(plaintext), &c)
	}
	tag := a.tag(nonce, out[:len(plaintext)], additionalData)
	copy(out[len(plaintext):], tag[:])
	return dst
}

var errOpen = errors.New("gcm: message authentication failed")

// Open is cipher.AEAD's. Nothing is decrypted before it is authenticated.
func (a *aead) Open(dst, nonce, ciphertext, additionalData []byte) ([]byte, error) {
	n := len(ciphertext) - tagLen
	if n < 0 {
		return nil, errOpen
	}
	tag := a.tag(nonce, ciphertext[:n], additionalData)
	if subtle.ConstantTimeCompare(tag[:], ciphertext[n:]) != 1 {
		return nil, errOpen
	}
	start := len(dst)
	dst = grow(dst, n)
	c := counterOf(nonce)
	if n > 0 {
		ctr(a, &dst[start], &ciphertext[0], n, &c)
	}
	return dst, nil
}

// grow lengthens b by n octets.
func grow(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b[:len(b)+n]
	}
	return append(b, make([]byte, n)...)
}

// counterOf is the counter block of the first block of text (NIST SP 800-38D,
// Section 7.1). The one before is the tag's.
func counterOf(nonce []byte) (c [blockLen]byte) {
	copy(c[:], nonce[:nonceLen])
	c[blockLen-1] = 2
	return c
}

func (a *aead) tag(nonce, ciphertext, additionalData []byte) (tag [tagLen]byte) {
	var first, lengths [blockLen]byte
	copy(first[:len(additionalData)], additionalData)
	binary.BigEndian.PutUint64(lengths[:], uint64(len(additionalData))*8)
	binary.BigEndian.PutUint64(lengths[8:], uint64(len(ciphertext))*8)
	var data *byte
	if len(ciphertext) > 0 {
		data = &ciphertext[0]
	}
	var hash [blockLen]byte
	ghash(a, &hash, &first, data, len(ciphertext), &lengths)
	c := counterOf(nonce)
	c[blockLen-1] = 1
	ctr(a, &tag[0], &hash[0], tagLen, &c)
	return tag
}

// ctr encrypts n octets from src to dst, counting from the block that is given.
//
//go:noescape
func ctr(a *aead, dst, src *byte, n int, counter *[blockLen]byte)

// ghash is GHASH of first, n octets of data and last. No element is before first.
//
//go:noescape
func ghash(a *aead, out, first *[blockLen]byte, data *byte, n int, last *[blockLen]byte)

// subWord is SubWord of FIPS 197, Section 5.2.
func subWord(w uint32) uint32
