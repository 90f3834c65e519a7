package ike

import (
	"bytes"
	"cmp"
	"encoding/gob"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

// childState is how far a Child SA is.
type childState uint8

const (
	childInstalling childState = iota // the data plane was asked to install it
	childLive                         // it carries packets, or can
	childDeleting                     // we sent its DELETE, or it waits to be sent
	childRetiring                     // deleted; its inbound SA takes what is under way
)

// retention is how long the SAs stay when a Child SA was replaced.
const retention = 5 * time.Second

// child is a Child SA and what we have to do about it.
type child struct {
	ChildSA
	State      childState
	Rekeying   bool   // a task of ours to replace it waits or runs
	ReplacedBy uint32 // the peer made this one in its place; we switch at its DELETE
	// AnswerID is the Message ID of the peer's request that made it, plus 1. The
	// peer may not have our answer before its next request comes. One that IKE_AUTH
	// made needs none: before our answer the peer takes nothing on that IKE SA.
	AnswerID    uint32
	LowestNonce []byte
	Settings    Settings  // that it was negotiated by
	SoftAt      time.Time // our timer behind the data plane's soft limit of time
	RetireAt    time.Time
}

// children are the Child SAs of an IKE SA, by our inbound SPI.
type children map[uint32]*child

// GobEncode writes a list: the decoder of a map allocates what the count of its
// entries asks for before it has seen one.
func (cs children) GobEncode() ([]byte, error) {
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(slices.SortedFunc(maps.Values(cs), func(a, b *child) int { return cmp.Compare(a.SPIIn, b.SPIIn) }))
	return b.Bytes(), err
}

// GobDecode is the other end of GobEncode.
func (cs *children) GobDecode(b []byte) error {
	var list []*child
	if err := gob.NewDecoder(bytes.NewReader(b)).Decode(&list); err != nil {
		return err
	}
	*cs = children{}
	for _, c := range list {
		if (*cs)[c.SPIIn] != nil {
			return fmt.Errorf("two Child SAs with SPI %08x", c.SPIIn)
		}
		(*cs)[c.SPIIn] = c
	}
	return nil
}

// sorted are the Child SAs in the order in which they were made.
func (sa *ikeSA) sorted() []*child {
	return slices.SortedFunc(maps.Values(sa.Children), func(a, b *child) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return int(int64(a.SPIIn) - int64(b.SPIIn))
	})
}

// unconfirmed reports whether the peer may not know of a Child SA that we made at
// its request, because our answer is still on its way.
func (e *Endpoint) unconfirmed(sa *ikeSA, c *child) bool {
	return c.AnswerID != 0 && c.AnswerID == sa.Recv.ExpectID && e.now.Before(c.Created.Add(confirmedAfter))
}

// confirmedAfter is when a peer that makes no request has our answer all the same,
// or gave up.
const confirmedAfter = time.Minute

// byOutbound finds the Child SA by the SPI that the peer knows it by.
func (sa *ikeSA) byOutbound(spi uint32) *child {
	for _, c := range sa.Children {
		if c.SPIOut == spi {
			return c
		}
	}
	return nil
}

// childByID finds a Child SA by either direction.
func (e *Endpoint) childByID(id ChildID) (*ikeSA, *child) {
	for _, sa := range e.state.SAs {
		for _, c := range sa.Children {
			if c.InID() == id || c.OutID() == id {
				return sa, c
			}
		}
	}
	return nil, nil
}

// newChild is a Child SA of what was agreed on. It is the initiator's when our
// request made it.
func (e *Endpoint) newChild(sa *ikeSA, n negotiated, initiator bool) *child {
	e.limitRetiring(sa)
	p := e.peers[sa.Peer]
	keys := suite.DeriveChild(sa.Choice.PRF.ID, sa.Keys.D, n.choice, n.ni, n.nr, n.shared)
	for _, s := range n.shared {
		s.Wipe()
	}
	in, out := DirectionKeys{keys.Er, keys.Ar}, DirectionKeys{keys.Ei, keys.Ai}
	if !initiator {
		in, out = out, in
	}
	jitter := e.fraction() * p.Jitter
	c := &child{
		ChildSA: ChildSA{
			Peer: sa.Peer, SPIIn: n.spiIn, SPIOut: n.spiOut, Choice: n.choice, In: in, Out: out,
			Local: sa.Local, Remote: sa.Remote, Encap: sa.encap(), Transport: n.transport,
			LocalTS: n.localTS, RemoteTS: n.remoteTS,
			Soft: p.Soft.earlier(jitter), Hard: p.Hard, Created: e.now,
		},
		LowestNonce: lowest(n.ni, n.nr),
		Settings:    n.settings,
	}
	if c.Soft.Time > 0 {
		// The data plane's event comes first; ours comes if that one got lost.
		c.SoftAt = e.now.Add(c.Soft.Time + backstop(c.Soft.Time, c.Hard.Time))
	}
	if !c.Settings.fits(p.ChildSettings) {
		c.SoftAt = e.now.Add(retryTemporary) // they changed meanwhile
	}
	sa.Children[c.SPIIn] = c
	return c
}

// backstop is how long after the soft limit our own timer stands: time enough
// for the data plane's event, early enough to rekey before the hard limit.
func backstop(soft, hard time.Duration) time.Duration {
	wait := 2 * time.Second
	if hard > soft {
		wait = min(wait, (hard-soft)/4)
	}
	return wait
}

