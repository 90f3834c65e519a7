package wire

// Delete is a Delete payload: SAs that the sender has removed
// (RFC 7296, Section 3.11).
type Delete struct {
	Protocol ProtocolID

	// SPIs are those of AH or ESP SAs that the sender received on. There are
	// none for IKE: it is the IKE SA that the message is of.
	SPIs []uint32
}

// Type returns PayloadDelete.
func (Delete) Type() PayloadType { return PayloadDelete }

func (r *reader) delete() Delete {
	var p Delete
	p.Protocol = ProtocolID(r.u8())
	size := int(r.u8())
	n := int(r.u16())
	switch p.Protocol {
	case ProtocolIKE:
		r.require(size == 0 && n == 0, BadLength)
	case ProtocolAH, ProtocolESP:
		r.require(size == childSPISize, BadLength)
	default:
		r.fail(BadValue)
	}
	r.require(n <= MaxSPIs, TooMany)
	r.require(r.len() == n*size, BadLength)
	for r.more() {
		p.SPIs = append(p.SPIs, r.u32())
	}
	return p
}

func (p Delete) appendBody(b []byte) []byte {
	size := uint8(childSPISize)
	if p.Protocol == ProtocolIKE {
		size = 0
	}
	b = append(b, uint8(p.Protocol), size)
	b = append16(b, uint16(fit(len(p.SPIs), MaxSPIs)))
	for _, spi := range p.SPIs {
		b = append32(b, spi)
	}
	return b
}
