package userspace

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"

	"ipsec-quick/apply"
	"ipsec-quick/apply/userspace/packet"
)

// An entry is a policy in the SPD (RFC 4301, Section 4.4.1). It never changes;
// another one takes its place.
type entry struct {
	policy   apply.Policy
	slot     *slot[policyRecord]
	priority uint32
	out, in  matcher
	// sa is what a Protect sends on; nil: it is not there.
	sa *association
	// acquired is when this policy last raised an Acquire. All that take each
	// other's place have the same.
	acquired *atomic.Int64
}

func newEntry(p apply.Policy, s *slot[policyRecord]) *entry {
	return &entry{
		policy: p, slot: s, priority: p.Priority(),
		out: newMatcher(p.Selector, apply.Out), in: newMatcher(p.Selector, apply.In),
		acquired: new(atomic.Int64),
	}
}

// with is the entry with another SA.
func (e *entry) with(sa *association) *entry {
	other := *e
	other.sa = sa
	return &other
}

// same reports whether a policy takes the entry's place: it has its selector and
// its Guard.
func (e *entry) same(p apply.Policy) bool {
	return e.policy.Selector == p.Selector && e.policy.Guard == p.Guard
}

// sendsOn reports whether the policy's packets leave on an SA. The address is not
// looked at: a peer that moves takes its SA along, and the policy follows.
func (e *entry) sendsOn(a *association) bool {
	p := &e.policy
	return p.Action == apply.Protect && a.direction == apply.Out && !a.larval &&
		a.spi == p.SPI && a.reqID == p.ReqID && a.mode == p.Mode
}

// acquireEvery is how often one policy raises an Acquire at most, in nanoseconds.
const acquireEvery = 1e9

// mayAcquire reports whether the policy's packet, which has no SA, is to raise an
// Acquire now.
func (e *entry) mayAcquire(now int64) bool {
	if e.policy.Action != apply.Trap && e.policy.Action != apply.Protect {
		return false
	}
	last := e.acquired.Load()
	return (last == 0 || now-last >= acquireEvery) && e.acquired.CompareAndSwap(last, now)
}

// matcher is a selector in the form in which packets are compared with it, for
// one direction.
type matcher struct {
	src, srcMask, dst, dstMask [2]uint64
	sport, dport               apply.PortMask
	protocol                   uint8 // 0: any
	ipv6                       bool
}

func newMatcher(s apply.Selector, d apply.Direction) matcher {
	src, dst, sport, dport := s.SrcDst(d)
	m := matcher{sport: sport, dport: dport, protocol: s.Protocol, ipv6: src.Addr().Is6()}
	m.src, m.srcMask = prefixWords(src)
	m.dst, m.dstMask = prefixWords(dst)
	return m
}

// prefixWords are a prefix's address and mask as packet.Flow has addresses.
func prefixWords(p netip.Prefix) (addr, mask [2]uint64) {
	for i := range mask {
		if n := p.Bits() - 64*i; n > 0 {
			mask[i] = ^uint64(0) << (64 - min(n, 64))
		}
	}
	var b [16]byte
	copy(b[:], p.Addr().AsSlice())
	return words(&b), mask
}

func words(b *[16]byte) [2]uint64 {
	return [2]uint64{binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])}
}

// match reports whether a packet is within the selector. src and dst are the words
// of its addresses.
func (m *matcher) match(f *packet.Flow, src, dst [2]uint64) bool {
	if (dst[0]^m.dst[0])&m.dstMask[0]|(dst[1]^m.dst[1])&m.dstMask[1]|
		(src[0]^m.src[0])&m.srcMask[0]|(src[1]^m.src[1])&m.srcMask[1] != 0 {
		return false
	}
	return m.ipv6 == f.IPv6 && (m.protocol == 0 || m.protocol == f.Protocol) &&
		(f.SrcPort^m.sport.Port)&m.sport.Mask == 0 && (f.DstPort^m.dport.Port)&m.dport.Mask == 0
}

// packetSelector is what an Acquire says of a packet that leaves.
func packetSelector(f packet.Flow) apply.Selector {
	src, dst := f.Source(), f.Destination()
	return apply.Selector{
		Local: netip.PrefixFrom(src, src.BitLen()), Remote: netip.PrefixFrom(dst, dst.BitLen()), Protocol: f.Protocol,
		LocalPort:  apply.PortMask{Port: f.SrcPort, Mask: 0xffff},
		RemotePort: apply.PortMask{Port: f.DstPort, Mask: 0xffff},
	}
}
