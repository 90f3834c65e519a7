package ike

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
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
	h.allocated, h.uses = map[uint32]bool{}, map[string]ChildID{}
	h.written, h.saved = map[string]bool{}, map[string][]byte{}
	w.hosts = append(w.hosts, h)
	return h
}

// begin starts the process. It takes over what another one left.
func (h *simHost) begin() {
	h.alive, h.frozen, h.waiting, h.closing, h.tickAt, h.stuck = true, false, nil, nil, 0, 0
	h.life++
	h.w.note(h, "starts")
	h.e = New(h.cfg)
	for _, p := range h.cfg.Peers {
		if !h.written[p.Name] {
			continue
		}
		if err := h.e.Restore(p.Name, h.saved[p.Name]); err != nil {
			h.w.fail("%s: %v", h.name, err)
		}
	}
	life := h.life
	h.orphans = true
	h.steps(Recovered{Present: h.present()})
	if h.life == life {
		h.removeOrphans()
		h.reconcile()
	}
	if h.life == life {
		h.steps(Tick{})
	}
}

// present are the SAs that the kernel has.
func (h *simHost) present() map[ChildID]bool {
	there := map[ChildID]bool{}
	for _, list := range [][]*espSA{h.in, h.out} {
		for _, sa := range list {
			there[sa.id] = true
		}
	}
	return there
}

// removeOrphans removes SAs that the core knows nothing of, and policies that send
// on them.
func (h *simHost) removeOrphans() {
	h.orphans = false
	known := map[ChildID]bool{}
	for _, c := range h.children() {
		known[c.Child.InID()], known[c.Child.OutID()] = true, true
	}
	for _, p := range h.cfg.Peers {
		if !known[h.uses[p.Name]] {
			delete(h.uses, p.Name)
		}
	}
	for _, list := range [][]*espSA{slices.Clone(h.in), slices.Clone(h.out)} {
		for _, sa := range list {
			if !known[sa.id] {
				h.remove(sa.id)
			}
		}
	}
}

// children are the core's Child SAs.
func (h *simHost) children() (all []ChildStatus) {
	for _, p := range h.e.Status() {
		all = append(all, p.Children...)
	}
	return all
}

