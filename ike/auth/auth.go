// Package auth makes and verifies the AUTH payloads of IKE_AUTH: with a pre-shared key
// (RFC 7296, Section 2.15) or a signature (RFC 7427, RFC 8420, RFC 4754), and reads and writes the
// keys for it.
//
// Like all below ike/ it is pure: randomness comes in as an io.Reader, there is no clock or file.
package auth

import (
	"crypto"
	"crypto/hmac"
	"errors"
	"fmt"
	"io"
	"slices"

	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

// Local is how we prove who we are: with exactly one of the two.
type Local struct {
	PSK suite.Secret
	Key crypto.Signer
}

// Remote is how the peer has to prove who it is: with the pre-shared key, or with the private half
// of any of the public keys. Exactly one of the two is set.
type Remote struct {
	PSK  suite.Secret
	Keys []crypto.PublicKey
}

// errNoCredential is for a Local or Remote with none of the two, or both.
var errNoCredential = errors.New("exactly one of a pre-shared key and a public key has to be configured")

// keyPad is what RFC 7296, Section 2.15, mixes into a pre-shared key: 17 octets without a terminator.
const keyPad = "Key Pad for IKEv2"

// SignedOctets returns what AUTH is computed over (RFC 7296, Section 2.15): the signer's first
// message as it was sent, from the first octet of the IKE header; the other side's nonce without
// payload header; and prf(SK_p, ID'), the signer's identity under its SK_pi or SK_pr. With
// IKE_INTERMEDIATE the caller appends IntAuth (RFC 9242, Section 3.3.2).
func SignedOctets(message, peerNonce []byte, prf wire.TransformID, skp suite.Secret, id wire.ID) []byte {
	return slices.Concat(message, peerNonce, suite.PRF(prf, skp, id.Body()))
}

// Sign returns the AUTH payload for the octets of SignedOctets. peerHashes are those of the peer's
// SIGNATURE_HASH_ALGORITHMS. With a pre-shared key it is the Shared Key Message Integrity Code;
// with a private key it is a Digital Signature (RFC 7427) by the best scheme for the key among
// peerHashes. A peer that announces none can't read that: it gets the ECDSA method of RFC 4754 if
// the key is an ECDSA one. The error says what the peer lacks, or is that of the key.
func (l Local) Sign(prf wire.TransformID, octets []byte, peerHashes []uint16, rand io.Reader) (wire.Auth, error) {
	switch {
	case len(l.PSK) > 0 && l.Key == nil:
		code := sharedKeyCode(prf, l.PSK, octets)
		if len(code) == 0 {
			return wire.Auth{}, fmt.Errorf("PRF %s is not supported", prf.Name(wire.TransformPRF))
		}
		return wire.Auth{Method: wire.MethodSharedKey, Data: code}, nil
	case len(l.PSK) == 0 && l.Key != nil:
		return sign(l.Key, octets, peerHashes, rand)
	}
	return wire.Auth{}, errNoCredential
}

// Verify checks the peer's AUTH payload over the octets of SignedOctets, as they are for the peer.
// The error is a *Mismatch, or says that nothing to compare with is configured.
func (r Remote) Verify(prf wire.TransformID, octets []byte, a wire.Auth) error {
	switch {
	case len(r.PSK) > 0 && len(r.Keys) == 0:
		return r.verifyPSK(prf, octets, a)
	case len(r.PSK) == 0 && len(r.Keys) > 0:
		return r.verifySignature(octets, a)
	}
	return errNoCredential
}

// verifyPSK compares the code in constant time.
func (r Remote) verifyPSK(prf wire.TransformID, octets []byte, a wire.Auth) error {
	if a.Method != wire.MethodSharedKey {
		return &Mismatch{"a pre-shared key", describe(a)}
	}
	want := sharedKeyCode(prf, r.PSK, octets)
	if len(want) == 0 || !hmac.Equal(want, a.Data) {
		return &Mismatch{"the pre-shared key that is configured", "another pre-shared key"}
	}
	return nil
}

// sharedKeyCode returns prf( prf(Shared Secret, "Key Pad for IKEv2"), <SignedOctets>).
func sharedKeyCode(prf wire.TransformID, psk suite.Secret, octets []byte) []byte {
	key := suite.PRF(prf, psk, []byte(keyPad))
	defer clear(key)
	return suite.PRF(prf, key, octets)
}

// Mismatch says why an AUTH payload proves nothing: what was expected, and what came. It names
// public keys by their fingerprints and holds nothing secret.
type Mismatch struct{ Expected, Got string }

// Error returns both on one line.
func (m *Mismatch) Error() string {
	return "authentication failed: expected " + m.Expected + ", the peer used " + m.Got
}
