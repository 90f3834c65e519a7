package foreign

import (
	"cmp"
	"errors"
	"regexp"
	"slices"
	"strings"

	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

// A proposalKind is what a list of proposals is for, and how it is spelled.
type proposalKind struct{ ike, libreswan bool }

// What libreswan adds to a proposal that leaves something out, as far as it is
// here.
const (
	libreswanKE    = "modp2048-modp3072-modp4096-ecp256-ecp384-ecp521-x25519"
	libreswanInteg = "sha512-sha256"
)

// proposals translates a list of proposals; empty, for the defaults, if nothing
// of it is left.
func (im *importer) proposals(at place, key, value string, kind proposalKind) []string {
	var list []string
	defaults := false
	for _, text := range commas(value) {
		if text = strings.ToLower(strings.TrimSuffix(text, "!")); text == "default" {
			defaults = true
			continue
		}
		for _, p := range im.proposal(at, key, text, kind) {
			list = appendNew(list, []string{p})
		}
	}
	switch {
	case len(list) == 0 && !defaults:
		im.remark(at, key, "nothing of it is left, so the defaults are offered: have the peer take one of them, see PROPOSALS in ipsec-quick.toml(5)")
	case len(list) > 0 && defaults:
		im.remark(at, key, "the defaults do not go beside proposals of one's own; they were left out")
	}
	return list
}

// esp sets the proposals of [esp]. What strongSwan's say of a key exchange and of
// sequence numbers by leaving it out has keys of its own here.
func (e *ends) esp(at place, key, value string, libreswan bool) {
	list := e.proposals(at, key, value, proposalKind{false, libreswan})
	e.peer.esp.set("proposals", array(list))
	if libreswan || len(list) == 0 {
		return
	}
	pfs, esn := false, false
	for _, text := range list {
		if p, err := suite.ParseESP(text); err == nil {
			pfs = pfs || len(p.KE()) > 0
			esn = esn || slices.Contains(p.Transforms, wire.Transform{Type: wire.TransformESN, ID: wire.ESNYes})
		}
	}
	if !pfs {
		e.peer.esp.set("pfs", `"no"`)
	}
	if !esn {
		e.peer.esp.set("esn", "false")
	}
}

// words are the keywords of a proposal by what they are.
type words struct{ aead, cbc, integ, prf, ke, esn []string }

// proposal translates one proposal. It becomes two where it has encryption with
// and without integrity.
func (im *importer) proposal(at place, key, text string, kind proposalKind) []string {
	var w words
	var problems []string
	for _, word := range spellings(text, kind) {
		if problem := w.add(word); problem != "" {
			problems = append(problems, word+" "+problem)
		}
	}
	switch dropped := strings.Join(problems, ", "); {
	case len(w.aead)+len(w.cbc) == 0 && dropped == "":
		im.remark(at, key, "%s was left out: it has no encryption", text)
		return nil
	case len(w.aead)+len(w.cbc) == 0:
		im.remark(at, key, "%s was left out: it has no encryption that is here; %s", text, dropped)
		return nil
	case dropped != "":
		im.remark(at, key, "not all of %s is here: %s", text, dropped)
	case kind.libreswan:
		w.complete(kind.ike)
	}
	var list []string
	for _, part := range []struct {
		encr     []string
		combined bool // checks integrity by itself
	}{{w.aead, true}, {w.cbc, false}} {
		if len(part.encr) == 0 {
			continue
		}
		integ, prf := w.integ, w.prf
		if part.combined {
			if kind.ike && len(prf) == 0 {
				for _, hash := range integ {
					prf = append(prf, "prf"+hash)
				}
			}
			integ = nil
		}
		p := strings.Join(slices.Concat(part.encr, integ, prf, w.ke, w.esn), "-")
		parse := suite.ParseESP
		if kind.ike {
			parse = suite.ParseIKE
		}
		if _, err := parse(p); err != nil {
			im.remark(at, key, "%v; it was left out", err)
			continue
		}
		list = append(list, p)
	}
	return list
}

// complete adds what libreswan does.
func (w *words) complete(ike bool) {
	if len(w.integ) == 0 && (ike || len(w.cbc) > 0) {
		w.integ = strings.Split(libreswanInteg, "-")
	}
	if ike && len(w.ke) == 0 {
		w.ke = strings.Split(libreswanKE, "-")
	}
}

// add puts a keyword where it belongs, or says what is wrong with it. Which kind
// it is of is told by a proposal that lacks nothing else.
func (w *words) add(word string) (problem string) {
	esp := func(s string) bool { _, err := suite.ParseESP(s); return err == nil }
	_, prf := suite.ParseIKE("aes128gcm16-x25519-" + word)
	_, err := suite.ParseIKE("aes128-sha256-" + word)
	switch {
	case word == "esn" || word == "noesn":
		w.esn = append(w.esn, word)
	case esp(word):
		w.aead = appendNew(w.aead, []string{word})
	case esp(word + "-sha256"):
		w.cbc = appendNew(w.cbc, []string{word})
	case esp("aes128-" + word):
		w.integ = appendNew(w.integ, []string{word})
	case prf == nil:
		w.prf = appendNew(w.prf, []string{word})
	case esp("aes128gcm16-" + word):
		w.ke = appendNew(w.ke, []string{word})
	case strings.HasPrefix(word, "addke"):
		return "is an additional key exchange, which is not there yet"
	default:
		var pe *suite.ParseError
		if errors.As(err, &pe) {
			return pe.Problem
		}
		return "is not a keyword"
	}
	return ""
}

// spellings are the keywords of a proposal as strongSwan spells them.
func spellings(text string, kind proposalKind) []string {
	if !kind.libreswan {
		return strings.Split(text, "-")
	}
	var list []string
	for i, word := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune("-;+", r) }) {
		word = strings.TrimPrefix(word, "ke=")
		known, ok := libreswanWords[word]
		switch m := libreswanAES.FindStringSubmatch(word); {
		case i == 0 && word == "null":
			list = append(list, word)
		case ok:
			list = append(list, known...)
		case m != nil && m[3] == "":
			list = append(list, libreswanCipher(m[1], m[2], "256"), libreswanCipher(m[1], m[2], "128"))
		case m != nil:
			list = append(list, libreswanCipher(m[1], m[2], m[3]))
		default:
			list = append(list, word)
		}
	}
	return list
}

