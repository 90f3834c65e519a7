package ike

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"ipsec-quick/ike/wire"
)

// sealedBy makes a message as a host would send it.
func sealedBy(t testing.TB, h *host, m *wire.Message) []byte {
	t.Helper()
	sa := h.e.current(h.cfg.Peers[0].Name)
	m.SPIi, m.SPIr, m.Initiator = sa.SPIi, sa.SPIr, sa.Original
	c, err := sa.seal()
	if err != nil {
		t.Fatal(err)
	}
	data, err := c.Seal(m, 0, h.cfg.Rand)
	if err != nil {
		t.Fatal(err)
	}
	return data[0]
}

// ask sends a forged request of a to b, and returns what b answers; nothing if it
// does not.
func (n *network) ask(exchange wire.ExchangeType, id uint32, ps ...wire.Payload) payloads {
	n.t.Helper()
	data := sealedBy(n.t, n.a(), &wire.Message{Exchange: exchange, MessageID: id, Payloads: ps})
	n.queue = nil
	n.step(n.b(), Datagram{Local: ipPort(addrB), Remote: ipPort(addrA), Data: data})
	return n.opened()
}

// opened decrypts the first message of b under way to a.
func (n *network) opened() payloads {
	n.t.Helper()
	if len(n.queue) == 0 {
		return nil
	}
	m, err := wire.Parse(n.queue[0].Data)
	if err != nil {
		n.t.Fatal(err)
	}
	c, err := n.a().e.current("b").open()
	if err != nil {
		n.t.Fatal(err)
	}
	inner, err := c.Open(n.queue[0].Data, m)
	if err != nil {
		n.t.Fatal(err)
	}
	ps, err := wire.ParsePayloads(m.Payloads[len(m.Payloads)-1].(wire.SK).First, inner)
	if err != nil {
		n.t.Fatal(err)
	}
	return payloads(ps)
}

