package esp

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding"
	"encoding/binary"
	"fmt"
	"hash"

	"ipsec-quick/apply"
)

// newHash are the hash functions of HMAC-SHA2; mac and Scratch name them by index.
var newHash = [hashes]func() hash.Hash{sha256.New, sha512.New384, sha512.New}

const (
	hashSHA256 = iota
	hashSHA384
	hashSHA512
	hashes
)

// digest is a hash function of a Scratch, whose state can be set.
type digest interface {
	hash.Hash
	encoding.BinaryUnmarshaler
}

// mac is HMAC (RFC 2104). It keeps what the hash function is after the inner and
// after the outer padded key, as hash functions marshal it: a packet then costs
// no hashing of keys, any Scratch can do the work, and both can be wiped.
type mac struct {
	hash         int // of newHash
	icvLen       int // the sum is truncated to it (RFC 4868, Section 2.6)
	inner, outer []byte
}

func newMAC(a apply.Algorithm) (m mac, icvLen int, err error) {
	k, err := a.Kernel()
	if err != nil {
		return mac{}, 0, err
	}
	m.icvLen = int(k.ICVBits / 8)
	switch a.Name {
	case apply.HMACSHA256:
		m.hash = hashSHA256
	case apply.HMACSHA384:
		m.hash = hashSHA384
	case apply.HMACSHA512:
		m.hash = hashSHA512
	default:
		return mac{}, 0, fmt.Errorf("%s is no HMAC", a.Name)
	}
	if m.inner, err = keyed(newHash[m.hash](), a.Key, 0x36); err != nil {
		return mac{}, 0, err
	}
	if m.outer, err = keyed(newHash[m.hash](), a.Key, 0x5c); err != nil {
		return mac{}, 0, err
	}
	return m, m.icvLen, nil
}

// keyed is the state of h after the key, which is not longer than its block.
func keyed(h hash.Hash, key []byte, with byte) ([]byte, error) {
	block := make([]byte, h.BlockSize())
	defer clear(block)
	copy(block, key)
	for i := range block {
		block[i] ^= with
	}
	defer h.Reset()
	h.Write(block)
	m, ok := h.(encoding.BinaryMarshaler)
	if _, can := h.(digest); !ok || !can {
		return nil, fmt.Errorf("this Go's %T cannot be marshaled", h)
	}
	return m.MarshalBinary()
}

// sum is the ICV of a packet up to it. With ESN the upper half of the sequence
// number goes in last, as if it were part of the packet (RFC 4303, Section
// 2.2.1). The sum lies in s.
func (m *mac) sum(s *Scratch, packet []byte, seq uint64, esn bool) []byte {
	h := s.digest[m.hash]
	if h == nil {
		h = newHash[m.hash]().(digest)
		s.digest[m.hash] = h
	}
	// What hash functions have marshaled themselves they accept.
	_ = h.UnmarshalBinary(m.inner)
	h.Write(packet)
	if esn {
		binary.BigEndian.PutUint32(s.aad[:], uint32(seq>>32))
		h.Write(s.aad[:4])
	}
	sum := h.Sum(s.sum[:0])
	_ = h.UnmarshalBinary(m.outer)
	h.Write(sum)
	sum = h.Sum(s.sum[:0])
	h.Reset() // nothing of the key stays in the Scratch
	return sum[:m.icvLen]
}

// verify compares in constant time.
func (m *mac) verify(s *Scratch, packet []byte, seq uint64, esn bool, icv []byte) bool {
	return subtle.ConstantTimeCompare(m.sum(s, packet, seq, esn), icv) == 1
}
