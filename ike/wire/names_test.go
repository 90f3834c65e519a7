package wire

import (
	"fmt"
	"testing"
)

func TestNames(t *testing.T) {
	tests := []struct {
		value fmt.Stringer
		want  string
	}{
		{IKESAInit, "IKE_SA_INIT"},
		{IKEIntermediate, "IKE_INTERMEDIATE"},
		{ExchangeType(250), "EXCHANGE(250)"},
		{PayloadTSi, "TSi"},
		{PayloadSKF, "SKF"},
		{PayloadType(99), "PAYLOAD(99)"},
		{ProtocolESP, "ESP"},
		{ProtocolID(0), "NONE"},
		{ProtocolID(77), "PROTOCOL(77)"},
		{TransformENCR, "ENCR"},
		{TransformADDKE7, "ADDKE7"},
		{TransformType(200), "TRANSFORM(200)"},
		{NotifyNoProposalChosen, "NO_PROPOSAL_CHOSEN"},
		{NotifyIKEv2FragmentationSupported, "IKEV2_FRAGMENTATION_SUPPORTED"},
		{NotifyType(60000), "NOTIFY(60000)"},
		{IDFQDN, "ID_FQDN"},
		{IDType(99), "ID(99)"},
		{MethodDigitalSignature, "Digital Signature"},
		{AuthMethod(99), "METHOD(99)"},
		{CertRawPublicKey, "Raw Public Key"},
		{CertEncoding(99), "CERT(99)"},
		{TSIPv4AddrRange, "TS_IPV4_ADDR_RANGE"},
		{TSType(10), "TS_SECLABEL"},
		{TSType(99), "TS(99)"},
		{ConfigRequest, "CFG_REQUEST"},
		{ConfigType(99), "CFG(99)"},
		{ConfigIP6Subnet, "INTERNAL_IP6_SUBNET"},
		{ConfigAttributeType(999), "ATTRIBUTE(999)"},
		{TooMany, "too many elements"},
		{ErrorKind(0), "error(0)"},
		{SPI(0x0123456789abcd), "000123456789abcd"},
		{Transform{Type: TransformENCR, ID: EncrAESCBC, KeyLength: 256}, "ENCR_AES_CBC 256"},
		{Transform{Type: TransformENCR, ID: EncrChaCha20Poly1305}, "ENCR_CHACHA20_POLY1305"},
		{Transform{Type: TransformPRF, ID: PRFHMACSHA256}, "PRF_HMAC_SHA2_256"},
		{Transform{Type: TransformINTEG, ID: AuthHMACSHA256_128, Unknown: "\x80\x01\x00\x00"}, "AUTH_HMAC_SHA2_256_128 (unknown attributes)"},
		{Transform{Type: TransformKE, ID: KECurve25519}, "Curve25519"},
		{Transform{Type: TransformADDKE1, ID: KEMLKEM768}, "ml-kem-768"},
		{Transform{Type: TransformESN, ID: ESNNo}, "No Extended Sequence Numbers"},
		{Transform{Type: TransformESN, ID: 1024}, "ESN(1024)"},
		{Transform{Type: 200, ID: 7}, "TRANSFORM(200)(7)"},
	}
	for _, tt := range tests {
		if got := tt.value.String(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestErrorText(t *testing.T) {
	tests := []struct {
		err  Error
		want string
	}{
		{Error{Kind: BadVersion, Offset: 28}, "ike: message: major version is not 2 at octet 28"},
		{Error{Kind: Truncated, Payload: PayloadSA, Offset: 36}, "ike: payload SA: truncated at octet 36"},
		{Error{Kind: UnknownCritical, Payload: 99, Offset: 32}, "ike: payload PAYLOAD(99): unknown critical payload at octet 32"},
	}
	for _, tt := range tests {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestNotifyIsError(t *testing.T) {
	for kind, want := range map[NotifyType]bool{
		NotifyInvalidSyntax: true, 16383: true, NotifyInitialContact: false, 65535: false,
	} {
		if got := kind.IsError(); got != want {
			t.Errorf("%v: got %v", kind, got)
		}
	}
}