func TestBadRequests(t *testing.T) {
	nonce := wire.Nonce{Data: make([]byte, 32)}
	spi := []byte{0xc0, 0, 9, 9}
	esp := func(n *network) wire.SA {
		return wire.SA{Proposals: offer(n.a().cfg.Peers[0].ESP, wire.ProtocolESP, spi)}
	}
	ike := func(n *network) wire.SA {
		return wire.SA{Proposals: offer(n.a().cfg.Peers[0].IKE, wire.ProtocolIKE, binary.BigEndian.AppendUint64(nil, 7))}
	}
	ts := []wire.Payload{wire.TS{Selectors: prefixTS("10.1.0.0/16")}, wire.TS{Responder: true, Selectors: prefixTS("10.2.0.0/16")}}
	rekey := func(spi uint32) wire.Payload {
		return wire.Notify{Kind: wire.NotifyRekeySA, Protocol: wire.ProtocolESP, SPI: binary.BigEndian.AppendUint32(nil, spi)}
	}
	tests := map[string]struct {
		exchange wire.ExchangeType
		ask      func(n *network) []wire.Payload
		want     wire.NotifyType
	}{
		"unknown critical payload": {wire.Informational, func(*network) []wire.Payload {
			return []wire.Payload{wire.Unknown{Kind: criticalKind, Critical: true}}
		}, wire.NotifyUnsupportedCriticalPayload},
		"no nonce":      {wire.CreateChildSA, func(n *network) []wire.Payload { return append(ts, esp(n)) }, wire.NotifyInvalidSyntax},
		"short nonce":   {wire.CreateChildSA, func(n *network) []wire.Payload { return append(ts, esp(n), wire.Nonce{Data: make([]byte, 15)}) }, wire.NotifyInvalidSyntax},
		"two nonces":    {wire.CreateChildSA, func(n *network) []wire.Payload { return append(ts, esp(n), nonce, nonce) }, wire.NotifyInvalidSyntax},
		"no selectors":  {wire.CreateChildSA, func(n *network) []wire.Payload { return []wire.Payload{esp(n), nonce} }, wire.NotifyInvalidSyntax},
		"one selector":  {wire.CreateChildSA, func(n *network) []wire.Payload { return []wire.Payload{esp(n), nonce, ts[0]} }, wire.NotifyTSUnacceptable},
		"unknown child": {wire.CreateChildSA, func(n *network) []wire.Payload { return append(ts, rekey(1), esp(n), nonce) }, wire.NotifyChildSANotFound},
		"no SPI to rekey": {wire.CreateChildSA, func(n *network) []wire.Payload {
			return append(ts, wire.Notify{Kind: wire.NotifyRekeySA}, esp(n), nonce)
		}, wire.NotifyChildSANotFound},
		"reserved SPI": {wire.CreateChildSA, func(n *network) []wire.Payload {
			sa := wire.SA{Proposals: offer(n.a().cfg.Peers[0].ESP, wire.ProtocolESP, []byte{0, 0, 0, 255})}
			return append(ts, sa, nonce)
		}, wire.NotifyInvalidSyntax},
		"no KE":          {wire.CreateChildSA, func(n *network) []wire.Payload { return append(ts, esp(n), nonce) }, wire.NotifyInvalidKEPayload},
		"bad KE":         {wire.CreateChildSA, func(n *network) []wire.Payload { return append(ts, esp(n), nonce, badKE) }, wire.NotifyInvalidSyntax},
		"IKE without KE": {wire.CreateChildSA, func(n *network) []wire.Payload { return []wire.Payload{ike(n), nonce} }, wire.NotifyInvalidKEPayload},
		"IKE, bad KE":    {wire.CreateChildSA, func(n *network) []wire.Payload { return []wire.Payload{ike(n), nonce, badKE} }, wire.NotifyInvalidSyntax},
		"IKE with other algorithms": {wire.CreateChildSA, func(n *network) []wire.Payload {
			sa := ike(n)
			sa.Proposals[0].Transforms = sa.Proposals[0].Transforms[1:]
			return []wire.Payload{sa, nonce, badKE}
		}, wire.NotifyNoProposalChosen},
		"unknown exchange": {99, func(*network) []wire.Payload { return nil }, wire.NotifyInvalidSyntax},
		"IKE_AUTH again":   {wire.IKEAuth, func(*network) []wire.Payload { return nil }, wire.NotifyInvalidSyntax},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t, 1, nil)
			n.up()
			id := n.b().e.current("a").Recv.ExpectID
			ps := n.ask(test.exchange, id, test.ask(n)...)
			if got := ps.failure(); got == nil || got.Kind != test.want {
				t.Fatalf("the answer is %v, not %s", ps, test.want)
			}
			if test.want == wire.NotifyUnsupportedCriticalPayload && !slices.Equal(ps.failure().Data, []byte{uint8(criticalKind)}) {
				t.Errorf("it names %v", ps.failure().Data)
			}
			n.queue = nil
			n.mustFlow() // what stood stands
			if len(n.b().in) != 1 || len(n.b().e.LocalSPIs()) != 1 {
				t.Error("something is left of it")
			}
		})
	}
}

var badKE = wire.KE{Group: wire.KECurve25519, Data: make([]byte, 32)} // of low order

const criticalKind wire.PayloadType = 200 // of the future

func TestWindow(t *testing.T) {
	n := newNetwork(t, 1, nil)
	n.up()
	b := n.b().e.current("a")
	id := b.Recv.ExpectID
	for _, wrong := range []uint32{id + 1, id - 2, id + 1000, 1<<32 - 1} {
		if ps := n.ask(wire.Informational, wrong); len(n.queue) != 0 {
			t.Errorf("Message ID %d instead of %d is answered: %v", wrong, id, ps)
		}
	}
	n.ask(wire.Informational, id)
	first := n.queue[0]
	n.ask(wire.Informational, id)
	if len(n.queue) != 1 || !slices.Equal(n.queue[0].Data, first.Data) {
		t.Error("the same request gets another answer")
	}
	stats := n.b().e.Stats()
	if stats.BadMessageID != 4 || stats.Replayed != 1 {
		t.Errorf("%+v", stats)
	}
	// A response to no request, and one that is not authentic.
	data := sealedBy(t, n.a(), &wire.Message{Exchange: wire.Informational, MessageID: 9, Response: true})
	n.step(n.b(), Datagram{Local: ipPort(addrB), Remote: ipPort(addrA), Data: data})
	data = sealedBy(t, n.a(), &wire.Message{Exchange: wire.Informational, MessageID: id + 1})
	for i := range data {
		bad := slices.Clone(data)
		bad[i] ^= 0x80
		n.queue = nil
		n.step(n.b(), Datagram{Local: ipPort(addrB), Remote: ipPort(addrA), Data: bad})
		if len(n.queue) != 0 {
			t.Fatalf("a message with octet %d wrong is answered", i)
		}
		n.step(n.b(), Datagram{Local: ipPort(addrB), Remote: ipPort(addrA), Data: data[:i]})
	}
	n.mustFlow()
}

