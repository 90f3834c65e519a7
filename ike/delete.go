package ike

import (
	"slices"
	"time"

	"ipsec-quick/ike/wire"
)

// deleteTask is an INFORMATIONAL exchange that deletes Child SAs, by our inbound
// SPIs, or the IKE SA (RFC 7296, Section 1.4.1).
type deleteTask struct {
	SPIs []uint32
	Out  []uint32 // the peer's SPIs, of those that we have not got any more
	IKE  bool
	Err  string // why, for the operator
}

func (*deleteTask) exchange() wire.ExchangeType { return wire.Informational }
func (*deleteTask) abort(*Endpoint, *ikeSA)     {}

func (t *deleteTask) request(e *Endpoint, sa *ikeSA) ([]wire.Payload, progress) {
	if t.IKE {
		return []wire.Payload{wire.Delete{Protocol: wire.ProtocolIKE}}, sending
	}
	if sa.State == deleting {
		return nil, finished // the Child SAs go with the IKE SA
	}
	return []wire.Payload{wire.Delete{Protocol: wire.ProtocolESP, SPIs: t.SPIs}}, sending
}

func (t *deleteTask) response(e *Endpoint, sa *ikeSA, _ payloads) progress {
	if t.IKE {
		e.bequeath(sa)
		e.gone(sa)
		return waiting
	}
	for _, spi := range t.SPIs {
		c := sa.Children[spi]
		if c == nil || c.State == childRetiring {
			continue
		}
		e.retire(c)
	}
	e.save(sa.Peer)
	return finished
}

// gone forgets an IKE SA whose end both sides know of.
func (e *Endpoint) gone(sa *ikeSA) {
	state, peer := sa.State, sa.Peer
	e.removeChildren(sa)
	for _, t := range sa.Send.tasks() {
		t.abort(e, sa)
	}
	e.drop(sa)
	e.save(peer)
	if ps := e.state.Peers[peer]; state == deleting && ps != nil && ps.Closed && len(e.state.ByPeer[peer]) == 0 {
		e.emit(Closed{peer})
	}
}

// deletingFor is how long a DELETE of an IKE SA waits for its answer.
const deletingFor = 3 * firstTimeout

// deleteIKE deletes an IKE SA with its Child SAs. From now on what they covered
// is dropped. Err is the reason, for who waits for the peer; nil: nobody does.
func (e *Endpoint) deleteIKE(sa *ikeSA, err error) {
	if sa.State == deleting {
		return
	}
	e.removeChildren(sa)
	sa.State, sa.SoftAt, sa.HardAt = deleting, time.Time{}, e.now.Add(deletingFor)
	sa.Send.Queue, sa.pending = nil, nil
	e.submit(sa, &deleteTask{IKE: true})
	if err != nil {
		e.lost(sa.Peer, sa, err, true)
	}
}

// close is Close: it deletes all IKE SAs with a peer.
func (e *Endpoint) close(peer string) {
	ps := e.state.Peers[peer]
	ps.Closed, ps.Wanted, ps.Resolving = true, false, time.Time{}
	for _, sa := range e.ofPeer(peer) {
		switch sa.State {
		case initSent, halfOpen, replaced:
			e.gone(sa)
		case deleting:
		default:
			e.deleteIKE(sa, nil)
		}
	}
	if len(e.state.ByPeer[peer]) == 0 {
		e.emit(Closed{peer})
	}
}

// respondInformational answers DELETE, a sign of life, and what else comes in an
// INFORMATIONAL request (RFC 7296, Section 1.4).
func (e *Endpoint) respondInformational(sa *ikeSA, ps payloads) {
	var answer []wire.Payload
	var ours []uint32
	for _, p := range ps {
		d, ok := p.(wire.Delete)
		switch {
		case !ok:
		case d.Protocol == wire.ProtocolIKE:
			e.respond(sa, wire.Informational)
			e.deletedByPeer(sa)
			return
		case d.Protocol == wire.ProtocolESP:
			e.preferred(sa)
			ours = append(ours, e.deletedChildren(sa, d.SPIs)...)
		}
	}
	if ps.notify(wire.NotifyAuthenticationFailed) != nil {
		e.respond(sa, wire.Informational)
		e.dismiss(sa, &PeerError{Exchange: wire.IKEAuth, Kind: wire.NotifyAuthenticationFailed})
		return
	}
	if len(ours) > 0 {
		answer = append(answer, wire.Delete{Protocol: wire.ProtocolESP, SPIs: ours})
	}
	e.respond(sa, wire.Informational, answer...)
}

// deletedChildren acts on the peer's DELETE of Child SAs and returns the SPIs of
// their other directions, which the answer names unless we deleted them too.
func (e *Endpoint) deletedChildren(sa *ikeSA, spis []uint32) []uint32 {
	var ours []uint32
	for _, spi := range spis {
		c := sa.byOutbound(spi)
		if t, ok := sa.Send.Active.(*childTask); ok && c == nil && sa.Send.Request != nil && len(t.Deleted) < maxDeleted {
			t.Deleted = append(t.Deleted, spi)
		}
		if c == nil || c.State == childRetiring {
			continue
		}
		if c.State == childDeleting {
			continue // both at once (RFC 7296, Section 2.25.1); our answer will come
		}
		ours = append(ours, c.SPIIn)
		next := sa.Children[c.ReplacedBy]
		switch {
		case next == nil && sa.replacing(c) != nil:
			// Our rekey of it is under way. Some peers delete it as soon as they
			// have answered, and their answer may come later than that.
			e.retire(c)
		case next != nil && next.State == childLive:
			if e.state.Peers[sa.Peer].Outbound == c.SPIIn {
				e.activate(sa, next)
				e.state.Peers[sa.Peer].Rekeys.Child++
				e.state.Peers[sa.Peer].Rekeys.Last = e.now
			}
			e.retire(c)
		case e.state.Peers[sa.Peer].Outbound != c.SPIIn:
			e.unreplace(sa, c)
			e.retire(c) // the loser of a collision
		default:
			e.report(sa, nil, "the peer deleted the Child SA %08x", c.SPIIn)
			ps := e.state.Peers[sa.Peer]
			ps.ChildRetryAt = e.now.Add(ps.evicted(e.now))
			e.part(sa, c)
		}
	}
	return ours
}

// closing reports whether our DELETE of a Child SA that we removed, by the
// peer's SPI, is under way.
func (sa *ikeSA) closing(spi uint32) bool {
	return slices.ContainsFunc(sa.Send.tasks(), func(t task) bool {
		d, ok := t.(*deleteTask)
		return ok && slices.Contains(d.Out, spi)
	})
}

// deletedByPeer acts on the peer's DELETE of the IKE SA.
func (e *Endpoint) deletedByPeer(sa *ikeSA) {
	if t, ok := sa.Send.Active.(*ikeTask); ok && t.rival(e) != nil {
		// Both rekeyed it, and the peer is done before it heard of ours.
		e.inherit(sa, t.rival(e))
		e.supersede(sa)
	}
	e.bequeath(sa)
	if sa.State == established {
		e.dismiss(sa, errPeerDeleted)
		return
	}
	e.gone(sa) // a replaced one, or one that both delete at once
}
