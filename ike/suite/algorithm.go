// Package suite holds the algorithms of IKEv2 and ESP: what proposals name them, how one is
// chosen, and what they do: key exchange, key derivation and the protection of SK payloads.
//
// All of it is pure: randomness comes in as an io.Reader, there is no clock, socket or file.
package suite

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/sha256"
	"crypto/sha512"
	"hash"

	"golang.org/x/crypto/chacha20poly1305"

	"ipsec-quick/ike/wire"
)

// encryption is a row of the table of ENCR transforms. Lengths are octets unless said otherwise.
type encryption struct {
	names []string // strongSwan's keywords; the first is the one we print
	id    wire.TransformID
	bits  uint16 // the Key Length attribute; 0: the transform has none
	key   int    // without the salt
	salt  int    // end of the keying material, AEAD only (RFC 5282, Section 7.1)
	iv    int    // on the wire
	icv   int    // AEAD only
	aead  func(key []byte) (cipher.AEAD, error)
}

// RFC 7296, Section 3.3.5; RFC 5282 and 4106 (GCM); RFC 7634 (ChaCha20-Poly1305); RFC 3602 (CBC).
var encryptions = []encryption{
	{[]string{"aes256gcm16", "aes256gcm128"}, wire.EncrAESGCM16, 256, 32, 4, 8, 16, newGCM},
	{[]string{"aes192gcm16", "aes192gcm128"}, wire.EncrAESGCM16, 192, 24, 4, 8, 16, newGCM},
	{[]string{"aes128gcm16", "aes128gcm128"}, wire.EncrAESGCM16, 128, 16, 4, 8, 16, newGCM},
	{[]string{"chacha20poly1305"}, wire.EncrChaCha20Poly1305, 0, 32, 4, 8, 16, chacha20poly1305.New},
	{[]string{"aes256"}, wire.EncrAESCBC, 256, 32, 0, 16, 0, nil},
	{[]string{"aes192"}, wire.EncrAESCBC, 192, 24, 0, 16, 0, nil},
	{[]string{"aes128", "aes"}, wire.EncrAESCBC, 128, 16, 0, 16, 0, nil},
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// integrity is a row of the table of INTEG transforms (RFC 4868, Section 2.6).
type integrity struct {
	names []string
	id    wire.TransformID
	key   int
	icv   int
	hash  func() hash.Hash
	prf   wire.TransformID // the PRF of an IKE proposal that names none
}

var integrities = []integrity{
	{[]string{"sha256", "sha2_256"}, wire.AuthHMACSHA256_128, 32, 16, sha256.New, wire.PRFHMACSHA256},
	{[]string{"sha384", "sha2_384"}, wire.AuthHMACSHA384_192, 48, 24, sha512.New384, wire.PRFHMACSHA384},
	{[]string{"sha512", "sha2_512"}, wire.AuthHMACSHA512_256, 64, 32, sha512.New, wire.PRFHMACSHA512},
}

// function is a row of the table of PRF transforms (RFC 4868, Section 2.4). The preferred key
// length of an HMAC is its output length (RFC 7296, Section 2.12).
type function struct {
	names []string
	id    wire.TransformID
	size  int
	hash  func() hash.Hash
}

var functions = []function{
	{[]string{"prfsha256"}, wire.PRFHMACSHA256, 32, sha256.New},
	{[]string{"prfsha384"}, wire.PRFHMACSHA384, 48, sha512.New384},
	{[]string{"prfsha512"}, wire.PRFHMACSHA512, 64, sha512.New},
}

// method is a row of the table of key exchange methods: a curve of crypto/ecdh, a MODP group, or
// with neither Curve25519.
type method struct {
	names  []string
	id     wire.TransformID
	public int // length of the Key Exchange Data
	scalar int // length of the private value
	curve  ecdh.Curve
	modp   *modpGroup
}

// RFC 8031, Section 3 (Curve25519); RFC 5903 (ECP); RFC 3526 (MODP).
var methods = []method{
	{names: []string{"x25519", "curve25519"}, id: wire.KECurve25519, public: 32, scalar: 32},
	{names: []string{"ecp256"}, id: wire.KEECP256, public: 64, scalar: 32, curve: ecdh.P256()},
	{names: []string{"ecp384"}, id: wire.KEECP384, public: 96, scalar: 48, curve: ecdh.P384()},
	{names: []string{"ecp521"}, id: wire.KEECP521, public: 132, scalar: 66, curve: ecdh.P521()},
	{names: []string{"modp2048"}, id: wire.KEMODP2048, public: 256, scalar: 40, modp: modp2048},
	{names: []string{"modp3072"}, id: wire.KEMODP3072, public: 384, scalar: 53, modp: modp3072},
	{names: []string{"modp4096"}, id: wire.KEMODP4096, public: 512, scalar: 60, modp: modp4096},
}

// option is a keyword without an algorithm behind it.
type option struct {
	names []string
	t     wire.Transform
}

var options = []option{
	{[]string{"noesn"}, wire.Transform{Type: wire.TransformESN, ID: wire.ESNNo}},
	{[]string{"esn"}, wire.Transform{Type: wire.TransformESN, ID: wire.ESNYes}},
	{[]string{"none", "modpnone"}, wire.Transform{Type: wire.TransformKE}},
}

func encryptionOf(t wire.Transform) *encryption {
	for i := range encryptions {
		if e := &encryptions[i]; e.id == t.ID && e.bits == t.KeyLength && t.Type == wire.TransformENCR && t.Unknown == "" {
			return e
		}
	}
	return nil
}

func integrityOf(id wire.TransformID) *integrity {
	for i := range integrities {
		if integrities[i].id == id {
			return &integrities[i]
		}
	}
	return nil
}

func functionOf(id wire.TransformID) *function {
	for i := range functions {
		if functions[i].id == id {
			return &functions[i]
		}
	}
	return nil
}

func methodOf(id wire.TransformID) *method {
	for i := range methods {
		if methods[i].id == id {
			return &methods[i]
		}
	}
	return nil
}

// SupportedKE reports whether GenerateKE knows the key exchange method.
func SupportedKE(id wire.TransformID) bool { return methodOf(id) != nil }
