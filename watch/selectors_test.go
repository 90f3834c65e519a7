package watch

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"ipsec-quick/apply"
	"ipsec-quick/conf"
	"ipsec-quick/ike/wire"
)

func sel(from, to string, protocol uint8, ports ...uint16) wire.Selector {
	s := wire.Selector{From: netip.MustParseAddr(from), To: netip.MustParseAddr(to), Protocol: protocol, ToPort: anyPort}
	if len(ports) == 2 {
		s.FromPort, s.ToPort = ports[0], ports[1]
	}
	return s
}

func TestPairs(t *testing.T) {
	net1, net2 := sel("10.1.0.0", "10.1.255.255", 0), sel("10.2.0.0", "10.2.255.255", 0)
	for _, c := range []struct {
		name          string
		local, remote []wire.Selector
		want          []string
	}{
		{"two networks", []wire.Selector{net1}, []wire.Selector{net2}, []string{"10.1.0.0/16 === 10.2.0.0/16"}},
		{"a range", []wire.Selector{sel("10.1.0.1", "10.1.0.2", 0)}, []wire.Selector{net2},
			[]string{"10.1.0.1/32 === 10.2.0.0/16", "10.1.0.2/32 === 10.2.0.0/16"}},
		{"families", []wire.Selector{net1, sel("2001:db8:1::", "2001:db8:1::ffff", 0)}, []wire.Selector{net2, sel("2001:db8:2::", "2001:db8:2::ffff", 0)},
			[]string{"10.1.0.0/16 === 10.2.0.0/16", "2001:db8:1::/112 === 2001:db8:2::/112"}},
		{"a port on one side", []wire.Selector{sel("10.1.0.0", "10.1.255.255", 6)}, []wire.Selector{sel("10.2.0.0", "10.2.255.255", 6, 443, 443)},
			[]string{"10.1.0.0/16[6/any] === 10.2.0.0/16[6/443]"}},
		{"a protocol on one side", []wire.Selector{net1}, []wire.Selector{sel("10.2.0.0", "10.2.255.255", 17, 53, 53)},
			[]string{"10.1.0.0/16[17/any] === 10.2.0.0/16[17/53]"}},
		{"different protocols", []wire.Selector{sel("10.1.0.0", "10.1.255.255", 6)}, []wire.Selector{sel("10.2.0.0", "10.2.255.255", 17)}, nil},
		{"ports", []wire.Selector{sel("10.1.0.1", "10.1.0.1", 17)}, []wire.Selector{sel("10.2.0.1", "10.2.0.1", 17, 5000, 5003)},
			[]string{"10.1.0.1/32[17/any] === 10.2.0.1/32[17/5000/0xfffc]"}},
		{"ICMP echo", []wire.Selector{sel("10.1.0.1", "10.1.0.1", 1, 8<<8, 8<<8|255)}, []wire.Selector{sel("10.2.0.1", "10.2.0.1", 1)},
			[]string{"10.1.0.1/32[1/8] === 10.2.0.1/32[1/any]"}},
		{"ICMP type and code", []wire.Selector{sel("10.1.0.1", "10.1.0.1", 1)}, []wire.Selector{sel("10.2.0.1", "10.2.0.1", 1, 3<<8|4, 3<<8|4)},
			[]string{"10.1.0.1/32[1/3] === 10.2.0.1/32[1/4]"}},
		{"twice", []wire.Selector{net1, net1}, []wire.Selector{net2}, []string{"10.1.0.0/16 === 10.2.0.0/16"}},
		{"no address", []wire.Selector{{ToPort: anyPort}}, []wire.Selector{net2}, nil},
	} {
		got, err := pairs(c.local, c.remote)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		var text []string
		for _, s := range got {
			if err := s.Check(); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			text = append(text, s.String())
		}
		if !slices.Equal(text, c.want) {
			t.Errorf("%s: %q, want %q", c.name, text, c.want)
		}
	}
}

func TestPairsAreBounded(t *testing.T) {
	for name, c := range map[string][2]wire.Selector{
		"ranges":     {sel("10.0.0.1", "10.255.255.254", 0), sel("11.0.0.1", "11.255.255.254", 0)},
		"IPv6":       {sel("::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", 0), sel("::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", 0)},
		"port masks": {sel("10.0.0.1", "10.0.0.7", 6, 1, 65534), sel("11.0.0.1", "11.0.0.7", 6, 1, 65534)},
		"OPAQUE":     {sel("10.0.0.1", "10.0.0.7", 6, 65535, 0), sel("11.0.0.1", "11.0.0.7", 6)},
	} {
		if got, err := pairs([]wire.Selector{c[0]}, []wire.Selector{c[1]}); err == nil {
			t.Errorf("%s: %d selectors", name, len(got))
		}
	}
}

