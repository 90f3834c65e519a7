package suite

import (
	"fmt"
	"slices"
	"strings"

	"ipsec-quick/ike/wire"
)

// ParseError says what is wrong with a proposal, and what to write.
type ParseError struct {
	Text    string // the proposal
	Token   string // the keyword at fault; empty: the proposal as a whole
	Offset  int    // of Token in Text, octets
	Problem string // without the token, such as `is too weak: write "sha256"`
}

// Error returns the proposal, the keyword and the problem on one line.
func (e *ParseError) Error() string {
	if e.Token == "" {
		return fmt.Sprintf("proposal %q %s", e.Text, e.Problem)
	}
	return fmt.Sprintf("proposal %q: %q %s", e.Text, e.Token, e.Problem)
}

// ParseIKE reads a proposal for an IKE SA in strongSwan's spelling: keywords joined by "-", in
// any order, several of a kind in order of preference. aes256gcm16-prfsha384-x25519 and
// aes128-sha256-modp2048 are examples. Without a PRF it takes those of the integrity algorithms.
// The error is a *ParseError.
func ParseIKE(s string) (Proposal, error) {
	w, err := split(s)
	if err != nil {
		return Proposal{}, err
	}
	if err := w.checkEncryption("prf"); err != nil {
		return Proposal{}, err
	}
	if t, ok := w.first(wire.TransformESN); ok {
		return Proposal{}, w.blame(t, "is for ESP proposals: an IKE SA has no sequence numbers")
	}
	if t := (wire.Transform{Type: wire.TransformKE}); slices.Contains(w.all, t) {
		return Proposal{}, w.blame(t, "is for ESP proposals: an IKE SA needs a key exchange")
	}
	if _, ok := w.first(wire.TransformPRF); !ok {
		prfs := derivedPRFs(w.all)
		if len(prfs) == 0 {
			return Proposal{}, w.problem(`names no PRF: add "prfsha384" or "prfsha256"`)
		}
		w.all = append(w.all, prfs...)
	}
	if _, ok := w.first(wire.TransformKE); !ok {
		return Proposal{}, w.problem(`names no key exchange: add "x25519", "ecp256" or "modp2048"`)
	}
	return w.proposal(), nil
}

// ParseESP reads a proposal for a Child SA, such as aes256gcm16 or aes128-sha256-modp2048-esn. A
// key exchange method in it is for perfect forward secrecy; "none" beside it says that a Child SA
// without is as welcome. Without "esn" it has 32-bit sequence numbers. The error is a *ParseError.
func ParseESP(s string) (Proposal, error) {
	w, err := split(s)
	if err != nil {
		return Proposal{}, err
	}
	if err := w.checkEncryption(""); err != nil {
		return Proposal{}, err
	}
	if t, ok := w.first(wire.TransformPRF); ok {
		return Proposal{}, w.blame(t, "is a PRF, which ESP has none of: leave it out")
	}
	if _, ok := w.first(wire.TransformESN); !ok {
		w.all = append(w.all, wire.Transform{Type: wire.TransformESN, ID: wire.ESNNo})
	}
	return w.proposal(), nil
}

// words is a proposal on its way from keywords to transforms.
type words struct {
	text   string
	tokens []token
	all    []wire.Transform // the first ones belong to tokens, then those that were added
}

// token is a keyword as written, and where.
type token struct {
	word   string
	offset int
}

// split looks up each keyword of s.
func split(s string) (*words, error) {
	w := &words{text: s}
	offset := 0
	for _, part := range strings.Split(s, "-") {
		tok := token{part, offset}
		offset += len(part) + 1
		word := strings.ToLower(part)
		t, ok := lookup(word)
		if !ok {
			return nil, &ParseError{s, part, tok.offset, unknown(s, word)}
		}
		if slices.Contains(w.all, t) {
			return nil, &ParseError{s, part, tok.offset, "is there already"}
		}
		w.tokens = append(w.tokens, tok)
		w.all = append(w.all, t)
	}
	return w, nil
}

