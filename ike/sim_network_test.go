package ike

import (
	"encoding/binary"
	"slices"
	"time"

	"ipsec-quick/ike/wire"
)

// air is the network: what is under way, and what was.
type air struct {
	conditions
	sent     map[sentID]*datagram
	windows  map[windowID]*window
	underWay int // IKE datagrams
}

// conditions are how bad the network is.
type conditions struct {
	loss, duplicates int // in a hundred
	// delay is the longest way of a datagram. Each takes another time, so they
	// overtake each other. That of ESP packets is below what the old SA stays for.
	delay, delayESP time.Duration
}

// sentID is what may be encrypted once: a message or fragment under the keys of an
// IKE SA. The Message ID makes the nonce of AEAD (RFC 5282, Section 3.1).
type sentID struct {
	windowID
	id       uint32
	response bool
	fragment uint16
}

// datagram is one that was sent.
type datagram struct {
	data []byte
	lost int // how often
}

// windowID is one direction of an IKE SA: its requests have Message IDs of their
// own.
type windowID struct {
	host       int
	spii, spir wire.SPI
}

// window is what is seen on the wire of the requests of one direction.
type window struct {
	request  int64 // the highest Message ID of a request that left; -1: none
	answered int64 // the highest one of a response that came
}

// maxLost is how often the network may lose one datagram. Seven tries make a
// request; a request and its response lost so often, and a peer that is away for
// as long as [world.trouble] allows, still leave some.
const maxLost = 1

// read is what identifies an IKE datagram (RFC 7296, Section 3.1; RFC 7383,
// Section 2.5).
func (h *simHost) read(data []byte) (id sentID) {
	id.host = h.index
	id.spii, id.spir = wire.SPI(binary.BigEndian.Uint64(data)), wire.SPI(binary.BigEndian.Uint64(data[8:]))
	id.id, id.response = binary.BigEndian.Uint32(data[20:]), data[19]&0x20 != 0
	if wire.PayloadType(data[16]) == wire.PayloadSKF {
		id.fragment = binary.BigEndian.Uint16(data[32:])
	}
	return id
}

// send takes a datagram of a host.
func (w *world) send(h *simHost, s Send) {
	id := h.read(s.Data)
	d := w.sent[id]
	if d == nil || id.spir == 0 {
		d = &datagram{data: s.Data}
		w.sent[id] = d
		w.checkWindow(h, id)
	} else if !slices.Equal(d.data, s.Data) {
		w.fail("%s: Message ID %d, response %t, of IKE SA %s is used for two messages", h.name, id.id, id.response, id.spii)
	}
	to := w.at(s)
	if to == nil {
		w.fail("%s sends to %s", h.name, s.Remote)
	}
	if !w.kind && d.lost < maxLost && w.chance(w.loss) {
		d.lost++
		w.note(h, "  lost: %s %d", id.spii, id.id)
		return
	}
	w.arrives(to, s)
	if !w.kind && w.chance(w.duplicates) {
		w.arrives(to, s)
	}
}

// checkWindow: a new request may only leave when the one before was answered
// (RFC 7296, Section 2.3), with the next Message ID.
func (w *world) checkWindow(h *simHost, id sentID) {
	if id.response || id.spir == 0 || id.fragment > 1 {
		return
	}
	win := w.windows[id.windowID]
	if win == nil {
		win = &window{request: int64(id.id), answered: -1}
		w.windows[id.windowID] = win
		if id.id > 1 { // 0 is IKE_SA_INIT's of the original initiator
			w.fail("%s: the first Message ID of IKE SA %s is %d", h.name, id.spii, id.id)
		}
		return
	}
	if int64(id.id) != win.request+1 {
		w.fail("%s: Message ID %d of IKE SA %s comes after %d", h.name, id.id, id.spii, win.request)
	}
	if win.answered < win.request {
		w.fail("%s: a second request %d of IKE SA %s while %d is not answered", h.name, id.id, id.spii, win.request)
	}
	win.request = int64(id.id)
}

// answers notes a response that came to a host.
func (w *world) answers(h *simHost, data []byte) {
	id := h.read(data)
	if win := w.windows[id.windowID]; id.response && win != nil {
		win.answered = max(win.answered, int64(id.id))
	}
}

// at is the host that a datagram goes to.
func (w *world) at(s Send) *simHost {
	for _, h := range w.hosts {
		if h.addr == s.Remote.Addr() {
			return h
		}
	}
	return nil
}

// arrives brings a datagram to a host in a while.
func (w *world) arrives(to *simHost, s Send) {
	delay := w.delay
	if w.kind {
		delay = min(delay, 100*time.Millisecond)
	}
	w.underWay++
	w.after(w.within(delay), func() {
		w.underWay--
		// The host's own copy: no end may count on the other's memory.
		to.happens(Datagram{Local: s.Remote, Remote: s.Local, NATT: s.NATT, Data: slices.Clone(s.Data)})
	})
}

// packet is an ESP packet under way.
type packet struct {
	pair *pair
	to   *simHost
	id   ChildID
	keys string
	sent time.Duration
}

// packet sends a packet over a pair's tunnel, if it has an outbound SA: nothing
// else lets one out.
func (w *world) packet(p *pair, from *simHost) {
	to := p.other(from)
	sa := from.outbound(to)
	if sa == nil {
		if from.alive && w.chance(30) {
			w.after(time.Millisecond, func() { from.happens(Acquire{Peer: to.name}) })
		}
		return
	}
	pk := &packet{pair: p, to: to, id: sa.id, keys: sa.keys, sent: w.now}
	from.count(sa)
	w.after(w.within(w.delayESP), func() { w.receive(pk) })
}

// receive is invariant 1: a packet that was sent is decrypted when it arrives.
func (w *world) receive(pk *packet) {
	sa := pk.to.find(pk.to.in, pk.id)
	switch {
	case sa != nil && sa.keys == pk.keys:
		pk.to.count(sa)
	case pk.pair.excused(pk.sent):
	case sa == nil:
		w.fail("a packet to %s, sent at %.3f s on %08x, finds no inbound SA", pk.to.name, pk.sent.Seconds(), pk.id.SPI)
	default:
		w.fail("a packet to %s on %08x has other keys than the inbound SA", pk.to.name, pk.id.SPI)
	}
}
