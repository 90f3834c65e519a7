package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"

	"ipsec-quick/ike/wire"
)

// curveMethods are the authentication methods of RFC 4754, Section 3: one curve and hash each, the
// signature being r and s in the length of the curve's order.
var curveMethods = []struct {
	method wire.AuthMethod
	curve  elliptic.Curve
	size   int // octets of r, and of s
}{
	{wire.MethodECDSA256, elliptic.P256(), 32},
	{wire.MethodECDSA384, elliptic.P384(), 48},
	{wire.MethodECDSA521, elliptic.P521(), 66},
}

// sign signs the octets by the best scheme that the peer announced.
func sign(key crypto.Signer, octets []byte, peerHashes []uint16, rand io.Reader) (wire.Auth, error) {
	public := key.Public()
	if err := checkPublicKey(public); err != nil {
		return wire.Auth{}, err
	}
	found := schemesFor(public, peerHashes)
	if len(found) == 0 {
		if k, ok := public.(*ecdsa.PublicKey); ok && len(peerHashes) == 0 {
			return signRaw(key, k, octets, rand)
		}
		return wire.Auth{}, fmt.Errorf("the peer can't verify a signature of our %s key: of the hashes that RFC 7427 and RFC 8420 define it announced %s",
			kindOf(public), hashNames(peerHashes))
	}
	s := found[0]
	var options crypto.SignerOpts = s.hash
	if s.pss {
		options = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: s.hash}
	}
	signature, err := key.Sign(rand, s.digest(octets), options)
	if err != nil {
		return wire.Auth{}, fmt.Errorf("signing by %s: %w", s.name, err)
	}
	data := append([]byte{byte(len(s.blob))}, s.blob...)
	return wire.Auth{Method: wire.MethodDigitalSignature, Data: append(data, signature...)}, nil
}

// signRaw signs for a peer without RFC 7427.
func signRaw(key crypto.Signer, public *ecdsa.PublicKey, octets []byte, rand io.Reader) (wire.Auth, error) {
	for _, m := range curveMethods {
		if m.curve != public.Curve {
			continue
		}
		hash := curveHash(m.curve)
		der, err := key.Sign(rand, digest(hash, octets), hash)
		if err != nil {
			return wire.Auth{}, fmt.Errorf("signing by ECDSA: %w", err)
		}
		r, s, ok := parseECDSA(der)
		if !ok || r.BitLen() > m.size*8 || s.BitLen() > m.size*8 {
			return wire.Auth{}, errors.New("signing by ECDSA: malformed signature")
		}
		data := make([]byte, 2*m.size)
		r.FillBytes(data[:m.size])
		s.FillBytes(data[m.size:])
		return wire.Auth{Method: m.method, Data: data}, nil
	}
	return wire.Auth{}, fmt.Errorf("a peer without RFC 7427 knows no ECDSA on %s", public.Params().Name)
}

func parseECDSA(der []byte) (r, s *big.Int, ok bool) {
	r, s = new(big.Int), new(big.Int)
	input := cryptobyte.String(der)
	var seq cryptobyte.String
	ok = input.ReadASN1(&seq, casn1.SEQUENCE) && input.Empty() &&
		seq.ReadASN1Integer(r) && seq.ReadASN1Integer(s) && seq.Empty() && r.Sign() > 0 && s.Sign() > 0
	return r, s, ok
}

// verifySignature checks a signature against each key of its kind.
func (r Remote) verifySignature(octets []byte, a wire.Auth) error {
	got, check := readSignature(octets, a)
	if check == nil {
		return &Mismatch{r.expected(), got}
	}
	tried := false
	for _, key := range r.Keys {
		switch check(key) {
		case valid:
			return nil
		case invalid:
			tried = true
		case otherKind:
		}
	}
	if tried {
		got += " with another key, or over other octets than we saw"
	}
	return &Mismatch{r.expected(), got}
}

// verdict is what came of comparing one signature with one key.
type verdict int

const (
	otherKind verdict = iota // the key has nothing to do with the signature
	invalid
	valid
)

