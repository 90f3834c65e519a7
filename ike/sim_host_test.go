package ike

import (
	"errors"
	"io"
	"net/netip"
	"time"
)

// simHost is one end: the kernel with its SAs, and the process with the core, as
// the loop of package watch drives it.
type simHost struct {
	w     *world
	index int
	name  string
	addr  netip.Addr
	cfg   Config
	dataplane

	e       *Endpoint
	alive   bool // the process runs
	orphans bool // it has not removed yet what nobody knows
	life    int  // which process it is

	tickAt      time.Duration // that a Tick is set for; 0: none
	stuck       int           // Ticks after which a deadline was still past
	reconcileAt time.Duration
	closing     map[string]bool // peers that have not answered Close; nil: not closing

	frozen  bool
	waiting []func() // what happened meanwhile

	written map[string]bool   // the peers that have a state file
	saved   map[string][]byte // what the state files hold; see crashIn

	// A crash is decided on beforehand: crashIn counts the actions until it comes,
	// once all state files were written anew; below zero, none comes. Only then a
	// Persist makes a snapshot: no other one would ever be read.
	crashIn int
}

// overrun says that events of the kernel were lost (apply.Overrun).
type overrun struct{}

func (overrun) event() {}

// reconcileEvery is that of package watch.
const reconcileEvery = time.Minute

func (w *world) addHost(name string, addr netip.Addr, source io.Reader) *simHost {
	h := &simHost{w: w, index: len(w.hosts), name: name, addr: addr, crashIn: -1}
	h.cfg = Config{Rand: source, NATPort: 4500}
	h.nextSPI = 0xc0000000 + uint32(h.index)<<16
	h.allocated, h.uses, h.left = map[uint32]bool{}, map[string]ChildID{}, map[ChildID]time.Duration{}
	h.written, h.saved = map[string]bool{}, map[string][]byte{}
	w.hosts = append(w.hosts, h)
	return h
}

// happens gives an event to the process, if one runs.
func (h *simHost) happens(ev Event) {
	if !h.alive {
		return
	}
	if h.frozen {
		h.waiting = append(h.waiting, func() { h.happens(ev) })
		return
	}
	switch ev := ev.(type) {
	case overrun:
		h.reconcile()
		return
	case Datagram:
		h.w.answers(h, ev.Data)
	default:
	}
	h.steps(ev)
}

// steps gives events to the core and carries out what it wants, answers of the
// data plane among it.
func (h *simHost) steps(events ...Event) {
	for len(events) > 0 {
		h.noteEvent(events[0])
		actions := h.w.breaks.reorder(h.e.Step(h.w.time(), events[0]))
		events = events[1:]
		if h.crashes() {
			return
		}
		for _, a := range actions {
			h.noteAction(a)
			if answer := h.carryOut(a); answer != nil {
				events = append(events, answer)
			}
			h.w.checkAction(h)
			if h.crashes() {
				return
			}
		}
		h.w.breaks.afterStep(h)
	}
	h.w.checkStep(h)
	h.setTick()
}

// setTick sets the timer of the loop.
func (h *simHost) setTick() {
	next := h.e.NextDeadline()
	if next.IsZero() {
		h.tickAt = 0
		return
	}
	at := next.Sub(start)
	if at <= h.w.now {
		if h.stuck++; h.stuck > 5 {
			h.w.fail("%s: the deadline %.3f s stays in the past", h.name, at.Seconds())
		}
		at = h.w.now + time.Millisecond // as the loop does
	} else {
		h.stuck = 0
	}
	if at == h.tickAt {
		return
	}
	h.tickAt = at
	life := h.life
	h.w.after(at-h.w.now, func() {
		if h.life == life && h.tickAt == at {
			h.tickAt = 0
			h.happens(Tick{})
		}
	})
}

// carryOut does what the core says, and returns the data plane's answer.
func (h *simHost) carryOut(a Action) Event {
	w := h.w
	switch a := a.(type) {
	case Persist:
		h.persist(a.Peer)
	case AllocSPI:
		if !w.kind && w.chance(w.profile.failing) {
			return SPIAllocated{Ref: a.Ref, Err: errors.New("no SPI")}
		}
		h.nextSPI++
		h.allocated[h.nextSPI] = true
		return SPIAllocated{Ref: a.Ref, SPI: h.nextSPI}
	case InstallChild:
		if !h.allocated[a.Child.SPIIn] {
			w.fail("%s: SPI %08x is not reserved", h.name, a.Child.SPIIn)
		}
		if !w.kind && w.chance(w.profile.failing) {
			w.undone(h, a.Child.Peer)
			return Installed{Ref: a.Ref, Err: errors.New("no memory")}
		}
		if w.breaks.outboundFirst {
			h.install(&a.Child, true)
			h.uses[a.Child.Peer] = a.Child.OutID()
			w.checkAction(h)
		}
		h.install(&a.Child, false)
		if !w.breaks.outboundFirst {
			w.checkAction(h)
			h.install(&a.Child, true)
		}
		return Installed{Ref: a.Ref}
	case SwitchOutbound:
		if h.find(h.out, a.Child.OutID()) == nil && !w.pair(h, a.Child.Peer).excused(w.now) {
			w.fail("%s: switched to an SA %08x that is not there", h.name, a.Child.SPIOut)
		}
		if old := h.uses[a.Child.Peer]; old != a.Child.OutID() {
			h.left[old] = w.now
		}
		h.uses[a.Child.Peer] = a.Child.OutID()
	case RemoveChild:
		w.checkLeft(h, &a.Child)
		if h.uses[a.Child.Peer] == a.Child.OutID() {
			delete(h.uses, a.Child.Peer)
		}
		h.remove(a.Child.OutID())
		h.remove(a.Child.InID())
	case RemovePolicies:
		if h.uses[a.Child.Peer] == a.Child.OutID() {
			delete(h.uses, a.Child.Peer)
		}
	case Send:
		w.send(h, a)
	case Resolve:
		h.resolve(a.Peer)
	case Unclaimed:
		if len(a.Claim.SA) > 0 {
			spi, life := a.Claim.SPI, h.life
			w.after(w.within(200*time.Millisecond), func() {
				if h.life == life {
					h.happens(Claimed{SA: spi})
				}
			})
		}
	case Lost:
		w.lost(h, a)
	case Closed:
		delete(h.closing, a.Peer)
		if h.closing != nil && len(h.closing) == 0 {
			w.after(0, h.down)
		}
	case UpdateChild, Keepalive:
		w.fail("%s: %T without a NAT", h.name, a)
	case Established, Report:
	}
	return nil
}

// resolve answers with the address of a peer.
func (h *simHost) resolve(peer string) {
	w, life := h.w, h.life
	answer := Initiate{Peer: peer, Local: ipPort(h.addr), Remote: ipPort(w.pair(h, peer).other(h).addr)}
	if !w.kind && w.chance(w.profile.failing) {
		answer = Initiate{Peer: peer, Err: errors.New("no such host")}
	}
	w.after(w.within(100*time.Millisecond), func() {
		if h.life == life {
			h.happens(answer)
		}
	})
}

// persist writes the state file of a peer.
func (h *simHost) persist(peer string) {
	h.written[peer] = true
	delete(h.saved, peer)
	if h.crashIn < 0 {
		return
	}
	b, err := h.e.Snapshot(peer)
	if err != nil {
		h.w.fail("%s: %v", h.name, err)
	}
	h.saved[peer] = b
}