func TestTSString(t *testing.T) {
	for want, s := range map[string]wire.Selector{
		"10.1.0.0/16":          sel("10.1.0.0", "10.1.255.255", 0),
		"10.1.0.1-10.1.0.9":    sel("10.1.0.1", "10.1.0.9", 0),
		"10.1.0.0/16[tcp/443]": sel("10.1.0.0", "10.1.255.255", 6, 443, 443),
		"2001:db8::/32":        sel("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 0),
	} {
		if got := tsString(s); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// guardLines are a peer's guards, as action and selector.
func guardLines(t *testing.T, p *peer) []string {
	t.Helper()
	list, err := guards(p)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, g := range list {
		if err := g.Check(); err != nil || !g.Guard {
			t.Errorf("%v: %v", g, err)
		}
		out = append(out, g.Action.String()+" "+g.Selector.String())
	}
	return out
}

func ts(list ...string) []conf.TS {
	var out []conf.TS
	for _, s := range list {
		p := netip.MustParsePrefix(s)
		out = append(out, conf.TS{Prefix: p, ToPort: anyPort})
	}
	return out
}

func TestGuards(t *testing.T) {
	a4, b4 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.7")
	a6, b6 := netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:2::2")
	nd := func(pair string) []string {
		l, r, _ := strings.Cut(pair, " === ")
		return []string{
			"bypass " + l + "[58/133] === " + r + "[58/any]",
			"bypass " + l + "[58/134/0xfffe] === " + r + "[58/any]",
			"bypass " + l + "[58/136] === " + r + "[58/any]",
		}
	}
	for _, c := range []struct {
		name string
		p    peer
		want []string
	}{
		{"networks", peer{conf: &conf.Peer{LocalTS: ts("10.1.0.0/16"), RemoteTS: ts("10.2.0.0/16")}}, []string{"block 10.1.0.0/16 === 10.2.0.0/16"}},
		{"dynamic, not known", peer{conf: &conf.Peer{}}, nil},
		{"dynamic, known", peer{conf: &conf.Peer{}, local: a4, remote: b4}, []string{"block 192.0.2.1/32 === 198.51.100.7/32"}},
		{"on demand", peer{conf: &conf.Peer{Start: conf.StartOnDemand}, reqID: 7, local: a4, remote: b4}, []string{"trap 192.0.2.1/32 === 198.51.100.7/32"}},
		{"on demand, not known", peer{conf: &conf.Peer{Start: conf.StartOnDemand, LocalTS: ts("10.1.0.0/16"), RemoteTS: ts("10.2.0.0/16")}, reqID: 7},
			[]string{"block 10.1.0.0/16 === 10.2.0.0/16"}},
		{"IPv6, host to host", peer{conf: &conf.Peer{Mode: conf.ModeTransport}, local: a6, remote: b6},
			append(nd("2001:db8:1::1/128 === 2001:db8:2::2/128"), "block 2001:db8:1::1/128 === 2001:db8:2::2/128")},
		{"IPv6 networks elsewhere", peer{conf: &conf.Peer{LocalTS: ts("2001:db8:8::/48"), RemoteTS: ts("2001:db8:9::/48")}, local: a6, remote: b6},
			[]string{"block 2001:db8:8::/48 === 2001:db8:9::/48"}},
		{"IPv6, everything", peer{conf: &conf.Peer{LocalTS: ts("2001:db8:8::/48"), RemoteTS: ts("::/0")}, local: a6, remote: b6},
			append(nd("2001:db8:8::/48 === ::/0"), "block 2001:db8:8::/48 === ::/0")},
		{"IPv6 networks, peer not known", peer{conf: &conf.Peer{LocalTS: ts("2001:db8:8::/48"), RemoteTS: ts("2001:db8:9::/48")}},
			append(nd("2001:db8:8::/48 === 2001:db8:9::/48"), "block 2001:db8:8::/48 === 2001:db8:9::/48")},
	} {
		if got := guardLines(t, &c.p); !slices.Equal(got, c.want) {
			t.Errorf("%s:\n%q, want\n%q", c.name, got, c.want)
		}
	}
}

func TestReqIDs(t *testing.T) {
	tunnel := &conf.Tunnel{Name: "office", Peers: []conf.Peer{{Name: "a"}, {Name: "b"}}}
	first := chooseReqIDs(tunnel, nil, nil)
	if len(first) != 2 || first["a"] == first["b"] {
		t.Errorf("%v", first)
	}
	for _, id := range first {
		if id < reqIDBase || id > apply.MaxReqID {
			t.Errorf("ReqID %d", id)
		}
	}
	taken := chooseReqIDs(tunnel, nil, map[string]*facts{"other": {ReqIDs: map[string]uint32{"x": first["a"]}}})
	if taken["a"] == first["a"] || taken["b"] != first["b"] {
		t.Errorf("%v, and %d is taken", taken, first["a"])
	}
	kept := chooseReqIDs(tunnel, map[string]uint32{"a": 1<<30 + 5, "gone": 1<<30 + 6}, nil)
	if kept["a"] != 1<<30+5 || kept["gone"] != 1<<30+6 || kept["b"] != first["b"] {
		t.Errorf("%v", kept)
	}
}
