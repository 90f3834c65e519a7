package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Bounds on RSA keys in bits: RFC 8247, Section 3.1.1, and what it costs to verify.
const (
	minRSA = 2048
	maxRSA = 8192
)

// ParsePrivateKey reads a private key from PEM: "PRIVATE KEY" (PKCS #8), "EC PRIVATE KEY" (SEC 1)
// or "RSA PRIVATE KEY" (PKCS #1), of Ed25519, ECDSA on P-256, P-384 or P-521, or RSA of 2048 to
// 8192 bits. "EC PARAMETERS" before it are skipped. The error says what is there instead, and how
// to make of it what is needed.
func ParsePrivateKey(text []byte) (crypto.Signer, error) {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return nil, errors.New(`no private key in PEM: no "-----BEGIN PRIVATE KEY-----"`)
		}
		if block.Type != "EC PARAMETERS" {
			key, err := parsePrivateBlock(block)
			clear(block.Bytes)
			return key, err
		}
		text = rest
	}
}

func parsePrivateBlock(block *pem.Block) (crypto.Signer, error) {
	if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
		return nil, errors.New("the private key is encrypted; decrypt it with: openssl pkey -in KEY -out NEW")
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "OPENSSH PRIVATE KEY":
		return nil, errors.New("the private key is in OpenSSH's format, not PKCS #8: make a new one with ipsec-quick genkey")
	case "PUBLIC KEY", "RSA PUBLIC KEY":
		return nil, errors.New("this is a public key; the private key is needed here")
	case "CERTIFICATE":
		return nil, errors.New("this is a certificate; the private key is needed here")
	default:
		return nil, fmt.Errorf(`PEM of type %q is not a private key: "PRIVATE KEY" is needed`, block.Type)
	}
	if err != nil {
		return nil, errors.New("the private key can't be read: not what its PEM type says, or of an unknown algorithm")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("the private key can't sign: it is for key agreement; Ed25519, ECDSA or RSA is needed")
	}
	if err := checkPublicKey(signer.Public()); err != nil {
		return nil, err
	}
	return signer, nil
}

// ParsePublicKey reads a public key: as FormatPublicKey writes it, or in PEM of type "PUBLIC KEY".
// The bounds are those of ParsePrivateKey.
func ParsePublicKey(s string) (crypto.PublicKey, error) {
	s = strings.TrimSpace(s)
	if strings.HasPrefix(s, "-----BEGIN") {
		block, rest := pem.Decode([]byte(s))
		switch {
		case block == nil:
			return nil, errors.New("the public key is not whole PEM")
		case strings.Contains(block.Type, "PRIVATE KEY"):
			clear(block.Bytes)
			return nil, errors.New("this is a private key; the public key is needed here, as ipsec-quick pubkey prints it")
		case block.Type != "PUBLIC KEY":
			return nil, fmt.Errorf(`PEM of type %q is not a public key: "PUBLIC KEY" is needed`, block.Type)
		case len(rest) > 0:
			return nil, errors.New("something follows the public key")
		}
		return parseSPKI(block.Bytes)
	}
	name, text, ok := strings.Cut(s, ":")
	if !ok {
		return nil, errors.New(`the public key has no kind: "ed25519:", "ecdsa:" or "rsa:" comes before the base64`)
	}
	switch kind(name) {
	case kindEd25519, kindECDSA, kindRSA:
	default:
		return nil, fmt.Errorf(`public keys of kind %q are not known: "ed25519", "ecdsa" and "rsa" are`, name)
	}
	der, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("the public key behind %q is not base64: %w", name+":", err)
	}
	key, err := parseSPKI(der)
	if err != nil {
		return nil, err
	}
	if k := kindOf(key); k != kind(name) {
		return nil, fmt.Errorf("the public key is of kind %q, not %q", k, name)
	}
	return key, nil
}

// parseSPKI reads a SubjectPublicKeyInfo in DER.
func parseSPKI(der []byte) (crypto.PublicKey, error) {
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, errors.New("the public key can't be read: not a SubjectPublicKeyInfo, or of an unknown algorithm")
	}
	if err := checkPublicKey(key); err != nil {
		return nil, err
	}
	return key, nil
}

// checkPublicKey refuses a key that we don't sign or verify with.
func checkPublicKey(key crypto.PublicKey) error {
	switch k := key.(type) {
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return fmt.Errorf("an Ed25519 key of %d octets, not %d", len(k), ed25519.PublicKeySize)
		}
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
		default:
			return errors.New("the ECDSA key is on a curve other than P-256, P-384 and P-521")
		}
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSA || n > maxRSA {
			return fmt.Errorf("the RSA key has %d bits; %d to %d are needed", n, minRSA, maxRSA)
		}
	default:
		return errors.New("the key is not of Ed25519, ECDSA or RSA")
	}
	return nil
}

// FormatPublicKey writes a public key as its kind, a colon and the base64 of its
// SubjectPublicKeyInfo, such as ed25519:MCowBQ..., on one line. It returns the empty string for a
// key that ParsePublicKey would refuse.
func FormatPublicKey(key crypto.PublicKey) string {
	der, err := marshalSPKI(key)
	if err != nil {
		return ""
	}
	return string(kindOf(key)) + ":" + base64.StdEncoding.EncodeToString(der)
}

// Fingerprint names a public key in messages: SHA256: and the base64 of the SHA2-256 hash of its
// SubjectPublicKeyInfo; "unknown" for a key that ParsePublicKey would refuse.
func Fingerprint(key crypto.PublicKey) string {
	der, err := marshalSPKI(key)
	if err != nil {
		return "unknown"
	}
	sum := sha256.Sum256(der)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

func marshalSPKI(key crypto.PublicKey) ([]byte, error) {
	if err := checkPublicKey(key); err != nil {
		return nil, err
	}
	return x509.MarshalPKIXPublicKey(key)
}

// drawLimit bounds how often GenerateKey draws a scalar: each is out of range once in 2^32 draws.
const drawLimit = 16

// GenerateKey makes a private key of kind "ed25519", "ecdsa-p256", "ecdsa-p384" or "rsa-3072" and
// returns it in PEM (PKCS #8). An RSA key takes its randomness from the system, as crypto/rsa does
// whatever reader it is given.
func GenerateKey(kind string, rand io.Reader) ([]byte, error) {
	var key any
	var err error
	switch kind {
	case "ed25519":
		seed := make([]byte, ed25519.SeedSize)
		if _, err = io.ReadFull(rand, seed); err == nil {
			key = ed25519.NewKeyFromSeed(seed)
		}
		clear(seed)
	case "ecdsa-p256":
		key, err = generateECDSA(elliptic.P256(), 32, rand)
	case "ecdsa-p384":
		key, err = generateECDSA(elliptic.P384(), 48, rand)
	case "rsa-3072":
		key, err = rsa.GenerateKey(rand, 3072)
	default:
		return nil, fmt.Errorf(`keys of kind %q are not known: "ed25519", "ecdsa-p256", "ecdsa-p384" and "rsa-3072" are`, kind)
	}
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	defer clear(der)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func generateECDSA(curve elliptic.Curve, size int, rand io.Reader) (*ecdsa.PrivateKey, error) {
	scalar := make([]byte, size)
	defer clear(scalar)
	for range drawLimit {
		if _, err := io.ReadFull(rand, scalar); err != nil {
			return nil, err
		}
		if key, err := ecdsa.ParseRawPrivateKey(curve, scalar); err == nil {
			return key, nil
		}
	}
	return nil, errors.New("the source of randomness repeats itself")
}
