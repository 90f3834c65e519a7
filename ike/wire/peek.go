package wire

// PeekInit reads of an IKE_SA_INIT request what its cookie is checked by (RFC
// 7296, Section 2.6): the first COOKIE and the first nonce, nil for none. Of the other
// payloads it reads the generic headers only, so that a request whose sender may
// be anybody costs little. What it accepts Parse may still refuse.
//
// The slices point into the datagram. The error is an *Error.
func PeekInit(datagram []byte) (cookie, nonce []byte, err error) {
	r := newReader(datagram)
	next := r.messageHeader().Next
	for n := 0; next != NoNextPayload && r.ok(); n++ {
		r.payload = next
		r.require(n < MaxPayloads, TooMany)
		r.require(next != PayloadSK && next != PayloadSKF, BadValue)
		t := next
		var body *reader
		next, _, body = r.payloadHeader()
		switch t {
		case PayloadNonce:
			if p := body.nonce(); nonce == nil {
				nonce = p.Data
			}
		case PayloadNotify:
			if p := body.notify(); p.Kind == NotifyCookie && cookie == nil {
				cookie = p.Data
			}
		default:
		}
	}
	r.payload = NoNextPayload
	r.end()
	return cookie, nonce, r.err()
}
