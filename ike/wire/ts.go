package wire

import "net/netip"

// TS is a Traffic Selector payload, TSi or TSr (RFC 7296, Section 3.13).
type TS struct {
	Responder bool // TSr instead of TSi

	// Selectors match a packet if any of them does.
	Selectors []Selector

	// Unknown are the selectors of other types, such as security labels. They
	// are ignored and not returned, so that the rest can be agreed upon
	// (RFC 7296, Section 2.9). There is at least one selector, known or unknown.
	Unknown []UnknownSelector
}

// Type returns PayloadTSi or PayloadTSr.
func (p TS) Type() PayloadType {
	if p.Responder {
		return PayloadTSr
	}
	return PayloadTSi
}

// Selector is one Traffic Selector of type TS_IPV4_ADDR_RANGE or
// TS_IPV6_ADDR_RANGE, as its addresses say (RFC 7296, Section 3.13.1).
type Selector struct {
	Protocol uint8 // IP protocol; 0: any

	// FromPort and ToPort are the lowest and the highest port; 0 and 65535:
	// any; 65535 and 0: OPAQUE, packets whose ports cannot be seen. For ICMP
	// they are type<<8 | code, for Mobile IPv6 type<<8.
	FromPort, ToPort uint16

	From, To netip.Addr // the lowest and the highest address, of one family
}

// UnknownSelector is a Traffic Selector of a type that this package does not know.
type UnknownSelector struct {
	Kind   TSType
	Second uint8  // the octet that holds the IP protocol in the known types
	Data   []byte // what follows the length
}

// Lengths of a selector in octets.
const (
	selectorHeaderLen = 4
	selectorIPv4Len   = selectorHeaderLen + 2*2 + 2*4
	selectorIPv6Len   = selectorHeaderLen + 2*2 + 2*16
)

func (r *reader) ts(responder bool) TS {
	p := TS{Responder: responder}
	n := int(r.u8())
	r.reserved(3)
	r.require(n > 0, BadValue)
	for i := 0; i < n && r.ok(); i++ {
		r.selector(&p)
	}
	return p
}

func (r *reader) selector(p *TS) {
	kind := TSType(r.u8())
	second := r.u8()
	length := int(r.u16())
	r.require(length >= selectorHeaderLen, BadLength)
	s := r.sub(length - selectorHeaderLen)
	sel := Selector{Protocol: second}
	switch kind {
	case TSIPv4AddrRange:
		s.require(length == selectorIPv4Len, BadLength)
		sel.FromPort, sel.ToPort = s.u16(), s.u16()
		sel.From, sel.To = s.ipv4(), s.ipv4()
	case TSIPv6AddrRange:
		s.require(length == selectorIPv6Len, BadLength)
		sel.FromPort, sel.ToPort = s.u16(), s.u16()
		sel.From, sel.To = s.ipv6(), s.ipv6()
	default:
		p.Unknown = append(p.Unknown, UnknownSelector{Kind: kind, Second: second, Data: s.rest()})
		return
	}
	// A range the wrong way round is no range; ports that way are, once.
	opaque := sel.FromPort == 65535 && sel.ToPort == 0
	s.require(sel.FromPort <= sel.ToPort || opaque, BadValue)
	s.require(sel.From.Compare(sel.To) <= 0, BadValue)
	p.Selectors = append(p.Selectors, sel)
}

func (p TS) appendBody(b []byte) []byte {
	b = appendCount(b, len(p.Selectors)+len(p.Unknown))
	b = appendReserved(b, 3)
	for _, s := range p.Selectors {
		b = s.appendTo(b)
	}
	for _, s := range p.Unknown {
		start := len(b)
		b = append(b, uint8(s.Kind), s.Second)
		b = append16(b, 0)
		b = append(b, s.Data...)
		setLength16(b, start, len(b)-start)
	}
	return b
}

func (s Selector) appendTo(b []byte) []byte {
	kind := TSIPv6AddrRange
	if s.From.Is4() {
		kind = TSIPv4AddrRange
	}
	start := len(b)
	b = append(b, uint8(kind), s.Protocol)
	b = append16(b, 0)
	b = append16(b, s.FromPort)
	b = append16(b, s.ToPort)
	b = appendAddr(b, s.From)
	b = appendAddr(b, s.To)
	setLength16(b, start, len(b)-start)
	return b
}
