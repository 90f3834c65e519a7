package ike

import (
	"net/netip"
	"slices"
	"time"
)

// maxAttempts bounds the IKE SAs that we are just making with one address. A
// responder takes few half-open ones from an address and drops the rest, which
// then wait for their retransmission: strongSwan takes 5.
const maxAttempts = 4

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
		Init: &handshake{OurNonce: e.random(nonceLen), Group: firstKE(p.IKE)},
	}
	e.add(sa)
	sa.Send.Active = &initTask{}
	e.sendInit(sa)
	return true
}
