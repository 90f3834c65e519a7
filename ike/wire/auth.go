package wire

// Auth is an Authentication payload (RFC 7296, Section 3.8).
type Auth struct {
	Method AuthMethod
	Data   []byte
}

// Type returns PayloadAuth.
func (Auth) Type() PayloadType { return PayloadAuth }

func (r *reader) auth() Auth {
	var p Auth
	p.Method = AuthMethod(r.u8())
	r.reserved(3)
	p.Data = r.rest()
	return p
}

func (p Auth) appendBody(b []byte) []byte {
	b = append(b, uint8(p.Method))
	b = appendReserved(b, 3)
	return append(b, p.Data...)
}
