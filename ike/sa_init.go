package ike

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"ipsec-quick/ike/auth"
	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

const (
	nonceLen = 32
	// maxCookie bounds what we send back (RFC 7296, Section 2.6).
	maxCookie = 64
	// maxRestarts bounds how often COOKIE and INVALID_KE_PAYLOAD may send us
	// back to the start: once each, and once more for a cookie that expired.
	maxRestarts = 4
	// hintPatience is how long a better answer may take after an
	// unauthenticated refusal, which anybody could have sent.
	hintPatience = 2 * time.Second
)

// initTask is IKE_SA_INIT as the initiator (RFC 7296, Section 1.2). Its
// messages are in clear, so it is sent and received by functions of its own.
type initTask struct{}

func (*initTask) exchange() wire.ExchangeType { return wire.IKESAInit }
func (*initTask) abort(*Endpoint, *ikeSA)     {}

func (*initTask) request(*Endpoint, *ikeSA) ([]wire.Payload, progress) { return nil, waiting }

func (*initTask) response(*Endpoint, *ikeSA, payloads) progress { return finished }

// firstKE is the method that a KE payload is sent for when none is known to be
// better: the first of the first proposal.
func firstKE(proposals []suite.Proposal) wire.TransformID {
	for _, p := range proposals {
		for _, id := range p.KE() {
			if id != wire.KENone {
				return id
			}
		}
	}
	return wire.KENone
}

// sendInit sends IKE_SA_INIT, the first time or after COOKIE or
// INVALID_KE_PAYLOAD.
func (e *Endpoint) sendInit(sa *ikeSA) {
	p, h := e.peers[sa.Peer], sa.Init
	if h.KE == nil || h.KE.Group != h.Group {
		ke, err := suite.GenerateKE(h.Group, e.cfg.Rand)
		if err != nil {
			e.dismiss(sa, err)
			return
		}
		h.KE = ke
	}
	var ps []wire.Payload
	if h.Cookie != nil {
		ps = append(ps, wire.Notify{Kind: wire.NotifyCookie, Data: h.Cookie})
	}
	ps = append(ps,
		wire.SA{Proposals: offer(p.IKE, wire.ProtocolIKE, nil)},
		wire.KE{Group: h.Group, Data: h.KE.Public},
		wire.Nonce{Data: h.OurNonce})
	ps = append(ps, e.capabilities(sa, p.Encap)...)
	m := sa.message(wire.IKESAInit, 0, false, ps)
	h.OurMessage = m.AppendTo(nil)
	e.sendRequest(sa, m, [][]byte{h.OurMessage})
}

// offer numbers proposals for an SA payload.
func offer(proposals []suite.Proposal, protocol wire.ProtocolID, spi []byte) []wire.Proposal {
	list := make([]wire.Proposal, 0, len(proposals))
	for i, p := range proposals {
		list = append(list, p.Wire(uint8(i+1), protocol, spi))
	}
	return list
}

// capabilities are the notifications that both sides put into IKE_SA_INIT.
func (e *Endpoint) capabilities(sa *ikeSA, forceEncap bool) []wire.Payload {
	source := sa.Local
	if forceEncap {
		// A hash that cannot match makes the peer find a NAT (RFC 7296, Section 2.23).
		source = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	}
	var hashes []byte
	for _, h := range auth.Hashes {
		hashes = binary.BigEndian.AppendUint16(hashes, h)
	}
	return []wire.Payload{
		wire.Notify{Kind: wire.NotifyNATDetectionSourceIP, Data: natHash(sa.SPIi, sa.SPIr, source)},
		wire.Notify{Kind: wire.NotifyNATDetectionDestinationIP, Data: natHash(sa.SPIi, sa.SPIr, sa.Remote)},
		wire.Notify{Kind: wire.NotifyIKEv2FragmentationSupported},
		wire.Notify{Kind: wire.NotifySignatureHashAlgorithms, Data: hashes},
	}
}

