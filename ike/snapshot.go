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
	for _, t := range []task{&authTask{}, &childTask{}, &ikeTask{}, &deleteTask{}, &dpdTask{}, &uniteTask{}} {
		gob.Register(t)
	}
}

// snapshot is what has to survive a restart of one peer.
type snapshot struct {
	Peer *peerState
	SAs  []*ikeSA
}

// Snapshot is all of one peer that has to survive a restart, keys among it: it
// belongs into a file that only its owner can read, on no disk.
func (e *Endpoint) Snapshot(peer string) ([]byte, error) {
	s := snapshot{Peer: e.state.Peers[peer]}
	for _, sa := range e.state.ByPeer[peer] {
		if sa.authenticated() {
			s.SAs = append(s.SAs, sa)
		}
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(&s); err != nil {
		return nil, fmt.Errorf("encode the state: %w", err)
	}
	return b.Bytes(), nil
}

// Restore takes what a [Endpoint.Snapshot] has of a peer into an endpoint that
// is new. A peer that the configuration has no more is closed as [Reconfigure]
// does it. A snapshot that cannot be used changes nothing. After all peers'
// [Recovered] must be the first event.
func (e *Endpoint) Restore(peer string, b []byte) error {
	var s snapshot
	if err := gob.NewDecoder(bytes.NewReader(b)).Decode(&s); err != nil {
		return fmt.Errorf("decode the state: %w", err)
	}
	if s.Peer == nil {
		return errors.New("decode the state: it is no peer's")
	}
	seen := map[wire.SPI]bool{0: true}
	for _, sa := range s.SAs {
		if sa == nil || sa.Peer != peer || !sa.authenticated() || seen[sa.local()] || e.state.SAs[sa.local()] != nil {
			return errors.New("decode the state: an IKE SA does not fit its SPI or its peer")
		}
		seen[sa.local()] = true
		if err := sa.check(); err != nil {
			return err
		}
	}
	s.Peer.Failures, s.Peer.ChildFailures = max(0, s.Peer.Failures), max(0, s.Peer.ChildFailures)
	s.Peer.Evictions = max(0, s.Peer.Evictions)
	s.Peer.Closed = false // who takes the tunnel down says so again
	if e.peers[peer] == nil {
		e.peers[peer] = &Peer{Name: peer, Start: StartPassive}
		e.enter(peer)
		e.leaving[peer] = true
	}
	e.state.Peers[peer] = s.Peer
	for _, sa := range s.SAs {
		if sa.Children == nil {
			sa.Children = children{}
		}
		e.add(sa)
	}
	return nil
}

// check refuses an IKE SA that a state file cannot hold.
func (sa *ikeSA) check() error {
	bad := !sa.authenticated() && sa.Init == nil || sa.State > contested ||
		(sa.Send.Request != nil) && sa.Send.Active == nil
	for _, c := range sa.Children {
		bad = bad || c.State > childRetiring || c.SPIIn < minSPI || !c.Local.IsValid() || !c.Remote.IsValid()
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
	for _, name := range slices.Sorted(maps.Keys(e.leaving)) {
		e.leave(name)
	}
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
	for i := range e.cfg.Peers {
		name := e.cfg.Peers[i].Name
		ps := e.state.Peers[name]
		c := e.byInbound(name, ps.Outbound)
		if c == nil {
			c = e.carrier(name, nil)
		}
		if c != nil && c.State == childLive {
			ps.Outbound = c.SPIIn
			e.emit(SwitchOutbound{c.ChildSA})
		}
	}
	for _, spi := range slices.Sorted(maps.Keys(e.state.SAs)) {
		sa := e.state.SAs[spi]
		if sa == nil {
			continue // it went with one before
		}
		if sa.Init != nil {
			// Our answer to its IKE_AUTH is lost with what it waited for.
			e.removeChildren(sa)
			e.drop(sa)
			continue
		}
		for _, c := range sa.sorted() {
			e.recoverChild(sa, c, present)
		}
		e.recoverTask(sa, present)
	}
	for i := range e.cfg.Peers {
		name := e.cfg.Peers[i].Name
		ps := e.state.Peers[name]
		if c := e.byInbound(name, ps.Outbound); c == nil {
			ps.Outbound, ps.Up = 0, false
		}
		e.save(name)
	}
	e.conform()
}

// recoverTask sends the request that waits for its response again, and installs
// again what the response made. A task that waited for an SPI begins again.
func (e *Endpoint) recoverTask(sa *ikeSA, present map[ChildID]bool) {
	t := sa.Send.Active
	switch c := sa.making(); {
	case c != nil && present[c.InID()] && present[c.OutID()]:
		t.(waiter).installed(e, sa, nil)
		return
	case c != nil:
		e.emit(RemoveChild{c.withoutKeys()}, InstallChild{Ref: Ref{SA: sa.local(), N: t.(waiter).reference()}, Child: c.ChildSA})
		return
	case sa.Send.Request != nil:
		// Nobody listened meanwhile: the peer gets all the time again.
		sa.Send.Request.Tries, sa.Send.Request.At = 0, e.now
		if sa.State == deleting && !sa.HardAt.IsZero() {
			sa.HardAt = e.now.Add(deletingFor) // the peer may not have heard of it at all
		}
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
		switch {
		case !in:
			e.removeChild(sa, c)
		case c.State == childRetiring:
			e.retire(c) // only now it is sure that our packets have left it
		}
	case childInstalling:
		if c == sa.making() {
			return // nothing was sent on it yet: no nonce is used twice
		}
		// Whether the peer has it may not be known: it goes on both sides.
		e.removeChild(sa, c)
		e.submit(sa, &deleteTask{SPIs: []uint32{c.SPIIn}})
	}
}

// byInbound finds a Child SA of a peer by our inbound SPI.
func (e *Endpoint) byInbound(peer string, spi uint32) *child {
	for _, sa := range e.state.ByPeer[peer] {
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
	if sa.State != halfOpen || sa.Original || sa.Peer != "" || len(sa.Children) > 0 {
		return nil, errSyntax
	}
	sa.Children = children{}
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
		if h, err := wire.ParseHeader(c.Datagram.Data); err == nil {
			e.receiveInit(c.Datagram, h, c.Known)
		}
		return
	}
	if sa, ps, p := e.openClaim(c); p != nil {
		e.add(sa)
		e.acceptAuth(sa, ps, p)
	}
}
