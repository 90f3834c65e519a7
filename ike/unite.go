package ike

import (
	"slices"
	"time"

	"ipsec-quick/ike/wire"
)

// birth is how an IKE SA and those that its rekeys made came to be.
type birth struct {
	Original    bool // we began
	LowestNonce []byte
	Begun, Done time.Time // IKE_SA_INIT, and authenticated
}

// dropOthers forgets the IKE SAs that a peer had and says that it has not
// (INITIAL_CONTACT, RFC 7296, Section 2.4). It may not have known yet of one that
// was not done when this one began: that is settled by unite.
func (e *Endpoint) dropOthers(sa *ikeSA) {
	for _, other := range e.ofPeer(sa.Peer) {
		if other == sa || !other.authenticated() || !other.Birth.Done.Before(sa.Birth.Begun) {
			continue
		}
		e.report(other, errReplaced, "dropped")
		e.gone(other)
	}
}

// rivals are the IKE SA with a peer that stays and those that are ours to delete.
// Both ends choose alike, though they may not have the same ones: of those that
// one side began only its newest counts, it has given up the others. If both sides
// began, that with the lowest nonce goes, deleted by who began it, as in a rekey
// (RFC 7296, Section 2.8): which one is older looks different from the two ends.
func (e *Endpoint) rivals(peer string) (winner *ikeSA, losers []*ikeSA) {
	var list []*ikeSA
	var ours, theirs *ikeSA // the newest ones
	for _, sa := range e.state.ByPeer[peer] {
		if sa.State != established || sa.Init != nil {
			continue
		}
		list = append(list, sa)
		newest := &theirs
		if sa.Birth.Original {
			newest = &ours
		}
		if *newest == nil || (*newest).Birth.Begun.Before(sa.Birth.Begun) {
			*newest = sa
		}
	}
	winner = ours
	if ours == nil || theirs != nil && slices.Compare(ours.Birth.LowestNonce, theirs.Birth.LowestNonce) < 0 {
		winner = theirs
	}
	for _, sa := range list {
		if sa != winner && sa != theirs {
			losers = append(losers, sa)
		}
	}
	return winner, losers
}

// unite leaves one of the IKE SAs with a peer. Before others are deleted the one
// that stays has a Child SA, and the peer has to know: our answer that made it may
// still be on its way.
func (e *Endpoint) unite(peer string) {
	winner, losers := e.rivals(peer)
	switch {
	case len(losers) == 0:
	case !winner.carries():
		if !winner.makingChild() && !e.now.Before(e.state.Peers[peer].ChildRetryAt) {
			e.submit(winner, &childTask{})
		}
	case !e.ready(winner):
	case !slices.ContainsFunc(winner.Send.tasks(), func(t task) bool { _, ok := t.(*uniteTask); return ok }):
		e.submit(winner, &uniteTask{})
	}
}

// uniteAt is when unite has to be called although nothing happens; zero: never.
func (e *Endpoint) uniteAt(peer string) time.Time {
	winner, losers := e.rivals(peer)
	var d deadline
	switch {
	case len(losers) == 0 || winner.makingChild():
	case !winner.carries():
		d.at(e.state.Peers[peer].ChildRetryAt)
	case !e.ready(winner):
		for _, c := range winner.Children {
			if c.State == childLive {
				d.at(c.Created.Add(confirmedAfter))
			}
		}
	}
	return d.Time
}

// ready reports whether both ends have a Child SA of an IKE SA for packets.
func (e *Endpoint) ready(sa *ikeSA) bool {
	for _, c := range sa.Children {
		if c.State == childLive && !e.unconfirmed(sa, c) {
			return true
		}
	}
	return false
}

// carries reports whether an IKE SA has a Child SA for packets.
func (sa *ikeSA) carries() bool {
	for _, c := range sa.Children {
		if c.State == childLive {
			return true
		}
	}
	return false
}

// uniteTask asks the peer for a sign of life on the IKE SA that stays. The answer
// says that the peer has it, and those that lose against it can go.
type uniteTask struct{}

func (*uniteTask) exchange() wire.ExchangeType { return wire.Informational }
func (*uniteTask) abort(*Endpoint, *ikeSA)     {}

func (*uniteTask) request(*Endpoint, *ikeSA) ([]wire.Payload, progress) { return nil, sending }

func (*uniteTask) response(e *Endpoint, sa *ikeSA, _ payloads) progress {
	if winner, losers := e.rivals(sa.Peer); winner == sa && e.ready(sa) {
		for _, loser := range losers {
			e.withdraw(loser, winner)
		}
	}
	return finished
}

// withdraw deletes an IKE SA beside the one that stays. Our packets move at once,
// the peer's when it hears of it: until then the Child SAs stay.
func (e *Endpoint) withdraw(sa, winner *ikeSA) {
	e.report(sa, errReplaced, "deleted")
	ps := e.state.Peers[sa.Peer]
	for _, c := range winner.sorted() {
		if c.State == childLive && !e.unconfirmed(winner, c) && sa.Children[ps.Outbound] != nil {
			ps.Outbound = c.SPIIn
			e.emit(SwitchOutbound{c.ChildSA})
		}
	}
	for _, c := range sa.Children {
		if c.State != childRetiring {
			c.State = childDeleting
		}
	}
	sa.State, sa.SoftAt, sa.HardAt = deleting, time.Time{}, time.Time{}
	sa.Send.Queue, sa.pending = nil, nil
	e.submit(sa, &deleteTask{IKE: true})
}

// bequeath leaves the Child SAs of an IKE SA that was deleted to another one, for
// the packets that are under way. Without another one they are not touched.
func (e *Endpoint) bequeath(sa *ikeSA) {
	var heir *ikeSA
	for _, other := range e.ofPeer(sa.Peer) {
		if other != sa && other.State == established && (heir == nil || other.carries()) {
			heir = other
		}
	}
	if heir == nil {
		return
	}
	list := sa.sorted()
	for _, c := range list {
		if c.State != childRetiring {
			e.retire(c)
		}
	}
	for _, c := range list {
		e.release(sa, c)
		delete(sa.Children, c.SPIIn)
		heir.Children[c.SPIIn] = c
	}
}