// learn takes the peer's capabilities from IKE_SA_INIT.
func (sa *ikeSA) learn(ps payloads, forceEncap bool) {
	sa.Fragmentation = ps.notify(wire.NotifyIKEv2FragmentationSupported) != nil
	if n := ps.notify(wire.NotifySignatureHashAlgorithms); n != nil {
		for b := n.Data; len(b) >= 2; b = b[2:] {
			sa.PeerHashes = append(sa.PeerHashes, binary.BigEndian.Uint16(b))
		}
	}
	sa.detectNAT(ps)
	sa.Forced = forceEncap && ps.notify(wire.NotifyNATDetectionDestinationIP) != nil
}

// receiveInitResponse takes the answer to our IKE_SA_INIT.
func (e *Endpoint) receiveInitResponse(sa *ikeSA, d Datagram, m *wire.Message) {
	if sa.State != initSent || sa.Send.Request == nil || m.MessageID != 0 || sa.SPIi != m.SPIi || d.Remote.Addr() != sa.Remote.Addr() {
		e.stats.Unexpected++
		return
	}
	ps := payloads(m.Payloads)
	e.reportMessage(sa, m, "from", d.Remote)
	if err := ps.legal(m.Exchange, true); err != nil {
		e.stats.Malformed++
		return
	}
	switch {
	case ps.notify(wire.NotifyCookie) != nil:
		// The same cookie again is the answer to an older request.
		if c := ps.notify(wire.NotifyCookie).Data; len(c) <= maxCookie && !slices.Equal(c, sa.Init.Cookie) {
			sa.Init.Cookie = slices.Clone(c)
			e.restart(sa)
		}
	case ps.notify(wire.NotifyInvalidKEPayload) != nil:
		e.retryGroup(sa, ps.notify(wire.NotifyInvalidKEPayload))
	case ps.failure() != nil:
		e.hint(sa, &PeerError{Exchange: wire.IKESAInit, Kind: ps.failure().Kind, Detail: ours(e.peers[sa.Peer].IKE)})
	default:
		e.acceptInit(sa, d, m, ps)
	}
}

// restart sends IKE_SA_INIT again with what the responder asked for.
func (e *Endpoint) restart(sa *ikeSA) {
	if sa.Init.Restarts++; sa.Init.Restarts > maxRestarts {
		return // let the request time out: somebody plays with us
	}
	e.sendInit(sa)
}

// retryGroup answers INVALID_KE_PAYLOAD (RFC 7296, Section 1.2), if the group is
// one that we offered: no attacker can choose a weaker one.
func (e *Endpoint) retryGroup(sa *ikeSA, n *wire.Notify) {
	group, ok := keGroup(n)
	if !ok || !allowsKE(e.peers[sa.Peer].IKE, group) {
		e.hint(sa, &PeerError{Exchange: wire.IKESAInit, Kind: n.Kind, Detail: "it asks for " + group.Name(wire.TransformKE) + "; " + ours(e.peers[sa.Peer].IKE)})
		return
	}
	sa.Init.Group = group
	e.restart(sa)
}

// wantKE is the INVALID_KE_PAYLOAD that asks for a method.
func wantKE(id wire.TransformID) wire.Notify {
	return wire.Notify{Kind: wire.NotifyInvalidKEPayload, Data: binary.BigEndian.AppendUint16(nil, uint16(id))}
}

// keGroup is the method that INVALID_KE_PAYLOAD names.
func keGroup(n *wire.Notify) (wire.TransformID, bool) {
	if len(n.Data) != 2 {
		return 0, false
	}
	return wire.TransformID(binary.BigEndian.Uint16(n.Data)), true
}

func allowsKE(proposals []suite.Proposal, id wire.TransformID) bool {
	return id != wire.KENone && slices.ContainsFunc(proposals, func(p suite.Proposal) bool { return slices.Contains(p.KE(), id) })
}

// ours lists proposals for an error.
func ours(proposals []suite.Proposal) string {
	text := "we offer"
	for i, p := range proposals {
		if i > 0 {
			text += ","
		}
		text += " " + p.String()
	}
	return text
}