// reconcile makes up for lost events.
func (h *simHost) reconcile() {
	h.reconcileAt = h.w.now + reconcileEvery
	life := h.life
	h.w.after(reconcileEvery, func() {
		if h.life == life && h.reconcileAt == h.w.now {
			h.happens(overrun{})
		}
	})
	var events []Event
	for _, c := range h.children() {
		for _, id := range []ChildID{c.Child.InID(), c.Child.OutID()} {
			switch sa := h.either(id); {
			case c.Retiring:
			case sa == nil:
				events = append(events, Expire{Child: id, Hard: true})
			case h.overSoft(sa):
				events = append(events, Expire{Child: id})
			}
		}
	}
	h.steps(events...)
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
			w.undone(h)
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
		h.uses[a.Child.Peer] = a.Child.OutID()
	case RemoveChild:
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

// crashSoon lets the process end in so many actions.
func (h *simHost) crashSoon(actions int) {
	h.crashIn = actions
	clear(h.saved)
}

// crashes reports whether the process ends here.
func (h *simHost) crashes() bool {
	if h.crashIn < 0 || len(h.saved) < len(h.written) {
		return false
	}
	if h.crashIn--; h.crashIn >= 0 {
		return false
	}
	h.w.note(h, "crashes")
	h.w.undone(h)
	h.alive, h.frozen, h.waiting = false, false, nil
	h.life++
	h.w.trouble()
	if h.w.chance(25) {
		h.crashIn = h.w.rand.IntN(10) // once more, when it is back
	}
	life := h.life
	h.w.after(h.w.within(3*time.Second), func() {
		if h.life == life {
			h.begin()
		}
	})
	return true
}

// down is the end of `down`: what is left is removed. Then it is started anew.
func (h *simHost) down() {
	if !h.alive || h.closing == nil {
		return
	}
	h.reboot(5 * time.Second)
}

// reboot loses all that the host has, and starts it anew within a while.
func (h *simHost) reboot(within time.Duration) {
	h.w.note(h, "down")
	h.alive, h.frozen, h.waiting, h.crashIn = false, false, nil, -1
	clear(h.written)
	clear(h.saved)
	h.in, h.out = nil, nil
	h.life++
	clear(h.uses)
	h.w.cause(h, "")
	life := h.life
	h.w.after(h.w.within(within), func() {
		if h.life == life {
			h.begin()
		}
	})
}

// close is `down`.
func (h *simHost) close() {
	h.closing, h.crashIn = map[string]bool{}, -1
	var events []Event
	for _, p := range h.cfg.Peers {
		h.closing[p.Name] = true
		events = append(events, Close{p.Name})
	}
	h.w.cause(h, "")
	life := h.life
	h.w.after(time.Second, func() {
		if h.life == life {
			h.down()
		}
	})
	h.steps(events...)
}

// freeze stops the process for a while. What comes meanwhile waits for it.
func (h *simHost) freeze(d time.Duration) {
	h.w.note(h, "freezes for %s", d)
	h.frozen = true
	life := h.life
	h.w.after(d, func() {
		if h.life == life {
			h.thaw()
		}
	})
}

func (h *simHost) thaw() {
	if !h.frozen {
		return
	}
	h.w.note(h, "thaws")
	h.frozen = false
	waiting, life := h.waiting, h.life
	h.waiting = nil
	for _, do := range waiting {
		if h.life == life {
			do()
		}
	}
}

func (h *simHost) noteEvent(ev Event) {
	if !h.w.record {
		return
	}
	switch ev := ev.(type) {
	case Datagram:
		id := h.read(ev.Data)
		h.w.note(h, "<- %s %d response %t", id.spii, id.id, id.response)
	default:
		h.w.note(h, "<- %T%+v", ev, ev)
	}
}

// noteAction is one action in one line.
func (h *simHost) noteAction(a Action) {
	if !h.w.record {
		return
	}
	var s string
	switch a := a.(type) {
	case Report:
		s = fmt.Sprintf("%s %s mid %d %s %v", a.SPIi, a.Exchange, a.MessageID, a.Text, a.Err)
	case InstallChild:
		s = fmt.Sprintf("install in %08x out %08x", a.Child.SPIIn, a.Child.SPIOut)
	case SwitchOutbound:
		s = fmt.Sprintf("switch to in %08x out %08x", a.Child.SPIIn, a.Child.SPIOut)
	case RemoveChild:
		s = fmt.Sprintf("remove in %08x out %08x", a.Child.SPIIn, a.Child.SPIOut)
	case RemovePolicies:
		s = fmt.Sprintf("remove policies of in %08x out %08x", a.Child.SPIIn, a.Child.SPIOut)
	case Lost:
		s = fmt.Sprintf("lost %s: %v", a.Peer, a.Err)
	case Send:
		id := h.read(a.Data)
		s = fmt.Sprintf("send %s %d response %t", id.spii, id.id, id.response)
	default:
		s = fmt.Sprintf("%T", a)
	}
	h.w.note(h, "%s", s)
}

// state ends the trace with what the hosts know.
func (w *world) state() {
	for _, h := range w.hosts {
		if !w.record || h.e == nil {
			continue
		}
		for _, p := range h.cfg.Peers {
			w.note(h, "%s: packets leave on %08x", p.Name, h.uses[p.Name].SPI)
			for _, sa := range h.e.ofPeer(p.Name) {
				w.note(h, "  IKE SA %s state %d original %t, task %T of %d, deadline %s", sa.SPIi, sa.State, sa.Original,
					sa.Send.Active, len(sa.Send.tasks()), h.e.deadline(sa).Sub(start))
				for _, c := range sa.sorted() {
					w.note(h, "    in %08x out %08x state %d, rekeying %t, replaced by %08x", c.SPIIn, c.SPIOut, c.State, c.Rekeying, c.ReplacedBy)
				}
			}
		}
	}
}
