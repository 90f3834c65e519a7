package wire

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// parseOne parses a message of one payload.
func parseOne(t *testing.T, kind, next PayloadType, flags uint8, body []byte) (Payload, error) {
	t.Helper()
	m, err := Parse(message(t, kind, next, flags, body))
	if err != nil {
		return nil, err
	}
	if len(m.Payloads) != 1 {
		t.Fatalf("parsed to %d payloads, want 1", len(m.Payloads))
	}
	return m.Payloads[0], nil
}

func TestVectors(t *testing.T) {
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			body := octets(t, v.body)
			p, err := parseOne(t, v.payload.Type(), nextOf(v.payload), 0, body)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(p, v.payload) {
				t.Errorf("parsed to\n%#v, want\n%#v", p, v.payload)
			}
			want := message(t, v.payload.Type(), nextOf(v.payload), 0, body)
			m := Message{SPIi: 1, Exchange: IKESAInit, Initiator: true, Payloads: []Payload{v.payload}}
			if got := m.AppendTo(nil); !bytes.Equal(got, want) {
				t.Errorf("appended\n%x, want\n%x", got, want)
			}
		})
	}
}

// What a receiver MUST ignore makes no difference.
func TestIgnored(t *testing.T) {
	tests := []struct {
		name string
		kind PayloadType
		body string
		same string // the body that it is the same as
	}{
		{"SA reserved octets", PayloadSA,
			`00 ff 0014 01 03 04 01 00000001  00 ff 0008 05 ff 0000`,
			`00 00 0014 01 03 04 01 00000001  00 00 0008 05 00 0000`},
		{"KE reserved octets", PayloadKE, `001f ffff 01`, `001f 0000 01`},
		{"AUTH reserved octets", PayloadAuth, `02 ffffff 01`, `02 000000 01`},
		{"Notify protocol without SPI", PayloadNotify, `03 00 000e`, `00 00 000e`},
		{"Notify unknown protocol without SPI", PayloadNotify, `ff 00 000e 01`, `00 00 000e 01`},
		{"TS reserved octets", PayloadTSi,
			`01 ffffff 07 00 0010 0000 ffff 00000000 ffffffff`,
			`01 000000 07 00 0010 0000 ffff 00000000 ffffffff`},
		{"CP reserved octets and bit", PayloadConfig, `01 ffffff 8001 0000`, `01 000000 0001 0000`},
		{"TS order of unknown selectors", PayloadTSr,
			`02 000000 0a 00 0004  07 00 0010 0000 ffff 00000000 ffffffff`,
			`02 000000 07 00 0010 0000 ffff 00000000 ffffffff  0a 00 0004`},
		{"SA order of attributes", PayloadSA,
			`00 00 001c 01 03 04 01 00000001  00 00 0010 01 00 000c c000 0001 800e 0080`,
			`00 00 001c 01 03 04 01 00000001  00 00 0010 01 00 000c 800e 0080 c000 0001`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// The critical bit of a known payload is ignored, and so are the reserved bits beside it.
			p, err := parseOne(t, tt.kind, 0, 0xff, octets(t, tt.body))
			if err != nil {
				t.Fatal(err)
			}
			if got, want := p.appendBody(nil), octets(t, tt.same); !bytes.Equal(got, want) {
				t.Errorf("appended %x, want %x", got, want)
			}
		})
	}
}

