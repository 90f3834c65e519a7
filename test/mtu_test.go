//go:build lab

package lab_test

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// TestMTU wants the MTU that a tunnel's interface is given to be the length of the
// longest packet that goes through in one piece.
func TestMTU(t *testing.T) {
	t.Parallel()
	for i, cipher := range []string{"aes256gcm16", "aes128-sha256", "chacha20poly1305"} {
		eachOuter(func(ipv6, udp bool, outer string) {
			if i > 0 && (ipv6 || udp) && !*full {
				return
			}
			row := harness.NewRow(interfaceGroup, "MTU: "+cipher+" over "+outer, "both ends")
			t.Run(cipher+"/"+outer, func(t *testing.T) {
				t.Parallel()
				row.Of(t)
				row.Notef("%d, and no packet longer", newMTU(t, cipher, ipv6, udp).longest())
			})
		})
	}
}

// TestPathMTU has a router on the path take no more than 1400 octets.
func TestPathMTU(t *testing.T) {
	t.Parallel()
	eachOuter(func(ipv6, udp bool, outer string) {
		row := harness.NewRow(interfaceGroup, "the path MTU drops to 1400, over "+outer, "both ends")
		t.Run(outer, func(t *testing.T) {
			t.Parallel()
			row.Of(t)
			m := newMTU(t, "aes256gcm16", ipv6, udp)
			before := m.longest()
			m.Middle.Run("ip", "link", "set", "port1", "mtu", "1400")
			m.B().Run("ip", "link", "set", "eth0", "mtu", "1400")
			start := time.Now()
			if !harness.Poll(100*time.Second, func() bool {
				// It is by packets that are too long that the host gets to know the path.
				m.ping(m.A(), m.A().Inner4, m.B().Inner4, before)
				return m.device(m.A()) == before-100 && m.device(m.B()) == before-100
			}) {
				t.Fatalf("MTUs of %d and %d, not of %d", m.device(m.A()), m.device(m.B()), before-100)
			}
			took := time.Since(start)
			row.Notef("from %d to %d after %.0f s, and no packet longer", before, m.longest(), took.Seconds())
		})
	})
}

// eachOuter calls f for ESP over IPv4 and IPv6, with a NAT (where there is one) or
// UDP and without.
func eachOuter(f func(ipv6, udp bool, name string)) {
	f(false, false, "IPv4")
	f(false, true, "IPv4, behind a NAT")
	f(true, false, "IPv6")
	f(true, true, "IPv6, in UDP")
}

// mtu is two hosts with a tunnel between them that has interfaces.
type mtu struct {
	*harness.Net
	t *testing.T
}

func newMTU(t *testing.T, cipher string, ipv6, udp bool) *mtu {
	t.Helper()
	var n *harness.Net
	if udp && !ipv6 {
		n = harness.NewNAT(t, "a", "b")
	} else {
		n = harness.NewRouter(t, "a", "b")
	}
	a, b := n.A(), n.B()
	fa, fb := between(a, b), between(b, a)
	if ipv6 {
		fa.peer = b.Outer6.String()
	}
	fb.peer, fb.start = "", "passive"
	for _, f := range []struct {
		*quickFile
		we, they *harness.Host
	}{{&fa, a, b}, {&fb, b, a}} {
		f.esp, f.device = cipher, "[interface]"
		f.localTS, f.remoteTS = netip.Prefix{}, netip.Prefix{}
		f.more = fmt.Sprintf("local_ts = [%q, %q]\nremote_ts = [%q, %q]", f.we.Net4, f.we.Net6, f.they.Net4, f.they.Net6)
		f.ikeMore = `encap = "no"`
		if udp {
			f.ikeMore = `encap = "yes"`
		}
	}
	qa, qb := harness.NewQuick(t, a, "tunnel", fa.String()), harness.NewQuick(t, b, "tunnel", fb.String())
	qb.Up()
	qa.Up()
	within(t, 10*time.Second, "established at both ends", func() bool { return qa.Established() && qb.Established() })
	return &mtu{n, t}
}

var mtuOf = regexp.MustCompile(` mtu (\d+) `)

// device is the MTU of a host's interface.
func (m *mtu) device(h *harness.Host) int {
	m.t.Helper()
	found := mtuOf.FindStringSubmatch(h.Run("ip", "-o", "link", "show", "dev", "tunnel"))
	if found == nil {
		m.t.Fatal("the interface has no MTU")
	}
	n, _ := strconv.Atoi(found[1])
	return n
}

// ping reports whether a packet of some octets, which may not be fragmented, is
// answered by one of as many.
func (m *mtu) ping(h *harness.Host, from, to netip.Addr, octets int) bool {
	header := 28
	if to.Is6() {
		header = 48
	}
	return h.Exec("ping", "-n", "-M", "do", "-c", "1", "-W", "2", "-s", strconv.Itoa(octets-header), "-I", from.String(), to.String()).Err == nil
}

// longest is the MTU of both ends' interfaces. It wants packets of just that length
// to go through, and none that are an octet longer even if the interface lets them.
func (m *mtu) longest() int {
	m.t.Helper()
	a, b := m.A(), m.B()
	var n, other int
	if !harness.Poll(5*time.Second, func() bool {
		n, other = m.device(a), m.device(b)
		return n == other // the responder sets it when its answer has left
	}) {
		m.t.Errorf("MTU %d at one end, %d at the other", n, other)
	}
	through := func(octets int, want bool) {
		m.t.Helper()
		for _, p := range [][2]netip.Addr{{a.Inner4, b.Inner4}, {a.Inner6, b.Inner6}} {
			if got := m.ping(a, p[0], p[1], octets); got != want {
				m.t.Errorf("a packet of %d octets to %v, with MTU %d: answered %v, want %v", octets, p[1], n, got, want)
			}
		}
	}
	through(n, true)
	set := func(mtu int) {
		for _, h := range m.Hosts {
			h.Run("ip", "link", "set", "tunnel", "mtu", strconv.Itoa(mtu))
		}
	}
	set(n + 200)
	through(n+1, false)
	set(n)
	return n
}
