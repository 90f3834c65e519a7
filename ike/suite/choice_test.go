package suite

import (
	"bytes"
	"encoding/gob"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"ipsec-quick/ike/wire"
)

// offer makes proposals as they come in an SA payload: of keywords in strongSwan's spelling, those
// that we refuse among them, "nointeg" and "ke1_none" too. Nothing is checked or added.
func offer(t testing.TB, protocol wire.ProtocolID, texts ...string) []wire.Proposal {
	t.Helper()
	var all []wire.Proposal
	for i, text := range texts {
		p := wire.Proposal{Num: uint8(i + 1), Protocol: protocol, SPI: []byte{1, 2, 3, byte(i)}}
		for _, word := range strings.Split(text, "-") {
			p.Transforms = append(p.Transforms, transform(t, word))
		}
		all = append(all, p)
	}
	return all
}

func transform(t testing.TB, word string) wire.Transform {
	t.Helper()
	if tr, ok := lookup(word); ok {
		return tr
	}
	switch word {
	case "nointeg":
		return wire.Transform{Type: wire.TransformINTEG}
	case "ke1_none":
		return wire.Transform{Type: wire.TransformADDKE1}
	case "ke1_mlkem768":
		return wire.Transform{Type: wire.TransformADDKE1, ID: wire.KEMLKEM768}
	case "kwa":
		return wire.Transform{Type: 13, ID: 1}
	case "aes0": // without its Key Length attribute
		return wire.Transform{Type: wire.TransformENCR, ID: wire.EncrAESCBC}
	case "aes256?":
		return wire.Transform{Type: wire.TransformENCR, ID: wire.EncrAESCBC, KeyLength: 256, Unknown: "?"}
	}
	for _, r := range refusals {
		if r.name == word && r.t.Type != 0 {
			return r.t
		}
	}
	t.Fatalf("no keyword %q", word)
	return wire.Transform{}
}

// own makes our proposals of texts separated by spaces.
func own(t testing.TB, protocol wire.ProtocolID, texts string) []Proposal {
	t.Helper()
	var all []Proposal
	for _, text := range strings.Fields(texts) {
		if protocol == wire.ProtocolIKE {
			all = append(all, ike(t, text))
		} else {
			all = append(all, esp(t, text))
		}
	}
	return all
}