// hint remembers an unauthenticated refusal.
func (e *Endpoint) hint(sa *ikeSA, err *PeerError) {
	if sa.Init.Hint == nil {
		sa.Init.Hint, sa.Init.GiveUp = err, e.now.Add(hintPatience)
	}
}

// acceptInit takes the responder's choice and goes on to IKE_AUTH.
func (e *Endpoint) acceptInit(sa *ikeSA, d Datagram, m *wire.Message, ps payloads) {
	p, h := e.peers[sa.Peer], sa.Init
	answer, _ := ps.sa()
	ke, _ := ps.ke()
	choice, err := suite.Accept(answer, p.IKE, wire.ProtocolIKE, suite.Match{})
	if err == nil && (choice.KE.ID != h.Group || ke.Group != h.Group) {
		err = &suite.AnswerError{Answer: answer.Proposals, Offered: p.IKE, Problem: "and its key exchange disagree", Protocol: wire.ProtocolIKE}
	}
	var shared suite.Secret
	if err == nil {
		shared, err = h.KE.Shared(ke.Data)
	}
	if err != nil || m.SPIr == 0 {
		e.stats.Malformed++ // not authenticated: a better answer may come
		return
	}
	sa.SPIr, sa.Choice = m.SPIr, choice
	h.PeerNonce = slices.Clone(ps.nonce())
	h.PeerMessage = slices.Clone(d.Data)
	sa.Keys = suite.DeriveIKE(choice, h.OurNonce, h.PeerNonce, []suite.Secret{shared}, sa.SPIi, sa.SPIr)
	shared.Wipe()
	h.KE.Wipe()
	h.KE, h.Hint = nil, nil
	sa.LowestNonce = lowest(h.OurNonce, h.PeerNonce)
	sa.learn(ps, p.Encap)
	sa.LastHeard = e.now
	if sa.wantsUDP() {
		sa.float(e.cfg.NATPort)
	}
	sa.State = halfOpen
	sa.Send.Request, sa.Send.Active = nil, nil
	e.submit(sa, &authTask{})
}

// initKey is what tells two IKE_SA_INIT requests apart.
type initKey struct {
	spi    wire.SPI
	remote netip.AddrPort
}

// receiveInit answers an IKE_SA_INIT request. Known means that the loop of
// another tunnel, which passed it on, had its sender show a cookie. It returns
// false when nothing was kept.
func (e *Endpoint) receiveInit(d Datagram, h wire.Header, known bool) bool {
	if h.SPIr != 0 || h.SPIi == 0 || !h.Initiator || h.MessageID != 0 || len(d.Data) > maxInitRequest {
		e.stats.Malformed++
		return false
	}
	if sa := e.state.SAs[e.halfOpen[initKey{h.SPIi, d.Remote}]]; sa != nil {
		if slices.Equal(sa.Init.PeerMessage, d.Data) {
			e.stats.Replayed++
			e.transmit(sa, sa.Recv.Responses)
		}
		return false
	}
	// The order is that of the cost. Up to admit it is what a flood costs.
	shown, nonce, err := wire.PeekInit(d.Data)
	if err != nil {
		e.stats.Malformed++
		return false
	}
	known = known || e.showsCookie(d, h.SPIi, shown, nonce)
	if !e.admit(d, h.SPIi, nonce, known) {
		return false
	}
	m, err := wire.Parse(d.Data)
	if err != nil {
		e.stats.Malformed++
		return false
	}
	ps := payloads(m.Payloads)
	if err := ps.legal(m.Exchange, false); err != nil {
		e.stats.Malformed++
		e.replyInit(d, m.SPIi, syntaxNotify(err))
		return false
	}
	proposals, p := e.candidates(d.Remote.Addr())
	if p == nil {
		e.emit(Unclaimed{Claim{Datagram: d, Known: known}})
		return false
	}
	return e.answerInit(d, m, ps, proposals, p, known)
}

