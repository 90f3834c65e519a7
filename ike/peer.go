package ike

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"ipsec-quick/ike/wire"
)

// What is between two attempts to reach a peer.
const (
	retryFirst   = time.Second
	retryMax     = 8 * time.Second // a peer that does not answer
	retryRefused = time.Minute     // one that refuses us: a person has to act
	resolveFor   = 30 * time.Second
)

// peerState is what we remember of a peer beside its IKE SAs.
type peerState struct {
	Wanted        bool      // on demand: a packet asked for it
	Closed        bool      // by Close
	Up            bool      // Established was said, and Lost not since
	Resolving     time.Time // Resolve was asked; zero: no
	RetryAt       time.Time
	ChildRetryAt  time.Time
	MadeAt        time.Time // a request of ours made a Child SA that replaced none
	Failures      int       // attempts in a row
	ChildFailures int       // the same for the Child SA alone
	Evictions     int       // SAs that the peer ended shortly after each other
	EvictedAt     time.Time
	Outbound      uint32 // inbound SPI of the Child SA that carries our packets
	NextRef       uint64
	LastError     string
	Rekeys        Rekeys
	Expires       Expires
}

// ofPeer are the IKE SAs with a peer, oldest first. The list is the caller's: it
// may drop some of them as it goes.
func (e *Endpoint) ofPeer(peer string) []*ikeSA { return slices.Clone(e.state.ByPeer[peer]) }

// hasOther reports whether there is another IKE SA with the same peer.
func (e *Endpoint) hasOther(sa *ikeSA) bool {
	return slices.ContainsFunc(e.state.ByPeer[sa.Peer], func(o *ikeSA) bool { return o != sa && o.State == established })
}

// current is the established IKE SA with a peer, the newest if there are more.
func (e *Endpoint) current(peer string) *ikeSA {
	for _, sa := range slices.Backward(e.state.ByPeer[peer]) {
		if sa.State == established {
			return sa
		}
	}
	return nil
}

// establish marks both ends as authenticated.
func (e *Endpoint) establish(sa *ikeSA) {
	sa.State, sa.Established = established, e.now
	sa.Birth = birth{Original: sa.Original, LowestNonce: sa.LowestNonce, Begun: sa.Created, Done: e.now}
	e.startLifetime(sa)
}

// startLifetime sets the timers of an established IKE SA.
func (e *Endpoint) startLifetime(sa *ikeSA) {
	p := e.peers[sa.Peer]
	sa.Established, sa.SoftAt, sa.HardAt = e.now, time.Time{}, time.Time{}
	if p.IKESoft > 0 {
		sa.SoftAt = e.now.Add(e.earlier(p.IKESoft, p.Jitter))
	}
	if p.IKEHard > 0 {
		sa.HardAt = e.now.Add(p.IKEHard)
	}
}

// endHandshake forgets what only the handshake needed.
func (e *Endpoint) endHandshake(sa *ikeSA) {
	if sa.Init == nil {
		return
	}
	e.dropHalfOpen(sa)
	if sa.Init.KE != nil {
		sa.Init.KE.Wipe()
	}
	sa.Init = nil
}

// lost says that a peer is gone or could not be reached, and sets the time of
// the next attempt. An IKE SA that is not the only one is not missed.
func (e *Endpoint) lost(peer string, sa *ikeSA, err error, wasEstablished bool) {
	ps, p := e.state.Peers[peer], e.peers[peer]
	if ps == nil || e.current(peer) != nil && (sa == nil || e.current(peer) != sa) {
		return
	}
	ps.Up = false
	ps.Failures++
	if err != nil {
		ps.LastError = err.Error()
	}
	wait := min(retryFirst<<min(ps.Failures-1, 10), retryMax)
	if Refused(err) {
		wait = min(retryFirst<<min(ps.Failures, 10), retryRefused)
	}
	if wasEstablished && ps.Failures == 1 {
		pause := ps.evicted(e.now)
		if sa == nil || e.now.Sub(sa.Created) > retryMax {
			wait = pause
		} else {
			wait = max(wait, pause)
		}
	}
	if errors.Is(err, errReconfigured) {
		wait = 0
	}
	ps.RetryAt = e.now.Add(wait)
	retry := ps.RetryAt
	if ps.Closed || !ps.Wanted && p.Start != StartNow {
		retry = time.Time{}
	}
	ps.Wanted = false
	e.emit(Lost{Peer: peer, Err: err, Retry: retry})
}