func TestSelect(t *testing.T) {
	const i, e = wire.ProtocolIKE, wire.ProtocolESP
	optional, ignore := Match{PFSOptional: true}, Match{IgnoreKE: true}
	for _, v := range []struct {
		name     string
		protocol wire.ProtocolID
		offered  string
		ours     string
		match    Match
		want     string // the answer's transforms and its number; empty: none
	}{
		{"our order decides", i, "aes128-sha256-prfsha256-modp2048-ecp256", "aes256-aes128-sha512-sha256-prfsha256-ecp256-modp2048", Match{},
			"1 aes128-sha256-prfsha256-ecp256"},
		{"our first proposal", i, "aes128-sha256-prfsha256-ecp256 aes256gcm16-prfsha256-ecp256", "aes256gcm16-prfsha256-ecp256 aes128-sha256-ecp256", Match{},
			"2 aes256gcm16-prfsha256-ecp256"},
		{"the first offered", i, "aes256gcm16-prfsha256-ecp256 aes256gcm16-prfsha256-ecp256", "aes256gcm16-prfsha256-ecp256", Match{},
			"1 aes256gcm16-prfsha256-ecp256"},
		{"the KE payload's group", i, "aes256gcm16-prfsha256-ecp256-x25519-modp2048", "aes256gcm16-prfsha256-ecp256-modp2048", Match{PreferKE: wire.KEMODP2048},
			"1 aes256gcm16-prfsha256-modp2048"},
		{"the KE payload's group is not ours", i, "aes256gcm16-prfsha256-ecp256-x25519", "aes256gcm16-prfsha256-ecp256", Match{PreferKE: wire.KECurve25519},
			"1 aes256gcm16-prfsha256-ecp256"},
		{"key length counts", i, "aes256-sha256-prfsha256-ecp256", "aes128-sha256-ecp256", Match{}, ""},
		{"no key length", i, "aes0-sha256-prfsha256-ecp256", "aes128-sha256-ecp256", Match{}, ""},
		{"unknown attributes", i, "aes256?-sha256-prfsha256-ecp256", "aes256-sha256-ecp256", Match{}, ""},
		{"unknown attributes beside known ones", i, "aes256?-aes256-sha256-prfsha256-ecp256", "aes256-sha256-ecp256", Match{},
			"1 aes256-sha256-prfsha256-ecp256"},
		{"unsupported beside supported", i, "3des-aes256-md5-sha256-prfsha1-prfsha256-modp1024-ecp256", "aes256-sha256-ecp256", Match{},
			"1 aes256-sha256-prfsha256-ecp256"},
		{"no PRF in common", i, "aes256-sha256-prfsha1-ecp256", "aes256-sha256-ecp256", Match{}, ""},
		{"no key exchange in common", i, "aes256-sha256-prfsha256-modp1024", "aes256-sha256-ecp256", Match{}, ""},
		{"no key exchange", i, "aes256-sha256-prfsha256", "aes256-sha256-ecp256", optional, ""},
		{"NONE is no key exchange for IKE", i, "aes256-sha256-prfsha256-none", "aes256-sha256-ecp256", optional, ""},
		{"CBC without integrity", i, "aes256-prfsha256-ecp256", "aes256-sha256-ecp256", Match{}, ""},
		{"AEAD with integrity", i, "aes256gcm16-sha256-prfsha256-ecp256", "aes256gcm16-prfsha256-ecp256", Match{}, ""},
		{"AEAD with integrity NONE", i, "aes256gcm16-nointeg-prfsha256-ecp256", "aes256gcm16-prfsha256-ecp256", Match{},
			"1 aes256gcm16-nointeg-prfsha256-ecp256"},
		{"AEAD and CBC mixed", i, "aes256gcm16-aes256-sha256-prfsha256-ecp256", "aes256gcm16-prfsha256-ecp256 aes256-sha256-ecp256", Match{},
			"1 aes256-sha256-prfsha256-ecp256"},
		{"ESN in IKE", i, "aes256gcm16-prfsha256-ecp256-noesn", "aes256gcm16-prfsha256-ecp256", Match{}, ""},
		{"another protocol", e, "aes256gcm16-noesn", "", Match{}, ""},
		{"additional key exchange or not", i, "aes256gcm16-prfsha256-ecp256-ke1_mlkem768-ke1_none", "aes256gcm16-prfsha256-ecp256", Match{},
			"1 aes256gcm16-prfsha256-ecp256-ke1_none"},
		{"additional key exchange", i, "aes256gcm16-prfsha256-ecp256-ke1_mlkem768", "aes256gcm16-prfsha256-ecp256", Match{}, ""},
		{"a type from the future", i, "aes256gcm16-prfsha256-ecp256-kwa aes256gcm16-prfsha256-ecp256", "aes256gcm16-prfsha256-ecp256", Match{},
			"2 aes256gcm16-prfsha256-ecp256"},

		{"a Child SA", e, "aes256gcm16-noesn", "aes256gcm16", Match{}, "1 aes256gcm16-noesn"},
		{"ESN", e, "aes256gcm16-noesn-esn", "aes256gcm16-esn-noesn", Match{}, "1 aes256gcm16-esn"},
		{"no ESN", e, "aes256gcm16-noesn-esn", "aes256gcm16", Match{}, "1 aes256gcm16-noesn"},
		{"ESN on one side", e, "aes256gcm16-esn", "aes256gcm16", Match{}, ""},
		{"ESN unnamed", e, "aes256gcm16", "aes256gcm16-esn-noesn", Match{}, "1 aes256gcm16"},
		{"ESN unnamed and wanted", e, "aes256gcm16", "aes256gcm16-esn", Match{}, ""},
		{"a PRF in ESP", e, "aes256gcm16-prfsha256-noesn", "aes256gcm16", Match{}, ""},
		{"PFS", e, "aes256gcm16-x25519-ecp256-noesn", "aes256gcm16-ecp256", Match{}, "1 aes256gcm16-ecp256-noesn"},
		{"PFS wanted by us", e, "aes256gcm16-noesn", "aes256gcm16-ecp256", Match{}, ""},
		{"PFS wanted by us, or not", e, "aes256gcm16-noesn", "aes256gcm16-ecp256", optional, "1 aes256gcm16-noesn"},
		{"PFS wanted by us, or NONE", e, "aes256gcm16-noesn", "aes256gcm16-ecp256-none", Match{}, "1 aes256gcm16-noesn"},
		{"PFS wanted by them", e, "aes256gcm16-ecp256-noesn", "aes256gcm16", Match{}, ""},
		{"PFS wanted by them, all right", e, "aes256gcm16-modp1024-modp2048-noesn", "aes256gcm16", optional, "1 aes256gcm16-modp2048-noesn"},
		{"PFS wanted by them, too weak", e, "aes256gcm16-modp1024-noesn", "aes256gcm16", optional, ""},
		{"PFS or NONE, theirs", e, "aes256gcm16-modp1024-none-noesn", "aes256gcm16", Match{}, "1 aes256gcm16-none-noesn"},
		{"PFS or NONE, both", e, "aes256gcm16-ecp256-none-noesn", "aes256gcm16-none-ecp256", Match{}, "1 aes256gcm16-ecp256-noesn"},
		{"NONE, both", e, "aes256gcm16-none-noesn", "aes256gcm16-ecp256-none", Match{}, "1 aes256gcm16-none-noesn"},
		{"IKE_AUTH", e, "aes256gcm16-ecp256-noesn", "aes256gcm16-modp2048", ignore, "1 aes256gcm16-noesn"},
		{"IKE_AUTH with NONE", e, "aes256gcm16-ecp256-none-noesn", "aes256gcm16", ignore, "1 aes256gcm16-none-noesn"},
		{"IKE_AUTH with an additional key exchange", e, "aes256gcm16-ecp256-ke1_mlkem768-noesn", "aes256gcm16", ignore, "1 aes256gcm16-noesn"},
	} {
		t.Run(v.name, func(t *testing.T) {
			offered := offer(t, v.protocol, strings.Fields(v.offered)...)
			ours := own(t, v.protocol, v.ours)
			c, err := Select(offered, ours, v.protocol, v.match)
			got := ""
			if err == nil {
				got = string('0'+rune(c.Num)) + " " + spell(c.Transforms)
			} else if e := (*NoProposal)(nil); !errors.As(err, &e) || len(e.Offered) != len(offered) || len(e.Ours) != len(ours) {
				t.Errorf("the error is %#v", err)
			}
			if got != v.want {
				t.Fatalf("got %q, want %q", got, v.want)
			}
			if err != nil {
				return
			}
			chosen := offered[c.Num-1]
			if !bytes.Equal(c.SPI, chosen.SPI) {
				t.Errorf("SPI %x, not %x", c.SPI, chosen.SPI)
			}
			for _, tr := range c.Transforms {
				if !slices.Contains(chosen.Transforms, tr) {
					t.Errorf("%s was not offered", keyword(tr))
				}
			}
			answer := c.Wire(v.protocol, []byte{9, 9})
			if answer.Num != c.Num || answer.Protocol != v.protocol || !bytes.Equal(answer.SPI, []byte{9, 9}) {
				t.Errorf("the answer is %+v", answer)
			}
			// The fields say the same as the list.
			for _, tr := range []wire.Transform{c.Encr, c.Integ, c.PRF, c.KE} {
				if tr != (wire.Transform{}) && !slices.Contains(c.Transforms, tr) {
					t.Errorf("%s is not in the list", keyword(tr))
				}
			}
			if c.Encr.Type == 0 || (c.PRF.Type == 0) != (v.protocol == e) || v.match.IgnoreKE && c.KE.Type != 0 ||
				c.ESN != slices.Contains(c.Transforms, wire.Transform{Type: wire.TransformESN, ID: wire.ESNYes}) {
				t.Errorf("the choice is %+v", c)
			}
			var buf bytes.Buffer
			var back Choice
			if err := errors.Join(gob.NewEncoder(&buf).Encode(c), gob.NewDecoder(&buf).Decode(&back)); err != nil || !reflect.DeepEqual(c, back) {
				t.Errorf("after gob: %+v, %v", back, err)
			}
		})
	}
}

