package ike

import (
	"fmt"
	"slices"
	"time"
)

// pair is two hosts with a tunnel between them.
type pair struct {
	hosts [2]*simHost
	// down: the tunnel does not carry packets, for a reason that the scenario
	// made, see [world.cause]. It lasts until packets pass both ways again.
	down bool
	upAt time.Duration // the last time that it came up
	// mayLose: until then an end may give its peer up, because it was away for
	// longer than an end waits.
	mayLose time.Duration
}

func (p *pair) has(h *simHost) bool { return p.hosts[0] == h || p.hosts[1] == h }

func (p *pair) other(h *simHost) *simHost {
	if p.hosts[0] == h {
		return p.hosts[1]
	}
	return p.hosts[0]
}

// pair is the one of a host and a peer.
func (w *world) pair(h *simHost, peer string) *pair {
	for _, p := range w.pairs {
		if p.has(h) && p.other(h).name == peer {
			return p
		}
	}
	w.fail("%s has no peer %q", h.name, peer)
	return nil
}

// excused reports whether a packet that was sent at a moment may get lost.
func (p *pair) excused(sent time.Duration) bool { return p.down || sent <= p.upAt }

// cause takes a host's tunnels down, with one peer or all of them. These are the
// only reasons for which a packet may get lost:
//   - the tunnel was not up yet;
//   - a host is taken down or loses all it has (Close, reboot);
//   - the kernel of a host reaches a hard limit because the scenario says so;
//   - a host gives its peer up after it was away for longer than an end waits;
//   - a Child SA could not be installed, see [world.undone].
func (w *world) cause(h *simHost, peer string) {
	for _, p := range w.pairs {
		if p.has(h) && (peer == "" || p.other(h).name == peer) {
			p.down = true
		}
	}
}

// undone is a Child SA that could not be installed. While one of several IKE SAs
// with a peer goes it may be the one that the peer is about to use, and until the
// DELETE of it is there the peer does not know: what it sends meanwhile is lost.
// The protocol has no word for it that comes before the answer which lets the peer
// begin.
func (w *world) undone(h *simHost, peer string) {
	p := w.pair(h, peer)
	for _, end := range p.hosts {
		if end.e != nil && len(end.e.ofPeer(p.other(end).name)) > 1 {
			p.down = true
		}
	}
}

// lost checks that a host gave its peer up for a reason.
func (w *world) lost(h *simHost, a Lost) {
	p := w.pair(h, a.Peer)
	if !p.down && w.now > p.mayLose {
		w.fail("%s lost %s: %v", h.name, a.Peer, a.Err)
	}
	p.down = true
}

// underWay is for how long a packet may have chosen an outbound SA and not have
// been encrypted with it yet.
const underWay = time.Second

// checkLeft checks that an outbound SA stays for the packets that had chosen it
// before ours were led to another, unless the peer would not take them any more.
func (w *world) checkLeft(h *simHost, c *ChildSA) {
	at, ok := h.left[c.OutID()]
	delete(h.left, c.OutID())
	p := w.pair(h, c.Peer)
	there := p.other(h)
	if ok && w.now < at+underWay && !p.down && h.closing == nil && w.now > p.mayLose && there.find(there.in, c.OutID()) != nil {
		w.fail("%s removes %08x %v after its packets were led to another SA", h.name, c.SPIOut, w.now-at)
	}
}

// flows says why a packet from a host would not reach its peer if it was there at
// once; nil: it would.
func (w *world) flows(from, to *simHost) error {
	out := from.outbound(to)
	if out == nil {
		return fmt.Errorf("%s has no outbound SA to %s", from.name, to.name)
	}
	switch in := to.find(to.in, out.id); {
	case in == nil:
		return fmt.Errorf("%s sends on %08x, which %s has not", from.name, out.id.SPI, to.name)
	case in.keys != out.keys:
		return fmt.Errorf("%s sends on %08x with other keys than %s has", from.name, out.id.SPI, to.name)
	}
	return nil
}

// checkAction is what must hold after each action.
func (w *world) checkAction(h *simHost) {
	for _, p := range w.pairs {
		if p.down || !p.has(h) {
			continue
		}
		for i, from := range p.hosts {
			if err := w.flows(from, p.hosts[1-i]); err != nil {
				if w.now > p.mayLose {
					w.fail("a packet is lost: %v", err)
				}
				p.down = true
			}
		}
		if w.chance(30) {
			w.packet(p, p.hosts[0])
			w.packet(p, p.hosts[1])
		}
	}
}

// checkStep is what must hold when all actions of a Step, and of what came of
// it, are done.
func (w *world) checkStep(h *simHost) {
	w.checkOwners(h)
	w.checkMemory(h)
	for _, p := range w.pairs {
		if p.down && p.has(h) && w.isUp(p) {
			w.note(nil, "%s and %s are connected", p.hosts[0].name, p.hosts[1].name)
			p.down, p.upAt = false, w.now
		}
	}
}

