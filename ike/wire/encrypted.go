package wire

// SK is an Encrypted payload (RFC 7296, Section 3.14), always the last of a
// message. ParsePayloads parses what is in it once it is decrypted.
type SK struct {
	First PayloadType // the first payload within; NoNextPayload: it is empty
	Body  []byte      // initialization vector, ciphertext and integrity checksum
}

// Type returns PayloadSK.
func (SK) Type() PayloadType { return PayloadSK }

func (p SK) appendBody(b []byte) []byte { return append(b, p.Body...) }

// SKF is an Encrypted Fragment payload (RFC 7383, Section 2.5), always the
// last of a message: one part of what an SK would have had in it.
type SKF struct {
	First         PayloadType // the first payload of the whole, in fragment 1; zero in the others
	Number, Total uint16      // 1 <= Number <= Total
	Body          []byte      // initialization vector, ciphertext and integrity checksum
}

// Type returns PayloadSKF.
func (SKF) Type() PayloadType { return PayloadSKF }

func (r *reader) skf(first PayloadType) SKF {
	p := SKF{First: first}
	p.Number = r.u16()
	p.Total = r.u16()
	r.require(1 <= p.Number && p.Number <= p.Total, BadValue) // RFC 7383, Section 2.6
	r.require(p.Number == 1 || first == NoNextPayload, BadValue)
	p.Body = r.rest()
	return p
}

func (p SKF) appendBody(b []byte) []byte {
	b = append16(b, p.Number)
	b = append16(b, p.Total)
	return append(b, p.Body...)
}
