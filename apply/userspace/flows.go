package userspace

import (
	"encoding/binary"

	"ipsec-quick/apply/userspace/packet"
)

// flowSlots is how many flows a worker remembers, a power of two. One that has
// been displaced is looked up again.
const flowSlots = 256

// flows remembers what was looked up for a flow, as long as the tables stay the
// same. It is for one goroutine.
type flows[V any] struct {
	tables *tables
	slots  [flowSlots]struct {
		flow  packet.Flow
		known bool
		value V
	}
}

// get finds what put has remembered with the same tables.
func (c *flows[V]) get(t *tables, f *packet.Flow) (v V, ok bool) {
	if c.tables != t {
		*c = flows[V]{tables: t}
		return v, false
	}
	s := &c.slots[hash(f)%flowSlots]
	if !s.known || s.flow != *f {
		return v, false
	}
	return s.value, true
}

// put remembers a value, after a get.
func (c *flows[V]) put(f *packet.Flow, v V) {
	s := &c.slots[hash(f)%flowSlots]
	s.flow, s.known, s.value = *f, true, v
}

// hash spreads flows. A flow and the one of its answers have the same, so that
// one worker sees both directions.
func hash(f *packet.Flow) uint32 {
	le := binary.LittleEndian
	h := le.Uint64(f.Src[:]) ^ le.Uint64(f.Dst[:]) ^ le.Uint64(f.Src[8:]) ^ le.Uint64(f.Dst[8:]) ^
		uint64(f.SrcPort^f.DstPort)<<32 ^ uint64(f.Protocol)
	return uint32(h * 0x9e3779b97f4a7c15 >> 40) // the golden ratio: the upper bits depend on all
}
