package ike

import (
	"encoding/binary"
	"slices"
	"time"

	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

// respondCreateChild answers a CREATE_CHILD_SA request: a new Child SA, or new
// keys for one or for the IKE SA (RFC 7296, Section 1.3).
func (e *Endpoint) respondCreateChild(sa *ikeSA, ps payloads) {
	proposals, _ := ps.sa()
	rekey := ps.notify(wire.NotifyRekeySA)
	_, child := ps.ts(false)
	switch {
	case sa.State != established || !e.mayExchange(sa.Peer):
		e.refuseChild(sa, wire.NotifyTemporaryFailure)
	case len(proposals.Proposals) > 0 && proposals.Proposals[0].Protocol == wire.ProtocolIKE:
		e.respondRekeyIKE(sa, ps)
	case !child:
		e.refuseChild(sa, wire.NotifyInvalidSyntax)
	case e.rekeyingIKE(sa):
		e.refuseChild(sa, wire.NotifyTemporaryFailure) // RFC 7296, Section 2.25.2
	case rekey != nil:
		e.respondRekeyChild(sa, ps, rekey)
	case sa.Original && e.madeOwn(sa):
		// Both began at once: one Child SA is enough, the original initiator's.
		e.refuseChild(sa, wire.NotifyTemporaryFailure)
	default:
		e.createInCreateChild(sa, ps, nil)
	}
}

// madeOwn reports whether a request of ours makes a Child SA that replaces none,
// or did so while one of the peer could still be on its way.
func (e *Endpoint) madeOwn(sa *ikeSA) bool {
	t, ok := sa.Send.Active.(*childTask)
	return ok && t.Old == 0 && t.SPI != 0 || sa.carries() && e.now.Before(e.state.Peers[sa.Peer].MadeAt.Add(time.Minute))
}

func (e *Endpoint) refuseChild(sa *ikeSA, kind wire.NotifyType) {
	e.respond(sa, wire.CreateChildSA, wire.Notify{Kind: kind})
}

// createInCreateChild makes a Child SA as the responder, with the nonces and the
// key exchange of CREATE_CHILD_SA. Old is the one that it replaces, if any.
func (e *Endpoint) createInCreateChild(sa *ikeSA, ps payloads, old *child) {
	if e.childrenFull(sa.Peer) {
		e.refuseChild(sa, wire.NotifyNoAdditionalSAs)
		return
	}
	p := e.peers[sa.Peer]
	theirs, hasKE := ps.ke()
	match := suite.Match{PFSOptional: p.PFS == PFSAuto, PreferKE: theirs.Group}
	nr := e.random(nonceLen)
	answer := []wire.Payload{wire.Nonce{Data: nr}}
	n, refusal := e.negotiate(sa, ps, match)
	if refusal == nil && n.choice.KE.Type != 0 {
		if !hasKE || theirs.Group != n.choice.KE.ID {
			want := wantKE(n.choice.KE.ID)
			refusal = &want
		} else if public, shared, err := agree(n.choice.KE.ID, theirs.Data, e.cfg.Rand); err != nil {
			refusal = &wire.Notify{Kind: wire.NotifyInvalidSyntax}
		} else {
			n.shared = []suite.Secret{shared}
			answer = append(answer, wire.KE{Group: n.choice.KE.ID, Data: public})
		}
	}
	if refusal != nil {
		e.respond(sa, wire.CreateChildSA, *refusal)
		return
	}
	n.ni, n.nr = slices.Clone(ps.nonce()), nr
	e.install(sa, n, wire.CreateChildSA, answer, old)
}

// createInAuth makes the Child SA of an IKE_AUTH request, or tells with the
// answer why there is none: the IKE SA stands all the same.
func (e *Endpoint) createInAuth(sa *ikeSA, ps payloads, ni, nr []byte, answer []wire.Payload) {
	if _, ok := ps.sa(); !ok {
		e.respond(sa, wire.IKEAuth, answer...) // childless (RFC 6023)
		e.endHandshake(sa)
		return
	}
	n, refusal := e.negotiate(sa, ps, suite.Match{IgnoreKE: true})
	if refusal != nil {
		e.respond(sa, wire.IKEAuth, append(answer, *refusal)...)
		e.endHandshake(sa)
		return
	}
	n.ni, n.nr = ni, nr
	e.install(sa, n, wire.IKEAuth, answer, nil)
}

// negotiate chooses a proposal and narrows the selectors of a request.
func (e *Endpoint) negotiate(sa *ikeSA, ps payloads, match suite.Match) (negotiated, *wire.Notify) {
	p := e.peers[sa.Peer]
	n := negotiated{transport: p.Transport && ps.notify(wire.NotifyUseTransportMode) != nil, settings: p.ChildSettings}
	offered, _ := ps.sa()
	proposals := p.ESP
	if p.PFS == PFSNo {
		proposals = p.espOffer(true)
		match.IgnoreKE = true
	}
	var err error
	if n.choice, err = suite.Select(offered.Proposals, proposals, wire.ProtocolESP, match); err != nil {
		e.report(sa, err, "refused a Child SA")
		return n, &wire.Notify{Kind: wire.NotifyNoProposalChosen}
	}
	if len(n.choice.SPI) != 4 || binary.BigEndian.Uint32(n.choice.SPI) < minSPI {
		return n, &wire.Notify{Kind: wire.NotifyInvalidSyntax}
	}
	n.spiOut = binary.BigEndian.Uint32(n.choice.SPI)
	if p.Transport && !n.transport {
		e.report(sa, errMode, "refused a Child SA")
		return n, &wire.Notify{Kind: wire.NotifyNoProposalChosen}
	}
	n.remoteTS, n.localTS = p.narrowed(sa, ps)
	theirs, _ := ps.ts(false)
	ours, _ := ps.ts(true)
	if len(n.remoteTS) == 0 || len(n.localTS) == 0 {
		e.report(sa, &PeerError{Exchange: wire.CreateChildSA, Kind: wire.NotifyTSUnacceptable, Detail: "it asked for " + selectorText(theirs) + " === " + selectorText(ours)}, "refused a Child SA")
		return n, &wire.Notify{Kind: wire.NotifyTSUnacceptable}
	}
	n.offeredRemote, n.offeredLocal = theirs[0].From, ours[0].From
	return n, nil
}

// narrowed are the selectors of a request within our configuration: the peer's
// side and ours.
func (p *Peer) narrowed(sa *ikeSA, ps payloads) (remote, local []wire.Selector) {
	theirs, _ := ps.ts(false)
	ours, _ := ps.ts(true)
	if p.Transport && sa.NATThere {
		theirs = substitute(theirs, sa.Remote.Addr())
	}
	if p.Transport && sa.NATHere {
		ours = substitute(ours, sa.Local.Addr())
	}
	return narrow(theirs, selectors(p.RemoteTS, sa.Remote.Addr())), narrow(ours, selectors(p.LocalTS, sa.Local.Addr()))
}

// wants reports whether the selectors of a request have anything in common with
// those of a peer.
func (p *Peer) wants(sa *ikeSA, ps payloads) bool {
	if _, ok := ps.ts(false); !ok {
		return true
	}
	remote, local := p.narrowed(sa, ps)
	return len(remote) > 0 && len(local) > 0
}

// install gets an SPI, installs the Child SA of a request, and answers when it
// is there: before, the initiator's first packet would find nothing.
func (e *Endpoint) install(sa *ikeSA, n negotiated, exchange wire.ExchangeType, answer []wire.Payload, old *child) {
	ps := &pending{old: old, lowest: lowest(n.ni, n.nr)}
	if t := sa.replacing(old); t != nil {
		t.Rival = ps.lowest // ours may end before this one is installed
	}
	sa.pending = ps
	fail := func(err error) {
		sa.pending = nil
		e.report(sa, &LocalError{err}, "refused a Child SA")
		if exchange == wire.IKEAuth {
			e.respond(sa, exchange, append(answer, wire.Notify{Kind: wire.NotifyNoAdditionalSAs})...)
			e.endHandshake(sa)
		} else {
			if t := sa.replacing(old); t != nil {
				t.Rival = nil
			}
			e.refuseChild(sa, wire.NotifyTemporaryFailure) // what is there to be rekeyed stays
		}
	}
	ps.allocated = func(spi uint32, err error) {
		if err != nil {
			fail(err)
			return
		}
		n.spiIn = spi
		c := e.newChild(sa, n, false)
		ref := e.ref(sa)
		ps.ref = ref.N
		e.save(sa.Peer)
		e.emit(InstallChild{Ref: ref, Child: c.ChildSA})
	}
	ps.installed = func(err error) {
		c := sa.Children[n.spiIn]
		if err != nil || c == nil {
			e.discard(sa, c)
			fail(err)
			return
		}
		sa.pending = nil
		e.answerChild(sa, c, n, exchange, answer, old)
	}
	ref := e.ref(sa)
	ps.ref = ref.N
	e.emit(AllocSPI{Ref: ref, Peer: sa.Peer, Local: sa.Local.Addr(), Remote: sa.Remote.Addr(), Transport: n.transport})
}

// answerChild sends the answer for a Child SA that is installed.
func (e *Endpoint) answerChild(sa *ikeSA, c *child, n negotiated, exchange wire.ExchangeType, answer []wire.Payload, old *child) {
	c.State = childLive
	if exchange == wire.CreateChildSA {
		c.AnswerID = sa.Recv.ExpectID + 1
	}
	remote, local := n.remoteTS, n.localTS
	if n.transport && sa.NATThere {
		remote = substitute(remote, n.offeredRemote)
	}
	if n.transport && sa.NATHere {
		local = substitute(local, n.offeredLocal)
	}
	all := []wire.Payload{wire.SA{Proposals: []wire.Proposal{n.choice.Wire(wire.ProtocolESP, binary.BigEndian.AppendUint32(nil, c.SPIIn))}}}
	if n.transport {
		all = append(all, wire.Notify{Kind: wire.NotifyUseTransportMode})
	}
	all = append(all, wire.TS{Selectors: remote}, wire.TS{Responder: true, Selectors: local})
	if old != nil {
		old.ReplacedBy = c.SPIIn
		if t := sa.replacing(old); t != nil {
			t.RivalSPI = c.SPIIn
		}
	}
	// The first Child SA must have its policies before the initiator can send.
	// One that replaces another takes over when that is deleted.
	fresh := e.state.Peers[sa.Peer].Outbound == 0
	if fresh {
		e.activate(sa, c)
	}
	e.respond(sa, exchange, append(answer, all...)...)
	e.endHandshake(sa)
	// Packets that leave on another IKE SA's Child SA do so until it goes: the peer
	// may not have this one before our answer is there.
	if old == nil && !fresh && sa.Children[e.state.Peers[sa.Peer].Outbound] != nil {
		e.activate(sa, c)
	}
}
