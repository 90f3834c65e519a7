package suite

import (
	"crypto/hmac"
	"encoding/binary"
	"slices"

	"ipsec-quick/ike/wire"
)

// PRFKeyLen returns the preferred key length of a PRF in octets, which for an HMAC is its output
// length too (RFC 4868, Section 2.1.2); 0 for a PRF that is not supported.
func PRFKeyLen(id wire.TransformID) int {
	if f := functionOf(id); f != nil {
		return f.size
	}
	return 0
}

// PRF returns prf(key, data), data being the octets of all parts in a row; nil for a PRF that is
// not supported.
func PRF(id wire.TransformID, key []byte, data ...[]byte) []byte {
	f := functionOf(id)
	if f == nil {
		return nil
	}
	h := hmac.New(f.hash, key)
	for _, d := range data {
		h.Write(d)
	}
	return h.Sum(make([]byte, 0, f.size))
}

// PRFPlus returns the first n octets of prf+(key, seed), RFC 7296, Section 2.13:
//
//	prf+ (K,S) = T1 | T2 | ...   with Ti = prf (K, T(i-1) | S | i)
//
// The counter is one octet, so there are at most 255 blocks; it returns nil for more, and for a
// PRF that is not supported.
func PRFPlus(id wire.TransformID, key, seed []byte, n int) []byte {
	f := functionOf(id)
	if f == nil || n < 0 || n > 255*f.size {
		return nil
	}
	h := hmac.New(f.hash, key)
	out := make([]byte, 0, n+f.size)
	var last []byte
	for i := byte(1); len(out) < n; i++ {
		h.Reset()
		h.Write(last)
		h.Write(seed)
		h.Write([]byte{i})
		out = h.Sum(out)
		last = out[len(out)-f.size:]
	}
	clear(out[n:]) // the last block's remainder is key material too
	return out[:n:n]
}

// IKEKeys are the keys of an IKE SA (RFC 7296, Section 2.14): D for what is derived later, Ai, Ar
// for integrity (empty with AEAD), Ei, Er for encryption (with the salt of AEAD at the end), Pi,
// Pr for authentication. i is the original initiator's direction.
type IKEKeys struct{ D, Ai, Ar, Ei, Er, Pi, Pr Secret }

// Wipe overwrites all keys.
func (k *IKEKeys) Wipe() {
	for _, s := range []Secret{k.D, k.Ai, k.Ar, k.Ei, k.Er, k.Pi, k.Pr} {
		s.Wipe()
	}
}

// DeriveIKE returns the keys of a new IKE SA (RFC 7296, Section 2.14). ni and nr are the nonces
// without payload headers. shared holds g^ir, and then, in order, the secrets of the additional
// key exchanges that IKE_INTERMEDIATE has completed (RFC 9370, Section 2.2.2).
func DeriveIKE(c Choice, ni, nr []byte, shared []Secret, spii, spir wire.SPI) IKEKeys {
	var keys IKEKeys
	for i, s := range shared {
		var seed []byte
		if i == 0 {
			nonces := slices.Concat(ni, nr)
			seed = PRF(c.PRF.ID, nonces, s)
		} else {
			seed = PRF(c.PRF.ID, keys.D, s, ni, nr)
			keys.Wipe()
		}
		keys = expandIKE(c, seed, ni, nr, spii, spir)
		clear(seed)
	}
	return keys
}

// RekeyIKE returns the keys of an IKE SA that replaces another one (RFC 7296, Section 2.18). The
// PRF of the old SA makes SKEYSEED of its SK_d, the PRF of the new one the keys. shared holds
// g^ir, and then the secrets of additional key exchanges (RFC 9370, Section 2.2.4).
func RekeyIKE(c Choice, oldPRF wire.TransformID, oldD Secret, ni, nr []byte, shared []Secret, spii, spir wire.SPI) IKEKeys {
	seed := PRF(oldPRF, oldD, seeds(ni, nr, shared)...)
	keys := expandIKE(c, seed, ni, nr, spii, spir)
	clear(seed)
	return keys
}

// expandIKE cuts the keys of an IKE SA from prf+ (SKEYSEED, Ni | Nr | SPIi | SPIr).
func expandIKE(c Choice, skeyseed, ni, nr []byte, spii, spir wire.SPI) IKEKeys {
	s := slices.Concat(ni, nr)
	s = binary.BigEndian.AppendUint64(s, uint64(spii))
	s = binary.BigEndian.AppendUint64(s, uint64(spir))
	p, a, e := PRFKeyLen(c.PRF.ID), c.integKeyLen(), c.encrKeyLen()
	m := material(PRFPlus(c.PRF.ID, skeyseed, s, 3*p+2*a+2*e))
	return IKEKeys{
		D:  m.take(p),
		Ai: m.take(a), Ar: m.take(a),
		Ei: m.take(e), Er: m.take(e),
		Pi: m.take(p), Pr: m.take(p),
	}
}

// ChildKeys are the keys of a Child SA (RFC 7296, Section 2.17): E for encryption, with the
// 4-octet salt of AEAD at the end, as the kernel wants it; A for integrity, empty with AEAD. i is
// the direction from the initiator of the exchange that made the Child SA to its responder, who
// need not be those of the IKE SA.
type ChildKeys struct{ Ei, Ai, Er, Ar Secret }

// Wipe overwrites all keys.
func (k *ChildKeys) Wipe() {
	for _, s := range []Secret{k.Ei, k.Ai, k.Er, k.Ar} {
		s.Wipe()
	}
}

// DeriveChild returns the keys of a Child SA (RFC 7296, Section 2.17) from the PRF and SK_d of the
// IKE SA. shared is empty without a key exchange of its own; otherwise it holds g^ir, and then the
// secrets of additional key exchanges (RFC 9370, Section 2.2.4).
func DeriveChild(prf wire.TransformID, d Secret, c Choice, ni, nr []byte, shared []Secret) ChildKeys {
	seed := slices.Concat(seeds(ni, nr, shared)...)
	a, e := c.integKeyLen(), c.encrKeyLen()
	m := material(PRFPlus(prf, d, seed, 2*a+2*e))
	clear(seed) // it holds g^ir
	return ChildKeys{
		Ei: m.take(e), Ai: m.take(a),
		Er: m.take(e), Ar: m.take(a),
	}
}

// seeds returns SK(0) | Ni | Nr | SK(1) | ... | SK(n), of which RFC 7296 knows the first three.
func seeds(ni, nr []byte, shared []Secret) [][]byte {
	var parts [][]byte
	if len(shared) > 0 {
		parts = append(parts, shared[0])
	}
	parts = append(parts, ni, nr)
	for i := 1; i < len(shared); i++ {
		parts = append(parts, shared[i])
	}
	return parts
}

// material is a stream of keying material from which keys are taken in order.
type material []byte

// take returns the next n octets; fewer if the stream is at its end, which it never is when the
// stream was made for what is taken from it.
func (m *material) take(n int) Secret {
	n = min(n, len(*m))
	s := Secret((*m)[:n:n])
	*m = (*m)[n:]
	return s
}

// encrKeyLen returns the length of an encryption key with its salt, in octets.
func (c Choice) encrKeyLen() int {
	if e := encryptionOf(c.Encr); e != nil {
		return e.key + e.salt
	}
	return 0
}

// integKeyLen returns the length of an integrity key in octets; 0 with AEAD.
func (c Choice) integKeyLen() int {
	if a := integrityOf(c.Integ.ID); a != nil {
		return a.key
	}
	return 0
}
