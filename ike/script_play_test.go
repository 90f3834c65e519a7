package ike

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

// play is a script that runs.
type play struct {
	t      *testing.T
	n      *network
	a, b   *host
	lowest string            // the nonce: "A.Nr" is the responder's in a's exchange
	unlike bool              // the first request of each host is for a group that the other has not
	labels map[string]string // of messages, by their octets
	names
}

// newPlay connects two hosts.
func newPlay(t *testing.T, given []string, lowest string, original int) *play {
	p := &play{t: t, n: newNetwork(t, 1, nil), lowest: lowest, unlike: slices.Contains(given, "unlike"), labels: map[string]string{}}
	p.a, p.b = p.n.hosts[original], p.n.hosts[1-original]
	has := func(what string, h *host) bool {
		i := slices.Index(given, what)
		return i >= 0 && strings.Contains(given[i+1], p.letter(h))
	}
	for _, h := range p.n.hosts {
		h.cfg.Rand = &leading{h.cfg.Rand, 0xff}
		h.e = New(h.cfg)
		if has("fragments", h) {
			h.cfg.Peers[0].Fragment = 200
		}
	}
	p.n.up()
	p.n.run(35 * time.Second) // by now each knows that the other has the Child SA
	p.names = newNames(p)
	p.n.drop = func(Send) bool { p.name(p); return false }
	p.n.flowing = true
	for _, h := range p.n.hosts {
		h.slow = has("slow", h)
		peer := &h.cfg.Peers[0]
		peer.Start = map[*host]Start{p.a: StartNow, p.b: StartPassive}[h]
		if p.unlike {
			groups := map[*host]string{p.a: "x25519-ecp256", p.b: "ecp384-ecp256"}[h]
			peer.IKE = proposal(t, suite.ParseIKE, "aes256gcm16-prfsha256-"+groups)
			peer.ESP, peer.PFS = proposal(t, suite.ParseESP, "aes256gcm16-"+groups), PFSYes
		}
	}
	return p
}

func (p *play) letter(h *host) string { return map[*host]string{p.a: "a", p.b: "b"}[h] }
func (p *play) other(h *host) *host   { return map[*host]*host{p.a: p.b, p.b: p.a}[h] }

// play plays lines. After each single action packets have to pass both ways,
// unless the script ends that.
func (p *play) play(lines []*line) {
	var passed strings.Builder
	for _, l := range lines {
		if l.comment() {
			continue
		}
		p.n.now = p.n.now.Add(10 * time.Millisecond)
		err := p.event(l.event)
		p.name(p)
		is := &line{l.event, p.state(p, p.a), p.state(p, p.b)}
		fmt.Fprintln(&passed, is)
		if *rewrite {
			*l = *is
		}
		if err != nil || *is != *l {
			p.t.Fatalf("lowest nonce %s, original initiator %s\n%v%v; it should be\n%v\n%s", p.lowest, p.letter(p.n.a()), passed.String(), err, l, p.n.log())
		}
	}
}

// event does what a line says.
func (p *play) event(text string) error {
	words := strings.SplitN(text+"  ", " ", 3)
	h, verb, what := map[string]*host{"a": p.a, "b": p.b}[words[0]], words[1], strings.TrimSpace(words[2])
	p.draw(h, verb == "gets" && what == "request", verb == "rekeys")
	switch {
	case words[0] == "rest":
		return p.rest()
	case verb == "pass":
		return p.pass(words[0])
	case h == nil:
		return errors.New("nobody does it")
	}
	peer := h.cfg.Peers[0].Name
	switch verb {
	case "rekeys":
		if what == "IKE" {
			p.n.step(h, RekeyIKE{peer})
		} else {
			p.n.step(h, RekeyChild{peer})
		}
	case "closes":
		p.n.flowing = false
		p.n.step(h, Close{peer})
	case "soft", "hard":
		p.n.flowing = p.n.flowing && verb == "soft"
		c := p.child(p, h, what)
		p.n.step(h, Expire{Child: c.InID(), Hard: verb == "hard"})
	case "allocates", "installs", "fails":
		return p.late(h, verb)
	case "gets", "loses":
		return p.message(h, verb, what)
	case "gives": // up its peer, once
		p.n.flowing = false
		return errors.Join(p.pass("40s"), p.lostOnce(h))
	case "forgets":
		p.n.flowing = false
		c := p.child(p, h, what)
		h.do(p.n, RemoveChild{c})
		h.do(p.n, RemovePolicies{c})
		delete(h.e.current(peer).Children, c.SPIIn)
		h.e.state.Peers[peer].Outbound = 0
	case "denies":
		send := &h.e.current(peer).Send
		m := &wire.Message{Exchange: wire.Informational, MessageID: send.NextID, Payloads: []wire.Payload{
			wire.Delete{Protocol: wire.ProtocolESP, SPIs: []uint32{p.child(p, h, what).SPIIn}}}}
		send.NextID++
		s := Send{Local: ipPort(h.addr), Remote: ipPort(p.other(h).addr), Data: sealedBy(p.t, h, m)}
		p.labels[string(s.Data)] = "DELETE"
		p.n.queue = append(p.n.queue, s)
	default:
		return errors.New("no such event")
	}
	return nil
}

