package suite

import (
	"slices"
	"strconv"
	"strings"

	"ipsec-quick/ike/wire"
)

// Proposal is a list of transforms that we offer or accept. Of each type it holds one or more, in
// order of preference; the types stand in the order that names are written in: encryption,
// integrity, PRF, key exchange, sequence numbers (ESP).
type Proposal struct{ Transforms []wire.Transform }

// typeOrder is the order of transform types in a Proposal.
var typeOrder = []wire.TransformType{wire.TransformENCR, wire.TransformINTEG, wire.TransformPRF, wire.TransformKE, wire.TransformESN}

// DefaultIKE and DefaultESP are what a tunnel file without proposals means: what current peers
// accept, one proposal for AEAD and one for CBC (RFC 7296, Section 3.3, wants them apart). The
// first key exchange method is the one to send a KE payload for. DefaultESP holds no key exchange:
// see Proposal.WithKE.
var (
	DefaultIKE = []Proposal{
		build("aes256gcm16 aes128gcm16 chacha20poly1305", "", "prfsha384 prfsha256 prfsha512", defaultKE, ""),
		build("aes256 aes128", "sha256 sha384 sha512", "prfsha256 prfsha384 prfsha512", defaultKE, ""),
	}
	DefaultESP = []Proposal{
		build("aes256gcm16 aes128gcm16 chacha20poly1305", "", "", "", "noesn"),
		build("aes256 aes128", "sha256 sha512 sha384", "", "", "noesn"),
	}
)

const defaultKE = "ecp256 ecp384 x25519 modp2048 modp3072 modp4096"

// build makes a proposal of keywords that a test knows to exist.
func build(lists ...string) Proposal {
	var p Proposal
	for _, word := range strings.Fields(strings.Join(lists, " ")) {
		if t, ok := lookup(word); ok {
			p.Transforms = append(p.Transforms, t)
		}
	}
	return p
}

// lookup returns the transform of a keyword in lower case.
func lookup(word string) (wire.Transform, bool) {
	for _, e := range encryptions {
		if slices.Contains(e.names, word) {
			return wire.Transform{Type: wire.TransformENCR, ID: e.id, KeyLength: e.bits}, true
		}
	}
	for _, a := range integrities {
		if slices.Contains(a.names, word) {
			return wire.Transform{Type: wire.TransformINTEG, ID: a.id}, true
		}
	}
	for _, f := range functions {
		if slices.Contains(f.names, word) {
			return wire.Transform{Type: wire.TransformPRF, ID: f.id}, true
		}
	}
	for _, m := range methods {
		if slices.Contains(m.names, word) {
			return wire.Transform{Type: wire.TransformKE, ID: m.id}, true
		}
	}
	for _, o := range options {
		if slices.Contains(o.names, word) {
			return o.t, true
		}
	}
	return wire.Transform{}, false
}

// keyword names a transform in strongSwan's spelling; one that has no keyword gets its numbers.
func keyword(t wire.Transform) string {
	if t.Unknown != "" {
		t.Unknown = ""
		return keyword(t) + " with unknown attributes"
	}
	if n := t.Type - wire.TransformADDKE1; t.Type >= wire.TransformADDKE1 && t.Type <= wire.TransformADDKE7 {
		t.Type = wire.TransformKE
		return "ke" + strconv.Itoa(int(n)+1) + "_" + keyword(t)
	}
	if e := encryptionOf(t); e != nil {
		return e.names[0]
	}
	switch t.Type {
	case wire.TransformINTEG:
		if a := integrityOf(t.ID); a != nil {
			return a.names[0]
		}
		if t.ID == 0 {
			return "nointeg" // NONE, which strongSwan's spelling leaves out
		}
	case wire.TransformPRF:
		if f := functionOf(t.ID); f != nil {
			return f.names[0]
		}
	case wire.TransformKE:
		if m := methodOf(t.ID); m != nil {
			return m.names[0]
		}
	default:
	}
	for _, o := range options {
		if o.t == t {
			return o.names[0]
		}
	}
	if name, ok := foreign(t); ok {
		return name
	}
	s := "transform" + strconv.Itoa(int(t.Type)) + "#" + strconv.Itoa(int(t.ID))
	if t.KeyLength != 0 {
		s += "/" + strconv.Itoa(int(t.KeyLength))
	}
	return s
}

// String writes the proposal in strongSwan's spelling, so that ParseIKE or ParseESP read it again.
// What they would add by themselves is left out: the PRFs that follow from the integrity
// algorithms, and "noesn".
func (p Proposal) String() string {
	ts := p.Transforms
	if derived := derivedPRFs(ts); len(derived) > 0 && slices.Equal(derived, ofType(ts, wire.TransformPRF)) {
		ts = without(ts, wire.TransformPRF)
	}
	if esn := ofType(ts, wire.TransformESN); len(esn) == 1 && esn[0].ID == wire.ESNNo {
		ts = without(ts, wire.TransformESN)
	}
	return spell(ts)
}

// spell joins the names of transforms.
func spell(ts []wire.Transform) string {
	words := make([]string, len(ts))
	for i, t := range ts {
		words[i] = keyword(t)
	}
	return strings.Join(words, "-")
}

// Wire returns the proposal as it stands in an SA payload (RFC 7296, Section 3.3.1): num counts
// from 1, the SPI is empty in IKE_SA_INIT.
func (p Proposal) Wire(num uint8, protocol wire.ProtocolID, spi []byte) wire.Proposal {
	return wire.Proposal{Num: num, Protocol: protocol, SPI: spi, Transforms: p.Transforms}
}

// KE returns the key exchange methods of the proposal in order of preference, NONE (0) among them.
func (p Proposal) KE() []wire.TransformID {
	var ids []wire.TransformID
	for _, t := range ofType(p.Transforms, wire.TransformKE) {
		ids = append(ids, t.ID)
	}
	return ids
}

// WithKE returns a copy of the proposal with these key exchange methods and no others; with none
// given, with no key exchange at all. 0 stands for NONE: a Child SA without one is as welcome.
func (p Proposal) WithKE(ids ...wire.TransformID) Proposal {
	var q Proposal
	for _, typ := range typeOrder {
		if typ != wire.TransformKE {
			q.Transforms = append(q.Transforms, ofType(p.Transforms, typ)...)
			continue
		}
		for _, id := range ids {
			q.Transforms = append(q.Transforms, wire.Transform{Type: wire.TransformKE, ID: id})
		}
	}
	return q
}

// derivedPRFs returns the PRFs that an IKE proposal without any gets from its integrity algorithms.
func derivedPRFs(ts []wire.Transform) []wire.Transform {
	var prfs []wire.Transform
	for _, t := range ofType(ts, wire.TransformINTEG) {
		if a := integrityOf(t.ID); a != nil {
			prfs = append(prfs, wire.Transform{Type: wire.TransformPRF, ID: a.prf})
		}
	}
	return prfs
}

// ofType returns the transforms of one type, in their order.
func ofType(ts []wire.Transform, typ wire.TransformType) []wire.Transform {
	var found []wire.Transform
	for _, t := range ts {
		if t.Type == typ {
			found = append(found, t)
		}
	}
	return found
}

// without returns the transforms of all types but one, in their order.
func without(ts []wire.Transform, typ wire.TransformType) []wire.Transform {
	var found []wire.Transform
	for _, t := range ts {
		if t.Type != typ {
			found = append(found, t)
		}
	}
	return found
}
