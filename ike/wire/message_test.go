package wire

import (
	"bytes"
	"reflect"
	"testing"
)

// An IKE_SA_INIT request, octet for octet after the figures of RFC 7296.
const initRequest = `
	0102030405060708  0000000000000000  # SPIi, SPIr
	21 20 22 08                         # SA comes first, version 2.0, IKE_SA_INIT, I
	00000000  00000092                  # Message ID, length

	22 00 0028                          # SA, then KE
	00 00 0024  01 01 00 03             # proposal 1, IKE
	03 00 000c  01 00 0014  800e 0100   # ENCR_AES_GCM_16 256
	03 00 0008  02 00 0007              # PRF_HMAC_SHA2_512
	00 00 0008  04 00 001f              # Curve25519

	28 00 0028  001f 0000               # KE, then nonce
	000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f

	29 00 0014                          # nonce, then notify
	a0a1a2a3a4a5a6a7a8a9aaabacadaeaf

	2b 00 0008  00 00 402e              # IKEV2_FRAGMENTATION_SUPPORTED, then vendor ID

	00 00 000a  666f6f626172            # vendor ID, the last`

func initRequestMessage() *Message {
	return &Message{
		SPIi: 0x0102030405060708, Exchange: IKESAInit, Initiator: true,
		Payloads: []Payload{
			SA{Proposals: []Proposal{{Num: 1, Protocol: ProtocolIKE, Transforms: []Transform{
				{Type: TransformENCR, ID: EncrAESGCM16, KeyLength: 256},
				{Type: TransformPRF, ID: PRFHMACSHA512},
				{Type: TransformKE, ID: KECurve25519},
			}}}},
			KE{Group: KECurve25519, Data: []byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f")},
			Nonce{Data: []byte("\xa0\xa1\xa2\xa3\xa4\xa5\xa6\xa7\xa8\xa9\xaa\xab\xac\xad\xae\xaf")},
			Notify{Kind: NotifyIKEv2FragmentationSupported},
			VendorID{Data: []byte("foobar")},
		},
	}
}

func TestMessage(t *testing.T) {
	tests := []struct {
		name    string
		octets  string
		message *Message
	}{
		{"IKE_SA_INIT request", initRequest, initRequestMessage()},
		{
			"unprotected answer to a wrong SPI",
			`0102030405060708 1112131415161718 29 20 25 20 00000005 00000024  00 00 0008 00 00 0004`,
			&Message{
				SPIi: 0x0102030405060708, SPIr: 0x1112131415161718, Exchange: Informational, Response: true, MessageID: 5,
				Payloads: []Payload{Notify{Kind: NotifyInvalidIKESPI}},
			},
		},
		{
			"SK behind an unprotected payload",
			`0102030405060708 1112131415161718 36 20 24 28 ffffffff 00000028  2e 00 0005 01  23 00 0007 aabbcc`,
			&Message{
				SPIi: 0x0102030405060708, SPIr: 0x1112131415161718, Exchange: CreateChildSA, Initiator: true, Response: true, MessageID: 0xffffffff,
				Payloads: []Payload{Unknown{Kind: 54, Data: []byte{1}}, SK{First: PayloadIDi, Body: []byte{0xaa, 0xbb, 0xcc}}},
			},
		},
		{
			"SKF",
			`0102030405060708 1112131415161718 35 20 23 08 00000001 00000026  23 00 000a 0001 0002 aabb`,
			&Message{
				SPIi: 0x0102030405060708, SPIr: 0x1112131415161718, Exchange: IKEAuth, Initiator: true, MessageID: 1,
				Payloads: []Payload{SKF{First: PayloadIDi, Number: 1, Total: 2, Body: []byte{0xaa, 0xbb}}},
			},
		},
		{
			"header alone",
			`0000000000000000 0000000000000000 00 20 ff 00 00000000 0000001c`,
			&Message{Exchange: 255},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			datagram := octets(t, tt.octets)
			m, err := Parse(datagram)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(m, tt.message) {
				t.Errorf("parsed to\n%#v, want\n%#v", m, tt.message)
			}
			prefix := []byte("prefix")
			if got, want := tt.message.AppendTo(prefix), append(prefix, datagram...); !bytes.Equal(got, want) {
				t.Errorf("appended\n%x, want\n%x", got, want)
			}
		})
	}
}

