package userspace

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"ipsec-quick/apply"
	"ipsec-quick/apply/userspace/esp"
)

// layout of the records. It has to change with any of their fields.
const layout = 1

// Causes of drops, as in apply.Drops.
type dropCause int

const (
	dropForged dropCause = iota
	dropReplayed
	dropMalformed
	dropSelectors
	dropCauses
)

// maxWords are those of the bitmap of the largest replay window.
const maxWords = 128

// saRecord is an SA in the file. It has no pointer, and no type that not every
// bit pattern is a value of.
type saRecord struct {
	spi, reqID       uint32
	src, dst         address
	direction, mode  uint8
	esn, encap       uint8
	srcPort, dstPort uint16
	hasSelector      uint8
	selector         selectorRecord
	encryption       keyRecord
	integrity        keyRecord
	soft, hard       limitsRecord
	replayWindow     uint32

	warned                uint32 // the soft limit was reported
	added, used, lastUsed int64  // see now; 0: never
	bytes, packets        uint64
	sequence              uint64 // the last one taken, or the highest one received
	drops                 [dropCauses]uint64
	received              [maxWords]uint64 // esp.Window
}

// policyRecord is a policy in the file.
type policyRecord struct {
	selector      selectorRecord
	local, remote address
	reqID, spi    uint32
	action, mode  uint8
	guard         uint8
}

type address struct {
	octets [16]byte
	family uint8 // 0: none, else 4 or 6
}

func addressOf(a netip.Addr) (r address) {
	switch {
	case a.Is4():
		v := a.As4()
		copy(r.octets[:], v[:])
		r.family = 4
	case a.IsValid():
		r.octets, r.family = a.As16(), 6
	}
	return r
}

func (r address) addr() netip.Addr {
	switch r.family {
	case 4:
		return netip.AddrFrom4([4]byte(r.octets[:4]))
	case 6:
		return netip.AddrFrom16(r.octets)
	}
	return netip.Addr{}
}

type prefixRecord struct {
	address
	bits uint8
}

func prefixOf(p netip.Prefix) prefixRecord { return prefixRecord{addressOf(p.Addr()), uint8(p.Bits())} }

func (r prefixRecord) prefix() netip.Prefix { return netip.PrefixFrom(r.addr(), int(r.bits)) }

type selectorRecord struct {
	local, remote         prefixRecord
	protocol              uint8
	localPort, remotePort apply.PortMask
}

func selectorOf(s apply.Selector) selectorRecord {
	return selectorRecord{prefixOf(s.Local), prefixOf(s.Remote), s.Protocol, s.LocalPort, s.RemotePort}
}

func (r *selectorRecord) sel() apply.Selector {
	return apply.Selector{
		Local: r.local.prefix(), Remote: r.remote.prefix(), Protocol: r.protocol,
		LocalPort: r.localPort, RemotePort: r.remotePort,
	}
}

// Lengths of the longest name of an algorithm, and of the longest key.
const (
	maxName = 24
	maxKey  = 64
)

type keyRecord struct {
	name    [maxName]byte
	nameLen uint8
	keyLen  uint8
	key     [maxKey]byte
}

func keyOf(a apply.Algorithm) (r keyRecord) {
	r.nameLen = uint8(copy(r.name[:], a.Name))
	r.keyLen = uint8(copy(r.key[:], a.Key))
	return r
}

// algorithm has its key in the record's own memory.
func (r *keyRecord) algorithm() apply.Algorithm {
	return apply.Algorithm{
		Name: string(r.name[:min(int(r.nameLen), maxName)]),
		Key:  apply.Key(r.key[:min(int(r.keyLen), maxKey)]),
	}
}

type limitsRecord struct {
	bytes, packets uint64
	time, use      int64 // nanoseconds
}

func limitsOf(l apply.Limits) limitsRecord {
	return limitsRecord{l.Bytes, l.Packets, int64(max(0, l.Time)), int64(max(0, l.Use))}
}

func (l *limitsRecord) limits() apply.Limits {
	return apply.Limits{Bytes: l.bytes, Packets: l.packets, Time: time.Duration(l.time), Use: time.Duration(l.use)}
}

// reached reports whether counters have reached a limit.
func (l *limitsRecord) reached(octets, packets uint64) bool {
	return l.bytes > 0 && octets >= l.bytes || l.packets > 0 && packets >= l.packets
}

// over reports whether a limit by time has been reached.
func (l *limitsRecord) over(now, added, used int64) bool {
	return l.time > 0 && now-added >= l.time || l.use > 0 && used != 0 && now-used >= l.use
}

// deadlines are when the limits by time will be reached; 0: never.
func (l *limitsRecord) deadlines(added, used int64) (at int64) {
	if l.time > 0 {
		at = later(added, l.time)
	}
	if l.use > 0 && used != 0 {
		at = earlier(at, later(used, l.use))
	}
	return at
}

// later is a time after another; one that no clock reaches is never.
func later(t, after int64) int64 { return max(0, t+after) }

