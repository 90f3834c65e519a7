package auth

import (
	"crypto"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"

	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

// vectors returns the lines of a file in testdata, split into words. A file with none fails.
func vectors(t testing.TB, name string, words int) [][]string {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var all [][]string
	for line := range strings.Lines(string(text)) {
		w := strings.Fields(line)
		if len(w) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		if len(w) != words {
			t.Fatalf("%s: %d words, not %d: %s", name, len(w), words, line)
		}
		all = append(all, w)
	}
	if len(all) == 0 {
		t.Fatalf("%s is empty", name)
	}
	return all
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// counter is a reader of octets that count up.
type counter byte

func (c *counter) Read(b []byte) (int, error) {
	for i := range b {
		*c++
		b[i] = byte(*c)
	}
	return len(b), nil
}

// key reads one of the private keys in testdata. They were made for these tests with openssl.
func key(t testing.TB, name string) crypto.Signer {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name + ".pem")
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParsePrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var prfs = map[string]wire.TransformID{
	"sha256": wire.PRFHMACSHA256, "sha384": wire.PRFHMACSHA384, "sha512": wire.PRFHMACSHA512,
}

func TestPSK(t *testing.T) {
	for _, v := range vectors(t, "psk.txt", 7) {
		prf, psk := prfs[v[0]], suite.Secret(unhex(t, v[1]))
		id := wire.ID{Kind: wire.IDFQDN, Data: unhex(t, v[5])[4:]}
		octets := SignedOctets(unhex(t, v[2]), unhex(t, v[3]), prf, unhex(t, v[4]), id)
		a, err := Local{PSK: psk}.Sign(prf, octets, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if a.Method != wire.MethodSharedKey || hex.EncodeToString(a.Data) != v[6] {
			t.Errorf("%s, %d octets of key: method %s\n got %x\nwant %s", v[0], len(psk), a.Method, a.Data, v[6])
		}
		remote := Remote{PSK: psk}
		if err := remote.Verify(prf, octets, a); err != nil {
			t.Error(err)
		}
		for name, bad := range map[string]wire.Auth{
			"another code": {Method: a.Method, Data: append([]byte{a.Data[0] ^ 1}, a.Data[1:]...)},
			"a short code": {Method: a.Method, Data: a.Data[:len(a.Data)-1]},
			"no code":      {Method: a.Method},
			"NULL":         {Method: wire.MethodNull, Data: a.Data},
		} {
			mismatch(t, name, remote.Verify(prf, octets, bad), "pre-shared key", "")
		}
		mismatch(t, "other octets", remote.Verify(prf, octets[1:], a), "the pre-shared key that is configured", "another pre-shared key")
	}
}

// mismatch checks that err is a Mismatch that says both.
func mismatch(t testing.TB, name string, err error, expected, got string) {
	t.Helper()
	var m *Mismatch
	if !errors.As(err, &m) {
		t.Errorf("%s: the error is %v", name, err)
		return
	}
	if !strings.Contains(m.Expected, expected) || !strings.Contains(m.Got, got) || m.Expected == "" || m.Got == "" {
		t.Errorf("%s: expected %q, got %q; want %q, %q", name, m.Expected, m.Got, expected, got)
	}
	if !strings.Contains(err.Error(), m.Expected) || !strings.Contains(err.Error(), m.Got) {
		t.Errorf("%s: the text is %q", name, err)
	}
}

func TestCredentials(t *testing.T) {
	k := key(t, "ed25519")
	psk := suite.Secret("secret")
	a := wire.Auth{Method: wire.MethodSharedKey, Data: make([]byte, 32)}
	for _, l := range []Local{{}, {PSK: psk, Key: k}} {
		if _, err := l.Sign(wire.PRFHMACSHA256, nil, Hashes, nil); err == nil {
			t.Errorf("signed with %v and %v", l.PSK, l.Key)
		}
	}
	for _, r := range []Remote{{}, {PSK: psk, Keys: []crypto.PublicKey{k.Public()}}, {Keys: []crypto.PublicKey{}}} {
		if err := r.Verify(wire.PRFHMACSHA256, nil, a); err == nil {
			t.Errorf("verified with %v and %v", r.PSK, r.Keys)
		}
	}
	// A PRF that is not there must not make the empty code the right one.
	if _, err := (Local{PSK: psk}).Sign(wire.PRFHMACSHA1, nil, nil, nil); err == nil {
		t.Error("signed with a PRF that is not supported")
	}
	if err := (Remote{PSK: psk}).Verify(wire.PRFHMACSHA1, nil, wire.Auth{Method: wire.MethodSharedKey}); err == nil {
		t.Error("verified with a PRF that is not supported")
	}
}
