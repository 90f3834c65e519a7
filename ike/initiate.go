package ike

import (
	"net/netip"
	"slices"
	"time"

	"ipsec-quick/ike/wire"
)

// What we ask of one address at a time. The rest waits for its turn.
const (
	// maxAttempts bounds the IKE SAs that we are just making. A responder takes few
	// half-open ones from an address and drops the rest, which then wait for their
	// retransmission: strongSwan takes 5.
	maxAttempts = 4
	// maxExchanges bounds the rekeys and other key exchanges. When the limits of
	// very many Child SAs are reached at once, what a peer cannot answer in time
	// would be sent again and again, and in the end the peer be given up.
	maxExchanges = 16
)

// initiate has a new IKE SA with a peer begin when it is its turn.
func (e *Endpoint) initiate(ev Initiate) {
	if ps := e.state.Peers[ev.Peer]; ps == nil || ps.Resolving.IsZero() {
		return
	}
	if i := slices.IndexFunc(e.waiting, func(w Initiate) bool { return w.Peer == ev.Peer }); i >= 0 {
		e.waiting[i] = ev // a new answer, for it waits long
	} else {
		e.waiting = append(e.waiting, ev)
	}
}

// beginWaiting starts those whose turn it is, in the order in which they came.
func (e *Endpoint) beginWaiting() {
	if len(e.waiting) == 0 {
		return
	}
	attempts := map[netip.Addr]int{}
	for _, sa := range e.state.SAs {
		if sa.Original && !sa.authenticated() {
			attempts[sa.Remote.Addr()]++
		}
	}
	e.waiting = slices.DeleteFunc(e.waiting, func(ev Initiate) bool {
		if attempts[ev.Remote.Addr()] >= maxAttempts {
			return false
		}
		if e.connect(ev) {
			attempts[ev.Remote.Addr()]++
		}
		return true
	})
}

// connect starts a new IKE SA with a peer, if it is still wanted.
func (e *Endpoint) connect(ev Initiate) bool {
	p, ps := e.peers[ev.Peer], e.state.Peers[ev.Peer]
	if ps.Resolving.IsZero() {
		return false // closed meanwhile
	}
	ps.Resolving = time.Time{}
	if e.current(p.Name) != nil {
		return false // the peer was faster
	}
	if ev.Err != nil || !ev.Remote.IsValid() {
		e.lost(p.Name, nil, ev.Err, false)
		return false
	}
	if !slices.Contains(p.Addresses, ev.Remote.Addr()) {
		p.Addresses = append(slices.Clone(p.Addresses), ev.Remote.Addr())
	}
	sa := &ikeSA{
		Peer: p.Name, Original: true, SPIi: e.newSPI(), Local: ev.Local, Remote: ev.Remote,
		State: initSent, Created: e.now, LastHeard: e.now, Children: children{},
		Settings: p.IKESettings,
		Init:     &handshake{OurNonce: e.random(nonceLen), Group: firstKE(p.IKE), Others: ev.Others},
	}
	e.add(sa)
	sa.Send.Active = &initTask{}
	e.sendInit(sa)
	return true
}

// mayBegin reports whether an IKE SA may begin the next of its exchanges now; if
// not, it is called on when it may.
func (e *Endpoint) mayBegin(sa *ikeSA) bool {
	if sa.Send.Queue[0].exchange() != wire.CreateChildSA {
		return true
	}
	busy := 0
	for _, other := range e.state.SAs {
		if other.Remote.Addr() == sa.Remote.Addr() && other.exchangesKeys() {
			busy++
		}
	}
	if busy < maxExchanges {
		return true
	}
	if !slices.Contains(e.parked, sa.local()) {
		e.parked = append(e.parked, sa.local())
	}
	return false
}

// beginParked calls on those whose turn it may be now, in the order in which they
// came. Those that go on waiting are parked again.
func (e *Endpoint) beginParked() {
	if len(e.parked) == 0 {
		return
	}
	busy := map[netip.Addr]int{}
	for _, sa := range e.state.SAs {
		if sa.exchangesKeys() {
			busy[sa.Remote.Addr()]++
		}
	}
	parked := e.parked
	e.parked = nil
	for _, spi := range parked {
		sa := e.state.SAs[spi]
		switch {
		case sa == nil || sa.Send.Active != nil: // gone, or it comes again by itself
		case busy[sa.Remote.Addr()] >= maxExchanges:
			e.parked = append(e.parked, spi)
		default:
			if e.pump(sa); sa.exchangesKeys() {
				busy[sa.Remote.Addr()]++
			}
		}
	}
}

// exchangesKeys reports whether a CREATE_CHILD_SA of ours is under way.
func (sa *ikeSA) exchangesKeys() bool {
	t := sa.Send.Active
	return t != nil && t.exchange() == wire.CreateChildSA
}
