package userspace

import (
	"errors"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
	"ipsec-quick/apply/userspace/esp"
	"ipsec-quick/apply/userspace/offload"
	"ipsec-quick/apply/userspace/outer"
	"ipsec-quick/apply/userspace/packet"
	"ipsec-quick/apply/userspace/tun"
)

const (
	maxPacket = 65535

	// sendAt is how many octets are collected before they are sent. A super-
	// packet leaves at once, so that the peer's work on it begins.
	sendAt = 32 << 10

	// sendTimeout is how long a batch waits for room at its socket, in nanoseconds.
	// Then it is dropped, as by any full queue.
	sendTimeout = 100e6

	// answerEvery limits ICMP errors, in nanoseconds. A flow needs one.
	answerEvery = 1e6
)

// An outbound takes packets from one queue of the TUN device, seals them, and
// sends them to the peers.
type outbound struct {
	w     *workers
	queue *tun.Queue

	buffer    []byte
	splitter  offload.Splitter
	flows     flows[*entry]
	fragments fragments
	clock     clock
	last      int64 // the time of the last batch
	dated     bool  // and of this one
	scratch   esp.Scratch
	batch     *outer.Batch
	path      *path // where the batch goes, held; nil: there is none
	turn      bool  // path.turn is locked
	waiting   int64 // since when the batch waits for room; 0: it does not

	answer   []byte // an ICMP error
	answered int64
	fragment []byte
}

func newOutbound(w *workers, q *tun.Queue) *outbound {
	return &outbound{
		w: w, queue: q, batch: outer.NewBatch(),
		buffer:   make([]byte, offload.HeaderLen+maxPacket+esp.MaxTrailer),
		fragment: make([]byte, 0, maxPacket+esp.MaxTrailer),
		answer:   make([]byte, offload.HeaderLen, 2048),
	}
}

// serveAtMost is how many packets are taken from the queue before others have
// their turn.
const serveAtMost = 32

// serve sends what the queue has, and returns how many octets that was and what
// ended it; nil: there may be more. If the socket has no room, what is left of the
// batch waits, and with it what is in the queue.
func (o *outbound) serve() (octets int, err error) {
	if o.waiting > 0 && !o.send() {
		if o.clock.now()-o.waiting < sendTimeout {
			return 0, nil
		}
		o.rest()
	}
	for range serveAtMost {
		n, err := o.queue.Read(o.buffer[:offload.HeaderLen+maxPacket])
		if err != nil {
			o.finish()
			return octets, err
		}
		octets += n
		o.superPacket(o.buffer[:n])
		if o.batch.Len() >= sendAt && !o.send() {
			return octets, nil
		}
	}
	o.finish()
	return octets, nil
}

// finish sends what there is, and then lets go of the path.
func (o *outbound) finish() {
	if o.send() && o.path != nil {
		o.path.release()
		o.path = nil
	}
}

// rest is finish that does not wait for room.
func (o *outbound) rest() {
	if !o.send() {
		o.batch.Reset()
	}
	o.finish()
}

// send sends the batch and ends the turn. It returns false if there is no room for
// all of it.
func (o *outbound) send() bool {
	if !o.flush() {
		if o.waiting == 0 {
			o.waiting = o.clock.now()
		}
		return false
	}
	o.dated, o.waiting = false, 0
	if o.turn {
		o.path.turn.Unlock()
		o.turn = false
	}
	return true
}

// flush sends the batch, as far as there is room.
func (o *outbound) flush() bool {
	for !o.batch.Empty() {
		if err := o.path.conn.Send(o.batch); errors.Is(err, unix.EAGAIN) {
			return false
		}
		// What could not be sent is lost, as on any link.
	}
	return true
}

// beginTurn comes before sequence numbers are taken.
func (o *outbound) beginTurn() {
	if !o.turn {
		o.path.turn.Lock()
		o.turn = true
	}
}

// now is the time, read once a batch.
func (o *outbound) now() int64 {
	if !o.dated {
		o.last, o.dated = o.clock.now(), true
	}
	return o.last
}

// superPacket takes what was read: a packet with its offload.Header.
func (o *outbound) superPacket(b []byte) {
	if len(b) < offload.HeaderLen {
		return
	}
	header, b := offload.ParseHeader(b), b[offload.HeaderLen:]
	h, err := packet.Parse(b)
	if err != nil {
		return
	}
	h.Flow = o.fragments.flow(&h)
	a := o.find(&h.Flow)
	if a == nil {
		return
	}
	defer a.release()
	if o.take(a) && o.splitter.Reset(header, b[:h.Len]) == nil {
		o.carry(a, &h, b)
	}
}

