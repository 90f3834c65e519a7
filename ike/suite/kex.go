package suite

import (
	"crypto/ecdh"
	"errors"
	"fmt"
	"io"

	"filippo.io/bigmod"

	"ipsec-quick/ike/wire"
)

// ErrPublicValue is wrapped by the error of Shared when the peer's public value is one that
// RFC 6989, Section 2, or RFC 8031, Section 3.2, tells a recipient to refuse.
var ErrPublicValue = errors.New("invalid public value")

// drawLimit bounds how often GenerateKE draws a scalar. A P-256 scalar is out of range once in
// 2^32 draws, so reaching the limit means that the source of randomness is broken.
const drawLimit = 16

// PrivateKE is our half of one key exchange (RFC 7296, Section 3.4). It is plain data that
// encoding/gob carries, so that an exchange survives a restart.
type PrivateKE struct {
	Group  wire.TransformID
	Scalar Secret // big-endian for ECP and MODP, little-endian for Curve25519
	Public []byte // the Key Exchange Data to send

	key *ecdh.PrivateKey // Scalar parsed; nil after a restart
}

// Format writes the group and "<hidden>" for every verb.
func (k PrivateKE) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "{%s %s}", keyword(wire.Transform{Type: wire.TransformKE, ID: k.Group}), redacted)
}

// GenerateKE draws a private value for the group from rand and computes its public value.
//
// Of each scalar, crypto/ecdh needs the whole length. Of a MODP exponent we draw 320, 424 and 480
// bits, the larger of the two estimates in RFC 3526, Section 8: longer ones add nothing.
// The error is that of rand, or says that the group is not supported.
func GenerateKE(group wire.TransformID, rand io.Reader) (*PrivateKE, error) {
	m := methodOf(group)
	if m == nil {
		return nil, fmt.Errorf("key exchange method %d is not supported", group)
	}
	scalar := make(Secret, m.scalar)
	for range drawLimit {
		if _, err := io.ReadFull(rand, scalar); err != nil {
			scalar.Wipe()
			return nil, fmt.Errorf("drawing a private value: %w", err)
		}
		if group == wire.KEECP521 {
			scalar[0] &= 1 // 521 bits in 66 octets
		}
		k := &PrivateKE{Group: group, Scalar: scalar}
		if err := k.expand(m); err == nil {
			return k, nil
		}
	}
	scalar.Wipe()
	return nil, errors.New("drawing a private value: the source of randomness repeats itself")
}

// expand computes Public and key from Group and Scalar.
func (k *PrivateKE) expand(m *method) error {
	switch {
	case m.modp != nil:
		y := bigmod.NewNat().Exp(m.modp.generator, k.Scalar, m.modp.p)
		k.Public = y.Bytes(m.modp.p)
		return m.modp.check(y)
	case m.curve == nil:
		k.Public = x25519Public(k.Scalar)
		return nil
	}
	key, err := m.curve.NewPrivateKey(k.Scalar)
	if err != nil {
		return err
	}
	k.key = key
	k.Public = key.PublicKey().Bytes()[1:] // x | y without the octet 4: RFC 5903, Section 7
	return nil
}

// Shared computes the shared secret g^ir from the Key Exchange Data of the peer, and refuses a
// value that must not be used (an error that wraps ErrPublicValue). The secret is the x coordinate
// for ECP (RFC 5903, Section 7) and has the length of the prime for MODP (RFC 7296, Section 2.14).
func (k *PrivateKE) Shared(peer []byte) (Secret, error) {
	m := methodOf(k.Group)
	if m == nil {
		return nil, fmt.Errorf("key exchange method %d is not supported", k.Group)
	}
	if len(peer) != m.public {
		return nil, fmt.Errorf("%w for %s: %d octets, not %d", ErrPublicValue, m.names[0], len(peer), m.public)
	}
	switch {
	case m.modp != nil:
		return m.modp.shared(k.Scalar, peer, m.names[0])
	case m.curve == nil:
		return x25519Shared(k.Scalar, peer)
	}
	key := k.key
	if key == nil {
		var err error
		if key, err = m.curve.NewPrivateKey(k.Scalar); err != nil {
			return nil, fmt.Errorf("private value for %s: %w", m.names[0], err)
		}
	}
	peer = append([]byte{4}, peer...) // the form of SEC 1 that crypto/ecdh reads
	public, err := m.curve.NewPublicKey(peer)
	if err != nil {
		return nil, fmt.Errorf("%w for %s: not a point on the curve", ErrPublicValue, m.names[0])
	}
	shared, err := key.ECDH(public)
	if err != nil {
		return nil, fmt.Errorf("%w for %s: of low order", ErrPublicValue, m.names[0])
	}
	return shared, nil
}

// Wipe overwrites the private value. The copy that crypto/ecdh made is left to the collector.
func (k *PrivateKE) Wipe() {
	k.Scalar.Wipe()
	k.key = nil
}

// shared computes peer^scalar mod p in constant time.
func (g *modpGroup) shared(scalar Secret, peer []byte, name string) (Secret, error) {
	y, err := bigmod.NewNat().SetBytes(peer, g.p)
	if err != nil {
		return nil, fmt.Errorf("%w for %s: not less than the prime", ErrPublicValue, name)
	}
	if err := g.check(y); err != nil {
		return nil, fmt.Errorf("%w for %s: %w", ErrPublicValue, name, err)
	}
	return bigmod.NewNat().Exp(y, scalar, g.p).Bytes(g.p), nil
}

// check refuses what is not in 2..p-2 (RFC 6989, Section 2.1).
func (g *modpGroup) check(y *bigmod.Nat) error {
	if y.IsZero()|y.IsOne()|y.IsMinusOne(g.p) != 0 {
		return errors.New("0, 1 or p-1")
	}
	return nil
}
