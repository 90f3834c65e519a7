package userspace

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"ipsec-quick/apply"
	"ipsec-quick/apply/userspace/packet"
)

// naive is what a policy says, word by word: which policies a packet is within,
// and of those the one that the kernel looks at first.
func naive(policies []apply.Policy, f packet.Flow, d apply.Direction) *apply.Policy {
	var best *apply.Policy
	for i := range policies {
		p := &policies[i]
		local, remote := f.Source(), f.Destination()
		lport, rport := f.SrcPort, f.DstPort
		if d == apply.In {
			local, remote = remote, local
			if f.Protocol != 1 && f.Protocol != 58 {
				lport, rport = rport, lport
			}
		}
		s := p.Selector
		in := s.Local.Contains(local) && s.Remote.Contains(remote) && (s.Protocol == 0 || s.Protocol == f.Protocol) &&
			lport&s.LocalPort.Mask == s.LocalPort.Port && rport&s.RemotePort.Mask == s.RemotePort.Port
		if in && (best == nil || p.Priority() < best.Priority()) {
			best = p
		}
	}
	return best
}

// Lookups find what a naive one finds, whatever the policies and the order in
// which they came and went.
func TestLookupIsLongestMatch(t *testing.T) {
	rnd := rand.New(rand.NewPCG(4301, 4))
	hits := 0
	for range 200 {
		tb := &tables{}
		var policies []apply.Policy // in the order in which they were set
		for range rnd.IntN(40) {
			p := randomPolicy(rnd)
			if p.Check() != nil {
				continue
			}
			gone := rnd.IntN(5) == 0
			same := func(q apply.Policy) bool { return q.Selector == p.Selector && q.Guard == p.Guard }
			policies = slices.DeleteFunc(policies, same)
			if gone {
				tb = tb.withoutEntry(p)
				continue
			}
			policies = append(policies, p)
			tb = tb.withEntry(newEntry(p, nil))
		}
		for range 200 {
			f := randomFlow(rnd)
			want, got := naive(policies, f, apply.Out), tb.outbound(&f)
			if (want == nil) != (got == nil) || want != nil && got.policy != *want {
				t.Fatalf("%v leaves by %v, want %v of\n%v", f, got, want, policies)
			}
			a := &association{reqID: 7}
			want = naive(policies, f, apply.In)
			permitted := want != nil && want.Action == apply.Protect && want.ReqID == 7
			if tb.permits(a, &f) != permitted {
				t.Fatalf("%v enters: %v, want %v by %v", f, !permitted, permitted, want)
			}
			if permitted {
				hits++
			}
		}
	}
	if hits < 100 {
		t.Errorf("%d packets were permitted, which shows little", hits)
	}
}

func randomPolicy(rnd *rand.Rand) apply.Policy {
	six := rnd.IntN(3) == 0
	prefix := func() netip.Prefix {
		a, bits := randomAddr(rnd, six), 32
		if six {
			bits = 128
		}
		if rnd.IntN(4) > 0 {
			bits = rnd.IntN(bits + 1)
		}
		p := netip.PrefixFrom(a, bits)
		if rnd.IntN(2) == 0 {
			p = p.Masked()
		}
		return p
	}
	port := func() apply.PortMask {
		m := []uint16{0, 0, 0xffff, 0xfffe, 0x8000}[rnd.IntN(5)]
		return apply.PortMask{Port: uint16(rnd.IntN(4)) & m, Mask: m}
	}
	p := apply.Policy{
		Selector: apply.Selector{Local: prefix(), Remote: prefix()}, Guard: rnd.IntN(3) == 0,
		Action: apply.Action(1 + rnd.IntN(4)), Local: us, Remote: peer, ReqID: uint32(7 + rnd.IntN(4)/3), SPI: 1000,
	}
	if rnd.IntN(2) == 0 {
		p.Selector.Protocol = []uint8{1, 6, 17, 58}[rnd.IntN(4)]
		p.Selector.LocalPort, p.Selector.RemotePort = port(), port()
	}
	return p
}

// randomAddr is one of few, so that policies and packets meet.
func randomAddr(rnd *rand.Rand, six bool) netip.Addr {
	if six {
		return netip.AddrFrom16([16]byte{0x20, 1, 8: byte(rnd.IntN(2)), 15: byte(rnd.IntN(3))})
	}
	return netip.AddrFrom4([4]byte{10, byte(rnd.IntN(2)), 0, byte(rnd.IntN(3))})
}

func randomFlow(rnd *rand.Rand) packet.Flow {
	six := rnd.IntN(3) == 0
	f := packet.Flow{
		IPv6: six, Protocol: []uint8{1, 6, 17, 58, 50}[rnd.IntN(5)],
		SrcPort: uint16(rnd.IntN(4)), DstPort: uint16(rnd.IntN(4)),
	}
	copy(f.Src[:], randomAddr(rnd, six).AsSlice())
	copy(f.Dst[:], randomAddr(rnd, six).AsSlice())
	return f
}