// earlier of two times; 0 is never.
func earlier(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// room is how many packets of size octets each there are before one that the
// hard limit stops.
func (r *saRecord) room(size uint64) uint64 {
	n := ^uint64(0)
	if l := r.hard.packets; l > 0 {
		n = l - min(l, r.packets)
	}
	if l := r.hard.bytes; l > 0 {
		left := l - min(l, r.bytes)
		if left == 0 {
			return 0
		}
		if size > 0 {
			n = min(n, (left-1)/size+1)
		}
	}
	return n
}

// deadline is when a limit by time is reached next; 0: never.
func (r *saRecord) deadline() int64 {
	at := r.hard.deadlines(r.added, r.used)
	if r.warned == 0 {
		at = earlier(at, r.soft.deadlines(r.added, r.used))
	}
	return at
}

// set fills in what an SA is given; counters and sequence numbers stay.
func (r *saRecord) set(sa *apply.SA) {
	r.spi, r.reqID = sa.SPI, sa.ReqID
	r.direction, r.mode, r.esn = uint8(sa.Direction), uint8(sa.Mode), flag(sa.ESN)
	r.replayWindow = sa.ReplayWindow
	r.hasSelector = flag(sa.Selector != nil)
	if sa.Selector != nil {
		r.selector = selectorOf(*sa.Selector)
	}
	r.move(sa)
	r.encryption, r.integrity = keyOf(sa.Encryption), keyOf(sa.Integrity)
}

// move fills in what an update changes.
func (r *saRecord) move(sa *apply.SA) {
	r.src, r.dst = addressOf(sa.Src), addressOf(sa.Dst)
	r.encap, r.srcPort, r.dstPort = flag(sa.Encap != nil), 0, 0
	if sa.Encap != nil {
		r.srcPort, r.dstPort = sa.Encap.SrcPort, sa.Encap.DstPort
	}
	r.soft, r.hard = limitsOf(sa.Soft), limitsOf(sa.Hard)
}

func flag(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// sa is the SA of a record; its keys are in the record's own memory.
func (r *saRecord) sa() apply.SA {
	sa := apply.SA{
		SPI: r.spi, Direction: apply.Direction(r.direction), Src: r.src.addr(), Dst: r.dst.addr(),
		ReqID: r.reqID, Mode: apply.Mode(r.mode), ESN: r.esn != 0, ReplayWindow: r.replayWindow,
		Encryption: r.encryption.algorithm(), Integrity: r.integrity.algorithm(),
		Soft: r.soft.limits(), Hard: r.hard.limits(),
	}
	if r.encap != 0 {
		sa.Encap = &apply.Encap{SrcPort: r.srcPort, DstPort: r.dstPort}
	}
	if r.hasSelector != 0 {
		sel := r.selector.sel()
		sa.Selector = &sel
	}
	return sa
}

// usage is what the SA has carried. Times are by the wall clock as it is set now.
func (r *saRecord) usage(now int64, wall time.Time) apply.Usage {
	at := func(t int64) time.Time {
		if t == 0 {
			return time.Time{}
		}
		return wall.Add(time.Duration(t - now))
	}
	return apply.Usage{
		Bytes: r.bytes, Packets: r.packets, Added: at(r.added), Used: at(r.used), LastUsed: at(r.lastUsed),
		Soft: r.soft.limits(), Hard: r.hard.limits(),
		Drops: apply.Drops{
			Forged: r.drops[dropForged], Replayed: r.drops[dropReplayed],
			Malformed: r.drops[dropMalformed], Selectors: r.drops[dropSelectors],
		},
	}
}

func (r *saRecord) installed(larval bool, u apply.Usage) apply.Installed {
	return apply.Installed{
		SAID: apply.SAID{Dst: r.dst.addr(), SPI: r.spi}, Src: r.src.addr(), ReqID: r.reqID,
		Direction: apply.Direction(r.direction), Mode: apply.Mode(r.mode), Usage: u, Larval: larval,
	}
}

// window is the replay window over the record's memory.
func (r *saRecord) window() esp.Window {
	return esp.NewWindow(&r.sequence, r.received[:], r.replayWindow, r.esn != 0)
}

var errRecord = errors.New("a record that is none of ours")

// check refuses a record that we would not have written.
func (r *saRecord) check(larval bool, now int64) error {
	sa := r.sa()
	err := sa.Check()
	switch {
	case err != nil:
	case sa.Mode > apply.Transport, r.added <= 0, r.added > now, r.used < 0, r.used > now, r.lastUsed > now,
		!sa.ESN && r.sequence > 1<<32-1:
		err = errRecord
	case !larval:
		err = sa.CheckAlgorithms()
	}
	if err != nil {
		return fmt.Errorf("SA %08x: %w", r.spi, err)
	}
	return nil
}

func (r *policyRecord) set(p apply.Policy) {
	*r = policyRecord{
		selector: selectorOf(p.Selector), local: addressOf(p.Local), remote: addressOf(p.Remote),
		reqID: p.ReqID, spi: p.SPI, action: uint8(p.Action), mode: uint8(p.Mode), guard: flag(p.Guard),
	}
}

func (r *policyRecord) policy() apply.Policy {
	return apply.Policy{
		Selector: r.selector.sel(), Action: apply.Action(r.action), Mode: apply.Mode(r.mode),
		Local: r.local.addr(), Remote: r.remote.addr(), ReqID: r.reqID, SPI: r.spi, Guard: r.guard != 0,
	}
}
