package userspace

import (
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"ipsec-quick/apply"
	"ipsec-quick/apply/userspace/esp"
)

// An association is an SA at work. What changes with its packets lies in its
// record, which is a file's memory: a process that dies at any point leaves it as
// the next one needs it.
//
// A worker holds it while it uses its keys or its record, a batch at a time. What
// is removed can be held no more, and is wiped when nobody holds it.
type association struct {
	spi       uint32
	direction apply.Direction
	mode      apply.Mode
	reqID     uint32
	esn       bool
	selector  *matcher // transport mode: what it may carry; nil: anything
	larval    bool     // an SPI, no SA yet

	place  atomic.Pointer[place]
	path   atomic.Pointer[path] // nil: none, or it has left the tables
	events *events
	alarm  *alarm

	holds     atomic.Int64  // workers that hold it; removed is added when it is gone
	unheld    chan struct{} // gets something when nobody holds it any more
	transform *esp.Transform

	mu       sync.Mutex // of what follows, and of the record
	slot     *slot[saRecord]
	window   esp.Window
	expired  atomic.Bool // at its hard limit: the timer is about to remove it
	mappedTo netip.AddrPort
	mappedAt int64
}

// A place is where an SA's packets go: its outer addresses and ports.
type place struct {
	src, dst netip.Addr
	encap    *apply.Encap // nil: no UDP
}

// remote is where the peer's end of the SA is.
func (pl *place) remote(d apply.Direction) netip.AddrPort {
	addr, port := pl.dst, uint16(0)
	if d == apply.In {
		addr = pl.src
	}
	if pl.encap != nil {
		port = pl.encap.DstPort
		if d == apply.In {
			port = pl.encap.SrcPort
		}
	}
	return netip.AddrPortFrom(addr, port)
}

// id is the SA's name.
func (a *association) id() apply.SAID { return apply.SAID{Dst: a.place.Load().dst, SPI: a.spi} }

// removed makes the count of holds negative, whatever it is.
const removed = math.MinInt64

// hold keeps the association's keys and record until release. It returns false
// if it has been removed. It never waits: a worker that holds one SA may be waiting
// for another worker.
func (a *association) hold() bool {
	if a.holds.Add(1) > 0 {
		return true
	}
	a.release()
	return false
}

func (a *association) release() {
	if a.holds.Add(-1) == removed {
		select {
		case a.unheld <- struct{}{}:
		default:
		}
	}
}

// reserve takes sequence numbers for n outbound packets with size octets of
// payload each, the last one with last. It returns the first and how many of the
// packets may be sent: fewer if the hard limit comes between. What is taken is
// written down before it returns, so no other process takes it again. The
// association is held.
//
// As in the kernel a limit fires with the packet that comes when it has been
// reached, which the hard one stops. The octets are those of the payload: in
// tunnel mode of the inner packet, in transport mode of what is behind its header.
func (a *association) reserve(n int, size, last uint64, now int64) (first uint64, allowed int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.expired.Load() {
		return 0, 0
	}
	r := &a.slot.body
	a.used(r, now)
	left := min(uint64(n), r.room(size), a.sequences()-r.sequence)
	if left < uint64(n) {
		a.expire()
	}
	if left == 0 {
		return 0, 0
	}
	first, allowed = r.sequence+1, int(left)
	atomic.StoreUint64(&r.sequence, r.sequence+left)
	a.warn(r, r.bytes+(left-1)*size, r.packets+left-1)
	octets := left * size
	if allowed == n {
		octets += last - size
	}
	a.count(r, left, octets, now)
	return first, allowed
}

// sequences is the last sequence number. An outbound SA that has used it is at
// its hard limit (RFC 4303, Section 3.3.3).
func (a *association) sequences() uint64 {
	if a.esn {
		return 1<<64 - 1
	}
	return 1<<32 - 1
}

// infer is the sequence number of an inbound packet that has low in its header,
// and fresh whether it may be new. The association is held and a.mu is locked, as
// for accept.
func (a *association) infer(low uint32) (seq uint64, fresh bool) {
	if a.expired.Load() {
		return 0, false
	}
	seq = a.window.Infer(low)
	if a.window.Check(seq) {
		return seq, true
	}
	a.drop(dropReplayed)
	return seq, false
}

// accept takes an inbound packet that is authentic, with octets of payload. It
// returns false if the packet is to be dropped: it is a replay after all, or the
// hard limit has been reached.
//
// The kernel looks at the limits before it looks at the ICV, so that a forged
// packet can begin an SA's use. Here it cannot.
func (a *association) accept(seq uint64, octets uint64, now int64) bool {
	if a.expired.Load() {
		return false
	}
	r := &a.slot.body
	a.used(r, now)
	if r.hard.reached(r.bytes, r.packets) {
		a.expire()
		return false
	}
	if !a.window.Accept(seq) {
		a.drop(dropReplayed)
		return false
	}
	a.warn(r, r.bytes, r.packets)
	a.count(r, 1, octets, now)
	return true
}

// used notes the first use.
func (a *association) used(r *saRecord, now int64) {
	if r.used != 0 {
		return
	}
	r.used = now
	if at := r.deadline(); at != 0 {
		a.alarm.set(at)
	}
}

// count adds to the counters.
func (a *association) count(r *saRecord, packets, octets uint64, now int64) {
	r.packets += packets
	r.bytes += octets
	r.lastUsed = now
}

// usage is what the SA has carried.
func (a *association) usage(now int64, wall time.Time) apply.Usage {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.slot.body.usage(now, wall)
}

// warn reports the soft limit, once, if a packet finds counters that have reached
// it.
func (a *association) warn(r *saRecord, octets, packets uint64) {
	if r.warned != 0 || !r.soft.reached(octets, packets) {
		return
	}
	r.warned = 1
	a.events.tell(apply.Expire{SAID: a.id(), ReqID: a.reqID})
}

// expire ends the SA at its hard limit. That it is removed and reported is left
// to the timer.
func (a *association) expire() {
	a.expired.Store(true)
	a.alarm.set(atOnce)
}

// due looks at the limits by time: it reports the soft one, and returns whether
// the hard one has been reached, or when to look again (0: never). The
// association is held.
func (a *association) due(now int64) (hard bool, next int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := &a.slot.body
	if a.expired.Load() || r.hard.over(now, r.added, r.used) {
		a.expired.Store(true)
		return true, 0
	}
	if r.warned == 0 && r.soft.over(now, r.added, r.used) {
		r.warned = 1
		a.events.tell(apply.Expire{SAID: a.id(), ReqID: a.reqID})
	}
	return false, r.deadline()
}

// mappingEvery is how often a new address of the peer is reported while nobody
// updates the SA, in nanoseconds.
const mappingEvery = 1e9

// mapped reports that an authentic packet came from another address or port than
// the SA has. The association is held and a.mu is locked.
func (a *association) mapped(from netip.AddrPort, now int64) {
	pl := a.place.Load()
	if pl.encap == nil || from == pl.remote(apply.In) || from == a.mappedTo && now-a.mappedAt < mappingEvery {
		return
	}
	a.mappedTo, a.mappedAt = from, now
	a.events.tell(apply.Mapping{SAID: a.id(), ReqID: a.reqID, New: from})
}

// drop counts a packet that is dropped. The association is held and a.mu is locked.
func (a *association) drop(cause dropCause) { a.slot.body.drops[cause]++ }

// wipe ends an association that no table has any more, once nobody holds it. The
// record is the caller's from then on.
func (a *association) wipe() {
	if a.holds.Add(removed) != removed {
		<-a.unheld
	}
	if a.transform != nil {
		a.transform.Wipe()
	}
}
