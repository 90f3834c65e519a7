package wire

import (
	"bytes"
	"errors"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"testing"
)

// elements returns a message with n elements of one kind.
var elements = []struct {
	name    string
	payload PayloadType // that reports the error; the message's payload
	limit   int
	message func(n int) *Message
}{
	{"payloads", PayloadVendorID, MaxPayloads, func(n int) *Message {
		return &Message{Payloads: slices.Repeat([]Payload{VendorID{}}, n)}
	}},
	{"proposals", PayloadSA, MaxProposals, func(n int) *Message {
		var sa SA
		for i := range n {
			sa.Proposals = append(sa.Proposals, Proposal{Num: uint8(i + 1), Protocol: ProtocolIKE, Transforms: []Transform{{Type: TransformPRF}}})
		}
		return &Message{Payloads: []Payload{sa}}
	}},
	{"transforms", PayloadSA, MaxTransforms, func(n int) *Message {
		return &Message{Payloads: []Payload{SA{Proposals: []Proposal{
			{Num: 1, Protocol: ProtocolIKE, Transforms: slices.Repeat([]Transform{{Type: TransformPRF}}, n)},
		}}}}
	}},
	{"SPIs", PayloadDelete, MaxSPIs, func(n int) *Message {
		return &Message{Payloads: []Payload{Delete{Protocol: ProtocolESP, SPIs: slices.Repeat([]uint32{1}, n)}}}
	}},
	{"attributes", PayloadConfig, MaxAttributes, func(n int) *Message {
		return &Message{Payloads: []Payload{Config{Kind: ConfigReply, Attributes: slices.Repeat([]ConfigAttribute{{Kind: ConfigIP4DNS}}, n)}}}
	}},
	{"selectors", PayloadTSi, MaxSelectors, func(n int) *Message {
		s := Selector{ToPort: 65535, From: netip.MustParseAddr("10.0.0.0"), To: netip.MustParseAddr("10.0.0.255")}
		return &Message{Payloads: []Payload{TS{Selectors: slices.Repeat([]Selector{s}, n)}}}
	}},
}

func TestLimits(t *testing.T) {
	for _, tt := range elements {
		t.Run(tt.name, func(t *testing.T) {
			m := tt.message(tt.limit)
			got, err := Parse(m.AppendTo(nil))
			if err != nil || !reflect.DeepEqual(got, m) {
				t.Errorf("%d: %v", tt.limit, err)
			}
			_, err = Parse(tt.message(tt.limit + 1).AppendTo(nil))
			var e *Error
			if !errors.As(err, &e) || e.Payload != tt.payload {
				t.Fatalf("%d: %v, want an error in %v", tt.limit+1, err, tt.payload)
			}
			// What the field cannot count is sent as zero.
			if tt.name != "selectors" && tt.name != "SPIs" && e.Kind != TooMany {
				t.Errorf("%d: %v, want %v", tt.limit+1, err, TooMany)
			}
		})
	}
}

// What does not fit its length field is nothing that parses.
func TestTooLong(t *testing.T) {
	long := bytes.Repeat([]byte{0, 0, 0, 4}, MaxMessage/4+1) // would be payloads if the length wrapped
	tests := []struct {
		name    string
		payload Payload
	}{
		{"payload", VendorID{Data: long}},
		{"message", VendorID{Data: long[:MaxPayload-payloadHeaderLen]}},
		{"proposal SPI", SA{Proposals: []Proposal{{Num: 1, Protocol: 201, SPI: long[:256], Transforms: []Transform{{}}}}}},
		{"transforms", SA{Proposals: []Proposal{{Num: 1, Protocol: ProtocolIKE, Transforms: make([]Transform, 256)}}}},
		{"selector without addresses", TS{Selectors: []Selector{{}}}},
		{"selector of two families", TS{Selectors: []Selector{{From: netip.MustParseAddr("::1"), To: netip.MustParseAddr("10.0.0.1")}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := &Message{Payloads: []Payload{tt.payload}}
			if got, err := Parse(m.AppendTo(nil)); err == nil {
				t.Errorf("parsed to %d payloads", len(got.Payloads))
			}
		})
	}
	t.Run("longest message", func(t *testing.T) {
		m := &Message{Payloads: []Payload{VendorID{Data: long[:MaxMessage-HeaderLen-payloadHeaderLen]}}}
		if got, err := Parse(m.AppendTo(nil)); err != nil || !reflect.DeepEqual(got, m) {
			t.Error(err)
		}
	})
	t.Run("longest payload", func(t *testing.T) {
		ps := []Payload{VendorID{Data: long[:MaxPayload-payloadHeaderLen]}}
		if got, err := ParsePayloads(PayloadVendorID, AppendPayloads(nil, ps)); err != nil || !reflect.DeepEqual(got, ps) {
			t.Error(err)
		}
	})
	t.Run("datagram over the limit", func(t *testing.T) {
		b := make([]byte, MaxMessage+1)
		copy(b, AppendHeader(nil, &Message{}, NoNextPayload, HeaderLen))
		_, err := Parse(b)
		checkError(t, err, &Error{Kind: BadLength, Offset: HeaderLen})
	})
}

// What a datagram can make parsing allocate, slices outgrown on the way
// included, is a small multiple of its length.
func TestAllocation(t *testing.T) {
	const limit = 32
	attributes := &Message{Payloads: []Payload{SA{Proposals: []Proposal{{Num: 1, Protocol: ProtocolIKE, Transforms: []Transform{
		{Type: TransformENCR, ID: EncrAESCBC, Unknown: string(bytes.Repeat([]byte{0x80, 1, 0, 0}, 16000))},
	}}}}}}
	messages := map[string][]byte{"transform attributes": attributes.AppendTo(nil)}
	for _, e := range elements {
		messages[e.name] = e.message(e.limit).AppendTo(nil)
	}
	for name, datagram := range messages {
		const runs = 10
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range runs {
			if _, err := Parse(datagram); err != nil {
				t.Fatal(err)
			}
		}
		runtime.ReadMemStats(&after)
		if got := (after.TotalAlloc - before.TotalAlloc) / runs; got > uint64(limit*len(datagram)) {
			t.Errorf("%s: %d octets allocated for a message of %d", name, got, len(datagram))
		}
	}
}
