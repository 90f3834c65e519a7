package applytest

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"ipsec-quick/apply"
)

// Every algorithm, with and without ESN, in both modes, with and without UDP,
// over IPv4 and IPv6, carries a packet each way, and counts it.
func testAlgorithms(t *testing.T, open Opener) {
	a, b := twoHosts(t, open)
	for _, ipv6 := range []bool{false, true} {
		a.listenESP(a.outer[ipv6], natPort)
		b.listenESP(b.outer[ipv6], natPort)
	}
	for i := range len(suites) << 4 {
		l := link{suite: suites[i>>4], esn: i&1 != 0, ipv6: i&2 != 0, encap: i&4 != 0, mode: apply.Mode(i >> 3 & 1)}
		p := l.install(t, a, b)
		p.exchange()
		octets := uint64(100 + 8) // of what ESP carries: with UDP's header, and in tunnel mode IPv4's
		if l.mode == apply.Tunnel {
			octets += 20
		}
		for _, sa := range []apply.SA{p.ab, p.ba} {
			for _, h := range []*host{a, b} {
				u := p.usage(h, sa)
				if u.Packets != 1 || u.Bytes != octets || u.Drops != (apply.Drops{}) {
					t.Errorf("%v: %+v, want a packet with %d octets", l, u, octets)
				}
				if time.Since(u.Added).Abs() > time.Minute || time.Since(u.Used).Abs() > time.Minute {
					t.Errorf("%v: added %v, used %v", l, u.Added, u.Used)
				}
			}
		}
		p.remove()
	}
	t.Logf("%d kinds of SA", len(suites)<<4)
}

// Each of the four limits is reported, soft before hard, on outbound and inbound
// SAs, and the hard one removes the SA.
func testLimits(t *testing.T, open Opener) {
	a, b := twoHosts(t, open)
	for _, c := range []struct {
		name       string
		soft, hard apply.Limits
	}{
		{"packets", apply.Limits{Packets: 3}, apply.Limits{Packets: 6}},
		{"bytes", apply.Limits{Bytes: 400}, apply.Limits{Bytes: 900}},
		{"time", apply.Limits{Time: time.Second}, apply.Limits{Time: 3 * time.Second}},
		{"use", apply.Limits{Use: time.Second}, apply.Limits{Use: 3 * time.Second}},
	} {
		t.Run(c.name, func(t *testing.T) {
			runtime.LockOSThread()
			l := plain
			l.encap, l.soft, l.hard = false, c.soft, c.hard
			p := l.install(t, a, b)
			if u := p.usage(a, p.ab); u.Soft != c.soft || u.Hard != c.hard || time.Since(u.Added).Abs() > time.Minute {
				t.Errorf("%+v", u)
			}
			p.reachLimits()
			shut(p.aSock)
			shut(p.bSock)
			must(t, a.plane.RemovePolicy(p.policy(a, b, p.ab.SPI)))
			must(t, b.plane.RemovePolicy(p.policy(b, a, p.ba.SPI)))
			must(t, b.plane.RemoveSA(p.ab.ID()))
			must(t, b.plane.RemoveSA(p.ba.ID()))
			a.empty()
			b.empty()
		})
	}
}

// reachLimits sends until both SAs of a have reached their limits.
func (p *pipe) reachLimits() {
	t := p.t
	got := map[apply.Expire]int{}
	deadline := time.After(20 * time.Second)
	for sent := 0; len(got) < 4; sent++ {
		if sent < 12 {
			_, _ = p.aSock.WriteToUDPAddrPort(make([]byte, 100), netip.AddrPortFrom(p.address(p.b), port))
			_, _ = p.bSock.WriteToUDPAddrPort(make([]byte, 100), netip.AddrPortFrom(p.address(p.a), port))
		}
		select {
		case ev := <-p.a.plane.Events():
			ex, ok := ev.(apply.Expire)
			if !ok {
				continue // an Acquire, once the outbound SA is gone
			}
			if ex.Hard && got[apply.Expire{SAID: ex.SAID, ReqID: ex.ReqID}] == 0 {
				t.Errorf("hard before soft: %+v", ex)
			}
			got[ex]++
		case <-time.After(50 * time.Millisecond):
		case <-deadline:
			t.Fatalf("within 20 s only %v", got)
		}
	}
	for _, sa := range []apply.SA{p.ab, p.ba} {
		for _, hard := range []bool{false, true} {
			if n := got[apply.Expire{SAID: sa.ID(), ReqID: reqID, Hard: hard}]; n != 1 {
				t.Errorf("%v SA: %d events with hard=%v", sa.Direction, n, hard)
			}
		}
		list, err := p.a.plane.List([]uint32{reqID})
		must(t, err)
		for _, s := range list {
			if s.SAID == sa.ID() && !s.Larval {
				t.Errorf("still there: %+v", s)
			}
		}
	}
}

// The outbound policy takes up the new SA with the very next packet.
func testSwitchOutbound(t *testing.T, open Opener) {
	a, b := twoHosts(t, open)
	l := plain
	l.esn, l.encap = true, false
	p := l.install(t, a, b)
	p.exchange()
	spi, err := b.plane.AllocSPI(reqID, p.ab.Src, p.ab.Dst, p.mode)
	must(t, err)
	newOut := p.sa(a, b, spi, apply.Out)
	newIn := newOut
	newIn.Direction = apply.In
	must(t, b.plane.InstallSA(newIn))
	must(t, a.plane.InstallSA(newOut))
	p.exchange() // the old one is still used
	if n, m := p.usage(a, p.ab).Packets, p.usage(a, newOut).Packets; n != 2 || m != 0 {
		t.Errorf("before the switch: old %d, new %d", n, m)
	}
	must(t, a.plane.SwitchOutbound(p.policy(a, b, spi)))
	for range 3 {
		p.exchange()
	}
	if n, m := p.usage(a, p.ab).Packets, p.usage(a, newOut).Packets; n != 2 || m != 3 {
		t.Errorf("after the switch: old %d, new %d, want 2 and 3", n, m)
	}
	must(t, a.plane.RemoveSA(p.ab.ID()))
	p.exchange()
}

