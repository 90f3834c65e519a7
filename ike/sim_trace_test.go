package ike

import "fmt"

// noteEvent is one event in one line.
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
	case RemovePolicies:
		s = fmt.Sprintf("remove policies of in %08x out %08x", a.Child.SPIIn, a.Child.SPIOut)
	case Lost:
		s = fmt.Sprintf("lost %s: %v", a.Peer, a.Err)
	case Send:
		id := h.read(a.Data)
		s = fmt.Sprintf("send %s %d response %t", id.spii, id.id, id.response)
	default:
		s = actionText(a)
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
