//go:build lab

package lab_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"embed"
	"encoding/pem"
	"regexp"
	"strings"
	"testing"

	"ipsec-quick/test/harness"
)

// A tunnelCase is one row of the table: what to agree on and over what network.
// Its zero value is PSK, curve25519, AES-GCM, tunnel mode, IPv4.
type tunnelCase struct {
	name string

	ike, esp  string // our proposals, separated by commas
	swanIKE   string // strongSwan's where they differ
	swanESP   string
	esn       string // esn in our file
	keys      func(*testing.T) (a, b crypto.Signer)
	transport bool
	outer6    bool
	inner6    bool // 6 inside, besides 4 with inner4
	inner4    bool
	nat       bool
	encap     bool
	fragment  int
	longIDs   bool

	swanAuth      string
	swanExtra     string
	swanLocalAuth string
	swanSettings  []string

	narrow bool // strongSwan has narrower selectors than we
	crowd  bool // a third host fills the responder with half-open IKE SAs first

	// vary changes the case for one of the roles.
	vary func(c *tunnelCase, weInitiate bool)
	// after checks what is special, with strongSwan's log and the capture.
	after func(t *testing.T, r caseResult)
}

// caseResult is what an after function looks at.
type caseResult struct {
	role    string
	quick   *harness.Quick // nil when strongSwan stands in for it
	swanLog string
	capture *harness.Capture
}

func (c tunnelCase) quickIKE() []string {
	if c.ike == "" {
		return []string{"aes256gcm16-prfsha384-x25519"}
	}
	return strings.Split(c.ike, ",")
}

func (c tunnelCase) quickESP() []string {
	if c.esp == "" {
		return []string{"aes256gcm16"}
	}
	return strings.Split(c.esp, ",")
}

// cases is the table of `It is done when`, line 2.
var cases = []tunnelCase{
	{name: "PSK"},
	{name: "raw key, Ed25519", keys: newEd25519},
	{name: "raw key, ECDSA P-256", keys: newP256},
	{name: "raw key, ECDSA P-384", keys: newP384},
	{name: "raw key, RSA PKCS#1 v1.5", keys: newRSA},
	{name: "raw key, RSA PSS", keys: newRSA, swanSettings: []string{"rsa_pss = yes"}},
	{name: "AES-GCM 128", ike: "aes128gcm16-prfsha256-x25519", esp: "aes128gcm16"},
	{name: "ChaCha20-Poly1305", ike: "chacha20poly1305-prfsha256-x25519", esp: "chacha20poly1305"},
	{name: "AES-CBC 128, SHA2-256", ike: "aes128-sha256-x25519", esp: "aes128-sha256"},
	{name: "AES-CBC 256, SHA2-384", ike: "aes256-sha384-ecp256", esp: "aes256-sha384"},
	{name: "AES-CBC 256, SHA2-512", ike: "aes256-sha512-ecp521", esp: "aes256-sha512"},
	{name: "ECP-384", ike: "aes256gcm16-prfsha384-ecp384", esp: "aes256gcm16-ecp384"},
	{name: "MODP-2048", ike: "aes128gcm16-prfsha256-modp2048", esp: "aes128gcm16"},
	{name: "MODP-3072", ike: "aes128gcm16-prfsha256-modp3072", esp: "aes128gcm16"},
	{name: "ESN", esn: "true", swanESP: "aes256gcm16-esn"},
	{name: "no ESN", esn: "false", swanESP: "aes256gcm16-noesn"},
	{name: "transport mode", transport: true},
	{name: "transport mode, IPv6", transport: true, outer6: true},
	{name: "IPv4 in IPv6", outer6: true},
	{name: "IPv6 in IPv4", inner6: true},
	{name: "IPv6 in IPv6", inner6: true, outer6: true},
	{name: "IPv4 and IPv6 in one SA", inner4: true, inner6: true},
	{name: "NAT between, the initiator behind it", nat: true},
	{name: "ESP in UDP without a NAT", encap: true, swanExtra: "encap = yes", after: wantESPinUDP},
	{
		name: "IKE fragments of 576 bytes", keys: newRSA, longIDs: true, fragment: 576,
		swanExtra: "fragmentation = yes", swanSettings: []string{"fragment_size = 576"},
		after: wantFragments,
	},
	{
		name: "cookie demanded", crowd: true, after: wantLog("request 0 [ N(COOKIE)"),
		swanSettings: []string{"cookie_threshold = 1", "block_threshold = 0"},
	},
	{name: "first KE group refused", vary: refusedGroup, after: wantLog("N(INVAL_KE)")},
	{name: "selectors narrowed", narrow: true, after: wantNarrowed},
}

