package wire

// Cert is a Certificate payload (RFC 7296, Section 3.6; raw public keys:
// RFC 7670).
type Cert struct {
	Encoding CertEncoding
	Data     []byte
}

// Type returns PayloadCert.
func (Cert) Type() PayloadType { return PayloadCert }

func (r *reader) cert() Cert {
	return Cert{Encoding: CertEncoding(r.u8()), Data: r.rest()}
}

func (p Cert) appendBody(b []byte) []byte {
	return append(append(b, uint8(p.Encoding)), p.Data...)
}

// CertReq is a Certificate Request payload (RFC 7296, Section 3.7). It is a
// suggestion, so its data is not checked.
type CertReq struct {
	Encoding CertEncoding
	Data     []byte // for X.509, SHA-1 hashes of trusted authorities' keys, 20 octets each
}

// Type returns PayloadCertReq.
func (CertReq) Type() PayloadType { return PayloadCertReq }

func (r *reader) certReq() CertReq {
	return CertReq{Encoding: CertEncoding(r.u8()), Data: r.rest()}
}

func (p CertReq) appendBody(b []byte) []byte {
	return append(append(b, uint8(p.Encoding)), p.Data...)
}
