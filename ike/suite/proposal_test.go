package suite

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"ipsec-quick/ike/wire"
)

func TestParseProposal(t *testing.T) {
	for _, v := range []struct{ in, ike, esp string }{ // what String gives; empty: an error
		{"aes256gcm16-prfsha384-x25519", "aes256gcm16-prfsha384-x25519", ""},
		{"aes128-sha256-modp2048", "aes128-sha256-modp2048", "aes128-sha256-modp2048"},
		{"chacha20poly1305-prfsha256-curve25519", "chacha20poly1305-prfsha256-x25519", ""},
		{"aes128-aes256-sha256-sha512-ecp256-ecp384", "aes128-aes256-sha256-sha512-ecp256-ecp384", "aes128-aes256-sha256-sha512-ecp256-ecp384"},
		{"aes256-sha256-prfsha256-modp4096", "aes256-sha256-modp4096", ""},
		{"aes256-sha256-prfsha512-modp3072", "aes256-sha256-prfsha512-modp3072", ""},
		{"modp2048-prfsha512-sha384-aes192", "aes192-sha384-prfsha512-modp2048", ""},
		{"AES256GCM16-PRFSHA256-ECP521", "aes256gcm16-prfsha256-ecp521", ""},
		{"aes-sha2_256-x25519", "aes128-sha256-x25519", "aes128-sha256-x25519"},
		{"aes256gcm16", "", "aes256gcm16"},
		{"aes128gcm128-noesn", "", "aes128gcm16"},
		{"aes192gcm16-esn", "", "aes192gcm16-esn"},
		{"aes192gcm16-esn-noesn", "", "aes192gcm16-esn-noesn"},
		{"noesn-esn-aes192gcm16", "", "aes192gcm16-noesn-esn"},
		{"aes256-sha512-ecp384-none-esn", "", "aes256-sha512-ecp384-none-esn"},
		{"chacha20poly1305-modpnone", "", "chacha20poly1305-none"},
	} {
		for name, f := range map[string]struct {
			parse func(string) (Proposal, error)
			want  string
		}{"IKE": {ParseIKE, v.ike}, "ESP": {ParseESP, v.esp}} {
			p, err := f.parse(v.in)
			if (err == nil) != (f.want != "") || p.String() != f.want {
				t.Errorf("%s %s: %q, %v; want %q", name, v.in, p, err, f.want)
			}
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, v := range []struct {
		esp   bool
		in    string
		token string
		want  string
	}{
		{false, "", "", `is empty: write for example "aes256gcm16-prfsha384-x25519"`},
		{false, "aes256-", "", `joined by a single "-"`},
		{false, "aes256-sha256-modp2048!", "modp2048!", `leave out the "!"`},
		{false, "aes256-sha256-modp2048,aes128-sha256", "modp2048,aes128", "a string of its own"},
		{false, "default", "default", "leave the proposals out"},
		{false, "aes265-sha256-x25519", "aes265", `did you mean "aes256"?`},
		{false, "aes256gcm-prfsha256-x25519", "aes256gcm", `write "aes256gcm16"`},
		{false, "aes256-sha256-ecp265", "ecp265", `did you mean "ecp256"?`},
		{false, "aes256-sha256-frobnicate", "frobnicate", `write for example`},
		{false, "aes256-sha256-" + strings.Repeat("x", 1000), strings.Repeat("x", 1000), `write for example`},
		{false, "3des-sha1-modp1024", "3des", `is too weak: write "aes256"`},
		{false, "aes128-sha1-modp2048", "sha1", `is too weak: write "sha256"`},
		{false, "aes128-sha256-modp1024", "modp1024", `is too weak: write "modp2048"`},
		{false, "aes256gcm8-prfsha256-x25519", "aes256gcm8", `is not supported: write "aes256gcm16"`},
		{true, "camellia192-sha256", "camellia192", `is not supported: write "aes192"`},
		{true, "aes128ctr-sha256", "aes128ctr", `is not supported: write "aes128gcm16"`},
		{true, "null-sha256", "null", `does not encrypt`},
		{false, "aes256-md5-prfmd5-x25519", "md5", `is too weak: write "sha256"`},
		{false, "aes256-sha256-prfaesxcbc-x25519", "prfaesxcbc", `is not supported: write "prfsha256"`},
		{false, "aes256-sha256-x25519-ke1_mlkem768", "ke1_mlkem768", "is an additional key exchange"},
		{false, "aes256-sha256-x448", "x448", `write "x25519"`},
		{false, "aes256-sha256-x25519-aes256", "aes256", "is there already"},
		{false, "aes256-sha256-x25519-curve25519", "curve25519", "is there already"},
		{false, "sha256-x25519", "", "names no encryption"},
		{false, "aes256gcm16-sha384-x25519", "sha384", `write "prfsha384"`},
		{true, "aes256gcm16-SHA384", "SHA384", `leave it out`},
		{false, "aes256gcm16-aes256-sha256-x25519", "aes256", "write two proposals"},
		{true, "aes256-chacha20poly1305-sha256", "chacha20poly1305", "write two proposals"},
		{false, "aes256-x25519", "", `add "sha256"`},
		{true, "aes256", "", `add "sha256"`},
		{false, "aes256gcm16-x25519", "", `add "prfsha384"`},
		{false, "aes256gcm16-prfsha384", "", `add "x25519"`},
		{false, "aes256gcm16-prfsha384-x25519-esn", "esn", "is for ESP"},
		{false, "aes256gcm16-prfsha384-x25519-none", "none", "is for ESP"},
		{true, "aes256gcm16-prfsha384", "prfsha384", "leave it out"},
	} {
		parse := ParseIKE
		if v.esp {
			parse = ParseESP
		}
		_, err := parse(v.in)
		var e *ParseError
		if !errors.As(err, &e) {
			t.Errorf("%s: %v", v.in, err)
			continue
		}
		if e.Token != v.token || !strings.Contains(err.Error(), v.want) || !strings.HasPrefix(v.in[e.Offset:], e.Token) {
			t.Errorf("%s: token %q at %d: %v; want %q", v.in, e.Token, e.Offset, err, v.want)
		}
	}
}

// TestTables checks what the tables promise each other.
func TestTables(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range keywords() {
		if seen[k] {
			t.Errorf("%s is in the tables twice", k)
		}
		seen[k] = true
		if k != strings.ToLower(k) || strings.Contains(k, "-") {
			t.Errorf("%s can't be written", k)
		}
		tr, ok := lookup(k)
		if !ok {
			t.Errorf("%s is not found", k)
		}
		if again, _ := lookup(keyword(tr)); again != tr {
			t.Errorf("%s is printed as %s", k, keyword(tr))
		}
	}
	for _, r := range refusals {
		for _, bits := range []string{"", "128", "192", "256"} {
			name := strings.Replace(r.name, "*", bits, 1)
			why, use, ok := refused(name)
			if !ok || why == "" {
				t.Errorf("%s is not refused", name)
			}
			if _, known := lookup(use); !known {
				t.Errorf("%s: %q, to be written instead, is no keyword", name, use)
			}
			if _, known := lookup(name); known {
				t.Errorf("%s is refused and known", name)
			}
		}
	}
	for _, v := range []struct {
		t    wire.Transform
		want string
	}{
		{wire.Transform{Type: wire.TransformENCR, ID: wire.EncrAESGCM8, KeyLength: 256}, "aes256gcm8"},
		{wire.Transform{Type: wire.TransformENCR, ID: wire.Encr3DES}, "3des"},
		{wire.Transform{Type: wire.TransformKE, ID: wire.KEMODP1024}, "modp1024"},
		{wire.Transform{Type: wire.TransformINTEG}, "nointeg"},
		{wire.Transform{Type: wire.TransformENCR, ID: 99, KeyLength: 7}, "transform1#99/7"},
		{wire.Transform{Type: wire.TransformADDKE1, ID: wire.KEMLKEM768}, "ke1_mlkem768"},
		{wire.Transform{Type: wire.TransformKE, ID: wire.KEECP256, Unknown: "x"}, "ecp256 with unknown attributes"},
	} {
		if got := keyword(v.t); got != v.want {
			t.Errorf("%+v is printed as %q, not %q", v.t, got, v.want)
		}
	}
}

func TestDefaults(t *testing.T) {
	for _, v := range []struct {
		got   []Proposal
		parse func(string) (Proposal, error)
		want  []string
	}{
		{DefaultIKE, ParseIKE, []string{
			"aes256gcm16-aes128gcm16-chacha20poly1305-prfsha384-prfsha256-prfsha512-ecp256-ecp384-x25519-modp2048-modp3072-modp4096",
			"aes256-aes128-sha256-sha384-sha512-ecp256-ecp384-x25519-modp2048-modp3072-modp4096",
		}},
		{DefaultESP, ParseESP, []string{"aes256gcm16-aes128gcm16-chacha20poly1305", "aes256-aes128-sha256-sha512-sha384"}},
	} {
		if got := written(v.got); !slices.Equal(got, v.want) {
			t.Errorf("got %q, want %q", got, v.want)
		}
		for i, s := range v.want {
			p, err := v.parse(s)
			if err != nil || !slices.Equal(p.Transforms, v.got[i].Transforms) {
				t.Errorf("%s parses to %v, %v", s, p, err)
			}
		}
	}
}

func TestWithKE(t *testing.T) {
	p := esp(t, "aes256gcm16-ecp256-esn")
	if got := p.WithKE(wire.KECurve25519, 0).String(); got != "aes256gcm16-x25519-none-esn" {
		t.Errorf("WithKE: %s", got)
	}
	if got := p.WithKE(); got.String() != "aes256gcm16-esn" || len(got.KE()) != 0 {
		t.Errorf("WithKE of nothing: %s", got)
	}
	if got := p.KE(); !slices.Equal(got, []wire.TransformID{wire.KEECP256}) {
		t.Errorf("KE: %v", got)
	}
}

// FuzzParseProposal checks that what parses, prints and parses to the same, that both ends choose
// something of it, and that an error names a token where it is.
func FuzzParseProposal(f *testing.F) {
	for _, p := range append(written(DefaultIKE), written(DefaultESP)...) {
		f.Add(p)
	}
	f.Add("AES256-sha1-modp1024!")
	f.Fuzz(func(t *testing.T, s string) {
		for protocol, parse := range map[wire.ProtocolID]func(string) (Proposal, error){
			wire.ProtocolIKE: ParseIKE, wire.ProtocolESP: ParseESP,
		} {
			p, err := parse(s)
			if err != nil {
				var e *ParseError
				if !errors.As(err, &e) || e.Text != s || !strings.HasPrefix(s[e.Offset:], e.Token) {
					t.Fatalf("%q: %v", s, err)
				}
				continue
			}
			q, err := parse(p.String())
			if err != nil || !slices.Equal(p.Transforms, q.Transforms) {
				t.Fatalf("%q prints as %q: %v", s, p, err)
			}
			offer := []wire.Proposal{p.Wire(1, protocol, nil)}
			c, err := Select(offer, []Proposal{q}, protocol, Match{})
			if err != nil {
				t.Fatalf("%q does not match itself: %v", s, err)
			}
			if _, err := Accept(wire.SA{Proposals: []wire.Proposal{c.Wire(protocol, nil)}}, []Proposal{p}, protocol, Match{}); err != nil {
				t.Fatalf("%q: the answer: %v", s, err)
			}
			if _, err := parse(c.String()); err != nil {
				t.Fatalf("%q: the choice %q: %v", s, c, err)
			}
		}
	})
}
