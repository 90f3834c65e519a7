package wire

// SA is a Security Association payload: what the sender offers, or the one
// proposal it accepts (RFC 7296, Section 3.3).
type SA struct {
	Proposals []Proposal // most preferred first
}

// Type returns PayloadSA.
func (SA) Type() PayloadType { return PayloadSA }

// Proposal is one set of algorithms for one protocol. Transforms of the same
// type are alternatives (RFC 7296, Section 3.3.1).
type Proposal struct {
	Num        uint8 // an offer counts from 1; an answer has the number of the accepted one
	Protocol   ProtocolID
	SPI        []byte // the sender's: 4 octets for ESP and AH; for IKE 8, or none in the initial exchange
	Transforms []Transform
}

// Values of the Last Substruc field: 0 in the last structure, otherwise what
// in IKEv1 was the payload type (RFC 7296, Sections 3.3.1 and 3.3.2).
const (
	lastSubstruc   = 0
	moreProposals  = 2
	moreTransforms = 3
)

// substrucHeaderLen is what proposals and transforms have in common: the Last
// Substruc field, a reserved octet and the length of the whole, in octets.
const substrucHeaderLen = 4

// SPI sizes in octets (RFC 7296, Sections 3.3.1, 3.10 and 3.11).
const (
	ikeSPISize   = 8
	childSPISize = 4
)

func (r *reader) sa() SA {
	var p SA
	var num uint8
	for more := true; more && r.ok(); {
		r.require(len(p.Proposals) < MaxProposals, TooMany)
		var proposal Proposal
		proposal, more = r.proposal()
		// Each number is one more than the one before. Equal ones, which in
		// the obsolete RFC 4306 meant "and", would be taken for alternatives.
		r.require(proposal.Num != 0 && (num == 0 || proposal.Num == num+1), BadValue)
		num = proposal.Num
		p.Proposals = append(p.Proposals, proposal)
	}
	return p
}

// proposal reads one proposal and whether another follows.
func (r *reader) proposal() (p Proposal, more bool) {
	s, more := r.substruc(moreProposals)
	p.Num = s.u8()
	p.Protocol = ProtocolID(s.u8())
	spiSize := int(s.u8())
	transforms := int(s.u8())
	switch p.Protocol {
	case ProtocolIKE:
		s.require(spiSize == 0 || spiSize == ikeSPISize, BadLength)
	case ProtocolAH, ProtocolESP:
		s.require(spiSize == childSPISize, BadLength)
	default:
		// A protocol to come: only this proposal is unacceptable.
	}
	p.SPI = s.take(spiSize)
	s.require(transforms <= MaxTransforms, TooMany)
	for next := true; next && s.ok(); {
		var t Transform
		t, next = s.transform()
		p.Transforms = append(p.Transforms, t)
		s.require(len(p.Transforms) <= transforms, BadLength)
	}
	s.require(len(p.Transforms) == transforms, BadLength)
	s.end()
	return p, more
}

// substruc splits off a reader of a proposal or transform behind its first
// four octets, and reports whether another structure of the kind follows.
func (r *reader) substruc(marker uint8) (s *reader, more bool) {
	v := r.u8()
	r.reserved(1)
	length := int(r.u16())
	r.require(v == marker || v == lastSubstruc, BadValue)
	r.require(length >= substrucHeaderLen, BadLength)
	return r.sub(length - substrucHeaderLen), v == marker
}

func (p SA) appendBody(b []byte) []byte {
	for i, proposal := range p.Proposals {
		b = proposal.appendTo(b, markerOf(i, len(p.Proposals), moreProposals))
	}
	return b
}

func (p Proposal) appendTo(b []byte, marker uint8) []byte {
	start := len(b)
	b = append(b, marker, 0)
	b = append16(b, 0)
	b = append(b, p.Num, uint8(p.Protocol))
	b = appendCount(b, len(p.SPI))
	b = appendCount(b, len(p.Transforms))
	b = append(b, p.SPI...)
	for i, t := range p.Transforms {
		b = t.appendTo(b, markerOf(i, len(p.Transforms), moreTransforms))
	}
	setLength16(b, start, len(b)-start)
	return b
}

// markerOf returns the Last Substruc field of the i-th of n structures.
func markerOf(i, n int, more uint8) uint8 {
	if i < n-1 {
		return more
	}
	return lastSubstruc
}
