package suite

import (
	"fmt"
	"slices"

	"ipsec-quick/ike/wire"
)

// Choice is what both ends agreed on: one algorithm of each type. It is plain data that
// encoding/gob carries.
type Choice struct {
	Num uint8  // of the proposal among those offered
	SPI []byte // in that proposal: the peer's when we chose, or answered us

	// One transform of each type; the zero Transform: none.
	Encr, Integ, PRF, KE wire.Transform

	ESN bool // 64-bit sequence numbers (ESP)

	// Transforms are all that was agreed on, as the answer lists them: with each NONE that the
	// offer named (RFC 7296, Section 3.3.6, wants one transform of each type offered).
	Transforms []wire.Transform
}

// String writes the choice in strongSwan's spelling, such as aes256gcm16-prfsha384-x25519.
func (c Choice) String() string {
	p := Proposal{}
	for _, t := range []wire.Transform{c.Encr, c.Integ, c.PRF, c.KE} {
		if t.Type != 0 {
			p.Transforms = append(p.Transforms, t)
		}
	}
	if c.ESN {
		p.Transforms = append(p.Transforms, wire.Transform{Type: wire.TransformESN, ID: wire.ESNYes})
	}
	return p.String()
}

// Wire returns the single proposal to answer with (RFC 7296, Section 2.7), with our SPI.
func (c Choice) Wire(protocol wire.ProtocolID, spi []byte) wire.Proposal {
	return wire.Proposal{Num: c.Num, Protocol: protocol, SPI: spi, Transforms: c.Transforms}
}

// Match says how to compare proposals.
type Match struct {
	// IgnoreKE: key exchange methods do not count. The Child SA of IKE_AUTH has none, whatever its
	// proposals say (RFC 7296, Section 1.2).
	IgnoreKE bool

	// PFSOptional: a Child SA may do without a key exchange of its own even where our proposal
	// names one, and with one of those of DefaultIKE where it names none.
	PFSOptional bool

	// PreferKE is the method of the KE payload that came along; it is chosen where it is one of
	// ours, whatever its place, as another one costs a round trip (RFC 7296, Section 1.2). 0: none.
	PreferKE wire.TransformID
}

// Select returns the first of our proposals, and for it the first of those offered, that have an
// algorithm of each type in common. Our order of preference decides within a type too. A proposal
// with a transform type that we don't know is passed over (RFC 7296, Section 3.3.6), unless the
// type is an additional key exchange that can be NONE. The error is a *NoProposal.
func Select(offered []wire.Proposal, ours []Proposal, protocol wire.ProtocolID, o Match) (Choice, error) {
	for _, own := range ours {
		for _, p := range offered {
			if p.Protocol != protocol {
				continue
			}
			if c, ok := combine(p, own, o); ok {
				return c, nil
			}
		}
	}
	return Choice{}, &NoProposal{Offered: offered, Ours: ours, Protocol: protocol, Match: o}
}

// combine chooses one transform of each type from what is offered and what we allow.
func combine(offer wire.Proposal, own Proposal, o Match) (Choice, bool) {
	c := Choice{Num: offer.Num, SPI: slices.Clone(offer.SPI)}
	ok := c.chooseEncryption(offer.Transforms, own.Transforms) &&
		c.choosePRF(offer, own.Transforms) &&
		c.chooseKE(offer, own.Transforms, o) &&
		c.chooseESN(offer, own.Transforms) &&
		c.chooseRest(offer.Transforms, o)
	return c, ok
}

// chooseEncryption chooses the encryption and, without AEAD, the integrity algorithm. RFC 5282,
// Section 8, wants proposals for AEAD to name no integrity algorithm but NONE.
func (c *Choice) chooseEncryption(offer, own []wire.Transform) bool {
	integ := ofType(offer, wire.TransformINTEG)
	none := wire.Transform{Type: wire.TransformINTEG, ID: wire.AuthNone}
	for _, encr := range ofType(own, wire.TransformENCR) {
		if !slices.Contains(offer, encr) {
			continue
		}
		if isAEAD(encr) {
			switch {
			case len(integ) == 0:
				c.Encr, c.Transforms = encr, []wire.Transform{encr}
				return true
			case slices.Contains(integ, none):
				c.Encr, c.Transforms = encr, []wire.Transform{encr, none}
				return true
			}
			continue
		}
		if t, ok := common(offer, own, wire.TransformINTEG); ok && t != none {
			c.Encr, c.Integ, c.Transforms = encr, t, []wire.Transform{encr, t}
			return true
		}
	}
	return false
}

// choosePRF chooses the PRF of an IKE SA; there is none for ESP.
func (c *Choice) choosePRF(offer wire.Proposal, own []wire.Transform) bool {
	if offer.Protocol != wire.ProtocolIKE {
		return len(ofType(offer.Transforms, wire.TransformPRF)) == 0
	}
	t, ok := common(offer.Transforms, own, wire.TransformPRF)
	if ok {
		c.PRF = t
		c.Transforms = append(c.Transforms, t)
	}
	return ok
}

