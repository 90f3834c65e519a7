package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // for crypto.SHA256.New
	_ "crypto/sha512" // for crypto.SHA384.New and crypto.SHA512.New
	"encoding/asn1"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Hash algorithms of SIGNATURE_HASH_ALGORITHMS (RFC 7427, Section 7; RFC 8420, Section 2). SHA-1,
// which is 1 there, is neither announced nor used: RFC 8247, Section 3.2.
const (
	hashSHA256   = 2
	hashSHA384   = 3
	hashSHA512   = 4
	hashIdentity = 5 // the signature algorithm hashes by itself: Ed25519
)

// Hashes are what we announce in SIGNATURE_HASH_ALGORITHMS.
var Hashes = []uint16{hashSHA256, hashSHA384, hashSHA512, hashIdentity}

// kind is a family of keys.
type kind string

// The kinds, as they stand before the colon of a public key in text.
const (
	kindEd25519 kind = "ed25519"
	kindECDSA   kind = "ecdsa"
	kindRSA     kind = "rsa"
)

// kindOf returns the kind of a public key; empty for one that can't sign here.
func kindOf(key crypto.PublicKey) kind {
	switch key.(type) {
	case ed25519.PublicKey:
		return kindEd25519
	case *ecdsa.PublicKey:
		return kindECDSA
	case *rsa.PublicKey:
		return kindRSA
	}
	return ""
}

// scheme is a signature algorithm with its hash: one AlgorithmIdentifier (RFC 5280, Section 4.1.1.2).
type scheme struct {
	name string
	kind kind
	id   uint16 // the hash, as SIGNATURE_HASH_ALGORITHMS names it
	hash crypto.Hash
	pss  bool
	blob string // the AlgorithmIdentifier in DER, as we send it
}

// schemes are all that we sign with and verify, the preferred ones of a kind first: RSASSA-PSS,
// which RFC 8247, Section 3.2, says MUST be supported, before PKCS #1 v1.5, which it says MAY be;
// the longer hash before the shorter.
//
// The blobs are those of RFC 7427, Appendix A, and RFC 8420, Appendix A. For PSS, DER leaves out
// the trailerField, which has its default value; the example in A.4.3 has it, and says that the
// specification of the algorithm decides.
var schemes = []scheme{
	{"Ed25519", kindEd25519, hashIdentity, 0, false, "\x30\x05\x06\x03\x2b\x65\x70"},

	{"ECDSA with SHA2-512", kindECDSA, hashSHA512, crypto.SHA512, false, "\x30\x0a\x06\x08" + oidECDSA + "\x04"},
	{"ECDSA with SHA2-384", kindECDSA, hashSHA384, crypto.SHA384, false, "\x30\x0a\x06\x08" + oidECDSA + "\x03"},
	{"ECDSA with SHA2-256", kindECDSA, hashSHA256, crypto.SHA256, false, "\x30\x0a\x06\x08" + oidECDSA + "\x02"},

	{"RSASSA-PSS with SHA2-512", kindRSA, hashSHA512, crypto.SHA512, true, pssBlob("\x03", "\x40")},
	{"RSASSA-PSS with SHA2-384", kindRSA, hashSHA384, crypto.SHA384, true, pssBlob("\x02", "\x30")},
	{"RSASSA-PSS with SHA2-256", kindRSA, hashSHA256, crypto.SHA256, true, pssBlob("\x01", "\x20")},

	{"RSA PKCS #1 v1.5 with SHA2-512", kindRSA, hashSHA512, crypto.SHA512, false, "\x30\x0d\x06\x09" + oidPKCS1 + "\x0d\x05\x00"},
	{"RSA PKCS #1 v1.5 with SHA2-384", kindRSA, hashSHA384, crypto.SHA384, false, "\x30\x0d\x06\x09" + oidPKCS1 + "\x0c\x05\x00"},
	{"RSA PKCS #1 v1.5 with SHA2-256", kindRSA, hashSHA256, crypto.SHA256, false, "\x30\x0d\x06\x09" + oidPKCS1 + "\x0b\x05\x00"},
}

// The contents of OBJECT IDENTIFIERs but for their last octet.
const (
	oidECDSA = "\x2a\x86\x48\xce\x3d\x04\x03"     // 1.2.840.10045.4.3: ecdsa-with-SHA2
	oidPKCS1 = "\x2a\x86\x48\x86\xf7\x0d\x01\x01" // 1.2.840.113549.1.1: pkcs-1
	oidSHA2  = "\x60\x86\x48\x01\x65\x03\x04\x02" // 2.16.840.1.101.3.4.2: hashAlgs
)

// pssBlob returns id-RSASSA-PSS with a hash of SHA2, MGF1 with the same, and a salt as long as its
// output (RFC 4055, Section 3.1).
func pssBlob(hash, salt string) string {
	algorithm := "\x30\x0d\x06\x09" + oidSHA2 + hash + "\x05\x00"
	return "\x30\x41\x06\x09" + oidPKCS1 + "\x0a" +
		"\x30\x34" +
		"\xa0\x0f" + algorithm +
		"\xa1\x1c\x30\x1a\x06\x09" + oidPKCS1 + "\x08" + algorithm +
		"\xa2\x03\x02\x01" + salt
}

// schemesFor returns the schemes for a public key among the hashes that the peer announced, the
// best one first. For ECDSA that is the one with the hash of the curve's length: a longer one
// would be cut.
func schemesFor(key crypto.PublicKey, hashes []uint16) []scheme {
	var found []scheme
	for _, s := range schemes {
		if s.kind == kindOf(key) && slices.Contains(hashes, s.id) {
			found = append(found, s)
		}
	}
	if k, ok := key.(*ecdsa.PublicKey); ok {
		natural := curveHash(k.Curve)
		slices.SortStableFunc(found, func(a, b scheme) int {
			switch natural {
			case a.hash:
				return -1
			case b.hash:
				return 1
			}
			return 0
		})
	}
	return found
}

