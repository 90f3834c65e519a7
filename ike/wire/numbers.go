package wire

import "strconv"

// Names are the IANA registry's, "Internet Key Exchange Version 2 (IKEv2)
// Parameters": what a reader of an RFC or of another implementation's log
// searches for.

// registryName returns the name of v, or "kind(v)" for a value that has none.
func registryName[T ~uint8 | ~uint16](names map[T]string, kind string, v T) string {
	if name, ok := names[v]; ok {
		return name
	}
	return kind + "(" + strconv.Itoa(int(v)) + ")"
}

// ExchangeType is the kind of exchange a message belongs to (RFC 7296, Section 3.1).
type ExchangeType uint8

// Exchange types.
const (
	IKESAInit        ExchangeType = 34 // RFC 7296, Section 1.2
	IKEAuth          ExchangeType = 35 // RFC 7296, Section 1.2
	CreateChildSA    ExchangeType = 36 // RFC 7296, Section 1.3
	Informational    ExchangeType = 37 // RFC 7296, Section 1.4
	IKESessionResume ExchangeType = 38 // RFC 5723
	IKEIntermediate  ExchangeType = 43 // RFC 9242
	IKEFollowupKE    ExchangeType = 44 // RFC 9370
)

var exchangeNames = map[ExchangeType]string{
	IKESAInit:        "IKE_SA_INIT",
	IKEAuth:          "IKE_AUTH",
	CreateChildSA:    "CREATE_CHILD_SA",
	Informational:    "INFORMATIONAL",
	IKESessionResume: "IKE_SESSION_RESUME",
	39:               "GSA_AUTH",
	40:               "GSA_REGISTRATION",
	41:               "GSA_REKEY",
	42:               "GSA_INBAND_REKEY",
	IKEIntermediate:  "IKE_INTERMEDIATE",
	IKEFollowupKE:    "IKE_FOLLOWUP_KE",
}

// String returns the registry's name, such as IKE_SA_INIT.
func (t ExchangeType) String() string { return registryName(exchangeNames, "EXCHANGE", t) }

// PayloadType is the kind of a payload: the Next Payload field of what stands
// before it (RFC 7296, Section 3.2).
type PayloadType uint8

// Payload types.
const (
	NoNextPayload   PayloadType = 0  // ends the chain
	PayloadSA       PayloadType = 33 // Security Association
	PayloadKE       PayloadType = 34 // Key Exchange
	PayloadIDi      PayloadType = 35 // Identification - Initiator
	PayloadIDr      PayloadType = 36 // Identification - Responder
	PayloadCert     PayloadType = 37 // Certificate
	PayloadCertReq  PayloadType = 38 // Certificate Request
	PayloadAuth     PayloadType = 39 // Authentication
	PayloadNonce    PayloadType = 40 // Ni, Nr
	PayloadNotify   PayloadType = 41 // Notify
	PayloadDelete   PayloadType = 42 // Delete
	PayloadVendorID PayloadType = 43 // Vendor ID
	PayloadTSi      PayloadType = 44 // Traffic Selector - Initiator
	PayloadTSr      PayloadType = 45 // Traffic Selector - Responder
	PayloadSK       PayloadType = 46 // Encrypted and Authenticated
	PayloadConfig   PayloadType = 47 // Configuration
	PayloadEAP      PayloadType = 48 // Extensible Authentication
	PayloadSKF      PayloadType = 53 // Encrypted and Authenticated Fragment (RFC 7383)
)

var payloadNames = map[PayloadType]string{
	NoNextPayload:   "NONE",
	PayloadSA:       "SA",
	PayloadKE:       "KE",
	PayloadIDi:      "IDi",
	PayloadIDr:      "IDr",
	PayloadCert:     "CERT",
	PayloadCertReq:  "CERTREQ",
	PayloadAuth:     "AUTH",
	PayloadNonce:    "NONCE", // the registry's "Ni, Nr" names two; the type alone does not say which
	PayloadNotify:   "N",
	PayloadDelete:   "D",
	PayloadVendorID: "V",
	PayloadTSi:      "TSi",
	PayloadTSr:      "TSr",
	PayloadSK:       "SK",
	PayloadConfig:   "CP",
	PayloadEAP:      "EAP",
	49:              "GSPM",
	50:              "IDg",
	51:              "GSA",
	52:              "KD",
	PayloadSKF:      "SKF",
	54:              "PS",
}

// String returns the notation of the registry, such as SA or TSi.
func (t PayloadType) String() string { return registryName(payloadNames, "PAYLOAD", t) }

// ProtocolID says which protocol an SA is for (RFC 7296, Section 3.3.1).
// Zero, reserved there, stands in a Notify payload that concerns no SA.
type ProtocolID uint8

// Security protocol identifiers.
const (
	ProtocolIKE ProtocolID = 1
	ProtocolAH  ProtocolID = 2
	ProtocolESP ProtocolID = 3
)

var protocolNames = map[ProtocolID]string{
	0:           "NONE",
	ProtocolIKE: "IKE",
	ProtocolAH:  "AH",
	ProtocolESP: "ESP",
	4:           "FC_ESP_HEADER",
	5:           "FC_CT_AUTHENTICATION",
	6:           "GIKE_UPDATE",
}

// String returns the registry's name, such as ESP.
func (p ProtocolID) String() string { return registryName(protocolNames, "PROTOCOL", p) }

// IDType is the kind of an identity (RFC 7296, Section 3.5).
type IDType uint8

