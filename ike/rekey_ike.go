package ike

import (
	"encoding/binary"
	"slices"
	"time"

	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

// ikeTask is CREATE_CHILD_SA for new keys of the IKE SA, as the initiator
// (RFC 7296, Sections 1.3.2 and 2.18). The Child SAs move to the new IKE SA; the
// initiator deletes the old one.
type ikeTask struct {
	SPI   wire.SPI // our SPI of the new IKE SA
	Group wire.TransformID
	KE    *suite.PrivateKE
	Nonce []byte
	Tries int
	// Rival is the lowest nonce of the peer's own rekey that came while ours was
	// under way, RivalSPI our SPI of what it made (RFC 7296, Section 2.8.2).
	Rival    []byte
	RivalSPI wire.SPI
}

// contestedFor bounds how long it is open whether what the peer's rekey made
// stays: our own was answered by then, or the peer was given up.
const contestedFor = 3 * time.Minute

func (*ikeTask) exchange() wire.ExchangeType { return wire.CreateChildSA }

func (t *ikeTask) abort(e *Endpoint, _ *ikeSA) {
	if t.KE != nil {
		t.KE.Wipe()
	}
	// Nobody is left to decide for what the peer's rekey made.
	if rival := e.state.SAs[t.RivalSPI]; rival != nil && rival.State == contested {
		e.deleteIKE(rival, nil)
	}
}

func (t *ikeTask) request(e *Endpoint, sa *ikeSA) ([]wire.Payload, progress) {
	p := e.peers[sa.Peer]
	if sa.State != established {
		return nil, finished // the peer was faster
	}
	if t.SPI == 0 {
		t.SPI = e.newSPI()
	}
	if t.Group == 0 {
		t.Group = sa.Choice.KE.ID // the peer accepted it before
		if !allowsKE(p.IKE, t.Group) {
			t.Group = firstKE(p.IKE)
		}
	}
	ke, err := suite.GenerateKE(t.Group, e.cfg.Rand)
	if err != nil {
		e.report(sa, err, "rekey of the IKE SA")
		return nil, finished
	}
	t.KE, t.Nonce = ke, e.random(nonceLen)
	spi := binary.BigEndian.AppendUint64(nil, uint64(t.SPI))
	return []wire.Payload{
		wire.SA{Proposals: offer(p.IKE, wire.ProtocolIKE, spi)},
		wire.Nonce{Data: t.Nonce},
		wire.KE{Group: t.Group, Data: ke.Public},
	}, sending
}

func (t *ikeTask) response(e *Endpoint, sa *ikeSA, ps payloads) progress {
	p, ke := e.peers[sa.Peer], t.KE
	defer ke.Wipe() // not that of a second request
	if n := ps.failure(); n != nil {
		return t.refused(e, sa, n)
	}
	answer, _ := ps.sa()
	theirs, _ := ps.ke()
	choice, err := suite.Accept(answer, p.IKE, wire.ProtocolIKE, suite.Match{})
	if err == nil && (len(choice.SPI) != 8 || theirs.Group != t.Group || choice.KE.ID != t.Group) {
		err = errSyntax
	}
	var shared suite.Secret
	if err == nil {
		shared, err = ke.Shared(theirs.Data)
	}
	if err != nil {
		return t.failed(e, sa, err)
	}
	nr := slices.Clone(ps.nonce())
	next := e.heir(sa, true, t.SPI, wire.SPI(binary.BigEndian.Uint64(choice.SPI)), choice)
	next.Keys = suite.RekeyIKE(choice, sa.Choice.PRF.ID, sa.Keys.D, t.Nonce, nr, []suite.Secret{shared}, next.SPIi, next.SPIr)
	shared.Wipe()
	next.LowestNonce = lowest(t.Nonce, nr)
	e.add(next)
	if sa.State == deleting {
		// Close came first, or the peer has another IKE SA that stays.
		e.deleteIKE(next, nil)
		t.abort(e, sa)
		return finished
	}
	rival := t.rival(e)
	if t.Rival != nil && rival != nil && (sa.State != established || slices.Compare(next.LowestNonce, t.Rival) < 0) {
		// Ours has the lowest nonce and loses, or the peer uses its own already: we
		// delete ours, the peer the old one.
		e.inherit(sa, rival)
		e.deleteIKE(next, nil)
		e.supersede(sa)
		return finished
	}
	if rival != nil {
		e.supersede(rival) // the peer deletes it
	}
	e.inherit(sa, next)
	e.supersede(sa)
	e.save(sa.Peer)
	e.submitFirst(sa, &deleteTask{IKE: true})
	return finished
}

// rival is what the peer's own rekey made; nil: nothing, or we delete it already.
func (t *ikeTask) rival(e *Endpoint) *ikeSA {
	if sa := e.state.SAs[t.RivalSPI]; sa != nil && sa.State != deleting {
		return sa
	}
	return nil
}

// refused acts on an error of the peer.
func (t *ikeTask) refused(e *Endpoint, sa *ikeSA, n *wire.Notify) progress {
	if group, ok := keGroup(n); ok && n.Kind == wire.NotifyInvalidKEPayload && t.Tries == 0 && t.RivalSPI == 0 && allowsKE(e.peers[sa.Peer].IKE, group) {
		t.Tries++
		t.Group = group
		e.begin(sa)
		return waiting
	}
	return t.failed(e, sa, &PeerError{Exchange: wire.CreateChildSA, Kind: n.Kind})
}

// failed leaves the peer's rekey as the only one, if there is one.
func (t *ikeTask) failed(e *Endpoint, sa *ikeSA, err error) progress {
	if rival := t.rival(e); rival != nil && sa.State == established {
		e.inherit(sa, rival)
		e.supersede(sa)
		return finished
	}
	t.abort(e, sa)
	if sa.State == established {
		t.retryLater(e, sa, err)
	}
	return finished
}

// retryLater leaves the IKE SA as it is and asks again soon.
func (t *ikeTask) retryLater(e *Endpoint, sa *ikeSA, err error) {
	e.report(sa, err, "rekey of the IKE SA")
	e.state.Peers[sa.Peer].Rekeys.Failed++
	sa.SoftAt = e.now.Add(retryTemporary + time.Duration(e.fraction()*float64(retryTemporary)))
}

// respondRekeyIKE answers a request for new keys of the IKE SA.
func (e *Endpoint) respondRekeyIKE(sa *ikeSA, ps payloads) {
	ours, rivals := sa.Send.Active.(*ikeTask)
	rivals = rivals && sa.Send.Request != nil
	if !rivals && !sa.idle() || sa.halfDone() || len(e.state.ByPeer[sa.Peer]) >= maxIKESAs {
		e.refuseChild(sa, wire.NotifyTemporaryFailure) // RFC 7296, Section 2.25.2
		return
	}
	p := e.peers[sa.Peer]
	offered, _ := ps.sa()
	theirs, _ := ps.ke()
	choice, err := suite.Select(offered.Proposals, p.IKE, wire.ProtocolIKE, suite.Match{PreferKE: theirs.Group})
	if err != nil {
		e.report(sa, err, "refused to rekey the IKE SA")
		e.refuseChild(sa, wire.NotifyNoProposalChosen)
		return
	}
	if choice.KE.ID != theirs.Group {
		e.respond(sa, wire.CreateChildSA, wantKE(choice.KE.ID))
		return
	}
	public, shared, err := agree(choice.KE.ID, theirs.Data, e.cfg.Rand)
	if err != nil || len(choice.SPI) != 8 {
		e.refuseChild(sa, wire.NotifyInvalidSyntax)
		return
	}
	ni, nr := slices.Clone(ps.nonce()), e.random(nonceLen)
	next := e.heir(sa, false, wire.SPI(binary.BigEndian.Uint64(choice.SPI)), e.newSPI(), choice)
	next.Keys = suite.RekeyIKE(choice, sa.Choice.PRF.ID, sa.Keys.D, ni, nr, []suite.Secret{shared}, next.SPIi, next.SPIr)
	shared.Wipe()
	next.LowestNonce = lowest(ni, nr)
	e.add(next)
	if rivals {
		// Which one stays is decided when the answer to ours comes.
		ours.Rival, ours.RivalSPI = next.LowestNonce, next.local()
		next.State, next.HardAt = contested, e.now.Add(contestedFor)
	} else {
		e.inherit(sa, next)
		e.supersede(sa)
	}
	e.respond(sa, wire.CreateChildSA,
		wire.SA{Proposals: []wire.Proposal{choice.Wire(wire.ProtocolIKE, binary.BigEndian.AppendUint64(nil, uint64(next.SPIr)))}},
		wire.Nonce{Data: nr},
		wire.KE{Group: choice.KE.ID, Data: public})
}

// halfDone reports whether a Child SA is about to be deleted.
func (sa *ikeSA) halfDone() bool {
	for _, c := range sa.Children {
		if c.State == childInstalling || c.State == childDeleting {
			return true
		}
	}
	return false
}

// heir is a new IKE SA between the same ends (RFC 7296, Section 2.18). Its
// original initiator is who asked for the rekey.
func (e *Endpoint) heir(sa *ikeSA, original bool, spii, spir wire.SPI, choice suite.Choice) *ikeSA {
	return &ikeSA{
		Peer: sa.Peer, Original: original, SPIi: spii, SPIr: spir,
		Local: sa.Local, Remote: sa.Remote, NATT: sa.NATT, NATHere: sa.NATHere, NATThere: sa.NATThere, Forced: sa.Forced,
		State: established, Choice: choice, Fragmentation: sa.Fragmentation, PeerHashes: sa.PeerHashes,
		Birth: sa.Birth, Settings: sa.Settings, Children: children{}, Created: e.now, LastHeard: e.now, LastSent: e.now,
	}
}

// inherit moves the Child SAs, and what was to be done about them, to the new
// IKE SA.
func (e *Endpoint) inherit(sa, next *ikeSA) {
	if sa.State != replaced {
		e.state.Peers[sa.Peer].Rekeys.IKE++
		e.state.Peers[sa.Peer].Rekeys.Last = e.now
	}
	next.State = established
	e.startLifetime(next)
	for spi, c := range sa.Children {
		c.AnswerID = 0
		next.Children[spi] = c
	}
	sa.Children = children{}
	queue := sa.Send.Queue
	sa.Send.Queue = nil
	for _, t := range queue {
		switch t := t.(type) {
		case *ikeTask:
			t.abort(e, sa)
		default:
			e.submit(next, t)
		}
	}
}

// rekeyingIKE reports whether our own rekey of the IKE SA is under way.
func (e *Endpoint) rekeyingIKE(sa *ikeSA) bool {
	_, ok := sa.Send.Active.(*ikeTask)
	return ok && sa.Send.Request != nil
}

// rekeyIKE is RekeyIKE, and what the soft lifetime of an IKE SA asks for.
func (e *Endpoint) rekeyIKE(peer string) {
	if sa := e.current(peer); sa != nil && !e.rekeyQueued(sa) {
		e.submit(sa, &ikeTask{})
	}
}

func (e *Endpoint) rekeyQueued(sa *ikeSA) bool {
	return slices.ContainsFunc(sa.Send.tasks(), func(t task) bool { _, ok := t.(*ikeTask); return ok })
}

// supersede marks an IKE SA that another one took the place of. Whoever has to
// delete it gets a minute.
func (e *Endpoint) supersede(sa *ikeSA) {
	sa.State, sa.SoftAt, sa.HardAt = replaced, time.Time{}, e.now.Add(time.Minute)
}

// preferred settles a collision of two rekeys of the IKE SA that is undecided
// here: the peer uses sa, which its own rekey made, so it is what stays.
func (e *Endpoint) preferred(sa *ikeSA) {
	for _, old := range e.ofPeer(sa.Peer) {
		if t, ok := old.Send.Active.(*ikeTask); ok && t.RivalSPI == sa.local() && old.State == established {
			e.inherit(old, sa)
			e.supersede(old)
		}
	}
}