// candidates are the proposals of all peers that may speak from an address, and
// the one of them that fits it best. Which one it is IKE_AUTH tells.
func (e *Endpoint) candidates(a netip.Addr) (proposals []suite.Proposal, best *Peer) {
	for i := range e.cfg.Peers {
		p := &e.cfg.Peers[i]
		if !p.expectedFrom(a) || e.state.Peers[p.Name].Closed {
			continue
		}
		proposals = append(proposals, p.IKE...)
		if best == nil || len(best.Addresses) == 0 && len(p.Addresses) > 0 {
			best = p
		}
	}
	return proposals, best
}

// answerInit chooses a proposal, makes the half-open IKE SA and answers. Who has
// not shown a cookie gets no answer that is larger than the question: it would go
// to whoever's address that is. It returns false when nothing was kept.
func (e *Endpoint) answerInit(d Datagram, m *wire.Message, ps payloads, proposals []suite.Proposal, p *Peer, known bool) bool {
	offered, _ := ps.sa()
	theirs, _ := ps.ke()
	sa := &ikeSA{
		SPIi: m.SPIi, Local: d.Local, Remote: d.Remote, NATT: d.NATT,
		State: halfOpen, Created: e.now, LastHeard: e.now, Children: children{},
		Init: &handshake{From: d.Remote, PeerMessage: slices.Clone(d.Data), PeerNonce: slices.Clone(ps.nonce())},
	}
	choice, err := suite.Select(offered.Proposals, proposals, wire.ProtocolIKE, suite.Match{PreferKE: theirs.Group})
	if err != nil {
		e.emit(Report{Peer: p.Name, SPIi: m.SPIi, Exchange: m.Exchange, Text: "refused " + d.Remote.String(), Err: err, Stranger: true})
		e.replyInit(d, m.SPIi, wire.Notify{Kind: wire.NotifyNoProposalChosen})
		return false
	}
	if choice.KE.ID != theirs.Group {
		e.replyInit(d, m.SPIi, wantKE(choice.KE.ID))
		return false
	}
	sa.SPIr, sa.Choice = e.newSPI(), choice
	h := sa.Init
	h.OurNonce = e.random(nonceLen)
	sa.learn(ps, p.Encap)
	answer := append([]wire.Payload{
		wire.SA{Proposals: []wire.Proposal{choice.Wire(wire.ProtocolIKE, nil)}},
		theirs, // until ours is computed, which has the same length
		wire.Nonce{Data: h.OurNonce},
	}, e.capabilities(sa, p.Encap)...)
	reply := sa.message(wire.IKESAInit, 0, true, answer)
	if !known && len(reply.AppendTo(nil)) > len(d.Data) {
		e.askCookie(d, m.SPIi, h.PeerNonce)
		return false
	}
	ke, shared, err := agree(choice.KE.ID, theirs.Data, e.cfg.Rand)
	if err != nil {
		e.stats.Malformed++
		e.replyInit(d, m.SPIi, wire.Notify{Kind: wire.NotifyInvalidSyntax})
		return false
	}
	sa.Keys = suite.DeriveIKE(choice, h.PeerNonce, h.OurNonce, []suite.Secret{shared}, sa.SPIi, sa.SPIr)
	shared.Wipe()
	sa.LowestNonce = lowest(h.OurNonce, h.PeerNonce)
	answer[1] = wire.KE{Group: choice.KE.ID, Data: ke}
	h.OurMessage = reply.AppendTo(nil)
	e.add(sa)
	e.keepHalfOpen(sa)
	sa.Recv = incoming{ExpectID: 1, Responses: [][]byte{h.OurMessage}}
	e.reportMessage(sa, m, "from", d.Remote)
	e.transmit(sa, sa.Recv.Responses)
	e.reportMessage(sa, reply, "to", sa.Remote)
	return true
}

// replyInit answers an IKE_SA_INIT request without keeping anything. An answer
// larger than the request is none: its sender may be anybody.
func (e *Endpoint) replyInit(d Datagram, spi wire.SPI, n wire.Notify) {
	m := wire.Message{SPIi: spi, Exchange: wire.IKESAInit, Response: true, Payloads: []wire.Payload{n}}
	if reply := m.AppendTo(nil); len(reply) <= len(d.Data) {
		e.emit(Send{Local: d.Local, Remote: d.Remote, NATT: d.NATT, Data: reply})
	}
}
