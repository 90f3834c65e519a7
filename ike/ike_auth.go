package ike

import (
	"fmt"
	"slices"

	"ipsec-quick/ike/auth"
	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

// authTask is IKE_AUTH as the initiator, with the first Child SA (RFC 7296,
// Section 1.2).
type authTask struct{ ChildRequest }

func (*authTask) exchange() wire.ExchangeType { return wire.IKEAuth }
func (*authTask) abort(*Endpoint, *ikeSA)     {}

func (t *authTask) request(e *Endpoint, sa *ikeSA) ([]wire.Payload, progress) {
	p, h := e.peers[sa.Peer], sa.Init
	if !t.allocate(e, sa) {
		return nil, waiting
	}
	id := p.localID(sa)
	octets := auth.SignedOctets(h.OurMessage, h.PeerNonce, sa.Choice.PRF.ID, sa.Keys.Pi, id)
	proof, err := p.Local.Sign(sa.Choice.PRF.ID, octets, sa.PeerHashes, e.cfg.Rand)
	if err != nil {
		e.dismiss(sa, err)
		return nil, waiting
	}
	ps := []wire.Payload{id}
	if p.RemoteID != nil {
		ps = append(ps, wire.ID{Responder: true, Kind: p.RemoteID.Kind, Data: p.RemoteID.Data})
	}
	ps = append(ps, proof)
	if !e.hasOther(sa) {
		ps = append(ps, wire.Notify{Kind: wire.NotifyInitialContact})
	}
	return append(ps, t.offer(e, sa, p.espOffer(true))...), sending
}

func (t *authTask) response(e *Endpoint, sa *ikeSA, ps payloads) progress {
	p := e.peers[sa.Peer]
	if ps.failed(wire.IKEAuth) {
		e.dismiss(sa, &PeerError{Exchange: wire.IKEAuth, Kind: ps.failure().Kind})
		return waiting
	}
	id, _ := ps.id(true)
	proof, _ := ps.auth()
	err := p.matches(sa, id)
	if err == nil {
		err = p.verify(sa, id, proof)
	}
	if err != nil {
		e.disown(sa, err)
		return waiting
	}
	h := sa.Init
	e.establish(sa)
	e.endHandshake(sa)
	_, child := ps.sa()
	switch n := ps.failure(); {
	case n != nil:
		e.childFailed(sa, &PeerError{Exchange: wire.IKEAuth, Kind: n.Kind, Detail: t.detail(p, n.Kind)})
		return finished
	case !child:
		e.childFailed(sa, errNoChild)
		return finished
	}
	return t.accept(e, sa, ps, suite.Match{IgnoreKE: true}, h.OurNonce, h.PeerNonce, nil)
}

// detail is what we asked for and did not get.
func (t *authTask) detail(p *Peer, kind wire.NotifyType) string {
	if kind == wire.NotifyTSUnacceptable {
		return "we asked for " + selectorText(t.LocalTS) + " === " + selectorText(t.RemoteTS)
	}
	return ours(p.espOffer(true))
}

// allocated goes on when the SPI is there.
func (t *authTask) allocated(e *Endpoint, sa *ikeSA, spi uint32, err error) {
	if err != nil {
		e.dismiss(sa, &LocalError{err})
		return
	}
	t.SPI = spi
	e.begin(sa)
}

func (t *authTask) installed(e *Endpoint, sa *ikeSA, err error) {
	c := sa.Children[t.SPI]
	switch {
	case c == nil || c.State != childInstalling:
		// It was removed meanwhile: by Close, or by a DELETE of the peer.
	case err != nil:
		e.discard(sa, c)
		e.submitFirst(sa, &deleteTask{SPIs: []uint32{t.SPI}})
		e.childFailed(sa, &LocalError{err})
	default:
		e.activate(sa, c)
	}
	e.finish(sa)
}

// localID is how we name ourselves to a peer.
func (p *Peer) localID(sa *ikeSA) wire.ID {
	if p.LocalID != nil {
		return wire.ID{Responder: !sa.Original, Kind: p.LocalID.Kind, Data: p.LocalID.Data}
	}
	id := addressID(sa.Local.Addr())
	id.Responder = !sa.Original
	return id
}

// matches compares the peer's name with the configured one.
func (p *Peer) matches(sa *ikeSA, id wire.ID) error {
	want := addressID(sa.Remote.Addr())
	if p.RemoteID != nil {
		want = *p.RemoteID
	}
	if id.Kind == want.Kind && slices.Equal(id.Data, want.Data) {
		return nil
	}
	return &IdentityError{What: "identity", Err: fmt.Errorf("it is %s, and id for peer %q says %s", idText(id), p.Name, idText(want))}
}

// verify checks the peer's AUTH payload (RFC 7296, Section 2.15).
func (p *Peer) verify(sa *ikeSA, id wire.ID, proof wire.Auth) error {
	skp := sa.Keys.Pr
	if !sa.Original {
		skp = sa.Keys.Pi
	}
	octets := auth.SignedOctets(sa.Init.PeerMessage, sa.Init.OurNonce, sa.Choice.PRF.ID, skp, id)
	if err := p.Remote.Verify(sa.Choice.PRF.ID, octets, proof); err != nil {
		return &IdentityError{What: "authentication", Err: err}
	}
	return nil
}

// disown tells the responder that its proof is not accepted, and drops the IKE
// SA (RFC 7296, Section 2.21.2).
func (e *Endpoint) disown(sa *ikeSA, err error) {
	m := sa.message(wire.Informational, sa.Send.NextID, false, []wire.Payload{wire.Notify{Kind: wire.NotifyAuthenticationFailed}})
	if datagrams, sealErr := e.sealed(sa, m); sealErr == nil {
		e.transmit(sa, datagrams)
	}
	e.dismiss(sa, err)
}

// respondAuth is IKE_AUTH as the responder.
func (e *Endpoint) respondAuth(sa *ikeSA, d Datagram, ps payloads) {
	sa.Local, sa.Remote, sa.NATT = d.Local, d.Remote, d.NATT
	p, fallback, err := e.identify(sa, ps)
	if p != nil {
		e.acceptAuth(sa, ps, p)
		return
	}
	// The request may be for another tunnel of this host, which knows the peer.
	claim, encodeErr := sa.encode()
	if encodeErr != nil {
		e.refuseAuth(sa, encodeErr)
		return
	}
	sa.pending = &pending{claimed: func(adopted bool) {
		switch {
		case adopted:
			e.drop(sa)
		case fallback != nil:
			e.acceptAuth(sa, ps, fallback)
		default:
			e.refuseAuth(sa, err)
		}
	}}
	e.emit(Unclaimed{Claim{Datagram: d, SPI: sa.local(), SA: claim, First: wire.FirstType(ps), Request: wire.AppendPayloads(nil, ps)}})
}

// acceptAuth goes on with IKE_AUTH for a peer whose proof is good.
func (e *Endpoint) acceptAuth(sa *ikeSA, ps payloads, p *Peer) {
	if !e.mayExchange(p.Name) {
		return // the peer sends it again
	}
	e.assign(sa, p.Name)
	sa.Settings = p.IKESettings
	id := p.localID(sa)
	octets := auth.SignedOctets(sa.Init.OurMessage, sa.Init.PeerNonce, sa.Choice.PRF.ID, sa.Keys.Pr, id)
	proof, err := p.Local.Sign(sa.Choice.PRF.ID, octets, sa.PeerHashes, e.cfg.Rand)
	if err != nil {
		e.refuseAuth(sa, err)
		return
	}
	e.establish(sa)
	if ps.notify(wire.NotifyInitialContact) != nil {
		e.dropOthers(sa)
	}
	e.limitIKE(sa)
	e.createInAuth(sa, ps, sa.Init.PeerNonce, sa.Init.OurNonce, []wire.Payload{id, proof})
}

// refuseAuth answers IKE_AUTH with AUTHENTICATION_FAILED and forgets the IKE SA.
// It says nothing more: who is not authenticated learns nothing.
func (e *Endpoint) refuseAuth(sa *ikeSA, err error) {
	e.respond(sa, wire.IKEAuth, wire.Notify{Kind: wire.NotifyAuthenticationFailed})
	e.report(sa, err, "refused %s", sa.Remote)
	e.removeChildren(sa)
	e.drop(sa)
	e.save(sa.Peer)
}

// identify finds the peer that an IKE_AUTH request is from: by its identity and
// its proof, by the identity that it expects of us, and among those that are
// left by the selectors. Without one there may be a fallback whose selectors do
// not fit; the error says why there is neither.
func (e *Endpoint) identify(sa *ikeSA, ps payloads) (p, fallback *Peer, err error) {
	id, _ := ps.id(false)
	proof, ok := ps.auth()
	if !ok {
		return nil, nil, &IdentityError{What: "authentication", Err: errEAP}
	}
	err = &IdentityError{What: "identity", Err: fmt.Errorf("no peer is %s", idText(id))}
	for i := range e.cfg.Peers {
		p := &e.cfg.Peers[i]
		if e.state.Peers[p.Name].Closed || !p.expectedFrom(sa.Remote.Addr()) || !p.allows(sa.Choice) || p.matches(sa, id) != nil {
			continue
		}
		mismatch := p.expected(sa, ps)
		if mismatch == nil {
			mismatch = p.verify(sa, id, proof)
		}
		switch {
		case mismatch != nil:
			err = mismatch
		case p.wants(sa, ps):
			return p, nil, nil
		default:
			fallback = p
		}
	}
	return nil, fallback, err
}

// expected checks that the peer wants to talk to us and not to somebody else.
func (p *Peer) expected(sa *ikeSA, ps payloads) error {
	wanted, ok := ps.id(true)
	our := p.localID(sa)
	if !ok || wanted.Kind == our.Kind && slices.Equal(wanted.Data, our.Data) {
		return nil
	}
	return &IdentityError{What: "expectation", Err: fmt.Errorf("it wants to talk to %s, and we are %s", idText(wanted), idText(our))}
}

// allows reports whether our proposals for a peer allow what was chosen before
// the peer was known.
func (p *Peer) allows(c suite.Choice) bool {
	return slices.ContainsFunc(p.IKE, func(own suite.Proposal) bool { return covers(own, c) })
}

// covers reports whether a proposal of ours allows a choice that was made before
// the peer was known.
func covers(own suite.Proposal, c suite.Choice) bool {
	for _, t := range []wire.Transform{c.Encr, c.Integ, c.PRF, c.KE} {
		if t.Type != 0 && !slices.Contains(own.Transforms, t) {
			return false
		}
	}
	return true
}
