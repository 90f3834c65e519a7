package auth

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name + ".pem")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func same(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

func TestParseKeys(t *testing.T) {
	for _, name := range keyNames {
		public := key(t, name).Public()
		pub, err := ParsePublicKey(string(read(t, strings.TrimSuffix(name, "-pkcs1")+".pub")))
		if err != nil || !same(pub, public) {
			t.Errorf("%s: its public key in PEM: %v", name, err)
		}
		text := FormatPublicKey(public)
		pub, err = ParsePublicKey(" " + text + "\n")
		if err != nil || !same(pub, public) || !strings.HasPrefix(text, string(kindOf(public))+":") || strings.ContainsAny(text, " \n") {
			t.Errorf("%s: its public key is %q: %v", name, text, err)
		}
	}
	const text = "ed25519:MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=" // RFC 8410, Section 10.1
	public, err := ParsePublicKey(text)
	if err != nil || FormatPublicKey(public) != text {
		t.Errorf("the key of RFC 8410: %v", err)
	}
	private := "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n"
	if k, err := ParsePrivateKey([]byte(private)); err != nil || !same(k.Public(), public) {
		t.Errorf("the private key of RFC 8410, Section 10.3: %v", err)
	}
	if f := Fingerprint(public); len(f) != len("SHA256:")+43 || !strings.HasPrefix(f, "SHA256:") {
		t.Errorf("its fingerprint is %s", f)
	}
}

func TestParsePrivateKeyErrors(t *testing.T) {
	want := map[string]string{
		"bad-certificate": "this is a certificate", "bad-encrypted": "is encrypted; decrypt it with: openssl",
		"bad-encrypted-pkcs1": "is encrypted; decrypt it with: openssl", "bad-openssh": "OpenSSH's format",
		"bad-p224": "on a curve other than", "bad-public": "this is a public key", "bad-rsa1024": "has 1024 bits",
		"bad-secp256k1": "can't be read", "bad-x25519": "it is for key agreement",
	}
	files, err := filepath.Glob("testdata/bad-*.pem")
	if err != nil || len(files) != len(want) {
		t.Fatalf("%d files, not %d: %v", len(files), len(want), err)
	}
	for name, text := range want {
		if k, err := ParsePrivateKey(read(t, name)); err == nil || k != nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v; want %q", name, err, text)
		}
	}
	good := string(read(t, "ed25519"))
	for text, want := range map[string]string{
		"":                 "no private key in PEM",
		"secret":           "no private key in PEM",
		good[:len(good)/2]: "no private key in PEM",
		strings.ReplaceAll(good, "PRIVATE KEY", "DH PARAMETERS"):   `"DH PARAMETERS" is not a private key`,
		strings.ReplaceAll(good, "PRIVATE KEY", "RSA PRIVATE KEY"): "can't be read",
	} {
		if _, err := ParsePrivateKey([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: %v; want %q", text, err, want)
		}
	}
}

func TestParsePublicKeyErrors(t *testing.T) {
	good := FormatPublicKey(key(t, "ed25519").Public())
	public := string(read(t, "p256.pub"))
	for _, v := range []struct{ in, want string }{
		{"", "has no kind"},
		{good[8:], "has no kind"},
		{"dsa:AAAA", `kind "dsa" are not known`},
		{"rsa:" + good[8:], `is of kind "ed25519", not "rsa"`},
		{good[:len(good)-1], "is not base64"},
		{good[:20] + "\n" + good[20:], ""}, // a line break in base64 is none of our concern
		{"ed25519:", "can't be read"},
		{"ed25519:AAAA", "can't be read"},
		{"rsa:" + spki(t, "bad-rsa1024"), "has 1024 bits"},
		{"ecdsa:" + spki(t, "bad-p224"), "on a curve other than"},
		{public[:len(public)-10], "not whole PEM"},
		{public + public, "something follows"},
		{string(read(t, "ed25519")), "this is a private key"},
		{string(read(t, "bad-certificate")), `"CERTIFICATE" is not a public key`},
	} {
		k, err := ParsePublicKey(v.in)
		if v.want == "" {
			if err != nil {
				t.Errorf("%.30q: %v", v.in, err)
			}
		} else if err == nil || k != nil || !strings.Contains(err.Error(), v.want) {
			t.Errorf("%.30q: %v; want %q", v.in, err, v.want)
		}
	}
	if FormatPublicKey("not a key") != "" || Fingerprint(nil) != "unknown" {
		t.Error("what is no key has a text")
	}
}

// spki returns the public half of a private key that we refuse, in base64.
func spki(t testing.TB, name string) string {
	t.Helper()
	block, _ := pem.Decode(read(t, name))
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(k.(crypto.Signer).Public())
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

func TestGenerateKey(t *testing.T) {
	for kind, want := range map[string]string{"ed25519": "ed25519", "ecdsa-p256": "ecdsa", "ecdsa-p384": "ecdsa", "rsa-3072": "rsa"} {
		var keys [3]crypto.Signer
		for i, seed := range []counter{0, 0, 1} {
			text, err := GenerateKey(kind, &seed)
			if err != nil {
				t.Fatal(err)
			}
			if keys[i], err = ParsePrivateKey(text); err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			if kind == "rsa-3072" && keys[i].Public().(*rsa.PublicKey).N.BitLen() != 3072 {
				t.Error("the RSA key is of another length")
			}
			if kind == "rsa-3072" {
				break // slow, and not of the reader
			}
		}
		if got := string(kindOf(keys[0].Public())); got != want {
			t.Errorf("%s is of kind %s", kind, got)
		}
		if kind != "rsa-3072" && (!same(keys[0].Public(), keys[1].Public()) || same(keys[0].Public(), keys[2].Public())) {
			t.Errorf("%s does not come of the reader", kind)
		}
	}
	broken := errors.New("broken")
	for _, kind := range []string{"ed25519", "ecdsa-p256", "ecdsa-p384"} {
		if _, err := GenerateKey(kind, iotest.ErrReader(broken)); !errors.Is(err, broken) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if _, err := GenerateKey("ecdsa-p256", bytes.NewReader(bytes.Repeat([]byte{0xff}, 4096))); err == nil {
		t.Error("a source that repeats itself")
	}
	if _, err := GenerateKey("dsa", new(counter)); err == nil || !strings.Contains(err.Error(), "ed25519") {
		t.Errorf("dsa: %v", err)
	}
}

// FuzzKey takes the text of a key, public or private. A public key that parses
// is printed, and parses to the same; a private one signs what its public key
// verifies.
func FuzzKey(f *testing.F) {
	for _, name := range keyNames {
		f.Add(read(f, name))
		f.Add([]byte(FormatPublicKey(key(f, name).Public())))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if public, err := ParsePublicKey(string(text)); err != nil && public != nil {
			t.Fatal("a public key and an error")
		} else if err == nil {
			printsTheSame(t, public)
		}
		private, err := ParsePrivateKey(text)
		if err != nil {
			return
		}
		printsTheSame(t, private.Public())
		a, err := Local{Key: private}.Sign(prf, text, Hashes, new(counter))
		if err != nil {
			return // a key whose parts don't go together
		}
		if err := (Remote{Keys: []crypto.PublicKey{private.Public()}}).Verify(prf, text, a); err != nil {
			t.Fatal(err)
		}
	})
}

func printsTheSame(t *testing.T, k crypto.PublicKey) {
	t.Helper()
	text := FormatPublicKey(k)
	again, err := ParsePublicKey(text)
	if err != nil || !same(k, again) || FormatPublicKey(again) != text {
		t.Fatalf("%v prints as %q: %v", k, text, err)
	}
}
