package wire

// ID is an Identification payload, IDi or IDr (RFC 7296, Section 3.5).
type ID struct {
	Responder bool // IDr instead of IDi
	Kind      IDType

	// Reserved is zero in what we send. It is kept because it has no meaning
	// and yet is among the octets that the peer's AUTH covers.
	Reserved [3]byte

	Data []byte
}

// Type returns PayloadIDi or PayloadIDr.
func (p ID) Type() PayloadType {
	if p.Responder {
		return PayloadIDr
	}
	return PayloadIDi
}

// Body returns the payload without its generic header, which is the
// RestOfInitIDPayload or RestOfRespIDPayload that AUTH covers
// (RFC 7296, Section 2.15).
func (p ID) Body() []byte { return p.appendBody(nil) }

func (r *reader) id(responder bool) ID {
	p := ID{Responder: responder}
	p.Kind = IDType(r.u8())
	p.Reserved = [3]byte{r.u8(), r.u8(), r.u8()}
	switch p.Kind {
	case IDIPv4Addr:
		r.require(r.len() == 4, BadLength)
	case IDIPv6Addr:
		r.require(r.len() == 16, BadLength)
	case IDNull:
		r.require(r.len() == 0, BadLength) // RFC 7619, Section 2.2
	default:
		// Of any length; what it is compared with decides.
	}
	p.Data = r.rest()
	return p
}

func (p ID) appendBody(b []byte) []byte {
	b = append(b, uint8(p.Kind))
	for _, v := range p.Reserved {
		b = append(b, v)
	}
	return append(b, p.Data...)
}
