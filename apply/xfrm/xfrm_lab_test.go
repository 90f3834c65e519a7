//go:build lab

package xfrm

import (
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"ipsec-quick/apply"
)

// The preflight finds all we use, and leaves nothing.
func TestLabPreflight(t *testing.T) {
	a, _ := twoHosts(t)
	a.enter()
	suites := append([]Suite{{Encryption: apply.AESCBC, KeyLen: 32, Integrity: apply.HMACSHA512}}, plain...)
	start := time.Now()
	k, err := New(suites...)
	must(t, err)
	t.Logf("New in %v (modules are loaded): %+v", time.Since(start), k.quirks)
	must(t, k.Close())
	for _, need := range [][]Suite{nil, suites} {
		start = time.Now()
		k, err = New(need...)
		must(t, err)
		t.Logf("New again, %d suites, in %v", len(need), time.Since(start))
		must(t, k.Close())
	}
	support, err := Probe(suites...)
	must(t, err)
	if !support.ESP4 || !support.ESP6 || len(support.Suites) != len(suites) {
		t.Errorf("%+v", support)
	}
	for s, ok := range support.Suites {
		if !ok {
			t.Errorf("no %+v", s)
		}
	}
	if left := ip(t, "xfrm state"); left != "" {
		t.Errorf("left:\n%s", left)
	}
}

var gcm = Suite{Encryption: apply.AESGCM16, KeyLen: 20}

// Every algorithm, with and without ESN, in both modes, with and without UDP,
// over IPv4 and IPv6, carries a packet each way, and shows up as it should.
func TestLabAlgorithms(t *testing.T) {
	suites := []Suite{
		gcm,
		{Encryption: apply.AESGCM16, KeyLen: 36},
		{Encryption: apply.ChaCha20Poly1305, KeyLen: 36},
		{Encryption: apply.AESCBC, KeyLen: 16, Integrity: apply.HMACSHA256},
		{Encryption: apply.AESCBC, KeyLen: 32, Integrity: apply.HMACSHA384},
		{Encryption: apply.AESCBC, KeyLen: 32, Integrity: apply.HMACSHA512},
	}
	a, b := twoHosts(t)
	for _, ipv6 := range []bool{false, true} {
		a.listenESP(a.outer[ipv6], 4500)
		b.listenESP(b.outer[ipv6], 4500)
	}
	n := 0
	for i := range len(suites) << 4 {
		l := link{suite: suites[i>>4], esn: i&1 != 0, ipv6: i&2 != 0, encap: i&4 != 0, mode: apply.Mode(i >> 3 & 1)}
		p := l.install(t, a, b)
		p.exchange()
		for _, sa := range []apply.SA{p.ab, p.ba} {
			for _, h := range []*host{a, b} {
				if got := p.packets(h, sa); got != 1 {
					t.Errorf("%v: %d packets, want 1", l, got)
				}
			}
		}
		a.enter()
		shown := ip(t, "-s xfrm state")
		wants := []string{fmt.Sprintf("spi 0x%08x", p.ab.SPI), fmt.Sprintf("spi 0x%08x", p.ba.SPI), "reqid 77(", "mode " + l.mode.String()}
		k, _ := p.ab.Encryption.Kernel()
		wants = append(wants, k.Name)
		if l.encap {
			wants = append(wants, "encap type espinudp sport 4500 dport 4500")
		}
		if l.mode == apply.Tunnel {
			wants = append(wants, "af-unspec")
		}
		if l.esn {
			wants = append(wants, "esn", "replay_window 128")
		}
		for _, want := range wants {
			if !strings.Contains(shown, want) {
				t.Errorf("%v: no %q in\n%s", l, want, shown)
			}
		}
		p.remove()
		n++
	}
	t.Logf("%d kinds of SA", n)
}

// Each of the four limits is reported, soft before hard, on outbound and inbound
// SAs, and the hard one removes the SA.
func TestLabLimits(t *testing.T) {
	a, b := twoHosts(t)
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
			p := link{suite: gcm, soft: c.soft, hard: c.hard}.install(t, a, b)
			p.t = t
			u, err := a.kernel.Query(p.ab.ID())
			if err != nil || u.Soft != c.soft || u.Hard != c.hard || time.Since(u.Added).Abs() > time.Minute {
				t.Errorf("%+v, %v", u, err)
			}
			got := map[apply.Expire]int{}
			deadline := time.After(15 * time.Second)
			for sent := 0; len(got) < 4; sent++ {
				if sent < 12 {
					to := netip.AddrPortFrom(p.address(b), 7)
					_, _ = p.aSock.WriteToUDPAddrPort(make([]byte, 100), to)
					to = netip.AddrPortFrom(p.address(a), 7)
					_, _ = p.bSock.WriteToUDPAddrPort(make([]byte, 100), to)
				}
				select {
				case ev := <-a.kernel.Events():
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
					t.Fatalf("within 15 s only %v", got)
				}
			}
			for _, sa := range []apply.SA{p.ab, p.ba} {
				for _, hard := range []bool{false, true} {
					if n := got[apply.Expire{SAID: sa.ID(), ReqID: 77, Hard: hard}]; n != 1 {
						t.Errorf("%v SA: %d events with hard=%v", sa.Direction, n, hard)
					}
				}
				list, err := a.kernel.List([]uint32{77})
				must(t, err)
				for _, s := range list {
					if s.SAID == sa.ID() && !s.Larval {
						t.Errorf("still there: %+v", s)
					}
				}
			}
			p.aSock.Close()
			p.bSock.Close()
			must(t, a.kernel.RemovePolicy(p.policy(a, b, p.ab.SPI)))
			must(t, b.kernel.RemovePolicy(p.policy(b, a, p.ba.SPI)))
			must(t, b.kernel.RemoveSA(p.ab.ID()))
			must(t, b.kernel.RemoveSA(p.ba.ID()))
			a.enter()
			if left := ip(t, "xfrm state") + ip(t, "xfrm policy"); left != "" {
				t.Errorf("left:\n%s", left)
			}
		})
	}
}

