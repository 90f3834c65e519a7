package ike

import (
	"slices"
	"time"
)

// dataplane is what a host's kernel has: it outlives the process that filled it.
type dataplane struct {
	in, out []*espSA
	// uses is the outbound SA of each peer's policies. Without one a guard drops
	// what they cover.
	uses      map[string]ChildID
	left      map[ChildID]time.Duration // when packets were led to another SA
	nextSPI   uint32
	allocated map[uint32]bool
}

// espSA is one ESP SA.
type espSA struct {
	id         ChildID
	peer       string
	keys       string
	soft, hard Limits
	packets    uint64 // the sequence number of the last one sent, too
	dying      bool   // the soft limit was reached: said once
	// The wall clock times its life, see [simHost.clockSteps].
	softAt, hardAt time.Duration
}

// packetSize is the length of each ESP packet.
const packetSize = 100

// find is an SA by its name.
func (d *dataplane) find(list []*espSA, id ChildID) *espSA {
	for _, sa := range list {
		if sa.id == id {
			return sa
		}
	}
	return nil
}

// either is an SA of either direction.
func (d *dataplane) either(id ChildID) *espSA {
	if sa := d.find(d.in, id); sa != nil {
		return sa
	}
	return d.find(d.out, id)
}

// outbound is the SA that packets to a peer leave on; nil: they are dropped.
func (d *dataplane) outbound(to *simHost) *espSA { return d.find(d.out, d.uses[to.name]) }

// remove takes an SA away, if it is there.
func (d *dataplane) remove(id ChildID) {
	gone := func(sa *espSA) bool { return sa.id == id }
	d.in, d.out = slices.DeleteFunc(d.in, gone), slices.DeleteFunc(d.out, gone)
}

// install adds one direction of a Child SA.
func (h *simHost) install(c *ChildSA, outbound bool) {
	w := h.w
	sa := &espSA{id: c.InID(), peer: c.Peer, keys: string(c.In.Encr) + string(c.In.Integ), soft: c.Soft, hard: c.Hard}
	if outbound {
		sa.id, sa.keys = c.OutID(), string(c.Out.Encr)+string(c.Out.Integ)
		if w.keys[sa.keys] {
			// Its sequence numbers begin again: so do the nonces.
			w.fail("%s: outbound SA %08x gets keys that were used before", h.name, c.SPIOut)
		}
		w.keys[sa.keys] = true
	} else {
		// Both SAs are as old as each other: one of them says that it is time.
		sa.soft.Time = 0
	}
	list := &h.in
	if outbound {
		list = &h.out
	}
	if h.find(*list, sa.id) != nil {
		w.fail("%s: SA %08x is installed twice", h.name, sa.id.SPI)
	}
	*list = append(*list, sa)
	if sa.soft.Time > 0 {
		sa.softAt = w.now + sa.soft.Time
		h.softTimer(sa)
	}
	if sa.hard.Time > 0 {
		sa.hardAt = w.now + sa.hard.Time
		h.hardTimer(sa)
	}
}

func (h *simHost) softTimer(sa *espSA) {
	at := sa.softAt
	h.w.after(max(0, at-h.w.now), func() {
		if sa.softAt == at && h.either(sa.id) == sa {
			h.softExpires(sa)
		}
	})
}

func (h *simHost) hardTimer(sa *espSA) {
	at := sa.hardAt
	h.w.after(max(0, at-h.w.now), func() {
		if sa.hardAt == at && h.either(sa.id) == sa {
			h.hardExpires(sa)
		}
	})
}

// softExpires says so once.
func (h *simHost) softExpires(sa *espSA) {
	if !sa.dying && !h.w.kind {
		sa.dying = true
		h.kernelSays(Expire{Child: sa.id})
	}
}

func (h *simHost) hardExpires(sa *espSA) {
	h.w.note(h, "hard limit of %08x", sa.id.SPI)
	h.remove(sa.id)
	h.kernelSays(Expire{Child: sa.id, Hard: true})
}

// count counts a packet of an SA.
func (h *simHost) count(sa *espSA) {
	sa.packets++
	reached := func(packets, bytes uint64) bool {
		return packets > 0 && sa.packets >= packets || bytes > 0 && sa.packets*packetSize >= bytes
	}
	if reached(sa.hard.Packets, sa.hard.Bytes) {
		h.hardExpires(sa)
	} else if reached(sa.soft.Packets, sa.soft.Bytes) {
		h.softExpires(sa)
	}
}

// overSoft is what a dump shows of an SA whose soft event may have got lost.
func (h *simHost) overSoft(sa *espSA) bool {
	return sa.soft.Packets > 0 && sa.packets >= sa.soft.Packets ||
		sa.soft.Bytes > 0 && sa.packets*packetSize >= sa.soft.Bytes ||
		sa.softAt > 0 && h.w.now > sa.softAt+2*time.Second
}

// clockSteps sets the wall clock by which the kernel times SAs: it counts in
// seconds since the SA was added. If a step takes an SA over its hard limit
// before the soft event, Linux moves the SA's time so that the soft event comes
// first (xfrm_timer_handler). The clock of the core does not step.
func (h *simHost) clockSteps(by time.Duration) {
	h.w.note(h, "the wall clock steps by %s", by)
	for _, sa := range slices.Concat(h.in, h.out) {
		gap := sa.hardAt - sa.softAt
		if sa.softAt > 0 && !sa.dying {
			sa.softAt -= by
			h.softTimer(sa)
			if sa.hardAt > 0 {
				sa.hardAt = max(sa.hardAt-by, max(h.w.now, sa.softAt)+gap)
				h.hardTimer(sa)
			}
		} else if by < 0 && sa.hardAt > 0 {
			sa.hardAt -= by
			h.hardTimer(sa)
		}
	}
}

// kernelSays is an event of the data plane. The socket's buffer is small: then it
// is lost, and the loop compares when it hears of that, or a minute later.
func (h *simHost) kernelSays(ev Expire) {
	w := h.w
	w.after(w.within(10*time.Millisecond), func() {
		if w.kind || !w.chance(w.profile.lostEvents) {
			h.happens(ev)
			return
		}
		w.note(h, "lost: %+v", ev)
		if w.chance(30) {
			h.happens(overrun{})
		}
	})
}