// curveHash returns the hash as long as the order of the curve, or nearly.
func curveHash(c elliptic.Curve) crypto.Hash {
	switch c {
	case elliptic.P384():
		return crypto.SHA384
	case elliptic.P521():
		return crypto.SHA512
	}
	return crypto.SHA256
}

// parseScheme reads an AlgorithmIdentifier. It takes every encoding that the algorithms'
// specifications allow: NULL parameters where they can be absent (RFC 4055, Sections 2.1 and 5),
// default values that are spelled out. When ok is false, name says what came.
func parseScheme(der []byte) (s scheme, name string, ok bool) {
	for _, s := range schemes {
		if s.blob == string(der) {
			return s, s.name, true
		}
	}
	input := cryptobyte.String(der)
	var seq, parameters cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !input.ReadASN1(&seq, casn1.SEQUENCE) || !input.Empty() || !seq.ReadASN1ObjectIdentifier(&oid) {
		return scheme{}, "a malformed AlgorithmIdentifier", false
	}
	parameters = seq
	if name, weak := weakSchemes[oid.String()]; weak {
		return scheme{}, name, false
	}
	for _, s := range schemes {
		if !oid.Equal(s.oid()) {
			continue
		}
		switch {
		case s.pss:
			return parsePSS(parameters)
		case s.kind == kindRSA && (parameters.Empty() || isNull(parameters)):
			return s, s.name, true
		}
	}
	return scheme{}, "the signature algorithm " + oid.String(), false
}

// weakSchemes are named because peers still send them (RFC 7427, Appendix A).
var weakSchemes = map[string]string{
	"1.2.840.113549.1.1.5": "RSA PKCS #1 v1.5 with SHA-1, which is too weak",
	"1.2.840.10045.4.1":    "ECDSA with SHA-1, which is too weak",
	"1.2.840.10040.4.3":    "DSA with SHA-1, which is too weak",
}

// oid returns the OBJECT IDENTIFIER in the blob.
func (s scheme) oid() asn1.ObjectIdentifier {
	input := cryptobyte.String(s.blob)
	var seq cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !input.ReadASN1(&seq, casn1.SEQUENCE) || !seq.ReadASN1ObjectIdentifier(&oid) {
		return nil
	}
	return oid
}

func isNull(s cryptobyte.String) bool {
	var null cryptobyte.String
	return s.ReadASN1(&null, casn1.NULL) && null.Empty() && s.Empty()
}

// parsePSS reads RSASSA-PSS-params (RFC 4055, Section 3.1) and takes those with SHA2, MGF1 with
// the same hash, and a salt as long as its output.
func parsePSS(input cryptobyte.String) (s scheme, name string, ok bool) {
	const refused = "RSASSA-PSS with parameters other than one SHA2 hash and a salt of its length"
	var seq, hash, mgf, salt, trailer cryptobyte.String
	var hasHash, hasMGF, hasSalt, hasTrailer bool
	tag := func(n uint8) casn1.Tag { return casn1.Tag(n).Constructed().ContextSpecific() }
	if !input.ReadASN1(&seq, casn1.SEQUENCE) || !input.Empty() ||
		!seq.ReadOptionalASN1(&hash, &hasHash, tag(0)) ||
		!seq.ReadOptionalASN1(&mgf, &hasMGF, tag(1)) ||
		!seq.ReadOptionalASN1(&salt, &hasSalt, tag(2)) ||
		!seq.ReadOptionalASN1(&trailer, &hasTrailer, tag(3)) || !seq.Empty() {
		return scheme{}, "a malformed AlgorithmIdentifier of RSASSA-PSS", false
	}
	if !hasHash || !hasMGF || !hasSalt {
		return scheme{}, "RSASSA-PSS with SHA-1, which is too weak", false // the default of each
	}
	var inner cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !mgf.ReadASN1(&inner, casn1.SEQUENCE) || !mgf.Empty() || !inner.ReadASN1ObjectIdentifier(&oid) ||
		oid.String() != "1.2.840.113549.1.1.8" {
		return scheme{}, refused, false
	}
	h, ok1 := hashAlgorithm(hash)
	g, ok2 := hashAlgorithm(inner)
	var length, field int
	if !ok1 || !ok2 || h != g || !salt.ReadASN1Integer(&length) || !salt.Empty() || length != h.Size() {
		return scheme{}, refused, false
	}
	if hasTrailer && (!trailer.ReadASN1Integer(&field) || !trailer.Empty() || field != 1) {
		return scheme{}, refused, false
	}
	for _, s := range schemes {
		if s.pss && s.hash == h {
			return s, s.name, true
		}
	}
	return scheme{}, refused, false
}

// hashAlgorithm reads the AlgorithmIdentifier of a SHA2 hash, with NULL parameters or none.
func hashAlgorithm(input cryptobyte.String) (crypto.Hash, bool) {
	var seq, oid cryptobyte.String
	if !input.ReadASN1(&seq, casn1.SEQUENCE) || !input.Empty() || !seq.ReadASN1(&oid, casn1.OBJECT_IDENTIFIER) {
		return 0, false
	}
	if !seq.Empty() && !isNull(seq) {
		return 0, false
	}
	last, ok := strings.CutPrefix(string(oid), oidSHA2)
	if !ok {
		return 0, false
	}
	switch last {
	case "\x01":
		return crypto.SHA256, true
	case "\x02":
		return crypto.SHA384, true
	case "\x03":
		return crypto.SHA512, true
	}
	return 0, false
}
