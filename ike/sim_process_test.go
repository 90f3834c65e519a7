package ike

import (
	"slices"
	"time"
)

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
	h.outdated()
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
	if h.closing != nil {
		h.down() // `down` goes on without the loop
		return true
	}
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