func TestSelectProtocol(t *testing.T) {
	if _, err := Select(offer(t, wire.ProtocolAH, "aes256gcm16-noesn"), own(t, wire.ProtocolESP, "aes256gcm16"), wire.ProtocolESP, Match{}); err == nil {
		t.Error("AH is taken for ESP")
	}
}

func TestAccept(t *testing.T) {
	const i, e = wire.ProtocolIKE, wire.ProtocolESP
	optional, ignore := Match{PFSOptional: true}, Match{IgnoreKE: true}
	const twoIKE = "aes256gcm16-aes128gcm16-prfsha256-prfsha384-ecp256-x25519 aes256-aes128-sha256-ecp256"
	for _, v := range []struct {
		name     string
		protocol wire.ProtocolID
		num      uint8
		answer   string
		offered  string
		match    Match
		want     string // the choice; empty: refused
	}{
		{"the first", i, 1, "aes128gcm16-prfsha384-x25519", twoIKE, Match{}, "aes128gcm16-prfsha384-x25519"},
		{"the second", i, 2, "aes128-sha256-prfsha256-ecp256", twoIKE, Match{}, "aes128-sha256-ecp256"},
		{"integrity NONE", i, 1, "aes128gcm16-nointeg-prfsha384-x25519", twoIKE, Match{}, "aes128gcm16-prfsha384-x25519"},
		{"number 0", i, 0, "aes128gcm16-prfsha384-x25519", twoIKE, Match{}, ""},
		{"number 3", i, 3, "aes128gcm16-prfsha384-x25519", twoIKE, Match{}, ""},
		{"under another number", i, 2, "aes128gcm16-prfsha384-x25519", twoIKE, Match{}, ""},
		{"two of a type", i, 1, "aes128gcm16-aes256gcm16-prfsha384-x25519", twoIKE, Match{}, ""},
		{"one twice", i, 1, "aes128gcm16-aes128gcm16-prfsha384-x25519", twoIKE, Match{}, ""},
		{"not offered", i, 1, "aes128gcm16-prfsha384-modp2048", twoIKE, Match{}, ""},
		{"without a PRF", i, 1, "aes128gcm16-x25519", twoIKE, Match{}, ""},
		{"without a key exchange", i, 1, "aes128gcm16-prfsha384", twoIKE, optional, ""},
		{"without integrity", i, 2, "aes128-prfsha256-ecp256", twoIKE, Match{}, ""},
		{"weakened", i, 2, "3des-sha256-prfsha256-ecp256", twoIKE, Match{}, ""},
		{"an extra type", i, 1, "aes128gcm16-prfsha384-x25519-ke1_mlkem768", twoIKE, Match{}, ""},

		{"a Child SA", e, 1, "aes256gcm16-noesn", "aes256gcm16-esn-noesn", Match{}, "aes256gcm16"},
		{"ESN", e, 1, "aes256gcm16-esn", "aes256gcm16-esn-noesn", Match{}, "aes256gcm16-esn"},
		{"ESN not offered", e, 1, "aes256gcm16-esn", "aes256gcm16", Match{}, ""},
		{"PFS", e, 1, "aes256gcm16-ecp256-noesn", "aes256gcm16-ecp256", Match{}, "aes256gcm16-ecp256"},
		{"PFS dropped", e, 1, "aes256gcm16-noesn", "aes256gcm16-ecp256", Match{}, ""},
		{"PFS dropped, all right", e, 1, "aes256gcm16-noesn", "aes256gcm16-ecp256", optional, "aes256gcm16"},
		{"PFS dropped by NONE", e, 1, "aes256gcm16-none-noesn", "aes256gcm16-ecp256-none", Match{}, "aes256gcm16"},
		{"PFS not offered", e, 1, "aes256gcm16-ecp256-noesn", "aes256gcm16", optional, ""},
		{"IKE_AUTH", e, 1, "aes256gcm16-noesn", "aes256gcm16-ecp256", ignore, "aes256gcm16"},
	} {
		t.Run(v.name, func(t *testing.T) {
			offered := own(t, v.protocol, v.offered)
			answer := offer(t, v.protocol, v.answer)
			answer[0].Num = v.num
			c, err := Accept(wire.SA{Proposals: answer}, offered, v.protocol, v.match)
			got := ""
			if err == nil {
				got = c.String()
			} else if e := (*AnswerError)(nil); !errors.As(err, &e) || !strings.Contains(err.Error(), offered[0].String()) {
				t.Errorf("the error is %v", err)
			}
			if got != v.want {
				t.Errorf("got %q, want %q: %v", got, v.want, err)
			}
		})
	}
	ours := own(t, i, twoIKE)
	for _, answer := range [][]wire.Proposal{nil, offer(t, e, "aes256gcm16-noesn"),
		offer(t, i, "aes256gcm16-prfsha256-ecp256", "aes256-sha256-prfsha256-ecp256")} {
		if _, err := Accept(wire.SA{Proposals: answer}, ours, i, Match{}); err == nil {
			t.Errorf("%d proposals, %v, are accepted", len(answer), spellings(answer))
		}
	}
}

