package ike

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"ipsec-quick/ike/wire"
)

// TestFragments loses, doubles and reorders fragments of 576 octets.
func TestFragments(t *testing.T) {
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 1))
		n := newNetwork(t, seed, func(a, b *Peer) {
			withKeys(t, "rsa")(a, b)
			a.Fragment, b.Fragment = 576, 576
			for i := range 20 {
				many := prefixTS(fmt.Sprintf("10.1.%d.0/24", 2*i))
				a.LocalTS, b.RemoteTS = append(a.LocalTS, many...), append(b.RemoteTS, many...)
			}
			a.LocalTS, b.RemoteTS = a.LocalTS[1:], b.RemoteTS[1:]
		})
		fragments, lost := 0, map[string]int{}
		n.drop = func(s Send) bool {
			if m, err := wire.Parse(s.Data); err != nil || len(s.Data) > 576-28 {
				t.Fatalf("%d octets: %v", len(s.Data), err)
			} else if _, ok := m.Payloads[len(m.Payloads)-1].(wire.SKF); ok {
				fragments++
			}
			switch p := r.IntN(100); {
			case p < 25 && lost[string(s.Data)] < 3:
				lost[string(s.Data)]++
				return true
			case p < 40:
				n.queue = append(n.queue, s)
			case p < 60 && len(n.queue) > 0:
				n.queue = append(n.queue, s)
				return true
			}
			return false
		}
		n.up()
		n.run(40 * time.Second)
		n.mustFlow()
		if fragments < 4 {
			t.Errorf("%d fragments", fragments)
		}
		if len(n.b().e.halfOpen) != 0 {
			t.Errorf("seed %d: half open for ever\n%s", seed, n.log())
		}
	}
}

// TestReassembly is collect by itself: what does not fit together is not put
// together, and memory is bounded.
func TestReassembly(t *testing.T) {
	m := &wire.Message{MessageID: 7}
	part := func(number, total uint16) wire.SKF { return wire.SKF{Number: number, Total: total, First: 9} }
	sa := &ikeSA{}
	give := func(number, total uint16, data string) string {
		if p, whole := sa.collect(m, part(number, total), []byte(data)); whole {
			return string(p.data)
		}
		return ""
	}
	give(2, 3, "b")
	give(2, 3, "x") // again
	give(1, 2, "x") // another size, smaller: old
	give(3, 3, "c")
	if got := give(1, 3, "a"); got != "abc" {
		t.Errorf("put together: %q", got)
	}
	give(1, 2, "x")
	give(1, 3, "a") // smaller fragments: the peer began again
	give(2, 3, "b")
	if got := give(3, 3, "c"); got != "abc" {
		t.Errorf("put together: %q", got)
	}
	for i := range uint16(maxFragments) {
		give(i+1, maxFragments+1, strings.Repeat("x", 1000))
		give(i+1, maxFragments, strings.Repeat("x", 1000))
	}
	if sa.fragments.request.size > maxReassembly || len(sa.fragments.request.parts) > maxFragments {
		t.Errorf("%d octets in %d parts", sa.fragments.request.size, len(sa.fragments.request.parts))
	}
}

// TestEveryMessageLost loses each message of a life once, one life a message.
func TestEveryMessageLost(t *testing.T) {
	for lose := 0; ; lose++ {
		n := newNetwork(t, 1, nil)
		sent := 0
		n.drop = func(Send) bool {
			sent++
			return sent-1 == lose
		}
		n.up()
		n.run(2 * time.Second)
		n.rekeyed()
		if sent <= lose {
			return
		}
	}
}

func TestCookie(t *testing.T) {
	n := newNetwork(t, 1, nil)
	request := n.initRequest()
	answers := n.flood(request, cookiesFrom)
	if got := len(n.b().e.LocalSPIs()); got != cookiesFrom {
		t.Fatalf("%d half-open IKE SAs", got)
	}
	if slices.ContainsFunc(answers, hasCookie) {
		t.Error("a cookie before there is need of one")
	}
	n.step(n.a(), Tick{})
	n.run(3 * time.Second)
	n.mustFlow()
	if !strings.Contains(n.log(), "N(COOKIE) SA KE NONCE") {
		t.Errorf("no cookie was sent back\n%s", n.log())
	}
	n.run(halfOpenFor)
	if got := len(n.b().e.LocalSPIs()); got != 1 || len(n.b().e.halfOpen) != 0 {
		t.Errorf("%d IKE SAs are left, %d half-open", got, len(n.b().e.halfOpen))
	}
}

