//go:build amd64

// Package gcm is AES-GCM (NIST SP 800-38D) for CPUs that encrypt four blocks with
// one instruction (VAES and VPCLMULQDQ on the registers of AVX-512): three times
// as fast as crypto/cipher, which takes a block at a time. Nothing that it
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
	"slices"
	"unsafe"

	"golang.org/x/sys/cpu"
)

const (
	blockLen = 16
	nonceLen = 12
	tagLen   = 16

	// powers is how many powers of the hash key are needed: for the first four
	// blocks when 16 more follow, and the lengths.
	powers = 4 + 16 + 1
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
	powers [powers + 2]element
}

// A message is what crypt has to know beside the text. The assembler knows where
// its fields are.
type message struct {
	counter    [blockLen]byte // the tag's counter block; those of the text follow
	additional [blockLen]byte // data, padded with zeros
	lengths    [blockLen]byte // of the additional data and of the text, in bits
	tag        [blockLen]byte // the result
	sealing    uint64         // all bits: seal, none: open
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
	var m message
	crypt(a, nil, nil, 0, &m) // GHASH is zero without a hash key, so the tag is it
	defer clear(m.tag[:])
	one := elementOf(&m.tag).timesX()
	power := one
	for i := powers - 1; i >= 0; i-- {
		a.powers[i] = power
		power = power.times(one)
	}
}

// NonceSize is 12.
func (a *aead) NonceSize() int { return nonceLen }

// Overhead is 16, the length of the tag.
func (a *aead) Overhead() int { return tagLen }

// Seal is cipher.AEAD's.
func (a *aead) Seal(dst, nonce, plaintext, additionalData []byte) []byte {
	start, n := len(dst), len(plaintext)
	dst = slices.Grow(dst, n+tagLen)[:start+n+tagLen]
	m := message{sealing: ^uint64(0)}
	m.begin(nonce, additionalData, n)
	crypt(a, unsafe.SliceData(dst[start:]), unsafe.SliceData(plaintext), n, &m)
	copy(dst[start+n:], m.tag[:])
	return dst
}

var errOpen = errors.New("gcm: message authentication failed")

// Open is cipher.AEAD's. Of what is not authentic it leaves nothing.
func (a *aead) Open(dst, nonce, ciphertext, additionalData []byte) ([]byte, error) {
	start, n := len(dst), len(ciphertext)-tagLen
	if n < 0 {
		return nil, errOpen
	}
	tag := [tagLen]byte(ciphertext[n:])
	dst = slices.Grow(dst, n)[:start+n]
	var m message
	m.begin(nonce, additionalData, n)
	crypt(a, unsafe.SliceData(dst[start:]), unsafe.SliceData(ciphertext), n, &m)
	if subtle.ConstantTimeCompare(m.tag[:], tag[:]) != 1 {
		clear(dst[start:])
		return nil, errOpen
	}
	return dst, nil
}

// begin fills in what crypt has to know of a text of n octets.
func (m *message) begin(nonce, additionalData []byte, n int) {
	copy(m.counter[:], nonce[:nonceLen])
	m.counter[blockLen-1] = 1
	copy(m.additional[:len(additionalData)], additionalData)
	binary.BigEndian.PutUint64(m.lengths[:], uint64(len(additionalData))*8)
	binary.BigEndian.PutUint64(m.lengths[8:], uint64(n)*8)
}

// crypt encrypts or decrypts n octets from src to dst and makes the tag.
//
//go:noescape
func crypt(a *aead, dst, src *byte, n int, m *message)

// subWord is SubWord of FIPS 197, Section 5.2.
func subWord(w uint32) uint32
