package wire

// EAP is an Extensible Authentication payload: one EAP message
// (RFC 7296, Section 3.16).
type EAP struct {
	Data []byte // from the message's Code on
}

// Type returns PayloadEAP.
func (EAP) Type() PayloadType { return PayloadEAP }

// EAP codes (RFC 7296, Section 3.16).
const (
	eapRequest  = 1
	eapResponse = 2
	eapSuccess  = 3
	eapFailure  = 4
)

// eapHeaderLen is Code, Identifier and Length; a Request or Response has a
// Type behind it.
const eapHeaderLen = 4

func (r *reader) eap() EAP {
	size := r.len()
	header := *r // a second reader: the message is passed on whole
	p := EAP{Data: r.rest()}
	code := header.u8()
	header.reserved(1) // the Identifier serves no function here
	length := int(header.u16())
	header.require(length == size, BadLength)
	switch code {
	case eapRequest, eapResponse:
		header.require(size > eapHeaderLen, BadLength)
	case eapSuccess, eapFailure:
		header.require(size == eapHeaderLen, BadLength)
	default:
		// Other RFCs define more codes; EAP decides.
	}
	return p
}

func (p EAP) appendBody(b []byte) []byte { return append(b, p.Data...) }
