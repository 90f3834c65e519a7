package suite

import (
	"fmt"

	"github.com/cloudflare/circl/dh/x25519"
)

// Curve25519 (RFC 8031, RFC 7748) is what most handshakes use and most of what they cost. circl's
// takes about three quarters of the time of crypto/ecdh's, and makes the public value once only.

// x25519Public computes our public value.
func x25519Public(scalar Secret) []byte {
	var private, public x25519.Key
	copy(private[:], scalar)
	x25519.KeyGen(&public, &private)
	clear(private[:])
	return public[:]
}

// x25519Shared computes the shared secret. It refuses a public value of low order: the result is
// then all zero (RFC 8031, Section 3.2).
func x25519Shared(scalar Secret, peer []byte) (Secret, error) {
	var private, public, shared x25519.Key
	copy(private[:], scalar)
	copy(public[:], peer)
	ok := x25519.Shared(&shared, &private, &public)
	clear(private[:])
	if !ok {
		return nil, fmt.Errorf("%w for x25519: of low order", ErrPublicValue)
	}
	return shared[:], nil
}
