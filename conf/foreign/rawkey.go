package foreign

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"math/big"
	"strings"

	"ipsec-quick/ike/auth"
)

// inlineKey reads a public key that stands in an ipsec.conf: base64 behind 0s or
// hexadecimal behind 0x, of an RSA key as DNS has it (RFC 3110) or of a
// SubjectPublicKeyInfo. The key is empty if it is neither; inline says whether it
// is no file's name.
func inlineKey(s string) (key string, inline bool) {
	s = strings.TrimPrefix(s, "dns:")
	var data []byte
	var err error
	switch {
	case strings.HasPrefix(s, "0s"):
		data, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.ReplaceAll(s[2:], " ", ""), "="))
	case strings.HasPrefix(s, "0x"):
		data, err = hex.DecodeString(s[2:])
	default:
		return "", strings.HasPrefix(s, "ssh:")
	}
	if err != nil {
		return "", true
	}
	if public, err := x509.ParsePKIXPublicKey(data); err == nil {
		return auth.FormatPublicKey(public), true
	}
	if public := dnsRSA(data); public != nil {
		return auth.FormatPublicKey(public), true
	}
	return "", true
}

// dnsRSA reads an RSA key in the format of RFC 3110, Section 2: the length of the
// exponent in one or three octets, the exponent, the modulus.
func dnsRSA(data []byte) *rsa.PublicKey {
	if len(data) < 3 {
		return nil
	}
	n, rest := int(data[0]), data[1:]
	if n == 0 {
		n, rest = int(binary.BigEndian.Uint16(rest)), rest[2:]
	}
	if n < 1 || n > 4 || len(rest) <= n {
		return nil
	}
	e := 0
	for _, octet := range rest[:n] {
		e = e<<8 | int(octet)
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(rest[n:]), E: e}
}

// appendDNSRSA is the other direction.
func appendDNSRSA(b []byte, key *rsa.PublicKey) []byte {
	e := big.NewInt(int64(key.E)).Bytes()
	return append(append(append(b, byte(len(e))), e...), key.N.Bytes()...)
}