// evicted is the pause after the peer ended an SA: none after the first, and a
// growing one for a peer that takes us in only to throw us out.
func (ps *peerState) evicted(now time.Time) time.Duration {
	if now.Sub(ps.EvictedAt) > retryRefused {
		ps.Evictions = 0
	}
	ps.EvictedAt = now
	ps.Evictions++
	if ps.Evictions == 1 {
		return 0
	}
	return min(retryFirst<<min(ps.Evictions-2, 10), retryMax)
}

// childFailed says that an IKE SA stands without a Child SA.
func (e *Endpoint) childFailed(sa *ikeSA, err error) {
	ps := e.state.Peers[sa.Peer]
	ps.LastError = err.Error()
	ps.ChildFailures++
	ps.ChildRetryAt = e.now.Add(min(retryFirst<<min(ps.ChildFailures, 10), retryRefused))
	if ps.Outbound == 0 {
		ps.Up = false
		e.emit(Lost{Peer: sa.Peer, Err: err, Retry: ps.ChildRetryAt})
	} else {
		e.report(sa, err, "Child SA")
	}
}

// acquire is Acquire: a packet wants a Child SA.
func (e *Endpoint) acquire(peer string) {
	if ps := e.state.Peers[peer]; ps != nil && !ps.Closed && e.peers[peer].Start != StartPassive {
		ps.Wanted = true
	}
}

// maintain brings peers that are wanted and not there a step nearer.
func (e *Endpoint) maintain() {
	e.beginWaiting()
	e.beginParked()
	for i := range e.cfg.Peers {
		p := &e.cfg.Peers[i]
		e.unite(p.Name)
		at, wanted := e.attemptAt(p)
		if !wanted || e.now.Before(at) {
			continue
		}
		if sa := e.current(p.Name); sa != nil {
			e.submit(sa, &childTask{})
			continue
		}
		e.state.Peers[p.Name].Resolving = e.now
		e.emit(Resolve{p.Name})
	}
}

// attemptAt is when the next attempt at what a peer lacks begins, an IKE SA or
// its Child SA; the zero time: now. It is not wanted when nothing is lacking, or
// an attempt is under way.
func (e *Endpoint) attemptAt(p *Peer) (at time.Time, wanted bool) {
	ps := e.state.Peers[p.Name]
	if ps.Closed || p.Start != StartNow && !ps.Wanted {
		return at, false
	}
	var current *ikeSA
	for _, sa := range e.state.ByPeer[p.Name] {
		switch sa.State {
		case initSent, halfOpen:
			return at, false
		case established:
			current = sa
		default: // on its way out
		}
	}
	switch {
	case current != nil:
		return ps.ChildRetryAt, ps.Outbound == 0 && !current.makingChild()
	case !ps.Resolving.IsZero():
		return ps.Resolving.Add(resolveFor), true
	}
	return ps.RetryAt, true
}

// makingChild reports whether a Child SA is being made, or whether a rekey of
// the IKE SA has to end before one can be.
func (sa *ikeSA) makingChild() bool {
	return sa.pending != nil || sa.Init != nil || slices.ContainsFunc(sa.Send.tasks(), func(t task) bool {
		switch t.(type) {
		case *childTask, *authTask, *ikeTask:
			return true
		}
		return false
	})
}

// expire is a limit that the data plane saw: soft means new keys, hard that the
// Child SA is gone.
func (e *Endpoint) expire(ev Expire) {
	sa, c := e.childByID(ev.Child)
	if c == nil || c.State != childLive {
		return
	}
	ps := e.state.Peers[sa.Peer]
	if !ev.Hard {
		if !c.Rekeying && c.ReplacedBy == 0 {
			ps.Expires.Soft++
			e.report(sa, nil, "soft limit of the Child SA %08x", c.SPIIn)
			e.rekeyChild(sa, c)
		}
		return
	}
	ps.Expires.Hard++
	e.report(sa, nil, "hard limit of the Child SA %08x", c.SPIIn)
	e.unreplace(sa, c)
	e.removeChild(sa, c)
	e.save(sa.Peer)
	e.submit(sa, &deleteTask{SPIs: []uint32{c.SPIIn}, Out: []uint32{c.SPIOut}})
}

// elapse does what time has brought about.
func (e *Endpoint) elapse() {
	for _, sa := range e.due() {
		e.elapseSA(sa)
	}
}

// due are the IKE SAs with a deadline that has come, in a fixed order.
func (e *Endpoint) due() []*ikeSA {
	var list []*ikeSA
	for _, sa := range e.state.SAs {
		if at := e.deadline(sa); !at.IsZero() && !e.now.Before(at) {
			list = append(list, sa)
		}
	}
	slices.SortFunc(list, func(a, b *ikeSA) int { return cmp.Compare(a.local(), b.local()) })
	return list
}