// isUp reports whether the tunnel of a pair is back: packets pass both ways, and
// neither end is about to take it down or to remove what nobody knows, or has lost
// an SA that the other may use.
func (w *world) isUp(p *pair) bool {
	a, b := p.hosts[0], p.hosts[1]
	return a.alive && b.alive && a.closing == nil && b.closing == nil && !a.orphans && !b.orphans &&
		w.flows(a, b) == nil && w.flows(b, a) == nil && !a.lacks(b) && !b.lacks(a)
}

// lacks reports whether a host has no SA any more for a Child SA that its peer
// may still use: the kernel has not said so yet, or the DELETE of it is under way.
func (h *simHost) lacks(peer *simHost) bool {
	for _, sa := range h.e.ofPeer(peer.name) {
		for _, c := range sa.Children {
			if c.State == childLive && (h.find(h.in, c.InID()) == nil || h.find(h.out, c.OutID()) == nil) {
				return true
			}
		}
		for _, t := range sa.Send.tasks() {
			if d, ok := t.(*deleteTask); ok && (d.IKE && sa.State == deleting && len(sa.Children) == 0 || slices.ContainsFunc(d.SPIs, func(spi uint32) bool { return sa.Children[spi] == nil })) {
				return true
			}
		}
	}
	return false
}

// checkOwners: the core knows each SA in the data plane.
func (w *world) checkOwners(h *simHost) {
	if h.orphans {
		return
	}
	for _, sa := range h.in {
		if _, c := h.e.childByID(sa.id); c == nil {
			w.fail("%s: inbound SA %08x is nobody's", h.name, sa.id.SPI)
		}
	}
	for _, sa := range h.out {
		if _, c := h.e.childByID(sa.id); c == nil {
			w.fail("%s: outbound SA %08x is nobody's", h.name, sa.id.SPI)
		}
	}
}

// What a host keeps of one peer at most: IKE SAs that were rekeyed wait for their
// DELETE, and Child SAs stay for five seconds after it.
const (
	mostSAs      = 10
	mostChildren = 20
	mostTasks    = 8
)

// checkMemory: what a host keeps is bounded.
func (w *world) checkMemory(h *simHost) {
	peers := len(h.cfg.Peers)
	if n := len(h.e.state.SAs); n > mostSAs*peers {
		w.fail("%s: %d IKE SAs", h.name, n)
	}
	if n := len(h.e.halfOpen); n > mostSAs*peers {
		w.fail("%s: %d half-open IKE SAs", h.name, n)
	}
	for _, sa := range h.e.state.SAs {
		if n := len(sa.Children); n > mostChildren {
			w.fail("%s: %d Child SAs", h.name, n)
		}
		if n := len(sa.Send.Queue); n > mostTasks {
			w.fail("%s: %d tasks wait", h.name, n)
		}
		if n := len(sa.Recv.Responses); n > 16 {
			w.fail("%s: a response of %d datagrams is kept", h.name, n)
		}
	}
}

// settled reports whether all is well and nothing goes on.
func (w *world) settled() bool { return w.underWay == 0 && w.unsettled() == "" }

// unsettled says what is not well: each pair has one IKE SA and one pair of ESP
// SAs, and both ends see the same.
func (w *world) unsettled() string {
	if w.underWay > 0 {
		return "datagrams are under way"
	}
	for _, p := range w.pairs {
		if p.down {
			return fmt.Sprintf("%s and %s are not connected", p.hosts[0].name, p.hosts[1].name)
		}
	}
	for _, h := range w.hosts {
		n := len(h.cfg.Peers)
		if len(h.in) != n || len(h.out) != n || len(h.e.state.SAs) != n || len(h.e.halfOpen) > 0 {
			return fmt.Sprintf("%s has %d inbound and %d outbound SAs and %d IKE SAs, %d half open, with %d peers",
				h.name, len(h.in), len(h.out), len(h.e.state.SAs), len(h.e.halfOpen), n)
		}
		if peer := h.unfitting(); peer != "" {
			return fmt.Sprintf("%s has SAs with %s that do not fit its configuration", h.name, peer)
		}
	}
	for _, p := range w.pairs {
		a, b := p.hosts[0].e.current(p.hosts[1].name), p.hosts[1].e.current(p.hosts[0].name)
		switch {
		case a == nil || b == nil:
			return "an IKE SA is not established"
		case a.SPIi != b.SPIi || a.SPIr != b.SPIr || a.Original == b.Original:
			return fmt.Sprintf("%s has IKE SA %s, %s has %s", p.hosts[0].name, a.SPIi, p.hosts[1].name, b.SPIi)
		case !a.idle() || !b.idle():
			return "an exchange is under way"
		}
		x, y := a.sorted(), b.sorted()
		switch {
		case len(x) != 1 || len(y) != 1:
			return fmt.Sprintf("%d and %d Child SAs", len(x), len(y))
		case x[0].State != childLive || y[0].State != childLive || x[0].Rekeying || y[0].Rekeying:
			return "a Child SA is in between"
		case x[0].SPIIn != y[0].SPIOut || x[0].SPIOut != y[0].SPIIn:
			return "the two ends have different Child SAs"
		}
	}
	return ""
}
