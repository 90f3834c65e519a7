package wire

// KE is a Key Exchange payload (RFC 7296, Section 3.4): a public value, or for
// a KEM a public key or a ciphertext.
type KE struct {
	Group TransformID // of TransformKE
	Data  []byte      // the length that the group says is for the caller to check
}

// Type returns PayloadKE.
func (KE) Type() PayloadType { return PayloadKE }

func (r *reader) ke() KE {
	var p KE
	p.Group = TransformID(r.u16())
	r.reserved(2)
	p.Data = r.rest()
	return p
}

func (p KE) appendBody(b []byte) []byte {
	b = append16(b, uint16(p.Group))
	b = appendReserved(b, 2)
	return append(b, p.Data...)
}

// Nonce is a Nonce payload, Ni or Nr (RFC 7296, Section 3.9).
type Nonce struct {
	Data []byte // MinNonce to MaxNonce octets
}

// Type returns PayloadNonce.
func (Nonce) Type() PayloadType { return PayloadNonce }

func (r *reader) nonce() Nonce {
	r.require(r.len() >= MinNonce && r.len() <= MaxNonce, BadLength)
	return Nonce{Data: r.rest()}
}

func (p Nonce) appendBody(b []byte) []byte { return append(b, p.Data...) }