// Of two policies that a packet fits equally well the older one counts, and one
// that is set again is new.
func TestEqualPriorities(t *testing.T) {
	a, b := protect(1), protect(2)
	a.Selector.Remote = netip.MustParsePrefix("10.2.0.0/24")
	b.Selector.Local = netip.MustParsePrefix("10.1.0.0/24")
	tb := (&tables{}).withEntry(newEntry(a, nil)).withEntry(newEntry(b, nil))
	if e := tb.outbound(&leaves); e.policy != a {
		t.Error(e.policy)
	}
	if e := tb.withEntry(newEntry(a, nil)).outbound(&leaves); e.policy != b {
		t.Error(e.policy)
	}
}

// A packet comes out of the SA that its policy names, within the SA's selector.
func TestPermits(t *testing.T) {
	tb := (&tables{}).withEntry(newEntry(protect(1), nil))
	icmp := apply.Policy{Selector: inner, Action: apply.Bypass, Guard: true}
	icmp.Selector.Protocol = 1
	tb = tb.withEntry(newEntry(icmp, nil))
	web := inner
	web.Protocol, web.RemotePort = 6, apply.PortMask{Port: 80, Mask: 0xffff}
	only := newMatcher(web, apply.In)
	ping := enters
	ping.Protocol, ping.SrcPort, ping.DstPort = 1, 8, 0
	mail := enters
	mail.SrcPort = 25
	for _, c := range []struct {
		name string
		a    *association
		f    packet.Flow
		want bool
	}{
		{"its own", &association{reqID: 7}, enters, true},
		{"another peer's", &association{reqID: 8}, enters, false},
		{"another mode", &association{reqID: 7, mode: apply.Transport}, enters, false},
		{"what passes in clear", &association{reqID: 7}, ping, false},
		{"reflected", &association{reqID: 7}, leaves, false},
		{"its selector", &association{reqID: 7, selector: &only}, enters, true},
		{"not its selector", &association{reqID: 7, selector: &only}, mail, false},
		{"IPv6", &association{reqID: 7}, packet.Flow{IPv6: true, Src: enters.Src, Dst: enters.Dst}, false},
	} {
		if got := tb.permits(c.a, &c.f); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// A policy without an SA raises an Acquire, one a second.
func TestAcquire(t *testing.T) {
	p, _ := openBench(t, t.TempDir())
	trap := apply.Policy{Selector: inner, Action: apply.Trap, Local: us, Remote: peer, ReqID: 7, Guard: true}
	must(t, p.SetPolicy(trap))
	at := now()
	meet := func(at int64) {
		p.acquire(p.tables.Load().outbound(&leaves), &leaves, at)
	}
	want := apply.Acquire{ReqID: 7, Local: us, Remote: peer, Packet: apply.Selector{
		Local: netip.MustParsePrefix("10.1.0.1/32"), Remote: netip.MustParsePrefix("10.2.0.1/32"), Protocol: 6,
		LocalPort: apply.PortMask{Port: 1234, Mask: 0xffff}, RemotePort: apply.PortMask{Port: 80, Mask: 0xffff},
	}}
	meet(at)
	wantEvent(t, p, want)
	meet(at + 1)
	must(t, p.SetPolicy(trap)) // the same one
	meet(at + acquireEvery - 1)
	none(t, p)
	meet(at + acquireEvery)
	wantEvent(t, p, want)

	lost := protect(0xc0000001) // its SA has hard-expired
	must(t, p.SetPolicy(lost))
	meet(at)
	wantEvent(t, p, want)
	lost.Action, lost.Guard = apply.Block, false
	must(t, p.SetPolicy(lost))
	meet(at + 9*acquireEvery)
	none(t, p)
}

// A consumer that is too slow gets an Overrun behind what it is in time for.
func TestOverrun(t *testing.T) {
	e := newEvents()
	for i := range 3 * eventQueue {
		e.tell(apply.Expire{ReqID: uint32(i)})
	}
	for i := range eventQueue - 1 {
		if ev := <-e.out; ev != (apply.Expire{ReqID: uint32(i)}) {
			t.Fatalf("%d: %+v", i, ev)
		}
		if i == 0 {
			e.tell(apply.Expire{}) // there is room for another Overrun
		}
	}
	for range 2 {
		if ev := <-e.out; ev != (apply.Overrun{}) {
			t.Errorf("%+v", ev)
		}
		e.tell(apply.Expire{ReqID: 9})
	}
	if ev := <-e.out; ev != (apply.Expire{ReqID: 9}) {
		t.Errorf("%+v", ev)
	}
	e.close()
	e.close()
	e.tell(apply.Expire{})
}

// A lookup costs little even where every policy has to be looked at.
func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1, 10, 1000} {
		tb := &tables{}
		for i := range n {
			p := protect(1)
			p.Selector.Remote = netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}), 32)
			tb = tb.withEntry(newEntry(p, nil))
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				tb.outbound(&leaves)
			}
		})
	}
}
