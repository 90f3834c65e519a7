package auth

import (
	"crypto"
	"encoding/hex"
	"strings"
	"testing"

	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

const prf = wire.PRFHMACSHA256

func digitalSignature(blob, signature []byte) wire.Auth {
	data := append([]byte{byte(len(blob))}, blob...)
	return wire.Auth{Method: wire.MethodDigitalSignature, Data: append(data, signature...)}
}

// TestSignatureVectors verifies signatures that OpenSSL made, with each encoding of the algorithm.
func TestSignatureVectors(t *testing.T) {
	lines := vectors(t, "signatures.txt", 4)
	octets := unhex(t, lines[0][1])
	for _, v := range lines[1:] {
		t.Run(v[0]+"/"+v[1], func(t *testing.T) {
			public := key(t, v[0]).Public()
			blob, signature := unhex(t, v[2]), unhex(t, v[3])
			remote := Remote{Keys: []crypto.PublicKey{public}}
			if err := remote.Verify(prf, octets, digitalSignature(blob, signature)); err != nil {
				t.Fatal(err)
			}
			mismatch(t, "other octets", remote.Verify(prf, octets[1:], digitalSignature(blob, signature)), Fingerprint(public), "with another key")
			signature[len(signature)/2] ^= 1
			mismatch(t, "changed", remote.Verify(prf, octets, digitalSignature(blob, signature)), Fingerprint(public), "with another key")
			mismatch(t, "empty", remote.Verify(prf, octets, digitalSignature(blob, nil)), Fingerprint(public), "with another key")
		})
	}
}

// TestBlobs compares what we send with RFC 7427, Appendix A, and RFC 8420, Appendix A.
func TestBlobs(t *testing.T) {
	want := map[string]string{
		"Ed25519":                        "300506032b6570",
		"ECDSA with SHA2-256":            "300a06082a8648ce3d040302",
		"ECDSA with SHA2-384":            "300a06082a8648ce3d040303",
		"ECDSA with SHA2-512":            "300a06082a8648ce3d040304",
		"RSA PKCS #1 v1.5 with SHA2-256": "300d06092a864886f70d01010b0500",
		"RSA PKCS #1 v1.5 with SHA2-384": "300d06092a864886f70d01010c0500",
		"RSA PKCS #1 v1.5 with SHA2-512": "300d06092a864886f70d01010d0500",
		// A.4.3 without the default trailerField, and the same with the other two hashes.
		"RSASSA-PSS with SHA2-256": "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120",
		"RSASSA-PSS with SHA2-384": "304106092a864886f70d01010a3034a00f300d06096086480165030402020500a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130",
		"RSASSA-PSS with SHA2-512": "304106092a864886f70d01010a3034a00f300d06096086480165030402030500a11c301a06092a864886f70d010108300d06096086480165030402030500a203020140",
	}
	if len(want) != len(schemes) {
		t.Errorf("%d schemes, not %d", len(schemes), len(want))
	}
	for _, s := range schemes {
		if got := hex.EncodeToString([]byte(s.blob)); got != want[s.name] {
			t.Errorf("%s: %s", s.name, got)
		}
		if got, name, ok := parseScheme([]byte(s.blob)); !ok || got != s || name != s.name {
			t.Errorf("%s is read as %s", s.name, name)
		}
	}
	const a43 = "304606092a864886f70d01010a3039a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120a303020101"
	if s, name, ok := parseScheme(unhex(t, a43)); !ok || s.name != "RSASSA-PSS with SHA2-256" {
		t.Errorf("RFC 7427, A.4.3, is read as %s", name)
	}
}

// TestBlobsRefused has what is too weak, and what says one thing in two ways.
func TestBlobsRefused(t *testing.T) {
	const (
		sha256 = "300d06096086480165030402010500"
		sha512 = "300d06096086480165030402030500"
		pss    = "06092a864886f70d01010a"
		mgf1   = "06092a864886f70d010108"
	)
	for _, v := range []struct{ name, blob, want string }{
		{"sha1WithRSAEncryption", "300d06092a864886f70d0101050500", "SHA-1, which is too weak"},
		{"ecdsa-with-sha1", "300906072a8648ce3d0401", "SHA-1, which is too weak"},
		{"dsa-with-sha1", "300906072a8648ce380403", "SHA-1, which is too weak"},
		{"PSS, empty", "300d06092a864886f70d01010a3000", "SHA-1, which is too weak"},
		{"PSS, defaults", "303e06092a864886f70d01010a3031a00b300906052b0e03021a0500a118301606092a864886f70d010108300906052b0e03021a0500a203020114a303020101", "other than"},
		{"PSS without parameters", "300b" + pss, "malformed"},
		{"PSS, two hashes", "3041" + pss + "3034a00f" + sha256 + "a11c301a" + mgf1 + sha512 + "a203020120", "other than"},
		{"PSS, short salt", "3041" + pss + "3034a00f" + sha256 + "a11c301a" + mgf1 + sha256 + "a203020110", "other than"},
		{"PSS, no salt", "303c" + pss + "302fa00f" + sha256 + "a11c301a" + mgf1 + sha256, "too weak"},
		{"PSS, another trailer", "3046" + pss + "3039a00f" + sha256 + "a11c301a" + mgf1 + sha256 + "a203020120a303020102", "other than"},
		{"PSS, another mask", "3041" + pss + "3034a00f" + sha256 + "a11c301a06092a864886f70d010107" + sha256 + "a203020120", "other than"},
		{"Ed448", "300506032b6571", "1.3.101.113"},
		{"Ed25519 with NULL", "300706032b65700500", "1.3.101.112"},
		{"ECDSA with NULL", "300c06082a8648ce3d0403020500", "1.2.840.10045.4.3.2"},
		{"PKCS #1 with more", "300f06092a864886f70d01010b05000500", "1.2.840.113549.1.1.11"},
		{"nothing", "", "malformed"},
		{"something behind", "300506032b657000", "malformed"},
		{"no OID", "3000", "malformed"},
	} {
		if _, name, ok := parseScheme(unhex(t, v.blob)); ok || !strings.Contains(name, v.want) {
			t.Errorf("%s is read as %q, %v", v.name, name, ok)
		}
	}
}

var keyNames = []string{"ed25519", "p256", "p384-sec1", "p521", "rsa2048", "rsa2048-pkcs1"}

func TestSignVerify(t *testing.T) {
	octets := []byte("the octets that are signed")
	for _, v := range []struct {
		key    string
		hashes []uint16
		want   string // the scheme, or the method without RFC 7427; empty: none
	}{
		{"ed25519", Hashes, "Ed25519"},
		{"ed25519", []uint16{1, 2, 3, 4}, ""},
		{"ed25519", nil, ""},
		{"p256", Hashes, "ECDSA with SHA2-256"},
		{"p256", []uint16{3, 4}, "ECDSA with SHA2-512"},
		{"p384-sec1", Hashes, "ECDSA with SHA2-384"},
		{"p384-sec1", []uint16{2, 1}, "ECDSA with SHA2-256"},
		{"p521", Hashes, "ECDSA with SHA2-512"},
		{"p256", []uint16{1}, ""},
		{"p256", nil, "ECDSA with SHA-256 on the P-256 curve"},
		{"p384-sec1", nil, "ECDSA with SHA-384 on the P-384 curve"},
		{"p521", nil, "ECDSA with SHA-512 on the P-521 curve"},
		{"rsa2048", Hashes, "RSASSA-PSS with SHA2-512"},
		{"rsa2048-pkcs1", []uint16{2}, "RSASSA-PSS with SHA2-256"},
		{"rsa2048", []uint16{1, 5}, ""},
		{"rsa2048", nil, ""},
	} {
		k := key(t, v.key)
		a, err := Local{Key: k}.Sign(prf, octets, v.hashes, new(counter))
		if v.want == "" {
			if err == nil || !strings.Contains(err.Error(), "announced") {
				t.Errorf("%s, %v: %v", v.key, v.hashes, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s, %v: %v", v.key, v.hashes, err)
			continue
		}
		if got := describe(a); !strings.HasSuffix(got, v.want) {
			t.Errorf("%s, %v: %s, not %s", v.key, v.hashes, got, v.want)
		}
		for _, other := range keyNames {
			remote := Remote{Keys: []crypto.PublicKey{key(t, other).Public()}}
			err := remote.Verify(prf, octets, a)
			if same := strings.TrimSuffix(other, "-pkcs1") == strings.TrimSuffix(v.key, "-pkcs1"); same && err != nil {
				t.Errorf("%s: %v", v.key, err)
			} else if !same {
				mismatch(t, other, err, Fingerprint(remote.Keys[0]), v.want)
			}
		}
		all := Remote{}
		for _, other := range keyNames {
			all.Keys = append(all.Keys, key(t, other).Public())
		}
		if err := all.Verify(prf, octets, a); err != nil {
			t.Errorf("%s among all keys: %v", v.key, err)
		}
		mismatch(t, "other octets", all.Verify(prf, octets[1:], a), "ed25519 key SHA256:", "with another key")
		mismatch(t, "a pre-shared key", Remote{PSK: suite.Secret("x")}.Verify(prf, octets, a), "a pre-shared key", v.want)
	}
}

func TestVerifyForeign(t *testing.T) {
	remote := Remote{Keys: []crypto.PublicKey{key(t, "ed25519").Public(), key(t, "p256").Public()}}
	for _, v := range []struct {
		name string
		a    wire.Auth
		want string
	}{
		{"a pre-shared key", wire.Auth{Method: wire.MethodSharedKey, Data: make([]byte, 32)}, "a pre-shared key"},
		{"RSA with SHA-1", wire.Auth{Method: wire.MethodRSA, Data: make([]byte, 256)}, "RSA Digital Signature"},
		{"no data", wire.Auth{Method: wire.MethodDigitalSignature}, "malformed"},
		{"a long length", wire.Auth{Method: wire.MethodDigitalSignature, Data: []byte{200, 1}}, "malformed"},
		{"no signature", wire.Auth{Method: wire.MethodDigitalSignature, Data: append([]byte{7}, schemes[0].blob...)}, "Ed25519"},
		{"a short one", wire.Auth{Method: wire.MethodECDSA256, Data: make([]byte, 63)}, "malformed"},
		{"zeros", wire.Auth{Method: wire.MethodECDSA256, Data: make([]byte, 64)}, "P-256"},
		{"another curve", wire.Auth{Method: wire.MethodECDSA384, Data: make([]byte, 96)}, "P-384"},
		{"from the future", wire.Auth{Method: 99, Data: make([]byte, 96)}, "99"},
	} {
		mismatch(t, v.name, remote.Verify(prf, []byte("octets"), v.a), " or ecdsa key SHA256:", v.want)
	}
	weak := Remote{Keys: []crypto.PublicKey{"not a key"}}
	mismatch(t, "no key at all", weak.Verify(prf, nil, digitalSignature([]byte(schemes[0].blob), nil)), "unknown", "Ed25519")
}

// FuzzVerify gives AUTH payloads to Verify as they come; none of them can be right.
func FuzzVerify(f *testing.F) {
	for _, v := range vectors(f, "signatures.txt", 4)[1:] {
		f.Add(uint8(wire.MethodDigitalSignature), digitalSignature(unhex(f, v[2]), unhex(f, v[3])).Data)
	}
	f.Add(uint8(wire.MethodECDSA256), make([]byte, 64))
	f.Add(uint8(wire.MethodSharedKey), make([]byte, 32))
	remote := Remote{}
	for _, name := range keyNames {
		remote.Keys = append(remote.Keys, key(f, name).Public())
	}
	f.Fuzz(func(t *testing.T, method uint8, data []byte) {
		a := wire.Auth{Method: wire.AuthMethod(method), Data: data}
		mismatch(t, "keys", remote.Verify(prf, []byte("octets"), a), "a signature by", "")
		mismatch(t, "pre-shared key", Remote{PSK: suite.Secret("x")}.Verify(prf, []byte("octets"), a), "pre-shared key", "")
	})
}
