package userspace

import (
	"cmp"
	"net/netip"
	"slices"

	"ipsec-quick/apply"
	"ipsec-quick/apply/userspace/packet"
)

// tables are the SPD and the SAD as the workers see them. They never change: a
// change makes new ones, and a worker that finds others forgets what it has
// looked up.
type tables struct {
	entries []*entry  // by priority, among equals the older first
	inbound []located // by SPI and address
}

// located is an inbound SA under the name that its packets have.
type located struct {
	id apply.SAID
	sa *association
}

func compareIDs(a, b apply.SAID) int {
	return cmp.Or(cmp.Compare(a.SPI, b.SPI), a.Dst.Compare(b.Dst))
}

// outbound finds the policy of a packet that leaves; nil: there is none. As in the
// kernel it is the first one by priority.
func (t *tables) outbound(f *packet.Flow) *entry {
	src, dst := words(&f.Src), words(&f.Dst)
	for _, e := range t.entries {
		if e.out.match(f, src, dst) {
			return e
		}
	}
	return nil
}

// find finds the SA of a packet that came to an address; nil: there is none.
func (t *tables) find(spi uint32, dst netip.Addr) *association {
	id := apply.SAID{SPI: spi, Dst: dst}
	i, ok := slices.BinarySearchFunc(t.inbound, id, func(l located, id apply.SAID) int { return compareIDs(l.id, id) })
	if !ok {
		return nil
	}
	return t.inbound[i].sa
}

// permits reports whether a packet may come out of an SA: the policy that it has
// as a packet that enters must be the SA's (RFC 4301, Section 5.2, step 4).
func (t *tables) permits(a *association, f *packet.Flow) bool {
	src, dst := words(&f.Src), words(&f.Dst)
	if a.selector != nil && !a.selector.match(f, src, dst) {
		return false
	}
	for _, e := range t.entries {
		if e.in.match(f, src, dst) {
			p := &e.policy
			return p.Action == apply.Protect && p.ReqID == a.reqID && p.Mode == a.mode
		}
	}
	return false
}

// withEntry puts an entry in the place of the one for the same policy, if there
// is one, or behind those of its priority.
func (t *tables) withEntry(e *entry) *tables {
	next := t.withoutEntry(e.policy)
	i, _ := slices.BinarySearchFunc(next.entries, e.priority+1, func(e *entry, p uint32) int { return cmp.Compare(e.priority, p) })
	next.entries = slices.Insert(next.entries, i, e)
	return next
}

// withoutEntry leaves a policy out.
func (t *tables) withoutEntry(p apply.Policy) *tables {
	entries := make([]*entry, 0, len(t.entries)+1)
	for _, e := range t.entries {
		if !e.same(p) {
			entries = append(entries, e)
		}
	}
	return &tables{entries: entries, inbound: t.inbound}
}

// policies are those of the entries.
func (t *tables) policies() []apply.Policy {
	list := make([]apply.Policy, len(t.entries))
	for i, e := range t.entries {
		list[i] = e.policy
	}
	return list
}

// entry finds the entry of a policy; nil: there is none.
func (t *tables) entry(p apply.Policy) *entry {
	for _, e := range t.entries {
		if e.same(p) {
			return e
		}
	}
	return nil
}

// with adds an SA.
func (t *tables) with(a *association) *tables {
	next := &tables{entries: t.entries, inbound: t.inbound}
	if a.direction == apply.In {
		id := a.id()
		i, _ := slices.BinarySearchFunc(t.inbound, id, func(l located, id apply.SAID) int { return compareIDs(l.id, id) })
		next.inbound = slices.Insert(slices.Clone(t.inbound), i, located{id, a})
		return next
	}
	next.entries = slices.Clone(t.entries)
	for i, e := range next.entries {
		if e.sendsOn(a) {
			next.entries[i] = e.with(a)
		}
	}
	return next
}

// without leaves an SA out.
func (t *tables) without(a *association) *tables {
	next := &tables{entries: slices.Clone(t.entries)}
	for i, e := range next.entries {
		if e.sa == a {
			next.entries[i] = e.with(nil)
		}
	}
	for _, l := range t.inbound {
		if l.sa != a {
			next.inbound = append(next.inbound, l)
		}
	}
	return next
}