// A changed port is updated in place, changed addresses too; counters and
// sequence numbers go on, and so does the traffic.
func testUpdateSA(t *testing.T, open Opener) {
	for _, esn := range []bool{false, true} {
		for _, withKeys := range []bool{false, true} {
			t.Run(fmt.Sprintf("esn=%v keys=%v", esn, withKeys), func(t *testing.T) {
				a, b := twoHosts(t, open)
				a.listenESP(a.outer[false], natPort)
				b.listenESP(b.outer[false], natPort)
				l := plain
				l.esn = esn
				p := l.install(t, a, b)
				p.exchange()
				p.moves(withKeys)
				for _, sa := range []apply.SA{p.ab, p.ba} {
					for _, h := range []*host{a, b} {
						if n := p.usage(h, sa).Packets; n != 5 {
							t.Errorf("%v: %d packets, want 5", sa.ID(), n)
						}
					}
				}
				p.remove()
			})
		}
	}
}

// moves gives b another port, which a is told of by an event, and then another
// address.
func (p *pipe) moves(withKeys bool) {
	t, a, b := p.t, p.a, p.b
	update := func(h *host, sa *apply.SA, change func(*apply.SA)) {
		t.Helper()
		change(sa)
		given := *sa
		if !withKeys {
			given.Encryption.Key = nil
		}
		must(t, h.plane.UpdateSA(given))
	}
	const newPort = natPort + 1
	b.listenESP(b.outer[false], newPort)
	update(b, &p.ba2, func(s *apply.SA) { s.Encap = &apply.Encap{SrcPort: newPort, DstPort: natPort} })
	p.exchange()
	m, ok := a.next().(apply.Mapping)
	if want := netip.AddrPortFrom(b.outer[false], newPort); !ok || m.New != want || m.SAID != p.ba.ID() || m.ReqID != reqID {
		t.Errorf("%+v", m)
	}
	update(a, &p.ba, func(s *apply.SA) { s.Encap = &apply.Encap{SrcPort: newPort, DstPort: natPort} })
	update(a, &p.ab, func(s *apply.SA) { s.Encap = &apply.Encap{SrcPort: natPort, DstPort: newPort} })
	update(b, &p.ab2, func(s *apply.SA) { s.Encap = &apply.Encap{SrcPort: natPort, DstPort: newPort} })
	p.exchange()
	a.none(1500 * time.Millisecond)

	moved := netip.MustParseAddr("192.0.2.22")
	b.enter()
	ip(t, "addr add 192.0.2.22/24 dev outer")
	b.listenESP(moved, newPort)
	update(b, &p.ba2, func(s *apply.SA) { s.Src = moved })
	update(b, &p.ab2, func(s *apply.SA) { s.Dst = moved })
	update(a, &p.ba, func(s *apply.SA) { s.Src = moved })
	update(a, &p.ab, func(s *apply.SA) { s.Dst = moved })
	b.outer[false] = moved
	must(t, a.plane.SetPolicy(p.policy(a, b, p.ab.SPI)))
	must(t, b.plane.SetPolicy(p.policy(b, a, p.ba.SPI)))
	p.exchange()
	p.exchange()
	if _, err := a.plane.Query(apply.SAID{Dst: netip.MustParseAddr("192.0.2.2"), SPI: p.ab.SPI}); !errors.Is(err, apply.ErrAbsent) {
		t.Errorf("the SA is still at the old address: %v", err)
	}
}

// An inbound SA is installed on the SPI that was reserved, or was once.
func testReservations(t *testing.T, open Opener) {
	a, b := twoHosts(t, open)
	for _, lapsed := range []bool{false, true} {
		spi, err := a.plane.AllocSPI(reqID, b.outer[false], a.outer[false], apply.Tunnel)
		must(t, err)
		sa := plain.sa(b, a, spi, apply.In)
		list, err := a.plane.List([]uint32{reqID})
		if err != nil || len(list) != 1 || !list[0].Larval || list[0].SAID != sa.ID() || list[0].Src != sa.Src ||
			list[0].Direction != apply.In {
			t.Errorf("%+v, %v", list, err)
		}
		if lapsed {
			must(t, a.plane.RemoveSA(sa.ID()))
		}
		must(t, a.plane.InstallSA(sa))
		if err := a.plane.InstallSA(sa); !errors.Is(err, apply.ErrExists) {
			t.Errorf("installed twice: %v", err)
		}
		list, err = a.plane.List([]uint32{reqID - 1, reqID})
		if err != nil || len(list) != 1 || list[0].Larval || list[0].Direction != apply.In {
			t.Errorf("%+v, %v", list, err)
		}
		if list, err := a.plane.List([]uint32{reqID - 1}); err != nil || len(list) > 0 {
			t.Errorf("another's: %+v, %v", list, err)
		}
		must(t, a.plane.RemoveSA(sa.ID()))
		if err := a.plane.RemoveSA(sa.ID()); !errors.Is(err, apply.ErrAbsent) {
			t.Errorf("removed twice: %v", err)
		}
		a.none(0)
	}
}
