package wire

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
)

// octets decodes hexadecimal digits. Space is ignored, and so is the rest of a
// line from # on.
func octets(t testing.TB, s string) []byte {
	t.Helper()
	var digits strings.Builder
	for line := range strings.Lines(s) {
		line, _, _ = strings.Cut(line, "#")
		for _, field := range strings.Fields(line) {
			digits.WriteString(field)
		}
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// vectors are payloads without their generic header, written down from the
// figures of RFC 7296, Section 3.
var vectors = []struct {
	name    string
	body    string
	payload Payload
}{
	{
		name: "SA of RFC 7296 Section 3.3",
		body: `
			02 00 0050  01 03 04 07  052357bb      # proposal 1, ESP, 7 transforms, more follow
			03 00 000c  01 00 000c   800e 0080     # ENCR_AES_CBC 128
			03 00 000c  01 00 000c   800e 00c0     # ENCR_AES_CBC 192
			03 00 000c  01 00 000c   800e 0100     # ENCR_AES_CBC 256
			03 00 0008  03 00 0002                 # AUTH_HMAC_SHA1_96
			03 00 0008  03 00 0005                 # AUTH_AES_XCBC_96
			03 00 0008  05 00 0001                 # ESNs
			00 00 0008  05 00 0000                 # no ESNs, the last
			00 00 0034  02 03 04 04  35a1d6f2      # proposal 2, ESP, 4 transforms, the last
			03 00 000c  01 00 0012   800e 0080     # AES-GCM with a 8 octet ICV 128
			03 00 000c  01 00 0012   800e 0100     # AES-GCM with a 8 octet ICV 256
			03 00 0008  05 00 0001                 # ESNs
			00 00 0008  05 00 0000                 # no ESNs, the last`,
		payload: SA{Proposals: []Proposal{
			{Num: 1, Protocol: ProtocolESP, SPI: []byte{0x05, 0x23, 0x57, 0xbb}, Transforms: []Transform{
				{Type: TransformENCR, ID: EncrAESCBC, KeyLength: 128},
				{Type: TransformENCR, ID: EncrAESCBC, KeyLength: 192},
				{Type: TransformENCR, ID: EncrAESCBC, KeyLength: 256},
				{Type: TransformINTEG, ID: AuthHMACSHA1_96},
				{Type: TransformINTEG, ID: AuthAESXCBC_96},
				{Type: TransformESN, ID: ESNYes},
				{Type: TransformESN, ID: ESNNo},
			}},
			{Num: 2, Protocol: ProtocolESP, SPI: []byte{0x35, 0xa1, 0xd6, 0xf2}, Transforms: []Transform{
				{Type: TransformENCR, ID: EncrAESGCM8, KeyLength: 128},
				{Type: TransformENCR, ID: EncrAESGCM8, KeyLength: 256},
				{Type: TransformESN, ID: ESNYes},
				{Type: TransformESN, ID: ESNNo},
			}},
		}},
	},
	{
		name: "SA initial IKE",
		body: `
			00 00 0024  01 01 00 03
			03 00 000c  01 00 0014   800e 0100     # ENCR_AES_GCM_16 256
			03 00 0008  02 00 0006                 # PRF_HMAC_SHA2_384
			00 00 0008  04 00 001f                 # Curve25519`,
		payload: SA{Proposals: []Proposal{{Num: 1, Protocol: ProtocolIKE, Transforms: []Transform{
			{Type: TransformENCR, ID: EncrAESGCM16, KeyLength: 256},
			{Type: TransformPRF, ID: PRFHMACSHA384},
			{Type: TransformKE, ID: KECurve25519},
		}}}},
	},
	{
		name: "SA answer to a rekey of the IKE SA",
		body: `
			00 00 0020  07 01 08 02  0102030405060708
			03 00 0008  01 00 001c                 # ENCR_CHACHA20_POLY1305
			00 00 0008  02 00 0005                 # PRF_HMAC_SHA2_256`,
		payload: SA{Proposals: []Proposal{{Num: 7, Protocol: ProtocolIKE, SPI: []byte{1, 2, 3, 4, 5, 6, 7, 8}, Transforms: []Transform{
			{Type: TransformENCR, ID: EncrChaCha20Poly1305},
			{Type: TransformPRF, ID: PRFHMACSHA256},
		}}}},
	},
	{
		name: "SA from the future",
		body: `
			02 00 001b  01 63 03 02  aabbcc        # protocol 99 with three octets of SPI
			03 00 0008  f1 00 0001                 # transform type 241
			00 00 0008  01 00 ffff
			00 00 0023  02 02 04 01  00000100      # AH
			00 00 0017  03 00 000c   800e 0100     # a key length, and behind it
			                         0012 0003 646566  # attribute 18, TLV
			                         c000 0001         # attribute 16384, TV`,
		payload: SA{Proposals: []Proposal{
			{Num: 1, Protocol: 99, SPI: []byte{0xaa, 0xbb, 0xcc}, Transforms: []Transform{
				{Type: 241, ID: 1},
				{Type: TransformENCR, ID: 65535},
			}},
			{Num: 2, Protocol: ProtocolAH, SPI: []byte{0, 0, 1, 0}, Transforms: []Transform{
				{Type: TransformINTEG, ID: AuthHMACSHA256_128, KeyLength: 256, Unknown: "\x00\x12\x00\x03def\xc0\x00\x00\x01"},
			}},
		}},
	},
	{
		name:    "SA key lengths in wrong forms",
		body:    `00 00 0024 01 03 04 01 00000001  00 00 0018 01 00 000c 800e 0080  800e 0000  800e 0100  000e 0000`,
		payload: SA{Proposals: []Proposal{{Num: 1, Protocol: ProtocolESP, SPI: []byte{0, 0, 0, 1}, Transforms: []Transform{{Type: TransformENCR, ID: EncrAESCBC, KeyLength: 128, Unknown: "\x80\x0e\x00\x00\x80\x0e\x01\x00\x00\x0e\x00\x00"}}}}},
	},

	{name: "KE", body: `001f 0000  0102030405`, payload: KE{Group: KECurve25519, Data: []byte{1, 2, 3, 4, 5}}},
	{name: "KE empty", body: `000e 0000`, payload: KE{Group: KEMODP2048}},

	{name: "IDi IPv4", body: `01 000000 c0000201`, payload: ID{Kind: IDIPv4Addr, Data: []byte{192, 0, 2, 1}}},
	{name: "IDi FQDN", body: `02 000000 6578616d706c652e636f6d`, payload: ID{Kind: IDFQDN, Data: []byte("example.com")}},
	{name: "IDr IPv6", body: `05 000000 20010db8 00000000 00000000 00000001`, payload: ID{Responder: true, Kind: IDIPv6Addr, Data: netip.MustParseAddr("2001:db8::1").AsSlice()}},
	{name: "IDr null", body: `0d 000000`, payload: ID{Responder: true, Kind: IDNull}},
	{name: "IDr reserved octets", body: `0b 010203 ff`, payload: ID{Responder: true, Kind: IDKeyID, Reserved: [3]byte{1, 2, 3}, Data: []byte{0xff}}},
	{name: "IDi future", body: `c8 000000`, payload: ID{Kind: 200}},

	{name: "CERT", body: `04 3082`, payload: Cert{Encoding: CertX509Signature, Data: []byte{0x30, 0x82}}},
	{name: "CERT raw key", body: `0f`, payload: Cert{Encoding: CertRawPublicKey}},
	{name: "CERTREQ", body: `04 000102030405060708090a0b0c0d0e0f10111213`, payload: CertReq{Encoding: CertX509Signature, Data: []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19}}},
	{name: "CERTREQ any", body: `0c`, payload: CertReq{Encoding: CertHashAndURL}},

	{name: "AUTH", body: `0e 000000 0d`, payload: Auth{Method: MethodDigitalSignature, Data: []byte{13}}},
	{name: "AUTH empty", body: `02 000000`, payload: Auth{Method: MethodSharedKey}},

	{name: "Nonce shortest", body: strings.Repeat("5a", MinNonce), payload: Nonce{Data: []byte(strings.Repeat("Z", MinNonce))}},
	{name: "Nonce longest", body: strings.Repeat("5a", MaxNonce), payload: Nonce{Data: []byte(strings.Repeat("Z", MaxNonce))}},

	{name: "Notify", body: `00 00 4006 636f6f6b6965`, payload: Notify{Kind: NotifyCookie, Data: []byte("cookie")}},
	{name: "Notify with SPI", body: `03 04 4009 c0ffee01`, payload: Notify{Protocol: ProtocolESP, SPI: []byte{0xc0, 0xff, 0xee, 1}, Kind: NotifyRekeySA}},
	{name: "Notify with SPI and data", body: `02 04 0027 00000001 45`, payload: Notify{Protocol: ProtocolAH, SPI: []byte{0, 0, 0, 1}, Kind: NotifyInvalidSelectors, Data: []byte{0x45}}},
	{name: "Notify future", body: `c9 02 ffff aabb cc`, payload: Notify{Protocol: 201, SPI: []byte{0xaa, 0xbb}, Kind: 65535, Data: []byte{0xcc}}},

	{name: "Delete IKE", body: `01 00 0000`, payload: Delete{Protocol: ProtocolIKE}},
	{name: "Delete ESP", body: `03 04 0002 c0ffee01 c0ffee02`, payload: Delete{Protocol: ProtocolESP, SPIs: []uint32{0xc0ffee01, 0xc0ffee02}}},
	{name: "Delete AH none", body: `02 04 0000`, payload: Delete{Protocol: ProtocolAH}},

	{name: "Vendor ID", body: `414243`, payload: VendorID{Data: []byte("ABC")}},
	{name: "Vendor ID empty", body: ``, payload: VendorID{}},

	{
		name: "TSi of RFC 7296 Section 3.13",
		body: `02 000000
			07 11 0010  0064 0064  c6336442 c6336442
			07 11 0010  00c8 00c8  c6336442 c6336442`,
		payload: TS{Selectors: []Selector{
			{Protocol: 17, FromPort: 100, ToPort: 100, From: netip.MustParseAddr("198.51.100.66"), To: netip.MustParseAddr("198.51.100.66")},
			{Protocol: 17, FromPort: 200, ToPort: 200, From: netip.MustParseAddr("198.51.100.66"), To: netip.MustParseAddr("198.51.100.66")},
		}},
	},
	{
		name: "TSr IPv6, ICMPv6, OPAQUE",
		body: `03 000000
			08 00 0028  0000 ffff  00000000 00000000 00000000 00000000  ffffffff ffffffff ffffffff ffffffff
			08 3a 0028  8000 80ff  20010db8 00000000 00000000 00000001  20010db8 00000000 00000000 00000001
			07 06 0010  ffff 0000  0a000000 0affffff`,
		payload: TS{Responder: true, Selectors: []Selector{
			{ToPort: 65535, From: netip.MustParseAddr("::"), To: netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")},
			{Protocol: 58, FromPort: 0x8000, ToPort: 0x80ff, From: netip.MustParseAddr("2001:db8::1"), To: netip.MustParseAddr("2001:db8::1")},
			{Protocol: 6, FromPort: 65535, From: netip.MustParseAddr("10.0.0.0"), To: netip.MustParseAddr("10.255.255.255")},
		}},
	},
	{
		name: "TSi IPv4-mapped IPv6 stays IPv6",
		body: `01 000000 08 00 0028 0000 ffff 00000000 00000000 0000ffff c0000200  00000000 00000000 0000ffff c00002ff`,
		payload: TS{Selectors: []Selector{
			{ToPort: 65535, From: netip.MustParseAddr("::ffff:192.0.2.0"), To: netip.MustParseAddr("::ffff:192.0.2.255")},
		}},
	},
	{
		name: "TSr known and unknown",
		body: `03 000000
			07 00 0010  0000 ffff  c0000200 c00002ff
			0a 00 0008  6c61626c
			f1 07 0004`,
		payload: TS{
			Responder: true,
			Selectors: []Selector{{ToPort: 65535, From: netip.MustParseAddr("192.0.2.0"), To: netip.MustParseAddr("192.0.2.255")}},
			Unknown:   []UnknownSelector{{Kind: 10, Data: []byte("labl")}, {Kind: 241, Second: 7}},
		},
	},

	{name: "SK", body: `000102030405060708`, payload: SK{First: PayloadIDi, Body: []byte{0, 1, 2, 3, 4, 5, 6, 7, 8}}},
	{name: "SK of nothing", body: `ff`, payload: SK{Body: []byte{255}}},
	{name: "SKF first", body: `0001 0003 aabb`, payload: SKF{First: PayloadIDi, Number: 1, Total: 3, Body: []byte{0xaa, 0xbb}}},
	{name: "SKF last", body: `ffff ffff`, payload: SKF{Number: 65535, Total: 65535}},

	{
		name:    "CP request",
		body:    `01 000000  0001 0000  0003 0000`,
		payload: Config{Kind: ConfigRequest, Attributes: []ConfigAttribute{{Kind: ConfigIP4Address}, {Kind: ConfigIP4DNS}}},
	},
	{
		name:    "CP reply",
		body:    `02 000000  0001 0004 0a000001  7fff 0001 aa`,
		payload: Config{Kind: ConfigReply, Attributes: []ConfigAttribute{{Kind: ConfigIP4Address, Value: []byte{10, 0, 0, 1}}, {Kind: 0x7fff, Value: []byte{0xaa}}}},
	},
	{name: "CP empty", body: `04 000000`, payload: Config{Kind: ConfigAck}},

	{name: "EAP request", body: `01 2a 0005 01`, payload: EAP{Data: []byte{1, 42, 0, 5, 1}}},
	{name: "EAP success", body: `03 2a 0004`, payload: EAP{Data: []byte{3, 42, 0, 4}}},
	{name: "EAP of another code", body: `05 2a 0006 0102`, payload: EAP{Data: []byte{5, 42, 0, 6, 1, 2}}},

	{name: "Unknown", body: `0102`, payload: Unknown{Kind: 54, Data: []byte{1, 2}}},
	{name: "Unknown of IKEv1's range", body: ``, payload: Unknown{Kind: 1}},
}

// message returns a message of one payload, from the octets of its body.
func message(t testing.TB, kind, next PayloadType, flags uint8, body []byte) []byte {
	t.Helper()
	size := payloadHeaderLen + len(body)
	b := AppendHeader(nil, &Message{SPIi: 1, Exchange: IKESAInit, Initiator: true}, kind, HeaderLen+size)
	b = append(b, uint8(next), flags, uint8(size>>8), uint8(size))
	return append(b, body...)
}

// nextOf returns the Next Payload field of a payload that is the last one.
func nextOf(p Payload) PayloadType {
	switch p := p.(type) {
	case SK:
		return p.First
	case SKF:
		return p.First
	default:
		return NoNextPayload
	}
}