// unknown says what to make of a keyword that no table of ours has.
func unknown(text, word string) string {
	switch {
	case text == "":
		return `is empty: write for example "aes256gcm16-prfsha384-x25519"`
	case word == "":
		return `is empty: keywords are joined by a single "-"`
	case word == "default":
		return "is not a keyword: leave the proposals out to have the defaults"
	case strings.HasSuffix(word, "!"):
		return `is not a keyword: leave out the "!", only what is named is used`
	case strings.Contains(word, ","):
		return "is not a keyword: each proposal is a string of its own"
	}
	if why, use, ok := refused(word); ok {
		return fmt.Sprintf("%s: write %q", why, use)
	}
	if near, ok := nearest(word); ok {
		return fmt.Sprintf("is not a keyword: did you mean %q?", near)
	}
	return `is not a keyword: write for example "aes256gcm16-prfsha384-x25519"`
}

// checkEncryption refuses a proposal without encryption, with AEAD and CBC at once, with AEAD and
// an integrity algorithm, and with CBC without one. prf is put before the name of an integrity
// algorithm to say what was meant; empty where there are no PRFs.
func (w *words) checkEncryption(prf string) error {
	encr := ofType(w.all, wire.TransformENCR)
	if len(encr) == 0 {
		return w.problem(`names no encryption: begin with "aes256gcm16" or "aes256"`)
	}
	combined := isAEAD(encr[0])
	for _, t := range encr {
		if isAEAD(t) != combined {
			return w.blame(t, fmt.Sprintf("does not go with %q, only one of them checks integrity by itself: write two proposals", keyword(encr[0])))
		}
	}
	integ, ok := w.first(wire.TransformINTEG)
	switch {
	case combined && ok && prf != "":
		return w.blame(integ, fmt.Sprintf("does not go with %q, which checks integrity by itself: write %q", keyword(encr[0]), prf+keyword(integ)))
	case combined && ok:
		return w.blame(integ, fmt.Sprintf("does not go with %q, which checks integrity by itself: leave it out", keyword(encr[0])))
	case !combined && !ok:
		return w.problem(fmt.Sprintf(`names no integrity algorithm for %q: add "sha256"`, keyword(encr[0])))
	}
	return nil
}

func (w *words) first(typ wire.TransformType) (wire.Transform, bool) {
	for _, t := range w.all {
		if t.Type == typ {
			return t, true
		}
	}
	return wire.Transform{}, false
}

// problem is an error about the proposal as a whole.
func (w *words) problem(text string) error { return &ParseError{w.text, "", 0, text} }

// blame is an error about the keyword that stands for t.
func (w *words) blame(t wire.Transform, text string) error {
	for i, tok := range w.tokens {
		if w.all[i] == t {
			return &ParseError{w.text, tok.word, tok.offset, text}
		}
	}
	return w.problem(text)
}

// proposal puts the transforms in the order of types, each type in the order written.
func (w *words) proposal() Proposal {
	var p Proposal
	for _, typ := range typeOrder {
		p.Transforms = append(p.Transforms, ofType(w.all, typ)...)
	}
	return p
}

// nearest returns the keyword that differs least from word, if no more than a third of it does.
func nearest(word string) (string, bool) {
	if len(word) > 32 {
		return "", false // longer than any keyword: not a slip of the finger
	}
	best, name := len(word)/3+1, ""
	for _, k := range keywords() {
		if d := distance(word, k); d < best {
			best, name = d, k
		}
	}
	return name, name != ""
}

// keywords returns every keyword that can be written.
func keywords() []string {
	var all []string
	for _, e := range encryptions {
		all = append(all, e.names...)
	}
	for _, a := range integrities {
		all = append(all, a.names...)
	}
	for _, f := range functions {
		all = append(all, f.names...)
	}
	for _, m := range methods {
		all = append(all, m.names...)
	}
	for _, o := range options {
		all = append(all, o.names...)
	}
	return all
}

// distance counts the octets to insert, delete or replace to make b of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

// isAEAD reports whether an encryption transform checks integrity by itself.
func isAEAD(t wire.Transform) bool {
	e := encryptionOf(t)
	return e != nil && e.aead != nil
}