func verdictOf(ok bool) verdict {
	if ok {
		return valid
	}
	return invalid
}

// readSignature names what is in an AUTH payload and returns what verifies it against a key; nil if
// it is nothing that we could verify with any.
func readSignature(octets []byte, a wire.Auth) (string, func(crypto.PublicKey) verdict) {
	if a.Method == wire.MethodDigitalSignature {
		blob, signature, ok := splitSignature(a.Data)
		if !ok {
			return "a malformed signature", nil
		}
		s, name, ok := parseScheme(blob)
		if !ok {
			return name, nil
		}
		return name, func(key crypto.PublicKey) verdict {
			if kindOf(key) != s.kind || checkPublicKey(key) != nil {
				return otherKind
			}
			return verdictOf(s.verify(key, octets, signature))
		}
	}
	for _, m := range curveMethods {
		if m.method != a.Method {
			continue
		}
		if len(a.Data) != 2*m.size {
			return "a malformed signature", nil
		}
		return a.Method.String(), func(key crypto.PublicKey) verdict {
			k, ok := key.(*ecdsa.PublicKey)
			if !ok || k.Curve != m.curve {
				return otherKind
			}
			r, s := new(big.Int).SetBytes(a.Data[:m.size]), new(big.Int).SetBytes(a.Data[m.size:])
			return verdictOf(ecdsa.Verify(k, digest(curveHash(m.curve), octets), r, s))
		}
	}
	return describe(a), nil
}

// splitSignature takes the Authentication Data of RFC 7427, Section 3, apart.
func splitSignature(data []byte) (blob, signature []byte, ok bool) {
	input := cryptobyte.String(data)
	var b cryptobyte.String
	ok = input.ReadUint8LengthPrefixed(&b)
	return b, input, ok
}

func (s scheme) verify(key crypto.PublicKey, octets, signature []byte) bool {
	d := s.digest(octets)
	switch k := key.(type) {
	case ed25519.PublicKey:
		return len(k) == ed25519.PublicKeySize && ed25519.Verify(k, d, signature)
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, d, signature)
	case *rsa.PublicKey:
		if s.pss {
			return rsa.VerifyPSS(k, s.hash, d, signature, &rsa.PSSOptions{SaltLength: s.hash.Size()}) == nil
		}
		return rsa.VerifyPKCS1v15(k, s.hash, d, signature) == nil
	}
	return false
}

// digest returns what is signed: the hash of the octets, or the octets where the algorithm hashes
// by itself (RFC 8420, Section 2).
func (s scheme) digest(octets []byte) []byte {
	if s.hash == 0 {
		return octets
	}
	return digest(s.hash, octets)
}

func digest(hash crypto.Hash, octets []byte) []byte {
	h := hash.New()
	h.Write(octets)
	return h.Sum(nil)
}

// expected names the keys that would do.
func (r Remote) expected() string {
	names := make([]string, len(r.Keys))
	for i, key := range r.Keys {
		names[i] = string(kindOf(key)) + " key " + Fingerprint(key)
	}
	return "a signature by " + strings.Join(names, " or ")
}

// describe names the method of an AUTH payload, and the scheme of a digital signature.
func describe(a wire.Auth) string {
	switch a.Method {
	case wire.MethodSharedKey:
		return "a pre-shared key"
	case wire.MethodDigitalSignature:
		if blob, _, ok := splitSignature(a.Data); ok {
			_, name, _ := parseScheme(blob)
			return "a signature, " + name
		}
		return "a malformed signature"
	default:
		return "the authentication method " + a.Method.String()
	}
}

// hashNames lists hash algorithms by the registry's names.
func hashNames(ids []uint16) string {
	names := map[uint16]string{1: "SHA1", hashSHA256: "SHA2-256", hashSHA384: "SHA2-384", hashSHA512: "SHA2-512", hashIdentity: "Identity"}
	var words []string
	for _, id := range ids {
		if n, ok := names[id]; ok {
			words = append(words, n)
		}
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}
