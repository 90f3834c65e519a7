package ike

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"ipsec-quick/ike/wire"
)

// stranger sends one datagram to b and returns its answer, nil for none.
func (n *network) stranger(from netip.AddrPort, data []byte) *wire.Message {
	n.t.Helper()
	n.queue = nil
	n.step(n.b(), Datagram{Local: ipPort(addrB), Remote: from, Data: slices.Clone(data)})
	if len(n.queue) == 0 {
		return nil
	}
	if len(n.queue) > 1 {
		n.t.Fatalf("%d answers to one datagram", len(n.queue))
	}
	if got := len(n.queue[0].Data); got > len(data) {
		n.t.Errorf("an answer of %d octets to %d", got, len(data))
	}
	m, err := wire.Parse(n.queue[0].Data)
	if err != nil {
		n.t.Fatal(err)
	}
	return m
}

// address is one of many.
func address(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, 64 + byte(i>>16), byte(i >> 8), byte(i)}), 500)
}

// small is the smallest IKE_SA_INIT request that b accepts.
func (n *network) small() *wire.Message {
	m := n.initRequest()
	m.Payloads = slices.DeleteFunc(m.Payloads, func(p wire.Payload) bool { return p.Type() == wire.PayloadNotify })
	for i, p := range m.Payloads {
		if nonce, ok := p.(wire.Nonce); ok {
			m.Payloads[i] = wire.Nonce{Data: nonce.Data[:wire.MinNonce]}
		}
	}
	return m
}

// TestNoAmplification: who sends from somebody else's address does not make us
// send them more than he sends us. The same holds when cookies are asked for.
func TestNoAmplification(t *testing.T) {
	with := func(change func(m *wire.Message)) func(n *network) []byte {
		return func(n *network) []byte {
			m := n.initRequest()
			change(m)
			return m.AppendTo(nil)
		}
	}
	notify := func(kind wire.NotifyType) func(*wire.Message) bool {
		return func(m *wire.Message) bool { return m != nil && payloads(m.Payloads).notify(kind) != nil }
	}
	accepted := func(m *wire.Message) bool {
		if m == nil {
			return false
		}
		_, ok := payloads(m.Payloads).sa()
		return ok
	}
	silent := func(m *wire.Message) bool { return m == nil }
	tests := map[string]struct {
		request func(n *network) []byte
		want    func(*wire.Message) bool
		flooded func(*wire.Message) bool // when cookies are asked for
	}{
		"a good one":      {with(func(*wire.Message) {}), accepted, hasCookie},
		"a small one":     {func(n *network) []byte { return n.small().AppendTo(nil) }, hasCookie, hasCookie},
		"nothing but SPI": {with(func(m *wire.Message) { m.Payloads = nil }), silent, silent},
		"a nonce alone": {with(func(m *wire.Message) {
			m.Payloads = []wire.Payload{wire.Nonce{Data: make([]byte, wire.MinNonce)}}
		}), notify(wire.NotifyInvalidSyntax), silent},
		"an unknown critical payload": {with(func(m *wire.Message) {
			m.Payloads = append(m.Payloads, wire.Unknown{Kind: criticalKind, Critical: true})
		}), silent, hasCookie},
		"another group": {with(func(m *wire.Message) {
			for i, p := range m.Payloads {
				if ke, ok := p.(wire.KE); ok {
					m.Payloads[i] = wire.KE{Group: wire.KEECP256, Data: ke.Data}
				}
			}
		}), notify(wire.NotifyInvalidKEPayload), hasCookie},
		"a KE of no use": {with(func(m *wire.Message) {
			for i, p := range m.Payloads {
				if ke, ok := p.(wire.KE); ok {
					m.Payloads[i] = wire.KE{Group: ke.Group, Data: make([]byte, 32)}
				}
			}
		}), notify(wire.NotifyInvalidSyntax), hasCookie},
		"other algorithms": {with(func(m *wire.Message) {
			for i, p := range m.Payloads {
				if sa, ok := p.(wire.SA); ok {
					sa.Proposals[0].Transforms = sa.Proposals[0].Transforms[1:]
					m.Payloads[i] = sa
				}
			}
		}), notify(wire.NotifyNoProposalChosen), hasCookie},
		"too large": {with(func(m *wire.Message) {
			m.Payloads = append(m.Payloads, wire.VendorID{Data: make([]byte, maxInitRequest)})
		}), silent, silent},
		"text": {func(*network) []byte { return []byte("GET / HTTP/1.1\r\nHost: 192.0.2.2\r\n\r\n") }, silent, silent},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t, 1, nil)
			request := test.request(n)
			if answer := n.stranger(address(1), request); !test.want(answer) {
				t.Errorf("the answer is %+v", answer)
			}
			n.stranger(address(1), request) // the same again
			n.flood(n.initRequest(), cookiesFrom)
			if answer := n.stranger(address(2), request); !test.flooded(answer) {
				t.Errorf("among many the answer is %+v", answer)
			}
		})
	}
}

// withCookie is a request with the cookie of an answer.
func withCookie(request, answer *wire.Message) []byte {
	m := *request
	m.Payloads = append([]wire.Payload{*payloads(answer.Payloads).notify(wire.NotifyCookie)}, request.Payloads...)
	return m.AppendTo(nil)
}

// TestSmallRequest: a peer that asks for less than it gets in return is served
// when it has shown that the address is its own.
func TestSmallRequest(t *testing.T) {
	n := newNetwork(t, 1, nil)
	request := n.small()
	answer := n.stranger(address(1), request.AppendTo(nil))
	data := withCookie(request, answer)
	n.queue = nil
	n.step(n.b(), Datagram{Local: ipPort(addrB), Remote: address(1), Data: data})
	if len(n.queue) != 1 || len(n.b().e.LocalSPIs()) != 1 {
		t.Fatalf("%d answers, %d IKE SAs", len(n.queue), len(n.b().e.LocalSPIs()))
	}
	if len(n.queue[0].Data) <= len(data) {
		t.Error("the test tests nothing: the answer is not larger")
	}
}