func TestNoProposalText(t *testing.T) {
	const i, e = wire.ProtocolIKE, wire.ProtocolESP
	for _, v := range []struct {
		protocol wire.ProtocolID
		offered  string
		ours     string
		match    Match
		want     string
	}{
		{i, "3des-aes256-sha1-prfsha1-modp1024", "aes256-sha256-modp2048 aes256gcm16-prfsha256-x25519", Match{}, `
no IKE proposal in common
                the peer offers  we allow
  encryption    3des aes256      aes256 aes256gcm16
  integrity     sha1             sha256   <- nothing in common
  PRF           prfsha1          prfsha256   <- nothing in common
  key exchange  modp1024         modp2048 x25519   <- nothing in common`},
		{e, "aes256gcm16-noesn", "aes256gcm16-modp2048-esn", Match{}, `
no ESP proposal in common
                the peer offers  we allow
  encryption    aes256gcm16      aes256gcm16
  key exchange  none             modp2048   <- nothing in common
  ESN           noesn            esn   <- nothing in common`},
		{e, "aes256gcm16-modp2048-noesn", "aes128gcm16", Match{IgnoreKE: true}, `
no ESP proposal in common
                the peer offers  we allow
  encryption    aes256gcm16      aes128gcm16   <- nothing in common
  ESN           noesn            noesn`},
		{i, "aes256-sha256-prfsha256-modp2048 aes128-sha512-prfsha256-modp2048", "aes256-sha512-prfsha256-modp2048", Match{}, `
no IKE proposal in common
                the peer offers  we allow
  encryption    aes256 aes128    aes256
  integrity     sha256 sha512    sha512
  PRF           prfsha256        prfsha256
  key exchange  modp2048         modp2048
  none of its proposals aes256-sha256-prfsha256-modp2048, aes128-sha512-prfsha256-modp2048 goes with one of ours, aes256-sha512-prfsha256-modp2048`},
	} {
		_, err := Select(offer(t, v.protocol, strings.Fields(v.offered)...), own(t, v.protocol, v.ours), v.protocol, v.match)
		if err == nil {
			t.Errorf("%s goes with %s", v.offered, v.ours)
		} else if got := "\n" + err.Error(); got != v.want {
			t.Errorf("got %s\nwant %s", got, v.want)
		}
	}
	if _, err := Select(nil, DefaultIKE, i, Match{}); err == nil || !strings.Contains(err.Error(), "encryption    none ") {
		t.Errorf("no proposals: %v", err)
	}
}