// libreswanAES is its name of a cipher: the mode, the length of the check value,
// and that of the key, which is 256 or 128 bits if it is left out.
var libreswanAES = regexp.MustCompile(`^aes_?(cbc|gcm|ccm|ctr|)(?:_(8|12|16|a|b|c))?_?(128|192|256)?$`)

func libreswanCipher(mode, icv, bits string) string {
	switch mode {
	case "", "cbc":
		return "aes" + bits
	case "ctr":
		return "aes" + bits + mode
	}
	icv = cmp.Or(map[string]string{"a": "8", "b": "12", "c": "16"}[icv], icv, "16")
	return "aes" + bits + mode + icv
}

// libreswanWords are its keywords that strongSwan spells otherwise.
var libreswanWords = map[string][]string{
	"chacha20_poly1305": {"chacha20poly1305"}, "ml_kem_512": {"mlkem512"}, "ml_kem_768": {"mlkem768"}, "ml_kem_1024": {"mlkem1024"},
	"sha2": {"sha256"}, "sha2_256": {"sha256"}, "sha2_384": {"sha384"}, "sha2_512": {"sha512"},
	"hmac_sha2_256": {"sha256"}, "hmac_sha2_384": {"sha384"}, "hmac_sha2_512": {"sha512"},
	"aes_xcbc": {"aesxcbc"}, "aes_cmac": {"aescmac"},
	"null": {}, "none": {}, "dh0": {"none"},
	"dh2": {"modp1024"}, "dh5": {"modp1536"}, "dh14": {"modp2048"}, "dh15": {"modp3072"}, "dh16": {"modp4096"},
	"dh17": {"modp6144"}, "dh18": {"modp8192"}, "dh19": {"ecp256"}, "dh20": {"ecp384"}, "dh21": {"ecp521"},
	"dh22": {"modp1024s160"}, "dh23": {"modp2048s224"}, "dh24": {"modp2048s256"}, "dh31": {"x25519"},
	"ecp_256": {"ecp256"}, "ecp_384": {"ecp384"}, "ecp_521": {"ecp521"},
}