// The outbound policy takes up the new SA with the very next packet.
func TestLabSwitchOutbound(t *testing.T) {
	a, b := twoHosts(t)
	p := link{suite: gcm, esn: true}.install(t, a, b)
	p.exchange()
	spi, err := b.kernel.AllocSPI(77, p.ab.Src, p.ab.Dst, p.mode)
	must(t, err)
	newOut := p.sa(a, b, spi, apply.Out)
	newIn := newOut
	newIn.Direction = apply.In
	must(t, b.kernel.InstallSA(newIn))
	must(t, a.kernel.InstallSA(newOut))
	p.exchange() // the old one is still used
	if n, m := p.packets(a, p.ab), p.packets(a, newOut); n != 2 || m != 0 {
		t.Errorf("before the switch: old %d, new %d", n, m)
	}
	must(t, a.kernel.SwitchOutbound(p.policy(a, b, spi)))
	for range 3 {
		p.exchange()
	}
	if n, m := p.packets(a, p.ab), p.packets(a, newOut); n != 2 || m != 3 {
		t.Errorf("after the switch: old %d, new %d, want 2 and 3", n, m)
	}
	must(t, a.kernel.RemoveSA(p.ab.ID()))
	p.exchange()
}

// A changed port is updated in place, changed addresses by replacement; counters
// and sequence numbers go on, the traffic too.
func TestLabUpdateSA(t *testing.T) {
	for _, esn := range []bool{false, true} {
		for _, withKeys := range []bool{false, true} {
			t.Run(fmt.Sprintf("esn=%v keys=%v", esn, withKeys), func(t *testing.T) {
				a, b := twoHosts(t)
				a.listenESP(a.outer[false], 4500)
				b.listenESP(b.outer[false], 4500)
				l := link{suite: gcm, esn: esn, encap: true}
				p := l.install(t, a, b)
				p.exchange()
				update := func(h *host, sa *apply.SA, change func(*apply.SA)) {
					t.Helper()
					change(sa)
					given := *sa
					if !withKeys {
						given.Encryption.Key = nil
					}
					must(t, h.kernel.UpdateSA(given))
				}

				// b's packets now come from port 4501.
				b.listenESP(b.outer[false], 4501)
				update(b, &p.ba2, func(s *apply.SA) { s.Encap = &apply.Encap{SrcPort: 4501, DstPort: 4500} })
				p.exchange()
				m, ok := next(t, a.kernel).(apply.Mapping)
				if want := netip.AddrPortFrom(b.outer[false], 4501); !ok || m.New != want || m.SAID != p.ba.ID() || m.ReqID != 77 {
					t.Errorf("%+v", m)
				}
				update(a, &p.ba, func(s *apply.SA) { s.Encap = &apply.Encap{SrcPort: 4501, DstPort: 4500} })
				update(a, &p.ab, func(s *apply.SA) { s.Encap = &apply.Encap{SrcPort: 4500, DstPort: 4501} })
				p.exchange()
				none(t, a.kernel, 1500*time.Millisecond)

				// b moves to another address.
				moved := netip.MustParseAddr("192.0.2.22")
				b.enter()
				ip(t, "addr add 192.0.2.22/24 dev outer")
				b.listenESP(moved, 4501)
				update(b, &p.ba2, func(s *apply.SA) { s.Src = moved })
				update(b, &p.ab2, func(s *apply.SA) { s.Dst = moved })
				update(a, &p.ba, func(s *apply.SA) { s.Src = moved })
				update(a, &p.ab, func(s *apply.SA) { s.Dst = moved })
				b.outer[false] = moved
				must(t, a.kernel.SetPolicy(p.policy(a, b, p.ab.SPI)))
				must(t, b.kernel.SetPolicy(p.policy(b, a, p.ba.SPI)))
				p.exchange()
				p.exchange()
				for _, sa := range []apply.SA{p.ab, p.ba} {
					for _, h := range []*host{a, b} {
						if n := p.packets(h, sa); n != 5 {
							t.Errorf("%v: %d packets, want 5", sa.ID(), n)
						}
					}
				}
				a.enter()
				if s := ip(t, "xfrm state"); strings.Contains(s, "192.0.2.2 ") {
					t.Errorf("the old address is still there:\n%s", s)
				}
				p.remove()
			})
		}
	}
}

