// Package wire parses and appends the messages of IKEv2: the header and the
// payloads of RFC 7296, Section 3, and the fragments of RFC 7383. It knows
// what octets mean, not what is allowed when, and holds no state.
//
// Parsing is strict about lengths and about values that the RFC rules out,
// because a message of which a part contradicts another can be understood in
// two ways. It passes over what the RFC wants passed over: reserved bits, the
// minor version, the critical bit of known payloads, payloads, transform
// attributes, traffic selectors, notifications and attributes from the future.
// What is unknown is kept, so that it can be named to an operator.
//
// Everything that Parse accepts, AppendTo appends such that Parse returns the
// same again. AppendTo checks nothing: a value must fit its field. A length
// that does not is sent as zero, never as its low bits, so that no part of a
// payload can come out as another payload.
package wire

// Message is one IKE message (RFC 7296, Section 3.1).
type Message struct {
	// SPIi and SPIr are the SPIs of the original initiator and the original
	// responder of the IKE SA. SPIr is zero in the first message; SPIi is
	// zero only in a message outside of an IKE SA (RFC 7296, Section 1.5).
	SPIi, SPIr SPI

	Exchange ExchangeType

	// Initiator is the I flag: the sender is the original initiator of the IKE SA.
	Initiator bool

	// Response is the R flag: the message answers the request with the same
	// Message ID.
	Response bool

	MessageID uint32

	// Payloads are in the order of the message. An SK or SKF is the last one.
	Payloads []Payload
}

// Parse parses a message: a whole datagram, without the four zero octets that
// mark IKE on port 4500 (RFC 7296, Section 3.1).
//
// The slices in the result point into the datagram, which must not be changed
// while they are in use. The error is an *Error.
func Parse(datagram []byte) (*Message, error) {
	r := newReader(datagram)
	h := r.messageHeader()
	payloads := r.payloads(h.Next, false)
	if !r.ok() {
		return nil, r.err()
	}
	return &Message{
		SPIi: h.SPIi, SPIr: h.SPIr,
		Exchange:  h.Exchange,
		Initiator: h.Initiator, Response: h.Response,
		MessageID: h.MessageID,
		Payloads:  payloads,
	}, nil
}

// AppendTo appends the message. An SK or SKF, if there is one, is already
// encrypted.
func (m *Message) AppendTo(b []byte) []byte {
	start := len(b)
	b = AppendHeader(b, m, FirstType(m.Payloads), 0)
	b = AppendPayloads(b, m.Payloads)
	setLength32(b, start, len(b)-start)
	return b
}