func TestPayloadErrors(t *testing.T) {
	const transform = `00 00 0008 05 00 0000`
	tests := []struct {
		name   string
		kind   PayloadType
		body   string
		want   ErrorKind
		offset int // from the start of the body
	}{
		{"SA without proposals", PayloadSA, ``, Truncated, 0},
		{"SA marker", PayloadSA, `01 00 0014 01 03 04 01 00000001` + transform, BadValue, 4},
		{"SA marker of a transform", PayloadSA, `03 00 0014 01 03 04 01 00000001` + transform, BadValue, 4},
		{"SA more announced, none there", PayloadSA, `02 00 0014 01 03 04 01 00000001` + transform, Truncated, 20},
		{"SA last announced, more there", PayloadSA, `00 00 0014 01 03 04 01 00000001` + transform + `00`, TrailingBytes, 20},
		{"proposal shorter than its header", PayloadSA, `00 00 0003 01 03 04 01 00000001` + transform, BadLength, 4},
		{"proposal with nothing", PayloadSA, `00 00 0004`, Truncated, 4},
		{"proposal over the end", PayloadSA, `00 00 0015 01 03 04 01 00000001` + transform, Truncated, 4},
		{"proposal number zero", PayloadSA, `00 00 0014 00 03 04 01 00000001` + transform, BadValue, 20},
		{"proposal number repeated", PayloadSA,
			`02 00 0014 01 03 04 01 00000001` + transform + `00 00 0014 01 03 04 01 00000001` + transform, BadValue, 40},
		{"proposal number skipped", PayloadSA,
			`02 00 0014 01 03 04 01 00000001` + transform + `00 00 0014 03 03 04 01 00000001` + transform, BadValue, 40},
		{"proposal number wraps", PayloadSA,
			`02 00 0014 ff 03 04 01 00000001` + transform + `00 00 0014 00 03 04 01 00000001` + transform, BadValue, 40},
		{"SPI of 4 octets for IKE", PayloadSA, `00 00 0014 01 01 04 01 00000001` + transform, BadLength, 8},
		{"SPI of 8 octets for ESP", PayloadSA, `00 00 0018 01 03 08 01 00000001 00000001` + transform, BadLength, 8},
		{"no SPI for AH", PayloadSA, `00 00 0010 01 02 00 01` + transform, BadLength, 8},
		{"SPI over the end", PayloadSA, `00 00 000a 01 03 04 00 0000`, Truncated, 8},
		{"no transforms", PayloadSA, `00 00 000c 01 03 04 00 00000001`, Truncated, 12},
		{"fewer transforms than counted", PayloadSA, `00 00 0014 01 03 04 02 00000001` + transform, BadLength, 20},
		{"more transforms than counted", PayloadSA, `00 00 001c 01 03 04 01 00000001 03 00 0008 05 00 0000` + transform, BadLength, 28},
		{"many more transforms than counted", PayloadSA,
			`00 00 0024 01 03 04 01 00000001` + strings.Repeat(`03 00 0008 05 00 0000`, 2) + transform, BadLength, 28},
		{"no transforms counted, one there", PayloadSA, `00 00 0014 01 03 04 00 00000001` + transform, BadLength, 20},
		{"transform behind the last", PayloadSA, `00 00 001c 01 03 04 01 00000001` + transform + transform, TrailingBytes, 20},
		{"transform marker of a proposal", PayloadSA, `00 00 001c 01 03 04 02 00000001 02 00 0008 05 00 0000` + transform, BadValue, 16},
		{"too many transforms", PayloadSA, `00 00 0014 01 03 04 81 00000001` + transform, TooMany, 12},
		{"transform shorter than its header", PayloadSA, `00 00 0014 01 03 04 01 00000001 00 00 0003 05 00 0000`, BadLength, 16},
		{"transform without an ID", PayloadSA, `00 00 0012 01 03 04 01 00000001 00 00 0006 05 00`, Truncated, 18},
		{"attribute without a value", PayloadSA, `00 00 0016 01 03 04 01 00000001 00 00 000a 01 00 000c 800e`, Truncated, 22},
		{"attribute over the end", PayloadSA, `00 00 0018 01 03 04 01 00000001 00 00 000c 01 00 000c 0012 0001`, Truncated, 24},

		{"KE short", PayloadKE, `001f 00`, Truncated, 2},
		{"IDi short", PayloadIDi, `01 0000`, Truncated, 3},
		{"IDi IPv4 of 5 octets", PayloadIDi, `01 000000 c000020100`, BadLength, 4},
		{"IDr IPv6 of 4 octets", PayloadIDr, `05 000000 c0000201`, BadLength, 4},
		{"IDr null with data", PayloadIDr, `0d 000000 00`, BadLength, 4},
		{"CERT empty", PayloadCert, ``, Truncated, 0},
		{"CERTREQ empty", PayloadCertReq, ``, Truncated, 0},
		{"AUTH short", PayloadAuth, `02 0000`, Truncated, 1},
		{"nonce of 15 octets", PayloadNonce, strings.Repeat("00", MinNonce-1), BadLength, 0},
		{"nonce of 257 octets", PayloadNonce, strings.Repeat("00", MaxNonce+1), BadLength, 0},

		{"notify short", PayloadNotify, `00 00 40`, Truncated, 2},
		{"notify SPI of no protocol", PayloadNotify, `00 04 4009 00000001`, BadValue, 4},
		{"notify SPI of IKE", PayloadNotify, `01 08 4009 0000000000000001`, BadLength, 4},
		{"notify SPI of 8 octets for ESP", PayloadNotify, `03 08 4009 0000000000000001`, BadLength, 4},
		{"notify SPI over the end", PayloadNotify, `03 04 4009 000000`, Truncated, 4},

		{"delete short", PayloadDelete, `03 04 00`, Truncated, 2},
		{"delete of no protocol", PayloadDelete, `00 00 0000`, BadValue, 4},
		{"delete of an unknown protocol", PayloadDelete, `04 04 0001 00000001`, BadValue, 4},
		{"delete IKE with an SPI size", PayloadDelete, `01 08 0000`, BadLength, 4},
		{"delete IKE with a number", PayloadDelete, `01 00 0001`, BadLength, 4},
		{"delete IKE with an SPI", PayloadDelete, `01 00 0000 00000001`, BadLength, 4},
		{"delete ESP with an SPI size of 8", PayloadDelete, `03 08 0001 0000000000000001`, BadLength, 4},
		{"delete fewer than counted", PayloadDelete, `03 04 0002 00000001`, BadLength, 4},
		{"delete more than counted", PayloadDelete, `03 04 0001 00000001 00000002`, BadLength, 4},
		{"delete too many", PayloadDelete, `03 04 0401`, TooMany, 4},

		{"TS short", PayloadTSi, `01 0000`, Truncated, 1},
		{"TS of no selectors", PayloadTSi, `00 000000`, BadValue, 4},
		{"TS fewer than counted", PayloadTSi, `02 000000 07 00 0010 0000 ffff 00000000 ffffffff`, Truncated, 20},
		{"TS more than counted", PayloadTSr, `01 000000 07 00 0010 0000 ffff 00000000 ffffffff 00`, TrailingBytes, 20},
		{"selector shorter than its header", PayloadTSr, `01 000000 0a 00 0003`, BadLength, 8},
		{"selector over the end", PayloadTSr, `01 000000 0a 00 0005`, Truncated, 8},
		{"selector IPv4 with the length of IPv6", PayloadTSi, `01 000000 07 00 0028 0000 ffff` + strings.Repeat("00", 32), BadLength, 8},
		{"selector IPv6 with the length of IPv4", PayloadTSi, `01 000000 08 00 0010 0000 ffff 00000000 ffffffff`, BadLength, 8},
		{"selector addresses reversed", PayloadTSi, `01 000000 07 00 0010 0000 ffff 00000001 00000000`, BadValue, 20},
		{"selector ports reversed", PayloadTSi, `01 000000 07 00 0010 0002 0001 00000000 ffffffff`, BadValue, 20},
		{"selector ports nearly OPAQUE", PayloadTSi, `01 000000 07 00 0010 ffff 0001 00000000 ffffffff`, BadValue, 20},

		{"CP short", PayloadConfig, `01 0000`, Truncated, 1},
		{"CP attribute without a length", PayloadConfig, `01 000000 0001 00`, Truncated, 6},
		{"CP attribute over the end", PayloadConfig, `01 000000 0001 0001`, Truncated, 8},
		{"EAP short", PayloadEAP, `01 00 00`, Truncated, 2},
		{"EAP length", PayloadEAP, `01 00 0006 01`, BadLength, 4},
		{"EAP request without a type", PayloadEAP, `01 00 0004`, BadLength, 4},
		{"EAP response without a type", PayloadEAP, `02 00 0004`, BadLength, 4},
		{"EAP success with a type", PayloadEAP, `03 00 0005 01`, BadLength, 4},
		{"EAP failure with a type", PayloadEAP, `04 00 0005 01`, BadLength, 4},
		{"SKF short", PayloadSKF, `0001 00`, Truncated, 2},
		{"SKF number zero", PayloadSKF, `0000 0001 00`, BadValue, 4},
		{"SKF total zero", PayloadSKF, `0001 0000 00`, BadValue, 4},
		{"SKF number over total", PayloadSKF, `0003 0002 00`, BadValue, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseOne(t, tt.kind, 0, 0, octets(t, tt.body))
			want := &Error{Kind: tt.want, Payload: tt.kind, Offset: HeaderLen + payloadHeaderLen + tt.offset}
			checkError(t, err, want)
		})
	}
	t.Run("SKF that is not the first one says what is in it", func(t *testing.T) {
		_, err := parseOne(t, PayloadSKF, PayloadIDi, 0, octets(t, `0002 0002 00`))
		checkError(t, err, &Error{Kind: BadValue, Payload: PayloadSKF, Offset: 36})
	})
	t.Run("unknown critical", func(t *testing.T) {
		_, err := parseOne(t, 200, 0, criticalBit, nil)
		checkError(t, err, &Error{Kind: UnknownCritical, Payload: 200, Offset: 32})
	})
	t.Run("unknown, all but critical", func(t *testing.T) {
		p, err := parseOne(t, 200, 0, 0x7f, nil)
		if want := (Unknown{Kind: 200}); err != nil || !reflect.DeepEqual(p, want) {
			t.Errorf("got %#v, %v, want %#v", p, err, want)
		}
	})
}