// earlier draws limits earlier by a part of themselves. The data plane counts
// whole seconds; none becomes zero, which would be no limit.
func (l Limits) earlier(part float64) Limits {
	cut := func(n uint64) uint64 {
		if n == 0 {
			return 0
		}
		return max(1, n-uint64(float64(n)*part))
	}
	seconds := func(d time.Duration) time.Duration {
		return time.Duration(cut(uint64(d/time.Second))) * time.Second
	}
	return Limits{Time: seconds(l.Time), Use: seconds(l.Use), Bytes: cut(l.Bytes), Packets: cut(l.Packets)}
}

// activate makes an installed Child SA the one that carries our packets.
func (e *Endpoint) activate(sa *ikeSA, c *child) {
	c.State = childLive
	ps := e.state.Peers[sa.Peer]
	ps.Outbound = c.SPIIn
	e.save(sa.Peer)
	e.emit(SwitchOutbound{c.ChildSA})
	ps.ChildFailures, ps.Failures, ps.LastError = 0, 0, ""
	if !ps.Up {
		ps.Up = true
		e.emit(Established{sa.Peer})
	}
}

// discard forgets a Child SA that could not be installed.
func (e *Endpoint) discard(sa *ikeSA, c *child) {
	if c == nil {
		return
	}
	delete(sa.Children, c.SPIIn)
	c.wipe()
}

// removeChild takes a Child SA out of the data plane at once.
func (e *Endpoint) removeChild(sa *ikeSA, c *child) {
	e.release(sa, c)
	e.unreplace(sa, c)
	e.emit(RemoveChild{c.ChildSA.withoutKeys()})
	e.discard(sa, c)
}

// removeChildren removes all Child SAs of an IKE SA.
func (e *Endpoint) removeChildren(sa *ikeSA) {
	list := sa.sorted()
	for _, c := range list {
		c.State = childRetiring // our packets are not led from one to the next
	}
	for _, c := range list {
		e.removeChild(sa, c)
	}
}

// retire leaves a Child SA in place for what is under way. Our packets were
// switched to another one before. The outbound SA stays as well: the kernel drops
// a packet whose SA goes between choosing it and encrypting with it.
func (e *Endpoint) retire(c *child) {
	c.State = childRetiring
	c.RetireAt = e.now.Add(retention)
}

// part is retire for a Child SA that may carry our packets: they are switched to
// another one first. If there is none they are dropped, and it goes at once.
func (e *Endpoint) part(sa *ikeSA, c *child) {
	if e.carrier(sa.Peer, c) == nil {
		e.removeChild(sa, c)
		return
	}
	e.release(sa, c)
	e.unreplace(sa, c)
	e.retire(c)
}

// unreplace frees the Child SA that one was to replace which goes instead: it can
// be rekeyed again.
func (e *Endpoint) unreplace(sa *ikeSA, gone *child) {
	// One that is retiring was used, or was freed when it was deleted.
	if t, ok := sa.Send.Active.(*childTask); ok && t.RivalSPI == gone.SPIIn && gone.State != childRetiring {
		t.Rival, t.RivalSPI = nil, 0
	}
	for _, c := range sa.Children {
		if c.ReplacedBy == gone.SPIIn {
			c.ReplacedBy = 0
			c.SoftAt = e.now.Add(retryTemporary)
		}
	}
}

// release finds another Child SA for our packets when the one that carried them
// is gone, best one that the peer knows of, or takes its policies away: from then
// on the guard drops them.
func (e *Endpoint) release(sa *ikeSA, gone *child) {
	ps := e.state.Peers[sa.Peer]
	if ps == nil || ps.Outbound != gone.SPIIn {
		return
	}
	if c := e.carrier(sa.Peer, gone); c != nil {
		ps.Outbound = c.SPIIn
		e.emit(SwitchOutbound{c.ChildSA})
		return
	}
	ps.Outbound = 0
	e.emit(RemovePolicies{gone.ChildSA.withoutKeys()})
}

// carrier is the Child SA that packets to a peer are best led to, other than one
// that goes: one that the peer knows of. It is nil if there is none.
func (e *Endpoint) carrier(peer string, gone *child) *child {
	var known, unknown []*child
	for _, sa := range e.state.ByPeer[peer] {
		for _, c := range sa.sorted() {
			switch {
			case c == gone || c.State != childLive:
			case e.unconfirmed(sa, c):
				unknown = append(unknown, c)
			default:
				known = append(known, c)
			}
		}
	}
	if list := append(known, unknown...); len(list) > 0 {
		return list[0]
	}
	return nil
}

func (c *child) wipe() {
	for _, k := range []DirectionKeys{c.In, c.Out} {
		k.Encr.Wipe()
		k.Integ.Wipe()
	}
}

// withoutKeys is for actions and prints that need none.
func (c ChildSA) withoutKeys() ChildSA {
	c.In, c.Out = DirectionKeys{}, DirectionKeys{}
	return c
}

// negotiated is what an exchange agreed on about a Child SA.
type negotiated struct {
	choice            suite.Choice
	spiIn, spiOut     uint32
	transport         bool
	localTS, remoteTS []wire.Selector
	settings          Settings // that were offered or answered by
	// The addresses that the peer believes the two ends to have: those of its
	// selectors in transport mode, which a NAT may have made wrong.
	offeredRemote, offeredLocal netip.Addr
	ni, nr                      []byte
	shared                      []suite.Secret
}