// Bits that MUST be ignored: the minor version, and all flags but I and R.
func TestHeaderIgnored(t *testing.T) {
	m, err := Parse(octets(t, `0000000000000001 0000000000000000 00 2f 22 df 00000000 0000001c`))
	want := &Message{SPIi: 1, Exchange: IKESAInit, Initiator: true}
	if err != nil || !reflect.DeepEqual(m, want) {
		t.Errorf("got %#v, %v, want %#v", m, err, want)
	}
}

func TestParseHeader(t *testing.T) {
	// What IKEv1 sends, and something behind it.
	h, err := ParseHeader(octets(t, `0102030405060708 1112131415161718 01 13 02 28 0a0b0c0d 000000ff 99`))
	want := Header{
		SPIi: 0x0102030405060708, SPIr: 0x1112131415161718, Next: 1, Major: 1, Minor: 3, Exchange: 2,
		Initiator: true, Response: true, MessageID: 0x0a0b0c0d, Length: 255,
	}
	if err != nil || h != want {
		t.Errorf("got %+v, %v, want %+v", h, err, want)
	}
	h, err = ParseHeader(make([]byte, HeaderLen-1))
	checkError(t, err, &Error{Kind: Truncated, Offset: 24})
	if h != (Header{}) {
		t.Errorf("got %+v with an error", h)
	}
}

func TestMessageErrors(t *testing.T) {
	tests := []struct {
		name   string
		octets string
		want   Error
	}{
		{"empty", ``, Error{Kind: Truncated}},
		{"header cut", `0000000000000001 0000000000000000 00 20 22 08 00000000 000000`, Error{Kind: Truncated, Offset: 24}},
		{"IKEv1", `0000000000000001 0000000000000000 00 10 22 08 00000000 0000001c`, Error{Kind: BadVersion, Offset: 28}},
		{"IKEv3", `0000000000000001 0000000000000000 00 30 22 08 00000000 0000001c`, Error{Kind: BadVersion, Offset: 28}},
		{"length less than the header", `0000000000000001 0000000000000000 00 20 22 08 00000000 0000001b`, Error{Kind: BadLength, Offset: 28}},
		{"length zero", `0000000000000001 0000000000000000 00 20 22 08 00000000 00000000`, Error{Kind: BadLength, Offset: 28}},
		{"length over the datagram", `0000000000000001 0000000000000000 00 20 22 08 00000000 0000001d`, Error{Kind: Truncated, Offset: 28}},
		{"length over an int32", `0000000000000001 0000000000000000 00 20 22 08 00000000 ffffffff`, Error{Kind: Truncated, Offset: 28}},
		{"length under the datagram", `0000000000000001 0000000000000000 00 20 22 08 00000000 0000001c 00`, Error{Kind: TrailingBytes, Offset: 28}},
		{"length under the payloads", `0000000000000001 0000000000000000 2b 20 22 08 00000000 00000020 00 00 0008 01020304`, Error{Kind: TrailingBytes, Offset: 28}},
		{"octets behind the last payload", `0000000000000001 0000000000000000 2b 20 22 08 00000000 00000021 00 00 0004 00`, Error{Kind: TrailingBytes, Offset: 32}},
		{"octets behind no payload", `0000000000000001 0000000000000000 00 20 22 08 00000000 0000001d 00`, Error{Kind: TrailingBytes, Offset: 28}},
		{"octets behind SK", `0000000000000001 0000000000000000 2e 20 22 08 00000000 00000021 00 00 0004 00`, Error{Kind: TrailingBytes, Offset: 32}},
		{"payload behind SK", `0000000000000001 0000000000000000 2e 20 22 08 00000000 00000024 2b 00 0004 00 00 0004`, Error{Kind: TrailingBytes, Offset: 32}},
		{"no payload where one is announced", `0000000000000001 0000000000000000 2b 20 22 08 00000000 0000001c`, Error{Kind: Truncated, Payload: PayloadVendorID, Offset: 28}},
		{"payload header cut", `0000000000000001 0000000000000000 2b 20 22 08 00000000 0000001f 00 00 00`, Error{Kind: Truncated, Payload: PayloadVendorID, Offset: 30}},
		{"payload shorter than its header", `0000000000000001 0000000000000000 2b 20 22 08 00000000 00000020 00 00 0003`, Error{Kind: BadLength, Payload: PayloadVendorID, Offset: 32}},
		{"payload over the end", `0000000000000001 0000000000000000 2b 20 22 08 00000000 00000020 00 00 0005`, Error{Kind: Truncated, Payload: PayloadVendorID, Offset: 32}},
		{"second payload", `0000000000000001 0000000000000000 2b 20 22 08 00000000 00000024 28 00 0004 00 00 0004`, Error{Kind: BadLength, Payload: PayloadNonce, Offset: 36}},
		{"unknown critical behind another", `0000000000000001 0000000000000000 2b 20 22 08 00000000 00000024 7f 00 0004 00 80 0004`, Error{Kind: UnknownCritical, Payload: 127, Offset: 36}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := Parse(octets(t, tt.octets))
			checkError(t, err, &tt.want)
			if m != nil {
				t.Errorf("got %#v with an error", m)
			}
		})
	}
}