// TestDefaultsMeetPeers gives the defaults what peers offer, as the vendors document it.
func TestDefaultsMeetPeers(t *testing.T) {
	for name, v := range map[string]struct{ ike, esp string }{
		"GCP pinned to GCM":  {"aes256gcm16-prfsha512-modp4096", "aes256gcm16-noesn"},
		"AWS":                {"aes128-sha256-prfsha256-modp2048", "aes128-sha256-noesn"},
		"pfSense":            {"aes128-sha256-prfsha256-modp2048", "aes128-sha256-noesn"},
		"Cisco IOS-XE":       {"aes256-sha512-sha384-prfsha512-prfsha384-ecp256-modp2048-ecp521", "aes256-sha256-noesn"},
		"iOS":                {"aes256-sha256-prfsha256-modp2048", "aes256-sha256-noesn"},
		"Android":            {"aes256-sha512-prfsha512-prfaesxcbc-modp4096-x25519 chacha20poly1305-prfsha256-x25519", "aes256gcm16-noesn"},
		"FortiGate, ChaCha":  {"chacha20poly1305-prfsha256-modp2048", "chacha20poly1305-noesn"},
		"ourselves with ESN": {"aes256gcm16-prfsha384-ecp256", "aes256gcm16-esn-noesn"},
	} {
		if _, err := Select(offer(t, wire.ProtocolIKE, strings.Fields(v.ike)...), DefaultIKE, wire.ProtocolIKE, Match{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Select(offer(t, wire.ProtocolESP, v.esp), DefaultESP, wire.ProtocolESP, Match{IgnoreKE: true}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