func TestCriticalIsSent(t *testing.T) {
	got := AppendPayloads(nil, []Payload{Unknown{Kind: 200, Critical: true}, Unknown{Kind: 201, Data: []byte{1}}})
	if want := octets(t, `c9 80 0004  00 00 0005 01`); !bytes.Equal(got, want) {
		t.Errorf("appended %x, want %x", got, want)
	}
	_, err := ParsePayloads(200, got)
	checkError(t, err, &Error{Kind: UnknownCritical, Payload: 200, Offset: 4})
}

func checkError(t *testing.T, err error, want *Error) {
	t.Helper()
	var got *Error
	if !errors.As(err, &got) || *got != *want {
		t.Errorf("got error %v, want %v", err, want)
	}
}

// No prefix of a payload panics or is taken for another whole one, except
// where its data has no length of its own.
func TestTruncation(t *testing.T) {
	for _, v := range vectors {
		body := octets(t, v.body)
		for n := range body {
			p, err := parseOne(t, v.payload.Type(), nextOf(v.payload), 0, body[:n])
			switch v.payload.(type) {
			case SA, TS, Delete, EAP:
				if err == nil {
					t.Errorf("%s: the first %d octets parsed to %#v", v.name, n, p)
				}
			}
		}
	}
}

func TestIDBody(t *testing.T) {
	p := ID{Kind: IDFQDN, Reserved: [3]byte{7, 8, 9}, Data: []byte("a.b")}
	if got, want := p.Body(), []byte("\x02\x07\x08\x09a.b"); !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}