// refusedGroup gives the two sides of "first KE group refused" their
// proposals: the initiator sends curve25519 first, the responder takes ECP-384
// alone.
func refusedGroup(c *tunnelCase, weInitiate bool) {
	both, one := "aes256gcm16-prfsha384-x25519-ecp384", "aes256gcm16-prfsha384-ecp384"
	c.ike, c.swanIKE = "aes256gcm16-prfsha384-x25519,"+one, one
	if !weInitiate {
		c.ike, c.swanIKE = one, both
	}
}

func wantESPinUDP(t *testing.T, r caseResult) {
	t.Helper()
	if r.capture.Count(harness.KindESP) != 0 || r.capture.Count(harness.KindESPinUDP) == 0 {
		t.Errorf("not ESP in UDP: %v", r.capture)
	}
}

func wantFragments(t *testing.T, r caseResult) {
	t.Helper()
	if got := r.capture.LargestIKE(); got > 576 || got < 400 {
		t.Errorf("the largest IKE packet has %d bytes", got)
	}
	for _, verb := range []string{"parsed", "generating"} {
		if !regexp.MustCompile(verb + ` IKE_AUTH \w+ 1 \[ EF\(`).MatchString(r.swanLog) {
			t.Errorf("strongSwan has not %s fragments", verb)
		}
	}
	if r.capture.Count(harness.KindFragment) > 0 {
		t.Errorf("IP fragments: %v", r.capture)
	}
}

// wantLog wants a text in strongSwan's log.
func wantLog(text string) func(*testing.T, caseResult) {
	return func(t *testing.T, r caseResult) {
		t.Helper()
		if !strings.Contains(r.swanLog, text) {
			t.Errorf("strongSwan's log does not have %q", text)
		}
	}
}

func wantNarrowed(t *testing.T, r caseResult) {
	t.Helper()
	if r.quick == nil {
		return
	}
	p := r.quick.Peer()
	if len(p.Children) != 1 {
		t.Fatalf("%d Child SAs", len(p.Children))
	}
	for _, ts := range append(p.Children[0].LocalTS, p.Children[0].RemoteTS...) {
		if !strings.HasSuffix(ts, "/24") {
			t.Errorf("not narrowed to /24: %q ↔ %q", p.Children[0].LocalTS, p.Children[0].RemoteTS)
			break
		}
	}
}

func newEd25519(t *testing.T) (a, b crypto.Signer) {
	t.Helper()
	return pair(t, func() (crypto.Signer, error) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	})
}

func newP256(t *testing.T) (a, b crypto.Signer) {
	t.Helper()
	return pair(t, func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) })
}

func newP384(t *testing.T) (a, b crypto.Signer) {
	t.Helper()
	return pair(t, func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) })
}

func pair(t *testing.T, generate func() (crypto.Signer, error)) (a, b crypto.Signer) {
	t.Helper()
	a, err := generate()
	if err == nil {
		b, err = generate()
	}
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// rsaKeys are two keys that serve nobody else; to make one takes half a minute
// under emulation.
//
//go:embed testdata/rsa-a.key testdata/rsa-b.key
var rsaKeys embed.FS

func newRSA(t *testing.T) (a, b crypto.Signer) {
	t.Helper()
	read := func(name string) crypto.Signer {
		text, err := rsaKeys.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return key.(*rsa.PrivateKey)
	}
	return read("rsa-a.key"), read("rsa-b.key")
}