// TestAnswers gives a the answers that b does not give, to what it asks.
func TestAnswers(t *testing.T) {
	notify := func(kind wire.NotifyType, data ...byte) []wire.Payload {
		return []wire.Payload{wire.Notify{Kind: kind, Data: data}}
	}
	none := []wire.Payload(nil)
	tests := map[string]struct {
		ask     Event
		answer  []wire.Payload
		forever bool // every time, not once
		rekeys  uint64
		lost    bool
	}{
		"temporary failure":             {RekeyChild{"b"}, notify(wire.NotifyTemporaryFailure), false, 1, false},
		"child not found":               {RekeyChild{"b"}, notify(wire.NotifyChildSANotFound), false, 0, false},
		"no additional SAs":             {RekeyChild{"b"}, notify(wire.NotifyNoAdditionalSAs), false, 0, true},
		"no proposal with KE":           {RekeyChild{"b"}, notify(wire.NotifyNoProposalChosen), false, 1, false},
		"no proposal":                   {RekeyChild{"b"}, notify(wire.NotifyNoProposalChosen), true, 0, false},
		"a group we don't have":         {RekeyChild{"b"}, notify(wire.NotifyInvalidKEPayload, 0, 14), false, 1, false},
		"an unknown error":              {RekeyChild{"b"}, notify(99), false, 1, false},
		"nothing":                       {RekeyChild{"b"}, none, false, 0, true},
		"IKE, temporary failure":        {RekeyIKE{"b"}, notify(wire.NotifyTemporaryFailure), false, 1, false},
		"IKE, no proposal":              {RekeyIKE{"b"}, notify(wire.NotifyNoProposalChosen), false, 1, false},
		"IKE, a group we don't have":    {RekeyIKE{"b"}, notify(wire.NotifyInvalidKEPayload, 0, 14), false, 1, false},
		"IKE, no additional SAs for us": {RekeyIKE{"b"}, notify(wire.NotifyNoAdditionalSAs), false, 1, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t, 1, func(a, b *Peer) { a.DPD, b.DPD = 0, 0 })
			n.up()
			done := false
			n.drop = func(s Send) bool {
				m, _ := wire.Parse(s.Data)
				if s.Local.Addr() != addrA || m.Exchange != wire.CreateChildSA || m.Response || done && !test.forever {
					return false
				}
				done = true
				data := sealedBy(t, n.b(), &wire.Message{Exchange: m.Exchange, MessageID: m.MessageID, Response: true, Payloads: test.answer})
				n.b().e.current("a").Recv.ExpectID++
				n.step(n.a(), Datagram{Local: s.Local, Remote: s.Remote, Data: data})
				return true
			}
			n.step(n.a(), test.ask)
			n.run(40 * time.Second)
			n.mustFlow()
			s := n.a().e.Status()[0]
			if got := s.Rekeys.Child + s.Rekeys.IKE; got != test.rekeys {
				t.Errorf("%d rekeys\n%s", got, n.log())
			}
			if _, lost := said[Lost](n.a()); lost != test.lost {
				t.Errorf("lost: %t\n%s", lost, n.log())
			}
			for _, h := range n.hosts {
				want := 1
				if name == "child not found" && h == n.b() {
					want = 2 // it did not really lose it
				}
				if len(h.in) != want || len(h.out) != want || len(h.e.LocalSPIs()) != 1 {
					t.Errorf("%s: %d inbound, %d outbound SAs, %d IKE SAs\n%s", h.name, len(h.in), len(h.out), len(h.e.LocalSPIs()), n.log())
				}
			}
		})
	}
}
