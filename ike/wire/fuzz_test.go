package wire

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"
)

// What both targets hold against: parsing does not panic and does not change
// its input; an error is an *Error and points into the input; what parses is
// appended in as many octets and parses to the same again; and a chain of
// payloads is the same in a message and, decrypted, out of an SK.

// FuzzMessage takes whole datagrams.
func FuzzMessage(f *testing.F) {
	f.Fuzz(func(t *testing.T, datagram []byte) {
		checkHeader(t, datagram)
		checkMessage(t, datagram)
	})
}

// FuzzPayload takes the body of one payload of any type, known or not. The
// critical bit and what comes next (in an SK or SKF, what is in it) are given
// as in the payload's header.
func FuzzPayload(f *testing.F) {
	f.Fuzz(func(t *testing.T, kind, next, flags uint8, body []byte) {
		if len(body) > MaxMessage-HeaderLen-payloadHeaderLen {
			t.Skip("no message holds it")
		}
		checkMessage(t, message(t, PayloadType(kind), PayloadType(next), flags, body))
	})
}

func checkHeader(t *testing.T, datagram []byte) {
	h, err := ParseHeader(datagram)
	if ok := len(datagram) >= HeaderLen; ok != (err == nil) {
		t.Fatalf("%d octets: %v", len(datagram), err)
	}
	if err != nil {
		return
	}
	m := Message{h.SPIi, h.SPIr, h.Exchange, h.Initiator, h.Response, h.MessageID, nil}
	got, err := ParseHeader(AppendHeader(nil, &m, h.Next, HeaderLen))
	h.Major, h.Minor, h.Length = majorVersion, 0, HeaderLen
	if err != nil || got != h {
		t.Errorf("got %+v, %v, want %+v", got, err, h)
	}
}

func checkMessage(t *testing.T, datagram []byte) {
	before := bytes.Clone(datagram)
	m, err := Parse(datagram)
	if !bytes.Equal(datagram, before) {
		t.Fatal("parsing changed its input")
	}
	checkPeek(t, datagram, m)
	if len(datagram) >= HeaderLen {
		checkPayloads(t, PayloadType(datagram[16]), datagram[HeaderLen:], m)
	}
	if checkedError(t, err, len(datagram)) {
		return
	}
	b := m.AppendTo(nil)
	if len(b) != len(datagram) {
		t.Errorf("appended %d octets, parsed %d", len(b), len(datagram))
	}
	again, err := Parse(b)
	if err != nil || !reflect.DeepEqual(again, m) {
		t.Fatalf("again: %#v, %v, want %#v", again, err, m)
	}
	if c := again.AppendTo(nil); !bytes.Equal(b, c) {
		t.Errorf("appended %x, then %x", b, c)
	}
	for i, p := range m.Payloads {
		checkPayload(t, p, i == len(m.Payloads)-1)
	}
}

// checkPayloads takes the payloads of a message as what came out of an SK.
// Whole is the message, nil if it does not parse.
func checkPayloads(t *testing.T, first PayloadType, body []byte, whole *Message) {
	before := bytes.Clone(body)
	ps, err := ParsePayloads(first, body)
	if !bytes.Equal(body, before) {
		t.Fatal("parsing changed its input")
	}
	if whole != nil && (err == nil) == encrypted(whole) {
		t.Errorf("%v: in a message it parses", err)
	}
	if checkedError(t, err, len(body)) {
		return
	}
	if whole != nil && !reflect.DeepEqual(ps, whole.Payloads) {
		t.Errorf("%#v, in a message %#v", ps, whole.Payloads)
	}
	b := AppendPayloads(nil, ps)
	if len(b) != len(body) {
		t.Errorf("appended %d octets, parsed %d", len(b), len(body))
	}
	again, err := ParsePayloads(FirstType(ps), b)
	if err != nil || !reflect.DeepEqual(again, ps) {
		t.Errorf("again: %#v, %v, want %#v", again, err, ps)
	}
}

// checkedError reports whether there is an error, which then is a proper one.
func checkedError(t *testing.T, err error, size int) bool {
	if err == nil {
		return false
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("not an *Error: %v", err)
	}
	if _, ok := errorNames[e.Kind]; !ok || e.Offset < 0 || e.Offset > size {
		t.Errorf("an error of kind %d at %d of %d", e.Kind, e.Offset, size)
	}
	return true
}

// checkPayload checks what users of the package rely on without looking.
func checkPayload(t *testing.T, p Payload, last bool) {
	switch p := p.(type) {
	case SA:
		for _, proposal := range p.Proposals {
			if len(proposal.Transforms) == 0 {
				t.Error("a proposal without transforms")
			}
			if proposal.Protocol == ProtocolESP && len(proposal.SPI) != childSPISize {
				t.Errorf("an SPI of %d octets for ESP", len(proposal.SPI))
			}
		}
		if len(p.Proposals) == 0 {
			t.Error("an SA without proposals")
		}
	case Nonce:
		if len(p.Data) < MinNonce || len(p.Data) > MaxNonce {
			t.Errorf("a nonce of %d octets", len(p.Data))
		}
	case Notify:
		if (len(p.SPI) == 0) != (p.Protocol == 0) {
			t.Errorf("SPI %x of protocol %v", p.SPI, p.Protocol)
		}
	case Delete:
		if p.Protocol == ProtocolIKE && len(p.SPIs) != 0 {
			t.Error("an IKE SA has an SPI")
		}
	case TS:
		for _, s := range p.Selectors {
			if s.From.BitLen() != s.To.BitLen() || s.From.Compare(s.To) > 0 {
				t.Errorf("a selector from %v to %v", s.From, s.To)
			}
		}
	case SKF:
		if p.Number == 0 || p.Number > p.Total {
			t.Errorf("fragment %d of %d", p.Number, p.Total)
		}
		if !last {
			t.Error("SKF is not the last payload")
		}
	case SK:
		if !last {
			t.Error("SK is not the last payload")
		}
	case Unknown:
		if _, ok := payloadNames[p.Kind]; ok && p.Kind != 54 && (p.Kind < 49 || p.Kind > 52) {
			t.Errorf("%v is unknown", p.Kind)
		}
	}
}

// checkPeek compares PeekInit with what Parse says, nil for an error.
func checkPeek(t *testing.T, datagram []byte, m *Message) {
	cookie, nonce, err := PeekInit(datagram)
	if checkedError(t, err, len(datagram)) {
		if m != nil && !encrypted(m) {
			t.Errorf("PeekInit refuses what Parse accepts: %v", err)
		}
		return
	}
	if m == nil {
		return // the fault is in what PeekInit passes over
	}
	var wantCookie, wantNonce []byte
	for _, p := range m.Payloads {
		switch p := p.(type) {
		case Notify:
			if p.Kind == NotifyCookie && wantCookie == nil {
				wantCookie = p.Data
			}
		case Nonce:
			if wantNonce == nil {
				wantNonce = p.Data
			}
		default:
		}
	}
	if !bytes.Equal(cookie, wantCookie) || !bytes.Equal(nonce, wantNonce) {
		t.Errorf("PeekInit: cookie %x, nonce %x; Parse: %x, %x", cookie, nonce, wantCookie, wantNonce)
	}
}

// encrypted reports whether a message has an SK or SKF payload.
func encrypted(m *Message) bool {
	return slices.ContainsFunc(m.Payloads, func(p Payload) bool { return p.Type() == PayloadSK || p.Type() == PayloadSKF })
}
