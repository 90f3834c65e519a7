package ike

import (
	"errors"
	"fmt"

	"ipsec-quick/ike/wire"
)

// payloads are those of one message, after [payloads.legal]: what is mandatory
// in its exchange is there, and what must be there once is there once.
type payloads []wire.Payload

// first is the first payload of type P that ok accepts, or the zero one.
func first[P wire.Payload](ps payloads, ok func(P) bool) (P, bool) {
	for _, p := range ps {
		if p, is := p.(P); is && ok(p) {
			return p, true
		}
	}
	var none P
	return none, false
}

func all[P wire.Payload](P) bool { return true }

func (ps payloads) notify(kind wire.NotifyType) *wire.Notify {
	n, ok := first(ps, func(n wire.Notify) bool { return n.Kind == kind })
	if !ok {
		return nil
	}
	return &n
}

// failure is the first notify of an error type (RFC 7296, Section 3.10.1).
func (ps payloads) failure() *wire.Notify {
	n, ok := first(ps, func(n wire.Notify) bool { return n.Kind < wire.NotifyInitialContact })
	if !ok {
		return nil
	}
	return &n
}

func (ps payloads) sa() (wire.SA, bool)     { return first(ps, all[wire.SA]) }
func (ps payloads) ke() (wire.KE, bool)     { return first(ps, all[wire.KE]) }
func (ps payloads) auth() (wire.Auth, bool) { return first(ps, all[wire.Auth]) }

func (ps payloads) nonce() []byte {
	n, _ := first(ps, all[wire.Nonce])
	return n.Data
}

func (ps payloads) id(responder bool) (wire.ID, bool) {
	return first(ps, func(p wire.ID) bool { return p.Responder == responder })
}

func (ps payloads) ts(responder bool) ([]wire.Selector, bool) {
	p, ok := first(ps, func(p wire.TS) bool { return p.Responder == responder })
	return p.Selectors, ok
}

// A rule says what a message of an exchange must carry. What it may carry
// besides is ignored where we have no use for it (RFC 7296, Section 1.3: even a
// Configuration payload in a rekey, which some peers send).
type rule struct {
	must []wire.PayloadType // exactly once, unless the message says that it failed
	once []wire.PayloadType // at most once
}

// rules is the table of RFC 7296, Section 1.2 to 1.4, by exchange and kind.
var rules = map[wire.ExchangeType]struct{ request, response rule }{
	wire.IKESAInit: {
		request:  rule{must: []wire.PayloadType{wire.PayloadSA, wire.PayloadKE, wire.PayloadNonce}},
		response: rule{must: []wire.PayloadType{wire.PayloadSA, wire.PayloadKE, wire.PayloadNonce}},
	},
	wire.IKEAuth: {
		request: rule{
			must: []wire.PayloadType{wire.PayloadIDi},
			once: []wire.PayloadType{wire.PayloadIDr, wire.PayloadAuth, wire.PayloadSA, wire.PayloadTSi, wire.PayloadTSr},
		},
		response: rule{
			must: []wire.PayloadType{wire.PayloadIDr, wire.PayloadAuth},
			once: []wire.PayloadType{wire.PayloadSA, wire.PayloadTSi, wire.PayloadTSr},
		},
	},
	wire.CreateChildSA: {
		request: rule{
			must: []wire.PayloadType{wire.PayloadSA, wire.PayloadNonce},
			once: []wire.PayloadType{wire.PayloadKE, wire.PayloadTSi, wire.PayloadTSr},
		},
		response: rule{
			must: []wire.PayloadType{wire.PayloadSA, wire.PayloadNonce},
			once: []wire.PayloadType{wire.PayloadKE, wire.PayloadTSi, wire.PayloadTSr},
		},
	},
	wire.Informational: {},
}

// errSyntax is a message that its exchange does not allow.
var errSyntax = errors.New("the peer's message breaks the protocol")

// legal checks the payloads of a message against the table, and the sizes of
// nonces (RFC 7296, Section 2.10).
func (ps payloads) legal(exchange wire.ExchangeType, response bool) error {
	both, known := rules[exchange]
	if !known {
		return fmt.Errorf("%w: exchange %s is not known here", errSyntax, exchange)
	}
	r := both.request
	if response {
		r = both.response
	}
	count := map[wire.PayloadType]int{}
	for _, p := range ps {
		count[p.Type()]++
		if n, ok := p.(wire.Nonce); ok && (len(n.Data) < 16 || len(n.Data) > 256) {
			return fmt.Errorf("%w: a nonce of %d octets", errSyntax, len(n.Data))
		}
	}
	failed := response && ps.failed(exchange)
	for _, t := range r.must {
		if count[t] > 1 || count[t] == 0 && !failed {
			return fmt.Errorf("%w: %s with %d payloads %s instead of one", errSyntax, exchange, count[t], t)
		}
	}
	for _, t := range r.once {
		if count[t] > 1 {
			return fmt.Errorf("%w: %s with %d payloads %s", errSyntax, exchange, count[t], t)
		}
	}
	return nil
}

// failed reports whether a response says that the exchange as such failed. In
// IKE_AUTH an error beside an AUTH payload is about the Child SA only
// (RFC 7296, Section 1.2).
func (ps payloads) failed(exchange wire.ExchangeType) bool {
	if exchange == wire.IKEAuth {
		_, authenticated := ps.auth()
		return ps.failure() != nil && !authenticated
	}
	return ps.failure() != nil || ps.notify(wire.NotifyCookie) != nil
}

// syntaxNotify is the notification that answers a request with this error.
func syntaxNotify(err error) wire.Notify {
	var bad *wire.Error
	if errors.As(err, &bad) && bad.Kind == wire.UnknownCritical {
		return wire.Notify{Kind: wire.NotifyUnsupportedCriticalPayload, Data: []byte{uint8(bad.Payload)}}
	}
	return wire.Notify{Kind: wire.NotifyInvalidSyntax}
}