// TestStrangersLimited: what leaves nothing behind that could be counted is
// limited as well.
func TestStrangersLimited(t *testing.T) {
	n := newNetwork(t, 1, nil)
	request := n.initRequest()
	request.Payloads[0].(wire.SA).Proposals[0].Transforms = request.Payloads[0].(wire.SA).Proposals[0].Transforms[1:]
	count := func() (refused int) {
		for _, m := range n.flood(request, 1000) {
			if !hasCookie(m) {
				refused++
			}
		}
		return refused
	}
	if got := count(); got != initBurst {
		t.Errorf("%d of 1000 were looked at", got)
	}
	n.now = n.now.Add(cookiesFor - time.Second)
	if got := count(); got != 0 {
		t.Errorf("a little later %d of 1000: a request that was answered by COOKIE may be among them", got)
	}
	n.now = n.now.Add(cookiesFor)
	if got := count(); got != initBurst {
		t.Errorf("after the flood %d of 1000", got)
	}
	if len(n.b().e.LocalSPIs()) != 0 {
		t.Error("something is kept")
	}
}

// ofOneAddress is how many half-open IKE SAs an address gets that is alone: as
// many as a share of those that are left then.
const ofOneAddress = maxHalfOpen / (halfOpenShare + 1)

// TestFloodFromMany: who has many addresses, and shows a cookie for each request,
// does not keep others out.
func TestFloodFromMany(t *testing.T) {
	n := newNetwork(t, 1, nil)
	request := n.initRequest()
	for i := range 10 * ofOneAddress {
		m := *request
		m.SPIi = wire.SPI(i + 1)
		if answer := n.stranger(address(i%20), m.AppendTo(nil)); answer != nil && hasCookie(answer) {
			n.stranger(address(i%20), withCookie(&m, answer))
		}
	}
	open := len(n.b().e.halfOpen)
	if open < maxHalfOpen/2 || open >= maxHalfOpen {
		t.Errorf("%d half-open IKE SAs", open)
	}
	n.queue = nil
	n.step(n.a(), Tick{})
	n.run(time.Second)
	n.mustFlow()
}

// TestFloodFromSubnet: the addresses of an IPv6 subnet are those of one sender.
func TestFloodFromSubnet(t *testing.T) {
	n := newNetwork(t, 1, nil)
	request := n.initRequest()
	for i := range uint64(2 * ofOneAddress) {
		m := *request
		m.SPIi = wire.SPI(i + 1)
		a := netip.MustParseAddr("2001:db8::").As16()
		binary.BigEndian.PutUint64(a[8:], i*0x1234567)
		from := netip.AddrPortFrom(netip.AddrFrom16(a), 500)
		if answer := n.stranger(from, m.AppendTo(nil)); answer != nil && hasCookie(answer) {
			n.stranger(from, withCookie(&m, answer))
		}
	}
	if got := len(n.b().e.halfOpen); got != ofOneAddress {
		t.Errorf("%d half-open IKE SAs", got)
	}
	if got := len(n.b().e.halfOpenFrom); got != 1 {
		t.Errorf("%d subnets", got)
	}
	n.queue = nil
	n.run(time.Minute)
	if len(n.b().e.halfOpenFrom) != 0 {
		t.Error("they are counted for ever")
	}
	nothing(t, n.b())
}

// TestHalfOpenBounded is what one half-open IKE SA can be made to keep and do.
func TestHalfOpenBounded(t *testing.T) {
	n := newNetwork(t, 1, nil)
	n.step(n.a(), Tick{})
	n.deliver(n.queue[0]) // IKE_SA_INIT
	n.deliver(n.queue[1])
	auth := n.queue[2]
	n.queue = nil
	b := n.b().e
	sa := b.state.SAs[b.LocalSPIs()[0]]
	if sa.State != halfOpen {
		t.Fatal("it is not half-open")
	}
	for i := range len(auth.Data) - 28 {
		bad := slices.Clone(auth.Data)
		bad[28+i] ^= 1
		n.step(n.b(), Datagram{Local: auth.Remote, Remote: auth.Local, Data: bad})
	}
	if len(n.queue) != 0 || len(n.b().said) > 2 || b.state.SAs[sa.local()] != sa {
		t.Errorf("%d answers, said %v", len(n.queue), n.b().said)
	}
	if s := b.Stats(); s.BadIntegrity == 0 {
		t.Errorf("%+v", s)
	}
	for i := range uint16(64) {
		sa.collect(&wire.Message{MessageID: 1}, wire.SKF{Number: i + 1, Total: 64}, make([]byte, 1000))
	}
	if got := sa.fragments.request.size; got > maxReassemblyHalfOpen {
		t.Errorf("%d octets of fragments", got)
	}
	sa.fragments.request = nil
	n.deliver(auth)
	n.run(time.Second)
	n.mustFlow()
}

// BenchmarkFlood is one IKE_SA_INIT request among many: it gets a cookie.
func BenchmarkFlood(b *testing.B) {
	n := newNetwork(b, 1, nil)
	request := n.initRequest()
	n.flood(request, cookiesFrom)
	data := request.AppendTo(nil)
	e := n.b().e
	b.ReportAllocs()
	for i := range b.N {
		binary.BigEndian.PutUint64(data, uint64(i)|1<<63)
		if out := e.Step(n.now, Datagram{Local: ipPort(addrB), Remote: address(i & 0xffff), Data: data}); len(out) != 1 {
			b.Fatal(out)
		}
	}
}