// TestOldCookie: a cookie is good for a minute or two, and for who it was made for.
func TestOldCookie(t *testing.T) {
	n := newNetwork(t, 1, nil)
	request := n.initRequest()
	n.flood(request, cookiesFrom)
	from := netip.MustParseAddrPort("198.51.100.77:500")
	ask := func(remote netip.AddrPort, cookie []byte) *wire.Message {
		m := *request
		m.SPIi = 77
		if cookie != nil {
			m.Payloads = append([]wire.Payload{wire.Notify{Kind: wire.NotifyCookie, Data: cookie}}, m.Payloads...)
		}
		n.queue = nil
		n.step(n.b(), Datagram{Local: ipPort(addrB), Remote: remote, Data: m.AppendTo(nil)})
		answer, err := wire.Parse(n.queue[0].Data)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	first := ask(from, nil)
	cookie := payloads(first.Payloads).notify(wire.NotifyCookie).Data
	if !hasCookie(ask(netip.MustParseAddrPort("198.51.100.78:500"), cookie)) {
		t.Error("somebody else's cookie is taken")
	}
	if !hasCookie(ask(from, cookie[1:])) {
		t.Error("a wrong cookie is taken")
	}
	n.now = n.now.Add(3 * cookieLife)
	n.b().e.Step(n.now, Tick{})
	n.flood(request, cookiesFrom)
	if !hasCookie(ask(from, cookie)) {
		t.Error("an old cookie is taken")
	}
	fresh := payloads(ask(from, nil).Payloads).notify(wire.NotifyCookie).Data
	n.now = n.now.Add(cookieLife) // of the secret before
	n.flood(request, cookiesFrom)
	if hasCookie(ask(from, fresh)) {
		t.Error("a good cookie is not taken")
	}
}

func hasCookie(m *wire.Message) bool { return payloads(m.Payloads).notify(wire.NotifyCookie) != nil }

// initRequest is an IKE_SA_INIT request that b accepts.
func (n *network) initRequest() *wire.Message {
	other := newNetwork(n.t, 99, nil)
	other.step(other.a(), Tick{})
	m, err := wire.Parse(other.queue[0].Data)
	if err != nil {
		n.t.Fatal(err)
	}
	return m
}

// flood sends a request to b many times, each with another SPI from another
// address, and returns the answers.
func (n *network) flood(request *wire.Message, times int) (answers []*wire.Message) {
	for i := range times {
		m := *request
		m.SPIi += wire.SPI(i) + wire.SPI(n.now.Unix())
		remote := netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}), 500)
		n.queue = nil
		n.step(n.b(), Datagram{Local: ipPort(addrB), Remote: remote, Data: m.AppendTo(nil)})
		for _, s := range n.queue {
			answer, err := wire.Parse(s.Data)
			if err != nil {
				n.t.Fatal(err)
			}
			answers = append(answers, answer)
		}
		n.queue = nil
	}
	return answers
}

// TestFlood: whoever sends, and however much, what is kept is bounded, and gone
// after half a minute.
func TestFlood(t *testing.T) {
	n := newNetwork(t, 1, nil)
	request := n.initRequest()
	n.flood(request, 2000)
	if got := len(n.b().e.LocalSPIs()); got > cookiesFrom {
		t.Errorf("%d half-open IKE SAs without a cookie", got)
	}
	for i := range 2 * ofOneAddress { // from one address, with the cookie that it asks for
		m := *request
		m.SPIi = wire.SPI(i + 1)
		for range 2 {
			n.queue = nil
			n.step(n.b(), Datagram{Local: ipPort(addrB), Remote: netip.AddrPortFrom(addrA, uint16(1000+i)), Data: m.AppendTo(nil)})
			if len(n.queue) == 0 {
				break
			}
			answer, _ := wire.Parse(n.queue[0].Data)
			if !hasCookie(answer) {
				break
			}
			m.Payloads = append([]wire.Payload{*payloads(answer.Payloads).notify(wire.NotifyCookie)}, request.Payloads...)
		}
	}
	if got := len(n.b().e.LocalSPIs()); got > cookiesFrom+ofOneAddress {
		t.Errorf("%d half-open IKE SAs", got)
	}
	if s := n.b().e.Stats(); s.Flooded < 1000 {
		t.Errorf("%+v", s)
	}
	n.queue = nil
	n.run(time.Minute)
	nothing(t, n.b())
}