// draw sets what the nonces of the next event begin with. The first request of
// hosts with unlike groups comes to nothing: its nonces must not count.
func (p *play) draw(receiver *host, answers, first bool) {
	for _, h := range p.n.hosts {
		nonce := strings.ToUpper(p.letter(h)) + ".Ni"
		if answers && h == receiver {
			nonce = strings.ToUpper(p.letter(p.other(h))) + ".Nr"
		}
		octet := byte(0xff)
		if (nonce == p.lowest) != (first && p.unlike) {
			octet = 0
		}
		h.cfg.Rand.(*leading).octet = octet
	}
}

// leading is a source of randomness whose nonces begin with a given octet.
type leading struct {
	source io.Reader
	octet  byte
}

func (l *leading) Read(b []byte) (int, error) {
	n, err := io.ReadFull(l.source, b)
	if len(b) == nonceLen {
		b[0] = l.octet
	}
	return n, err
}

// late gives a host the answer of its slow data plane.
func (p *play) late(h *host, verb string) error {
	if len(h.late) == 0 {
		return errors.New("the data plane was not asked")
	}
	ev := h.late[0]
	allocated, ok := ev.(SPIAllocated)
	switch {
	case verb == "fails" && ok:
		ev = SPIAllocated{Ref: allocated.Ref, Err: errors.New("no SPI")}
	case ok != (verb == "allocates"):
		return fmt.Errorf("the data plane was asked for %T", ev)
	}
	h.late = h.late[1:]
	p.n.step(h, ev)
	return nil
}

// message delivers or loses the oldest message with a label.
func (p *play) message(h *host, verb, label string) error {
	var underWay []string
	for i, s := range p.n.queue {
		to := p.n.at(s.Remote.Addr())
		if to == h && p.label(s) == label {
			p.n.queue = slices.Delete(p.n.queue, i, i+1)
			if verb == "gets" {
				p.n.deliver(s)
			}
			return nil
		}
		underWay = append(underWay, p.letter(to)+" gets "+p.label(s))
	}
	return fmt.Errorf("under way are: %s", strings.Join(underWay, ", "))
}

// label says what a message is, by what its sender reported of it.
func (p *play) label(s Send) string {
	if l := p.labels[string(s.Data)]; l != "" {
		return l
	}
	m, err := wire.Parse(s.Data)
	if err != nil {
		p.t.Fatal(err)
	}
	kind := map[bool]string{false: "request", true: "response"}[m.Response]
	var content string
	for _, a := range p.n.at(s.Local.Addr()).said {
		r, ok := a.(Report)
		if ok && r.SPIi == m.SPIi && r.SPIr == m.SPIr && r.MessageID == m.MessageID && strings.HasPrefix(r.Text, kind+" to") {
			_, content, _ = strings.Cut(r.Text, "[")
		}
	}
	l := kind
	switch refusal, refused := strings.CutPrefix(content, "N("); {
	case m.Response && refused:
		l = strings.TrimSuffix(refusal, ")]")
	case m.Exchange == wire.CreateChildSA:
	case !m.Response:
		l = "DELETE"
	case content == "]":
		l = "answer"
	default:
		l = "DELETE answer"
	}
	if name := p.of[spiPair(m.SPIi, m.SPIr)]; name != "old" {
		l += " on " + name
	}
	p.labels[string(s.Data)] = l
	return l
}

// pass lets time pass in which no message arrives.
func (p *play) pass(duration string) error {
	d, err := time.ParseDuration(duration)
	if err != nil {
		return err
	}
	arrives, held := p.n.drop, p.n.queue
	p.n.queue = nil
	p.n.drop = func(s Send) bool {
		held = append(held, s)
		return true
	}
	p.n.run(d)
	p.n.drop, p.n.queue = arrives, held
	return nil
}

// rest lets all messages arrive, and time pass until what waits for a lost one
// has given up. Packets have to pass then.
func (p *play) rest() error {
	for _, h := range p.n.hosts {
		h.slow = false
		for _, ev := range h.late {
			p.n.step(h, ev)
		}
		h.late = nil
	}
	p.n.run(70 * time.Second)
	return errors.Join(p.n.flows(p.a, p.b), p.n.flows(p.b, p.a))
}

func (p *play) lostOnce(h *host) error {
	times := 0
	for _, a := range h.said {
		if _, ok := a.(Lost); ok {
			times++
		}
	}
	if times != 1 {
		return fmt.Errorf("it lost its peer %d times", times)
	}
	return nil
}