func (e *Endpoint) elapseSA(sa *ikeSA) {
	past := func(t time.Time) bool { return !t.IsZero() && !e.now.Before(t) }
	switch h := sa.Init; {
	case h != nil && h.Hint != nil && past(h.GiveUp) && sa.State == initSent:
		e.dismiss(sa, h.Hint)
		return
	case !sa.Original && sa.State == halfOpen && past(sa.Created.Add(halfOpenFor)):
		e.drop(sa)
		return
	case sa.State == deleting && past(sa.HardAt), sa.State == replaced && past(sa.HardAt):
		e.gone(sa)
		return
	case past(sa.HardAt):
		e.deleteIKE(sa, errExpired)
		return
	}
	if r := sa.Send.Request; r != nil && past(r.At) {
		if e.retransmit(sa); e.state.SAs[sa.local()] != sa {
			return
		}
	}
	for _, c := range sa.sorted() {
		switch {
		case c.State == childRetiring && past(c.RetireAt):
			if e.state.Peers[sa.Peer].Outbound == c.SPIIn {
				e.part(sa, c) // what was to take its place never came
			} else {
				e.removeChild(sa, c)
			}
			e.save(sa.Peer)
		case past(c.SoftAt):
			c.SoftAt = time.Time{}
			e.rekeyChild(sa, c)
		}
	}
	if past(sa.SoftAt) {
		sa.SoftAt = time.Time{}
		if !e.rekeyQueued(sa) {
			e.submit(sa, &ikeTask{})
		}
	}
	if p := e.peers[sa.Peer]; p != nil && p.DPD > 0 && sa.State == established && sa.idle() && past(sa.LastHeard.Add(p.DPD)) {
		e.submit(sa, &dpdTask{Since: sa.LastHeard})
	}
	if sa.NATHere && sa.NATT && sa.State == established && past(sa.LastSent.Add(natKeepalive)) {
		sa.LastSent = e.now
		e.emit(Keepalive{sa.Local, sa.Remote})
	}
}

// deadline is when an IKE SA has something to do next; zero: never.
func (e *Endpoint) deadline(sa *ikeSA) time.Time {
	var d deadline
	d.at(sa.SoftAt)
	d.at(sa.HardAt)
	if r := sa.Send.Request; r != nil {
		d.at(r.At)
	}
	if sa.Init != nil && sa.Init.Hint != nil {
		d.at(sa.Init.GiveUp)
	}
	if !sa.Original && sa.State == halfOpen {
		d.at(sa.Created.Add(halfOpenFor))
	}
	for _, c := range sa.Children {
		d.at(c.SoftAt)
		if c.State == childRetiring {
			d.at(c.RetireAt)
		}
	}
	if p := e.peers[sa.Peer]; p != nil && sa.State == established {
		if p.DPD > 0 && sa.idle() {
			d.at(sa.LastHeard.Add(p.DPD))
		}
		if sa.NATHere && sa.NATT {
			d.at(sa.LastSent.Add(natKeepalive))
		}
	}
	return d.Time
}

// deadline is the earliest of some times.
type deadline struct{ time.Time }

func (d *deadline) at(t time.Time) {
	if !t.IsZero() && (d.IsZero() || t.Before(d.Time)) {
		d.Time = t
	}
}

// NextDeadline is when Step wants a Tick; zero: when something else happens.
func (e *Endpoint) NextDeadline() time.Time {
	if e.asked {
		return e.next
	}
	var d deadline
	for _, sa := range e.state.SAs {
		d.at(e.deadline(sa))
	}
	for _, p := range e.peers {
		if at, wanted := e.attemptAt(p); wanted {
			d.at(at)
		}
		d.at(e.uniteAt(p.Name))
	}
	e.next, e.asked = d.Time, true
	return d.Time
}

// reportMessage tells the operator about one message.
func (e *Endpoint) reportMessage(sa *ikeSA, m *wire.Message, way string, remote any) {
	kind := "request"
	if m.Response {
		kind = "response"
	}
	e.emit(Report{Peer: sa.Peer, SPIi: m.SPIi, SPIr: m.SPIr, Exchange: m.Exchange, MessageID: m.MessageID,
		Text: describe(kind, way, remote, m.Payloads), Stranger: !sa.authenticated() && (way == "from" || !sa.Original)})
}
