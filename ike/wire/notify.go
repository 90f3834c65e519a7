package wire

// Notify is a Notify payload (RFC 7296, Section 3.10).
type Notify struct {
	// Protocol and SPI say which SA it is about: an AH or ESP SA, by the four
	// octets of its SPI. Without an SPI, Protocol is zero when sent and
	// ignored, which is to say zero, when received.
	Protocol ProtocolID
	SPI      []byte

	Kind NotifyType
	Data []byte // depends on Kind
}

// Type returns PayloadNotify.
func (Notify) Type() PayloadType { return PayloadNotify }

func (r *reader) notify() Notify {
	var p Notify
	p.Protocol = ProtocolID(r.u8())
	size := int(r.u8())
	p.Kind = NotifyType(r.u16())
	if size == 0 {
		p.Protocol = 0
	} else {
		switch p.Protocol {
		case 0:
			r.fail(BadValue)
		case ProtocolIKE:
			r.fail(BadLength) // the IKE SA is the one the message is of
		case ProtocolAH, ProtocolESP:
			r.require(size == childSPISize, BadLength)
		default:
			// A protocol to come, in a notification that can be ignored.
		}
	}
	p.SPI = r.take(size)
	p.Data = r.rest()
	return p
}

func (p Notify) appendBody(b []byte) []byte {
	if len(p.SPI) == 0 {
		p.Protocol = 0
	}
	b = append(b, uint8(p.Protocol))
	b = appendCount(b, len(p.SPI))
	b = append16(b, uint16(p.Kind))
	b = append(b, p.SPI...)
	return append(b, p.Data...)
}
