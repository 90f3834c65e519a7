package ike

import (
	"time"

	"ipsec-quick/ike/wire"
)

// dpdTask is the empty INFORMATIONAL exchange that asks whether the peer lives
// (RFC 7296, Section 2.4). Its retransmissions are the wait for an answer.
type dpdTask struct {
	Since time.Time // the peer is silent
}

func (*dpdTask) exchange() wire.ExchangeType { return wire.Informational }
func (*dpdTask) abort(*Endpoint, *ikeSA)     {}

func (t *dpdTask) request(*Endpoint, *ikeSA) ([]wire.Payload, progress) { return nil, sending }

func (*dpdTask) response(*Endpoint, *ikeSA, payloads) progress { return finished }