func TestParsePayloads(t *testing.T) {
	t.Run("chain", func(t *testing.T) {
		body := octets(t, `2b 00 0008 00 00 4000  00 00 0005 61`)
		want := []Payload{Notify{Kind: NotifyInitialContact}, VendorID{Data: []byte("a")}}
		ps, err := ParsePayloads(PayloadNotify, body)
		if err != nil || !reflect.DeepEqual(ps, want) {
			t.Fatalf("got %#v, %v, want %#v", ps, err, want)
		}
		if got := AppendPayloads(nil, ps); !bytes.Equal(got, body) {
			t.Errorf("appended %x, want %x", got, body)
		}
		if got := FirstType(ps); got != PayloadNotify {
			t.Errorf("first is %v", got)
		}
	})
	t.Run("empty", func(t *testing.T) {
		ps, err := ParsePayloads(NoNextPayload, nil)
		if err != nil || len(ps) != 0 {
			t.Errorf("got %v, %v", ps, err)
		}
		if got := FirstType(nil); got != NoNextPayload {
			t.Errorf("first is %v", got)
		}
	})
	for _, tt := range []struct {
		name  string
		first PayloadType
		body  string
		want  Error
	}{
		{"SK within", PayloadSK, `00 00 0005 00`, Error{Kind: BadValue, Payload: PayloadSK}},
		{"SKF within", PayloadVendorID, `35 00 0004  00 00 0008 0001 0001`, Error{Kind: BadValue, Payload: PayloadSKF, Offset: 4}},
		{"octets behind nothing", NoNextPayload, `00`, Error{Kind: TrailingBytes}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParsePayloads(tt.first, octets(t, tt.body))
			checkError(t, err, &tt.want)
		})
	}
}

// A field that is appended to must not write over the one behind it.
func TestFieldsAreCapped(t *testing.T) {
	datagram := octets(t, initRequest)
	want := bytes.Clone(datagram)
	m, err := Parse(datagram)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range m.Payloads {
		switch p := p.(type) {
		case KE:
			_ = append(p.Data, 0xee)
		case Nonce:
			_ = append(p.Data, 0xee)
		}
	}
	if !bytes.Equal(datagram, want) {
		t.Error("appending to a field changed the datagram")
	}
}
