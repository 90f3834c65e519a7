package esp

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"

	"golang.org/x/crypto/chacha20poly1305"

	"ipsec-quick/apply"
	"ipsec-quick/apply/userspace/esp/gcm"
)

// A Transform is the cryptography of one SA: its algorithms and keys. It may be
// used by several goroutines at a time, each with a Scratch of its own; those of
// AES-CBC then wait for each other.
type Transform struct {
	aead cipher.AEAD // nil: cbc
	salt uint32      // of the AEAD's nonces, big-endian
	cbc  *cbc
	esn  bool

	ivLen, icvLen int
	align         int // a power of two: of payload, padding and trailer together
}

// Format hides what is in the transform, whatever the verb.
func (Transform) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "<hidden>") }

// New makes the transform of an SA with these algorithms. With esn the upper half
// of the sequence number is authenticated, though not sent (RFC 4303, Section
// 2.2.1). The keys are not retained; what is derived from them is until Wipe.
func New(encryption, integrity apply.Algorithm, esn bool) (*Transform, error) {
	if err := (apply.SA{Encryption: encryption, Integrity: integrity}).CheckAlgorithms(); err != nil {
		return nil, err
	}
	if !apply.IsAEAD(encryption.Name) {
		c, icvLen, err := newCBC(encryption.Key, integrity)
		if err != nil {
			return nil, err
		}
		return &Transform{cbc: c, esn: esn, ivLen: aes.BlockSize, icvLen: icvLen, align: aes.BlockSize}, nil
	}
	// The salt is the last four octets (RFC 4106, Section 8.1; RFC 7634, Section 2).
	key, salt := encryption.Key[:len(encryption.Key)-4], encryption.Key[len(encryption.Key)-4:]
	aead, err := newAEAD(encryption.Name, key)
	if err != nil {
		return nil, err
	}
	return &Transform{
		aead: aead, salt: binary.BigEndian.Uint32(salt), esn: esn,
		ivLen: aeadIVLen, icvLen: aead.Overhead(), align: 4,
	}, nil
}

func newAEAD(name string, key []byte) (cipher.AEAD, error) {
	if name == apply.ChaCha20Poly1305 {
		return chacha20poly1305.New(key)
	}
	if gcm.Supported() {
		return gcm.New(key)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	defer wipeObject(block) // the mode has a copy
	return cipher.NewGCM(block)
}

// Len is the length of the packet that carries n octets of payload.
func (t *Transform) Len(n int) int {
	return headerLen + t.ivLen + (n+2+t.align-1)&^(t.align-1) + t.icvLen
}

// MaxPayload is the length of the largest payload whose packet is not longer
// than n octets; below zero if there is none.
func (t *Transform) MaxPayload(n int) int {
	return (n-headerLen-t.ivLen-t.icvLen)&^(t.align-1) - 2
}

// Seal appends the ESP packet that carries src to dst. seq, the sequence number in
// full, must never be used twice with one transform: IV and nonce come from it.
//
// dst needs room for Len(len(src)) octets and src for MaxTrailer octets behind
// it, or Seal panics; they do not overlap. The octets behind src are written over
// while Seal works and are what they were when it returns.
func (t *Transform) Seal(s *Scratch, dst []byte, spi uint32, seq uint64, src []byte, next uint8) []byte {
	if t.aead == nil {
		return t.sealCBC(s, dst, spi, seq, src, next)
	}
	return t.sealAEAD(s, dst, spi, seq, seq, src, next)
}

// Open authenticates a packet and decrypts it to dst, which is empty and has room for
// as many octets, or they are allocated. seq is its sequence number, the upper half as
// Window.Infer says. The payload lies in dst, which holds nothing of use after an error
// and does not overlap the packet. In tunnel mode there may be more octets behind the
// inner packet, to be ignored (RFC 4303, Section 2.7).
func (t *Transform) Open(s *Scratch, dst, packet []byte, seq uint64) (payload []byte, next uint8, err error) {
	body := len(packet) - headerLen - t.ivLen - t.icvLen
	if body < t.align || body&(t.align-1) != 0 {
		return nil, 0, ErrMalformed
	}
	var plain []byte
	if t.aead == nil {
		plain, err = t.openCBC(s, dst, packet, seq)
	} else {
		plain, err = t.openAEAD(s, dst, packet, seq)
	}
	if err != nil {
		return nil, 0, err
	}
	return splitTrailer(plain)
}

// splitTrailer takes the padding, its length and the next header off. Padding
// counts 1, 2, 3 and so on (RFC 4303, Section 2.4).
func splitTrailer(plain []byte) (payload []byte, next uint8, err error) {
	end := len(plain) - 2
	pad := int(plain[end])
	if pad > end {
		return nil, 0, ErrMalformed
	}
	for i, b := range plain[end-pad : end] {
		if int(b) != i+1 {
			return nil, 0, ErrMalformed
		}
	}
	return plain[:end-pad], plain[end+1], nil
}