// find finds the SA that a flow is to leave on, and holds it; nil: none, and the
// policy has what it wanted to know.
func (o *outbound) find(f *packet.Flow) *association {
	for {
		t := o.w.p.tables.Load()
		e, known := o.flows.get(t, f)
		if !known {
			e = t.outbound(f)
			o.flows.put(f, e)
		}
		if e == nil {
			return nil
		}
		if e.sa == nil {
			o.w.p.acquire(e, f, o.now())
			return nil
		}
		if e.sa.hold() {
			return e.sa
		}
		if o.w.p.tables.Load() == t {
			return nil
		}
		// The SA was replaced meanwhile: no packet is lost over it.
	}
}

// take makes the SA's path that of the batch.
func (o *outbound) take(a *association) bool {
	for {
		pa := a.path.Load()
		if pa == nil {
			return false
		}
		if pa == o.path {
			return true
		}
		o.rest()
		if pa.hold() {
			o.path = pa
			return true
		}
		// It is closed because the SA has moved.
	}
}

// carry seals the packet that the Splitter has. b is the whole of it.
func (o *outbound) carry(a *association, h *packet.Header, b []byte) {
	skip, next := 0, uint8(esp.NextIPv4)
	switch {
	case a.mode == apply.Transport && h.IsFragment():
		return // RFC 4301, Section 3.2
	case a.mode == apply.Transport:
		skip, next = h.Transport, h.Protocol
	case h.IPv6:
		next = esp.NextIPv6
	}
	each, last := o.splitter.Sizes()
	if min(each, last) < skip {
		return // a super-packet whose offsets are not those of its headers
	}
	// No IPv6 host makes packets shorter than 1280 octets; where not even that
	// fits, the ESP packet is fragmented (RFC 2473, Section 7.1).
	fragment := h.IPv6 && a.mode == apply.Tunnel && each <= leastMTU
	if most := o.most(a, each-skip); each-skip > most && !fragment {
		o.tooLong(a, h, b, most+skip)
		return
	}
	o.beginTurn()
	first, n := a.reserve(o.splitter.Len(), uint64(each-skip), uint64(last-skip), o.now())
	for i := range n {
		o.seal(a, first+uint64(i), o.splitter.Next()[skip:], next, h.TOS, fragment)
	}
}

// most is the longest payload that fits the path. If it is less than wanted the
// kernel is asked again: a path gets wider, too.
func (o *outbound) most(a *association, wanted int) int {
	conn := o.path.conn
	most := a.transform.MaxPayload(conn.MaxPacket())
	if wanted > most && conn.RefreshMTU() {
		most = a.transform.MaxPayload(conn.MaxPacket())
	}
	return most
}

// seal adds a packet to the batch. Behind the payload there is room for the ESP
// trailer.
func (o *outbound) seal(a *association, seq uint64, payload []byte, next, tos uint8, fragment bool) {
	if !o.batch.Fits(1, a.transform.Len(len(payload))) && !o.flush() {
		o.batch.Reset()
	}
	sealed := a.transform.Seal(&o.scratch, o.batch.Next(), a.spi, seq, payload, next)
	o.batch.Add(len(sealed), tos, fragment)
}

// tooLong is for a packet whose segments are longer than mtu, which is what the
// path has room for: the sender is told, or it is sent in fragments.
func (o *outbound) tooLong(a *association, h *packet.Header, b []byte, mtu int) {
	if !h.DF && a.mode == apply.Tunnel {
		o.inFragments(a, mtu)
		return
	}
	if o.now()-o.answered < answerEvery {
		return
	}
	o.answered = o.now()
	o.answer = packet.AppendTooBig(o.answer[:offload.HeaderLen], b, h, mtu)
	if len(o.answer) > offload.HeaderLen {
		_ = o.queue.Write(o.answer) // if it is lost the next packet brings another
	}
}

// inFragments seals an IPv4 packet that routers may fragment, in fragments.
func (o *outbound) inFragments(a *association, mtu int) {
	for b := o.splitter.Next(); b != nil; b = o.splitter.Next() {
		h, err := packet.Parse(b)
		if err != nil {
			return
		}
		for offset := 0; offset >= 0; {
			var f []byte
			f, offset = packet.AppendFragment(o.fragment, b, &h, offset, mtu)
			o.beginTurn()
			size := uint64(len(f))
			first, n := a.reserve(1, size, size, o.now())
			if n == 0 {
				return
			}
			o.seal(a, first, f, esp.NextIPv4, h.TOS, false)
		}
	}
}
