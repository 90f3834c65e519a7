package wire

// Payload is one payload of a message. These are all, as values, not
// pointers: SA, KE, ID, Cert, CertReq, Auth, Nonce, Notify, Delete, VendorID,
// TS, SK, Config, EAP, SKF, Unknown.
type Payload interface {
	// Type is the type by which the payload before it announces it.
	Type() PayloadType

	// appendBody appends what follows the generic payload header.
	appendBody(b []byte) []byte
}

// Unknown is a payload of a type that this package does not know. A receiver
// ignores it if it is not critical (RFC 7296, Section 2.5); Parse returns an
// error if it is.
type Unknown struct {
	Kind     PayloadType
	Critical bool
	Data     []byte
}

// Type returns Kind.
func (p Unknown) Type() PayloadType { return p.Kind }

func (p Unknown) appendBody(b []byte) []byte { return append(b, p.Data...) }

// criticalBit is the top bit of the second octet of a generic payload header.
// The payloads that RFC 7296 and RFC 7383 define are sent without it.
const criticalBit = 1 << 7

// ParsePayloads parses a chain of payloads that is not in a message itself:
// what was in an SK, or in several SKF put together. The type of the first one
// is in the SK's or first SKF's header. There can be no SK or SKF within
// (RFC 7296, Section 3.1).
//
// The slices in the result point into body, and the offset of an error counts
// from its start. The error is an *Error.
func ParsePayloads(first PayloadType, body []byte) ([]Payload, error) {
	r := newReader(body)
	ps := r.payloads(first, true)
	if !r.ok() {
		return nil, r.err()
	}
	return ps, nil
}

// payloads reads a chain of payloads to the end of what is there.
func (r *reader) payloads(next PayloadType, encrypted bool) []Payload {
	var ps []Payload
	for next != NoNextPayload && r.ok() {
		r.payload = next
		r.require(len(ps) < MaxPayloads, TooMany)
		r.require(!encrypted || (next != PayloadSK && next != PayloadSKF), BadValue)
		var p Payload
		p, next = r.onePayload(next)
		ps = append(ps, p)
	}
	r.payload = NoNextPayload
	r.end()
	return ps
}

// onePayload reads one payload of type t, and returns the type of the next one.
func (r *reader) onePayload(t PayloadType) (Payload, PayloadType) {
	next, critical, body := r.payloadHeader()
	var p Payload
	switch t {
	case PayloadSA:
		p = body.sa()
	case PayloadKE:
		p = body.ke()
	case PayloadIDi, PayloadIDr:
		p = body.id(t == PayloadIDr)
	case PayloadCert:
		p = body.cert()
	case PayloadCertReq:
		p = body.certReq()
	case PayloadAuth:
		p = body.auth()
	case PayloadNonce:
		p = body.nonce()
	case PayloadNotify:
		p = body.notify()
	case PayloadDelete:
		p = body.delete()
	case PayloadVendorID:
		p = body.vendorID()
	case PayloadTSi, PayloadTSr:
		p = body.ts(t == PayloadTSr)
	case PayloadConfig:
		p = body.config()
	case PayloadEAP:
		p = body.eap()
	case PayloadSK:
		// What follows is in the body: next is the first of it.
		return SK{First: next, Body: body.rest()}, NoNextPayload
	case PayloadSKF:
		return body.skf(next), NoNextPayload
	default:
		body.require(!critical, UnknownCritical)
		p = Unknown{Kind: t, Data: body.rest()}
	}
	body.end()
	return p, next
}

// payloadHeader reads a generic payload header and splits off the body.
func (r *reader) payloadHeader() (next PayloadType, critical bool, body *reader) {
	next = PayloadType(r.u8())
	critical = r.u8()&criticalBit != 0
	length := int(r.u16())
	r.require(length >= payloadHeaderLen, BadLength)
	return next, critical, r.sub(length - payloadHeaderLen)
}
