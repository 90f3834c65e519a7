package ike

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"ipsec-quick/ike/wire"
)

func init() {
	for _, t := range []task{&authTask{}, &childTask{}, &ikeTask{}, &deleteTask{}, &dpdTask{}} {
		gob.Register(t)
	}
}

// Snapshot is all that has to survive a restart, keys among it: it belongs into
// a file that only its owner can read, on no disk.
func (e *Endpoint) Snapshot() ([]byte, error) {
	s := state{SAs: map[wire.SPI]*ikeSA{}, Peers: e.state.Peers, NextRef: e.state.NextRef}
	for spi, sa := range e.state.SAs {
		if sa.authenticated() {
			s.SAs[spi] = sa
		}
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(&s); err != nil {
		return nil, fmt.Errorf("encode the state: %w", err)
	}
	return b.Bytes(), nil
}

// Restore returns the endpoint that a snapshot was taken of. Peers that the
// configuration does not have any more are forgotten with their IKE SAs.
// [Recovered] must be its first event.
func Restore(cfg Config, snapshot []byte) (*Endpoint, error) {
	e := New(cfg)
	var s state
	if err := gob.NewDecoder(bytes.NewReader(snapshot)).Decode(&s); err != nil {
		return nil, fmt.Errorf("decode the state: %w", err)
	}
	for name, ps := range s.Peers {
		if ps != nil && e.peers[name] != nil {
			ps.Failures, ps.ChildFailures = max(0, ps.Failures), max(0, ps.ChildFailures)
			e.state.Peers[name] = ps
		}
	}
	e.state.NextRef = s.NextRef
	for spi, sa := range s.SAs {
		if sa == nil || spi == 0 || sa.local() != spi {
			return nil, errors.New("decode the state: an IKE SA does not fit its SPI")
		}
		if err := sa.check(); err != nil {
			return nil, err
		}
		if e.peers[sa.Peer] == nil || !sa.authenticated() {
			continue
		}
		if sa.Children == nil {
			sa.Children = map[uint32]*child{}
		}
		e.state.SAs[spi] = sa
	}
	return e, nil
}

// check refuses an IKE SA that a state file cannot hold.
func (sa *ikeSA) check() error {
	bad := !sa.authenticated() && sa.Init == nil || sa.State > contested ||
		(sa.Send.Request != nil) && sa.Send.Active == nil
	for spi, c := range sa.Children {
		bad = bad || c == nil || c.SPIIn != spi || !c.Local.IsValid() || !c.Remote.IsValid()
	}
	for _, t := range sa.Send.Queue {
		_, handshake := t.(*authTask)
		bad = bad || t == nil || handshake
	}
	if sa.Send.Request != nil {
		switch t := sa.Send.Active.(type) {
		case *authTask:
			bad = true // a handshake is not kept
		case *ikeTask:
			bad = bad || t.KE == nil
		default:
		}
	}
	if bad || !sa.Local.IsValid() || !sa.Remote.IsValid() {
		return errors.New("decode the state: an IKE SA contradicts itself")
	}
	return nil
}

// recovered goes on after a restart: what was being made when the process ended
// is undone or begun again, what the data plane lost is made anew, and requests
// that wait for an answer are sent again as they were.
func (e *Endpoint) recovered(present map[ChildID]bool) {
	for _, ps := range e.state.Peers {
		ps.Resolving = time.Time{}
	}
	for _, sa := range e.state.SAs {
		for _, c := range sa.Children {
			if c.State == childLive && (!present[c.InID()] || !present[c.OutID()]) {
				// Sequence numbers were used that nobody remembers: it can't be
				// installed again, a new one is made.
				c.State = childInstalling
				e.state.Peers[sa.Peer].Expires.Hard++
			}
		}
	}
	// Packets are led to SAs that stay before any others go.
	for _, ps := range e.state.Peers {
		if c := e.byInbound(ps.Outbound); c != nil && c.State == childLive {
			e.emit(SwitchOutbound{c.ChildSA})
		}
	}
	for _, spi := range slices.Sorted(maps.Keys(e.state.SAs)) {
		sa := e.state.SAs[spi]
		if sa.Init != nil {
			// Our answer to its IKE_AUTH is lost with what it waited for.
			for _, c := range sa.sorted() {
				e.removeChild(sa, c)
			}
			e.drop(sa)
			continue
		}
		for _, c := range sa.sorted() {
			e.recoverChild(sa, c, present)
		}
		e.recoverTask(sa)
	}
	for _, ps := range e.state.Peers {
		if c := e.byInbound(ps.Outbound); c == nil {
			ps.Outbound, ps.Up = 0, false
		}
	}
	e.save()
}

// recoverTask sends the request that waits for its response again. A task that
// waited for the data plane begins again; IKE_AUTH is over by then, and its Child
// SA is made by an exchange of its own.
func (e *Endpoint) recoverTask(sa *ikeSA) {
	t := sa.Send.Active
	switch {
	case sa.Send.Request != nil:
		sa.Send.Request.At = e.now
		return
	case t == nil:
		e.pump(sa)
		return
	}
	sa.Send.Active = nil
	switch t := t.(type) {
	case *authTask:
		e.pump(sa)
	case *childTask:
		*t = childTask{Old: t.Old}
		e.submitFirst(sa, t)
	default:
		e.submitFirst(sa, t)
	}
}

// recoverChild compares one Child SA with what the data plane has.
func (e *Endpoint) recoverChild(sa *ikeSA, c *child, present map[ChildID]bool) {
	in := present[c.InID()]
	switch c.State {
	case childLive:
	case childRetiring, childDeleting:
		if !in {
			e.removeChild(sa, c)
		}
	case childInstalling:
		// Whether the peer has it may not be known: it goes on both sides.
		e.removeChild(sa, c)
		e.submit(sa, &deleteTask{SPIs: []uint32{c.SPIIn}})
	}
}

// byInbound finds a Child SA by our inbound SPI.
func (e *Endpoint) byInbound(spi uint32) *child {
	for _, sa := range e.state.SAs {
		if c := sa.Children[spi]; c != nil && spi != 0 {
			return c
		}
	}
	return nil
}

// encode is a half-open IKE SA for another tunnel of this host.
func (sa *ikeSA) encode() ([]byte, error) {
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(sa)
	return b.Bytes(), err
}

// decodeClaim is the other end of encode.
func decodeClaim(c Claim) (*ikeSA, error) {
	sa := new(ikeSA)
	if err := gob.NewDecoder(bytes.NewReader(c.SA)).Decode(sa); err != nil {
		return nil, err
	}
	if err := sa.check(); err != nil {
		return nil, err
	}
	if sa.State != halfOpen || sa.Original || len(sa.Children) > 0 {
		return nil, errSyntax
	}
	sa.Children = map[uint32]*child{}
	return sa, nil
}

// Accepts reports whether a negotiation that began at another tunnel of this
// host is for one of our peers.
func (e *Endpoint) Accepts(c Claim) bool {
	if len(c.SA) == 0 {
		_, p := e.candidates(c.Datagram.Remote.Addr())
		return p != nil
	}
	_, _, p := e.openClaim(c)
	return p != nil
}

// openClaim decodes a half-open IKE SA with its IKE_AUTH request, and finds the
// peer that they are from.
func (e *Endpoint) openClaim(c Claim) (*ikeSA, payloads, *Peer) {
	sa, err := decodeClaim(c)
	if err != nil || e.state.SAs[sa.local()] != nil {
		return nil, nil, nil
	}
	list, err := wire.ParsePayloads(c.First, c.Request)
	ps := payloads(list)
	if err != nil || ps.legal(wire.IKEAuth, false) != nil {
		return nil, nil, nil
	}
	p, _, _ := e.identify(sa, ps)
	return sa, ps, p
}

// adopt goes on with a negotiation that began at another tunnel of this host.
func (e *Endpoint) adopt(c Claim) {
	if len(c.SA) == 0 {
		e.receive(c.Datagram)
		return
	}
	if sa, ps, p := e.openClaim(c); p != nil {
		e.state.SAs[sa.local()] = sa
		e.acceptAuth(sa, ps, p)
	}
}