// chooseKE chooses the key exchange method. For a Child SA it can be NONE: because neither side
// names one, because both name NONE, or because o allows it.
func (c *Choice) chooseKE(offer wire.Proposal, own []wire.Transform, o Match) bool {
	none := wire.Transform{Type: wire.TransformKE, ID: wire.KENone}
	theirs, mine := ofType(offer.Transforms, wire.TransformKE), ofType(own, wire.TransformKE)
	ike := offer.Protocol == wire.ProtocolIKE
	if !o.IgnoreKE {
		if o.PFSOptional && !ike && len(mine) == 0 {
			mine = ofType(DefaultIKE[0].Transforms, wire.TransformKE)
		}
		if t := (wire.Transform{Type: wire.TransformKE, ID: o.PreferKE}); slices.Contains(mine, t) {
			mine = append([]wire.Transform{t}, mine...)
		}
		for _, t := range mine {
			if t != none && slices.Contains(theirs, t) {
				c.KE = t
				c.Transforms = append(c.Transforms, t)
				return true
			}
		}
		if ike || len(mine) > 0 && !slices.Contains(mine, none) && !o.PFSOptional {
			return false
		}
	}
	if slices.Contains(theirs, none) {
		c.Transforms = append(c.Transforms, none)
		return true
	}
	return o.IgnoreKE || len(theirs) == 0
}

// chooseESN chooses the sequence numbers of ESP. A peer that does not name any, though RFC 7296,
// Section 3.3.3, makes it mandatory, means what was before ESN: 32 bits.
func (c *Choice) chooseESN(offer wire.Proposal, own []wire.Transform) bool {
	theirs := ofType(offer.Transforms, wire.TransformESN)
	if offer.Protocol == wire.ProtocolIKE {
		return len(theirs) == 0
	}
	no := wire.Transform{Type: wire.TransformESN, ID: wire.ESNNo}
	mine := ofType(own, wire.TransformESN)
	if len(mine) == 0 {
		mine = []wire.Transform{no}
	}
	if len(theirs) == 0 {
		return slices.Contains(mine, no)
	}
	t, ok := common(theirs, mine, wire.TransformESN)
	if ok {
		c.ESN = t.ID == wire.ESNYes
		c.Transforms = append(c.Transforms, t)
	}
	return ok
}

// chooseRest chooses NONE of each additional key exchange (RFC 9370, Section 2.2.1), and fails for
// one without NONE and for any other transform type.
func (c *Choice) chooseRest(offer []wire.Transform, o Match) bool {
	for _, t := range offer {
		switch t.Type {
		case wire.TransformENCR, wire.TransformPRF, wire.TransformINTEG, wire.TransformKE, wire.TransformESN:
			continue
		default:
		}
		if t.Type < wire.TransformADDKE1 || t.Type > wire.TransformADDKE7 {
			return false
		}
		none := wire.Transform{Type: t.Type, ID: wire.KENone}
		switch {
		case slices.Contains(c.Transforms, none):
		case slices.Contains(offer, none):
			c.Transforms = append(c.Transforms, none)
		case !o.IgnoreKE:
			return false
		}
	}
	return true
}

// common returns our first transform of a type that is offered too.
func common(offer, own []wire.Transform, typ wire.TransformType) (wire.Transform, bool) {
	for _, t := range own {
		if t.Type == typ && slices.Contains(offer, t) {
			return t, true
		}
	}
	return wire.Transform{}, false
}

// AnswerError says why the responder's choice is none of what we offered.
type AnswerError struct {
	Answer   []wire.Proposal
	Offered  []Proposal
	Problem  string
	Protocol wire.ProtocolID
}

// Error names the problem, what was answered and what was offered.
func (e *AnswerError) Error() string {
	return fmt.Sprintf("the peer's choice of %s proposal %s: it answered %s to %s",
		e.Protocol, e.Problem, list(spellings(e.Answer)), list(written(e.Offered)))
}

// Accept returns what the responder chose of our proposals, which were numbered from 1 in their
// order (Proposal.Wire). The answer must be one proposal with one transform of each type, each of
// which was offered under its number (RFC 7296, Section 2.7). The error is an *AnswerError.
func Accept(answer wire.SA, offered []Proposal, protocol wire.ProtocolID, o Match) (Choice, error) {
	problem := func(text string) (Choice, error) {
		return Choice{}, &AnswerError{answer.Proposals, offered, text, protocol}
	}
	if len(answer.Proposals) != 1 {
		return problem("is not a single one")
	}
	p := answer.Proposals[0]
	if p.Protocol != protocol {
		return problem("is for another protocol")
	}
	if p.Num < 1 || int(p.Num) > len(offered) {
		return problem("has a number that we did not use")
	}
	for _, t := range p.Transforms {
		if len(ofType(p.Transforms, t.Type)) > 1 {
			return problem("names two algorithms of a type")
		}
	}
	own := offered[p.Num-1]
	if len(own.KE()) == 0 {
		o.PFSOptional = false // that is for what others offer: we sent no KE payload
	}
	c, ok := combine(p, own, o)
	if !ok {
		return problem("is not among those that we offered")
	}
	return c, nil
}