// Identification payload ID types.
const (
	IDIPv4Addr   IDType = 1  // four octets
	IDFQDN       IDType = 2  // a domain name in ASCII, without a terminator
	IDRFC822Addr IDType = 3  // an email address, without a terminator
	IDIPv6Addr   IDType = 5  // sixteen octets
	IDDERASN1DN  IDType = 9  // an X.500 Distinguished Name
	IDDERASN1GN  IDType = 10 // an X.509 GeneralName
	IDKeyID      IDType = 11 // an opaque octet string
	IDNull       IDType = 13 // no identity, no data (RFC 7619)
)

var idNames = map[IDType]string{
	IDIPv4Addr:   "ID_IPV4_ADDR",
	IDFQDN:       "ID_FQDN",
	IDRFC822Addr: "ID_RFC822_ADDR",
	IDIPv6Addr:   "ID_IPV6_ADDR",
	IDDERASN1DN:  "ID_DER_ASN1_DN",
	IDDERASN1GN:  "ID_DER_ASN1_GN",
	IDKeyID:      "ID_KEY_ID",
	12:           "ID_FC_NAME",
	IDNull:       "ID_NULL",
}

// String returns the registry's name, such as ID_FQDN.
func (t IDType) String() string { return registryName(idNames, "ID", t) }

// AuthMethod says how an AUTH payload was computed (RFC 7296, Section 3.8).
type AuthMethod uint8

// Authentication methods.
const (
	MethodRSA              AuthMethod = 1  // RSASSA-PKCS1-v1_5, SHA-1 by default
	MethodSharedKey        AuthMethod = 2  // Shared Key Message Integrity Code
	MethodDSS              AuthMethod = 3  // DSS over SHA-1
	MethodECDSA256         AuthMethod = 9  // ECDSA with SHA-256 on P-256 (RFC 4754)
	MethodECDSA384         AuthMethod = 10 // ECDSA with SHA-384 on P-384 (RFC 4754)
	MethodECDSA521         AuthMethod = 11 // ECDSA with SHA-512 on P-521 (RFC 4754)
	MethodSecurePassword   AuthMethod = 12 // RFC 6467
	MethodNull             AuthMethod = 13 // RFC 7619
	MethodDigitalSignature AuthMethod = 14 // RFC 7427
)

var methodNames = map[AuthMethod]string{
	MethodRSA:              "RSA Digital Signature",
	MethodSharedKey:        "Shared Key Message Integrity Code",
	MethodDSS:              "DSS Digital Signature",
	MethodECDSA256:         "ECDSA with SHA-256 on the P-256 curve",
	MethodECDSA384:         "ECDSA with SHA-384 on the P-384 curve",
	MethodECDSA521:         "ECDSA with SHA-512 on the P-521 curve",
	MethodSecurePassword:   "Generic Secure Password Authentication Method",
	MethodNull:             "NULL Authentication",
	MethodDigitalSignature: "Digital Signature",
}

// String returns the registry's name, such as Digital Signature.
func (m AuthMethod) String() string { return registryName(methodNames, "METHOD", m) }

// CertEncoding is the kind of what a CERT payload carries or a CERTREQ payload
// asks for (RFC 7296, Section 3.6).
type CertEncoding uint8

// Certificate encodings that have a specification.
const (
	CertX509Signature    CertEncoding = 4  // one DER certificate
	CertCRL              CertEncoding = 7  // one DER revocation list
	CertHashAndURL       CertEncoding = 12 // SHA-1 and where to get the certificate
	CertHashAndURLBundle CertEncoding = 13 // SHA-1 and where to get a bundle
	CertOCSP             CertEncoding = 14 // RFC 4806
	CertRawPublicKey     CertEncoding = 15 // a SubjectPublicKeyInfo (RFC 7670)
)

var certNames = map[CertEncoding]string{
	1:                    "PKCS #7 wrapped X.509 certificate",
	2:                    "PGP Certificate",
	3:                    "DNS Signed Key",
	CertX509Signature:    "X.509 Certificate - Signature",
	6:                    "Kerberos Token",
	CertCRL:              "Certificate Revocation List (CRL)",
	8:                    "Authority Revocation List (ARL)",
	9:                    "SPKI Certificate",
	10:                   "X.509 Certificate - Attribute",
	11:                   "Raw RSA Key (DEPRECATED)",
	CertHashAndURL:       "Hash and URL of X.509 certificate",
	CertHashAndURLBundle: "Hash and URL of X.509 bundle",
	CertOCSP:             "OCSP Content",
	CertRawPublicKey:     "Raw Public Key",
}

// String returns the registry's name, such as Raw Public Key.
func (e CertEncoding) String() string { return registryName(certNames, "CERT", e) }

// TSType is the kind of a Traffic Selector (RFC 7296, Section 3.13.1).
type TSType uint8

// Traffic Selector types.
const (
	TSIPv4AddrRange TSType = 7
	TSIPv6AddrRange TSType = 8
)

var tsNames = map[TSType]string{
	TSIPv4AddrRange: "TS_IPV4_ADDR_RANGE",
	TSIPv6AddrRange: "TS_IPV6_ADDR_RANGE",
	9:               "TS_FC_ADDR_RANGE",
	10:              "TS_SECLABEL",
}

// String returns the registry's name, such as TS_IPV4_ADDR_RANGE.
func (t TSType) String() string { return registryName(tsNames, "TS", t) }
