package ike

import (
	"crypto"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"ipsec-quick/ike/auth"
	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

// key is a private key of a kind that [auth.GenerateKey] knows, or the one of
// RSA that the tests have.
func key(t testing.TB, kind string, seed byte) crypto.Signer {
	t.Helper()
	var text []byte
	var err error
	if kind == "rsa" {
		text, err = os.ReadFile("../test/testdata/rsa-" + string('a'+rune(seed-1)) + ".key")
	} else {
		text, err = auth.GenerateKey(kind, rand.NewChaCha8([32]byte{seed}))
	}
	if err != nil {
		t.Fatal(err)
	}
	k, err := auth.ParsePrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// withKeys makes two peers use keys of a kind.
func withKeys(t testing.TB, kind string) func(a, b *Peer) {
	ka, kb := key(t, kind, 1), key(t, kind, 2)
	return func(a, b *Peer) {
		a.Local, a.Remote = auth.Local{Key: ka}, auth.Remote{Keys: []crypto.PublicKey{kb.Public()}}
		b.Local, b.Remote = auth.Local{Key: kb}, auth.Remote{Keys: []crypto.PublicKey{ka.Public()}}
	}
}

func fqdn(name string) *wire.ID { return &wire.ID{Kind: wire.IDFQDN, Data: []byte(name)} }

func TestCredentials(t *testing.T) {
	for _, kind := range []string{"psk", "ed25519", "ecdsa-p256", "ecdsa-p384", "rsa"} {
		t.Run(kind, func(t *testing.T) {
			n := newNetwork(t, 1, func(a, b *Peer) {
				if kind != "psk" {
					withKeys(t, kind)(a, b)
				}
				a.LocalID, a.RemoteID = fqdn("a.example"), fqdn("b.example")
				b.LocalID, b.RemoteID = fqdn("b.example"), fqdn("a.example")
			})
			n.up()
			n.mustFlow()
		})
	}
}

// nothing checks that a host keeps nothing of a negotiation.
func nothing(t *testing.T, h *host) {
	t.Helper()
	if len(h.in)+len(h.out) != 0 || h.active != nil || len(h.e.LocalSPIs()) != 0 || len(h.e.halfOpen) != 0 {
		t.Errorf("%s keeps %d inbound and %d outbound SAs, %d IKE SAs, %d half-open", h.name, len(h.in), len(h.out), len(h.e.LocalSPIs()), len(h.e.halfOpen))
	}
}

// reported is whether a host told its operator an error with these words.
func reported(h *host, words string) bool {
	for _, a := range h.said {
		if r, ok := a.(Report); ok && r.Err != nil && strings.Contains(r.Err.Error(), words) {
			return true
		}
	}
	return false
}

func TestRefusedCredentials(t *testing.T) {
	const refused = "the peer refused our authentication"
	tests := map[string]struct {
		change func(a, b *Peer)
		lost   string // what the initiator's Lost says
		told   string // what the responder's operator is told
	}{
		"wrong secret":                 {func(_, b *Peer) { b.Remote.PSK = suite.Secret("other") }, refused, "authentication does not match"},
		"the responder's is wrong":     {func(_, b *Peer) { b.Local.PSK = suite.Secret("other") }, "the peer's authentication does not match", ""},
		"unknown id":                   {func(a, _ *Peer) { a.LocalID = fqdn("stranger") }, refused, `no peer is "stranger"`},
		"the responder's id is wrong":  {func(a, _ *Peer) { a.RemoteID = fqdn("b.example") }, refused, "it wants to talk to"},
		"the responder has another id": {func(_, b *Peer) { b.LocalID = fqdn("other") }, "the peer's identity does not match", ""},
		"a key for a secret": {func(a, _ *Peer) {
			k := key(t, "ed25519", 3)
			a.Local = auth.Local{Key: k}
		}, refused, "authentication does not match"},
		"another key": {func(a, b *Peer) {
			withKeys(t, "ed25519")(a, b)
			a.Local = auth.Local{Key: key(t, "ed25519", 3)}
		}, refused, "with another key"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t, 1, test.change)
			n.step(n.a(), Tick{})
			n.settle()
			lost, ok := said[Lost](n.a())
			if !ok || !Refused(lost.Err) || TimedOut(lost.Err) || !strings.Contains(lost.Err.Error(), test.lost) {
				t.Fatalf("lost: %v", lost.Err)
			}
			if wait := lost.Retry.Sub(n.now); wait < time.Second {
				t.Errorf("it tries again after %s", wait)
			}
			if test.told != "" && !reported(n.b(), test.told) {
				t.Errorf("the responder's operator was not told %q\n%s", test.told, n.log())
			}
			nothing(t, n.a())
			nothing(t, n.b())
			n.run(10 * time.Minute) // again and again, and nothing grows
			n.step(n.a(), Close{"b"})
			n.run(time.Minute)
			nothing(t, n.a())
			nothing(t, n.b())
		})
	}
}

// TestRefusedBehindNAT: attempts that floated to port 4500 must not count as half
// open for ever.
func TestRefusedBehindNAT(t *testing.T) {
	n := newNetwork(t, 1, func(a, b *Peer) { a.Encap = true; b.Remote.PSK = suite.Secret("other") })
	n.up()
	n.run(time.Hour)
	nothing(t, n.b())
	if s := n.b().e.Stats(); s.Flooded != 0 {
		t.Errorf("%+v", s)
	}
}
