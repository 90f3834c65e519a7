package ike

import (
	"encoding/binary"
	"slices"
	"time"

	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

// childTask is CREATE_CHILD_SA for a Child SA as the initiator: a new one, or
// one that replaces Old (RFC 7296, Sections 1.3.1 and 1.3.3).
//
// A rekey loses no packet because of its order. Initiator: new inbound SA, new
// outbound SA, our packets switched to it, DELETE; the old SAs stay some seconds
// more for what is under way. Responder: new SAs before the answer leaves, our
// packets stay on the old SA until the peer's DELETE.
type childTask struct {
	ChildRequest
	Old   uint32 // our inbound SPI of the one to replace; 0: none
	Group wire.TransformID
	KE    *suite.PrivateKE
	Nonce []byte
	NoKE  bool // the peer takes neither our KE nor the choice of NONE
	Tries int
	// Unsure: when we asked, the peer might not have known of Old yet.
	Unsure bool
	// Rival is the lowest nonce of the peer's own rekey of Old that came while
	// ours was under way (RFC 7296, Section 2.8.1), and what it made.
	Rival    []byte
	RivalSPI uint32
	// Deleted are SPIs of the peer that we don't know, and that it deleted while
	// its answer was on its way: the SA that the answer makes may be among them.
	Deleted []uint32
}

// maxDeleted bounds Deleted. One answer makes one SA.
const maxDeleted = 16

// retryTemporary bounds the wait after TEMPORARY_FAILURE.
const retryTemporary = 2 * time.Second

func (*childTask) exchange() wire.ExchangeType { return wire.CreateChildSA }

func (t *childTask) abort(e *Endpoint, sa *ikeSA) {
	if t.KE != nil {
		t.KE.Wipe()
	}
	if c := sa.Children[t.Old]; c != nil {
		c.Rekeying = false
		if c.State == childRetiring {
			e.release(sa, c) // it waited for what we would make
		}
	}
}

func (t *childTask) request(e *Endpoint, sa *ikeSA) ([]wire.Payload, progress) {
	p := e.peers[sa.Peer]
	old := sa.Children[t.Old]
	if t.Old != 0 && (old == nil || old.State != childLive || old.ReplacedBy != 0) {
		t.abort(e, sa)
		return nil, finished // the peer was faster
	}
	if sa.State != established || t.Old == 0 && sa.carries() {
		t.abort(e, sa)
		return nil, finished
	}
	if !t.allocate(e, sa) {
		return nil, waiting
	}
	var ps []wire.Payload
	if old != nil {
		ps = append(ps, wire.Notify{Kind: wire.NotifyRekeySA, Protocol: wire.ProtocolESP, SPI: binary.BigEndian.AppendUint32(nil, old.SPIIn)})
		t.Unsure = e.unconfirmed(sa, old)
		if sa.pending != nil && sa.pending.old == old {
			t.Rival = sa.pending.lowest
		}
		t.LocalTS, t.RemoteTS, t.Transport = old.LocalTS, old.RemoteTS, old.Transport
	}
	proposals := p.espOffer(false)
	switch {
	case t.NoKE:
		t.Group = wire.KENone
		for i, own := range proposals {
			proposals[i] = own.WithKE()
		}
	case t.Group == wire.KENone:
		t.Group = t.group(proposals, old)
	}
	t.Nonce = e.random(nonceLen)
	ps = append(ps, t.offer(e, sa, proposals)...)
	ps = append(ps, wire.Nonce{Data: t.Nonce})
	if t.Group != wire.KENone {
		ke, err := suite.GenerateKE(t.Group, e.cfg.Rand)
		if err != nil {
			e.childFailed(sa, err)
			return nil, finished
		}
		t.KE = ke
		ps = append(ps, wire.KE{Group: t.Group, Data: ke.Public})
	}
	return ps, sending
}

// group is the method to send a KE payload for: the one that worked last time.
func (t *childTask) group(proposals []suite.Proposal, old *child) wire.TransformID {
	if old != nil && old.Choice.KE.ID != 0 && allowsKE(proposals, old.Choice.KE.ID) {
		return old.Choice.KE.ID
	}
	return firstKE(proposals)
}

func (t *childTask) response(e *Endpoint, sa *ikeSA, ps payloads) progress {
	p, old := e.peers[sa.Peer], sa.Children[t.Old]
	if sa.State != established {
		t.abort(e, sa)
		return finished // what it made goes with the IKE SA
	}
	if n := ps.failure(); n != nil {
		return t.refused(e, sa, old, n)
	}
	var shared []suite.Secret
	match := suite.Match{PFSOptional: p.PFS == PFSAuto}
	theirs, hasKE := ps.ke()
	switch {
	case hasKE && t.KE != nil && theirs.Group == t.Group:
		secret, err := t.KE.Shared(theirs.Data)
		if err != nil {
			return t.failed(e, sa, err)
		}
		shared = []suite.Secret{secret}
	case hasKE:
		return t.failed(e, sa, errSyntax)
	}
	answer, _ := ps.sa()
	if hasKE != choseKE(answer) {
		return t.failed(e, sa, errSyntax)
	}
	if len(answer.Proposals) == 1 && slices.ContainsFunc(t.Deleted, func(spi uint32) bool {
		return slices.Equal(answer.Proposals[0].SPI, binary.BigEndian.AppendUint32(nil, spi))
	}) {
		t.abort(e, sa)
		e.rekeyLater(sa, old)
		e.childFailed(sa, errChildDeleted)
		return finished
	}
	if t.KE != nil {
		t.KE.Wipe()
		t.KE = nil
	}
	pr := t.accept(e, sa, ps, match, t.Nonce, slices.Clone(ps.nonce()), shared)
	if pr == finished {
		t.abort(e, sa)
		e.rekeyLater(sa, old)
	}
	return pr
}

// choseKE reports whether an answer names a key exchange.
func choseKE(answer wire.SA) bool {
	for _, p := range answer.Proposals {
		for _, t := range p.Transforms {
			if t.Type == wire.TransformKE && t.ID != wire.KENone {
				return true
			}
		}
	}
	return false
}

// failed ends the task with an error that is not the peer's NOTIFY.
func (t *childTask) failed(e *Endpoint, sa *ikeSA, err error) progress {
	t.abort(e, sa)
	e.submitFirst(sa, &deleteTask{SPIs: []uint32{t.SPI}})
	e.rekeyLater(sa, sa.Children[t.Old])
	e.childFailed(sa, err)
	return finished
}

// rekeyLater tries a rekey that failed again before the hard limit.
func (e *Endpoint) rekeyLater(sa *ikeSA, old *child) {
	if old != nil {
		e.state.Peers[sa.Peer].Rekeys.Failed++
		old.SoftAt = e.now.Add(5 * retryTemporary)
	}
}

// refused acts on an error of the peer (RFC 7296, Section 2.25).
func (t *childTask) refused(e *Endpoint, sa *ikeSA, old *child, n *wire.Notify) progress {
	p := e.peers[sa.Peer]
	if t.KE != nil {
		t.KE.Wipe()
		t.KE = nil
	}
	if group, ok := keGroup(n); ok && n.Kind == wire.NotifyInvalidKEPayload && t.Tries == 0 && allowsKE(p.espOffer(false), group) {
		t.Tries++
		t.Group = group
		e.begin(sa)
		return waiting
	}
	if n.Kind == wire.NotifyNoProposalChosen && p.PFS == PFSAuto && t.Group != wire.KENone && t.Tries < 2 {
		// Some peers cannot choose NONE: ask without a key exchange at all.
		t.Tries = 2
		t.NoKE = true
		e.begin(sa)
		return waiting
	}
	t.abort(e, sa)
	err := &PeerError{Exchange: wire.CreateChildSA, Kind: n.Kind}
	switch {
	case n.Kind == wire.NotifyTemporaryFailure,
		n.Kind == wire.NotifyChildSANotFound && t.Unsure:
		if old != nil && old.ReplacedBy == 0 {
			old.SoftAt = e.now.Add(retryTemporary + time.Duration(e.fraction()*float64(retryTemporary)))
		} else if old == nil {
			e.childFailed(sa, err)
		}
	case n.Kind == wire.NotifyChildSANotFound && old != nil:
		// The peer lost it, or deletes it right now. Make it anew.
		if old.ReplacedBy == 0 {
			e.part(sa, old)
		}
	case n.Kind == wire.NotifyNoAdditionalSAs && old != nil:
		// The peer allows one Child SA only: a new IKE SA makes a new one.
		e.report(sa, err, "rekey by a new IKE SA")
		e.deleteIKE(sa, err)
	default:
		e.rekeyLater(sa, old)
		e.childFailed(sa, err)
	}
	return finished
}

func (t *childTask) allocated(e *Endpoint, sa *ikeSA, spi uint32, err error) {
	if err != nil {
		t.abort(e, sa)
		e.rekeyLater(sa, sa.Children[t.Old])
		e.childFailed(sa, &LocalError{err})
		e.finish(sa)
		return
	}
	t.SPI = spi
	e.begin(sa)
	if sa.Send.Active == nil {
		e.pump(sa)
	}
}

// installed finishes the rekey: the new Child SA is in place.
func (t *childTask) installed(e *Endpoint, sa *ikeSA, err error) {
	c, old := sa.Children[t.SPI], sa.Children[t.Old]
	switch {
	case c == nil || c.State != childInstalling:
		// It was removed meanwhile: by Close, or by a DELETE of the peer.
	case err != nil:
		e.discard(sa, c)
		e.submitFirst(sa, &deleteTask{SPIs: []uint32{t.SPI}})
		e.rekeyLater(sa, old)
		e.childFailed(sa, &LocalError{err})
	case t.Rival != nil && slices.Compare(c.LowestNonce, t.Rival) < 0:
		// Ours has the lowest nonce: it loses, and who made it deletes it. The
		// peer deletes the old one.
		c.State = childDeleting
		e.submitFirst(sa, &deleteTask{SPIs: []uint32{c.SPIIn}})
	default:
		if t.Old == 0 {
			e.state.Peers[sa.Peer].MadeAt = e.now
		}
		e.replace(sa, old, c)
	}
	t.abort(e, sa)
	e.finish(sa)
}

// replace switches our packets to a new Child SA and deletes the old one.
func (e *Endpoint) replace(sa *ikeSA, old, c *child) {
	e.activate(sa, c)
	if old == nil || old.State == childRetiring {
		return
	}
	e.state.Peers[sa.Peer].Rekeys.Child++
	e.state.Peers[sa.Peer].Rekeys.Last = e.now
	old.State = childDeleting
	e.submitFirst(sa, &deleteTask{SPIs: []uint32{old.SPIIn}})
}

// respondRekeyChild answers a request to rekey a Child SA.
func (e *Endpoint) respondRekeyChild(sa *ikeSA, ps payloads, n *wire.Notify) {
	var old *child
	if len(n.SPI) == 4 {
		old = sa.byOutbound(binary.BigEndian.Uint32(n.SPI))
	}
	switch {
	case old == nil && len(n.SPI) == 4 && sa.closing(binary.BigEndian.Uint32(n.SPI)):
		e.refuseChild(sa, wire.NotifyTemporaryFailure) // RFC 7296, Section 2.25.1
	case old == nil || old.State == childRetiring:
		e.respond(sa, wire.CreateChildSA, wire.Notify{Kind: wire.NotifyChildSANotFound, Protocol: wire.ProtocolESP, SPI: n.SPI})
	case old.State != childLive || old.ReplacedBy != 0:
		e.refuseChild(sa, wire.NotifyTemporaryFailure)
	default:
		e.createInCreateChild(sa, ps, old)
	}
}

// replacing is our own rekey of a Child SA that the peer was asked for, or nil.
func (sa *ikeSA) replacing(old *child) *childTask {
	if t, ok := sa.Send.Active.(*childTask); ok && old != nil && t.Old == old.SPIIn && t.Nonce != nil {
		return t
	}
	return nil
}

// rekeyChild starts to rekey one Child SA, unless that is under way.
func (e *Endpoint) rekeyChild(sa *ikeSA, c *child) {
	if c.State != childLive || c.Rekeying || c.ReplacedBy != 0 || sa.State != established {
		return
	}
	c.Rekeying = true
	e.submit(sa, &childTask{Old: c.SPIIn})
}

// rekeyChildren is RekeyChild.
func (e *Endpoint) rekeyChildren(peer string) {
	if sa := e.current(peer); sa != nil {
		for _, c := range sa.sorted() {
			e.rekeyChild(sa, c)
		}
	}
}
