package apply

import (
	"fmt"
	"net/netip"
	"testing"
)

func TestPrefixesOf(t *testing.T) {
	for _, c := range []struct{ from, to, want string }{
		{"10.1.0.0", "10.1.255.255", "[10.1.0.0/16]"},
		{"0.0.0.0", "255.255.255.255", "[0.0.0.0/0]"},
		{"192.0.2.1", "192.0.2.1", "[192.0.2.1/32]"},
		{"192.0.2.1", "192.0.2.6", "[192.0.2.1/32 192.0.2.2/31 192.0.2.4/31 192.0.2.6/32]"},
		{"10.0.0.255", "10.0.1.0", "[10.0.0.255/32 10.0.1.0/32]"},
		{"255.255.255.254", "255.255.255.255", "[255.255.255.254/31]"},
		{"2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "[2001:db8::/32]"},
		{"::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "[::/0]"},
		{"::1", "::2", "[::1/128 ::2/128]"},
		{"::ffff:192.0.2.0", "192.0.2.255", "[192.0.2.0/24]"},
		{"10.0.0.2", "10.0.0.1", "[]"},
		{"10.0.0.1", "::1", "[]"},
	} {
		got := PrefixesOf(netip.MustParseAddr(c.from), netip.MustParseAddr(c.to))
		if fmt.Sprint(got) != c.want {
			t.Errorf("%s-%s: %v, want %s", c.from, c.to, got, c.want)
		}
	}
	if got := PrefixesOf(netip.Addr{}, netip.Addr{}); got != nil {
		t.Errorf("no addresses: %v", got)
	}
}

// The prefixes of a range cover it, in order, without gap or overlap.
func FuzzPrefixesOf(f *testing.F) {
	f.Fuzz(func(t *testing.T, a, b []byte) {
		from, ok1 := netip.AddrFromSlice(a)
		to, ok2 := netip.AddrFromSlice(b)
		if !ok1 || !ok2 {
			return
		}
		ps := PrefixesOf(from, to)
		from, to = from.Unmap(), to.Unmap()
		if from.BitLen() != to.BitLen() || to.Less(from) {
			if ps != nil {
				t.Fatal(ps)
			}
			return
		}
		if len(ps) > 2*from.BitLen() {
			t.Fatalf("%d prefixes", len(ps))
		}
		next := from
		for _, p := range ps {
			if p.Addr() != next || p.Masked() != p {
				t.Fatalf("%v: %v does not start at %v", ps, p, next)
			}
			next = lastOf(p).Next()
		}
		if next.Prev() != to && next.IsValid() || !next.IsValid() && lastOf(ps[len(ps)-1]) != to {
			t.Fatalf("%v does not end at %v", ps, to)
		}
	})
}

// The masks of a port range match exactly its ports, each once.
func TestPortMasks(t *testing.T) {
	for _, c := range [][2]uint16{{0, 65535}, {0, 0}, {443, 443}, {1024, 65535}, {1, 65534}, {65535, 65535}, {1000, 2000}, {65535, 0}} {
		masks := PortMasks(c[0], c[1])
		for p := range 1 << 16 {
			n := 0
			for _, m := range masks {
				if uint16(p)&m.Mask == m.Port {
					n++
				}
			}
			want := 0
			if p >= int(c[0]) && p <= int(c[1]) {
				want = 1
			}
			if n != want {
				t.Fatalf("%v: port %d matched %d times", c, p, n)
			}
		}
	}
	if m := PortMasks(0, 65535); len(m) != 1 || !m[0].IsAny() {
		t.Errorf("all ports: %v", m)
	}
	if m := PortMasks(1024, 65535); len(m) != 6 {
		t.Errorf("1024 to 65535: %v", m)
	}
}

func TestSelectorCheck(t *testing.T) {
	v4, v6 := netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")
	port := PortMask{80, 0xffff}
	for _, c := range []struct {
		s  Selector
		ok bool
	}{
		{Selector{Local: v4, Remote: v4}, true},
		{Selector{Local: v4, Remote: v4, Protocol: 6, RemotePort: port}, true},
		{Selector{Local: v4, Remote: v6}, false},
		{Selector{Local: v4}, false},
		{Selector{Local: v4, Remote: v4, RemotePort: port}, false},
	} {
		if err := c.s.Check(); (err == nil) != c.ok {
			t.Errorf("%v: %v", c.s, err)
		}
	}
}