// An inbound SA is installed on the SPI that was allocated, whether the kernel
// still has it, has forgotten it, or another process allocated it.
func TestLabReservations(t *testing.T) {
	a, b := twoHosts(t)
	a.enter()
	other := opened(t)
	for name, reserve := range map[string]func() uint32{
		"kept": func() uint32 {
			spi, err := a.kernel.AllocSPI(77, b.outer[false], a.outer[false], apply.Tunnel)
			must(t, err)
			return spi
		},
		"another process's": func() uint32 {
			spi, err := other.AllocSPI(77, b.outer[false], a.outer[false], apply.Tunnel)
			must(t, err)
			return spi
		},
		"lapsed": func() uint32 {
			spi, err := a.kernel.AllocSPI(77, b.outer[false], a.outer[false], apply.Tunnel)
			must(t, err)
			must(t, other.RemoveSA(apply.SAID{Dst: a.outer[false], SPI: spi}))
			return spi
		},
	} {
		sa := link{suite: gcm}.sa(b, a, reserve(), apply.In)
		if err := a.kernel.InstallSA(sa); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := a.kernel.InstallSA(sa); err == nil || !strings.Contains(err.Error(), "exists") {
			t.Errorf("%s: installed twice: %v", name, err)
		}
		list, err := a.kernel.List([]uint32{77})
		if err != nil || len(list) != 1 || list[0].Larval || list[0].Direction != apply.In {
			t.Errorf("%s: %+v, %v", name, list, err)
		}
		must(t, a.kernel.RemoveSA(sa.ID()))
	}
}

// What is printed can be pasted: it makes what we made, up to what ip cannot say.
func TestLabCommands(t *testing.T) {
	a, b := twoHosts(t)
	for _, l := range []link{
		{suite: gcm, esn: true, encap: true, soft: apply.Limits{Time: time.Minute, Bytes: 1e6}, hard: apply.Limits{Time: time.Hour, Use: time.Hour, Packets: 5e9}},
		{suite: Suite{Encryption: apply.AESCBC, KeyLen: 32, Integrity: apply.HMACSHA512}, ipv6: true, mode: apply.Transport},
	} {
		var commands []string
		made := map[apply.Direction]string{}
		policy := l.policy(a, b, 0xc0000002)
		for _, sa := range []apply.SA{l.sa(a, b, 0xc0000002, apply.Out), l.sa(b, a, 0xc0000001, apply.In)} {
			sa.Soft, sa.Hard = l.soft, l.hard
			if l.mode == apply.Transport {
				sa.Selector = &policy.Selector
			}
			must(t, a.kernel.InstallSA(sa))
			a.enter()
			made[sa.Direction] = normal(ip(t, "xfrm state"))
			must(t, a.kernel.RemoveSA(sa.ID()))

			c := strings.Replace(sa.InstallCommand(), " update ", " add ", 1)
			commands = append(commands, c)
			for _, key := range []apply.Key{sa.Encryption.Key, sa.Integrity.Key} {
				c = strings.Replace(c, "<hidden>", fmt.Sprintf("0x%x", []byte(key)), 1)
			}
			shell(t, c)
			if pasted := normal(ip(t, "xfrm state")); pasted != made[sa.Direction] {
				t.Errorf("%s\nmakes\n%s\nwe made\n%s", c, pasted, made[sa.Direction])
			}
			shell(t, sa.ID().DeleteCommand())
		}
		for _, p := range []apply.Policy{policy, {Selector: policy.Selector, Action: apply.Trap, Mode: l.mode, Local: policy.Local, Remote: policy.Remote, ReqID: 5}} {
			must(t, a.kernel.SetPolicy(p))
			ours := normal(ip(t, "xfrm policy"))
			must(t, a.kernel.RemovePolicy(p))
			for _, c := range p.SetCommands() {
				shell(t, c)
			}
			if pasted := normal(ip(t, "xfrm policy")); pasted != ours {
				t.Errorf("%q\nmake\n%s\nwe made\n%s", p.SetCommands(), pasted, ours)
			}
			for _, c := range p.DeleteCommands() {
				shell(t, c)
			}
		}
		t.Log(strings.Join(commands, "\n"))
	}
}

func shell(t *testing.T, command string) {
	t.Helper()
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", command, err, out)
	}
}

// normal is a listing without times and the direction, which older ip cannot set.
func normal(list string) string {
	var lines []string
	for line := range strings.Lines(list) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "dir ") && !strings.Contains(line, "priority") ||
			strings.HasPrefix(line, "anti-replay") || strings.HasPrefix(line, "lastused") ||
			strings.HasPrefix(line, "seq-hi") || strings.HasPrefix(line, "replay_window") ||
			strings.HasPrefix(line, "00000000") || strings.HasPrefix(line, "mtimer") {
			continue
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}