// TestStrayDatagrams: what belongs to no IKE SA is counted and forgotten.
func TestStrayDatagrams(t *testing.T) {
	n := newNetwork(t, 1, nil)
	n.up()
	valid := n.initRequest()
	with := func(change func(m *wire.Message)) []byte {
		m := *valid
		change(&m)
		return m.AppendTo(nil)
	}
	version := with(func(*wire.Message) {})
	version[17] = 0x30
	tests := map[string][]byte{
		"nothing":           nil,
		"text":              []byte("GET / HTTP/1.1\r\n\r\n"),
		"another version":   version,
		"no SPI":            with(func(m *wire.Message) { m.SPIi = 0 }),
		"a responder's SPI": with(func(m *wire.Message) { m.SPIr = 5 }),
		"a Message ID":      with(func(m *wire.Message) { m.MessageID = 1 }),
		"not the initiator": with(func(m *wire.Message) { m.Initiator = false }),
		"a response":        with(func(m *wire.Message) { m.Response = true }),
		"an unknown SPI":    with(func(m *wire.Message) { m.Exchange, m.SPIr = wire.Informational, 5 }),
		"no SA":             with(func(m *wire.Message) { m.Payloads = m.Payloads[1:] }),
		"in clear": with(func(m *wire.Message) {
			sa := n.b().e.current("a")
			m.SPIi, m.SPIr, m.Exchange, m.MessageID = sa.SPIi, sa.SPIr, wire.Informational, 2
		}),
		"from the wrong side": with(func(m *wire.Message) {
			sa := n.b().e.current("a")
			m.SPIi, m.SPIr, m.Exchange, m.Initiator = sa.SPIr, sa.SPIi, wire.Informational, false
		}),
	}
	for name, data := range tests {
		t.Run(name, func(t *testing.T) {
			before := n.b().e.Stats()
			n.queue = nil
			n.step(n.b(), Datagram{Local: ipPort(addrB), Remote: ipPort(addrA), Data: data})
			if n.b().e.Stats() == before {
				t.Error("it is not counted")
			}
			if len(n.b().e.LocalSPIs()) != 1 || len(n.b().e.halfOpen) != 0 {
				t.Error("something is kept")
			}
			for _, s := range n.queue { // one answer in clear at most, to an IKE_SA_INIT
				if m, err := wire.Parse(s.Data); err != nil || payloads(m.Payloads).failure() == nil {
					t.Error(fmt.Sprint("it is answered by ", m, err))
				}
			}
		})
	}
}

// TestHeard: a peer that sends requests is not given up because it was away each
// time that ours came; one that never answers is.
func TestHeard(t *testing.T) {
	n := newNetwork(t, 1, func(a, b *Peer) { a.DPD, b.DPD = 0, 0 })
	n.up()
	deaf := true // b does not hear requests of a, nor a its answers
	n.drop = func(s Send) bool {
		m, err := wire.Parse(s.Data)
		if err != nil {
			t.Fatal(err)
		}
		return deaf && m.Response == (s.Local.Addr() == addrB)
	}
	n.step(n.a(), RekeyChild{"b"})
	for range 5 { // longer than a request has
		n.run(15 * time.Second)
		n.step(n.b(), RekeyIKE{"a"}) // refused, but heard
	}
	if lost, ok := said[Lost](n.a()); ok {
		t.Fatalf("the peer was given up: %v\n%s", lost.Err, n.log())
	}
	deaf = false
	n.run(10 * time.Second)
	n.rekeyed()
	deaf = true
	n.step(n.a(), RekeyChild{"b"})
	for range 12 {
		n.run(15 * time.Second)
		n.step(n.b(), RekeyIKE{"a"})
	}
	if _, ok := said[Lost](n.a()); !ok {
		t.Error("the peer is never given up")
	}
}
