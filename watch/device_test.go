package watch

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"ipsec-quick/apply"
	"ipsec-quick/apply/link"
	"ipsec-quick/conf"
	"ipsec-quick/ike"
	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

func TestRoutes(t *testing.T) {
	selector := func(local, remote string) apply.Selector {
		return apply.Selector{Local: netip.MustParsePrefix(local), Remote: netip.MustParsePrefix(remote)}
	}
	device := []netip.Prefix{netip.MustParsePrefix("10.99.0.1/30"), netip.MustParsePrefix("fd99::1/64")}
	own := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("2001:db8::1")}
	for _, c := range []struct {
		name      string
		selectors []apply.Selector
		want      []string // destination, source
	}{
		{"of the interface", []apply.Selector{selector("10.99.0.0/30", "10.2.0.0/16")}, []string{"10.2.0.0/16", "10.99.0.1"}},
		{"of the host", []apply.Selector{selector("10.1.0.0/16", "10.2.0.0/16")}, []string{"10.2.0.0/16", "10.1.0.1"}},
		{"of nobody", []apply.Selector{selector("10.7.0.0/16", "10.2.0.0/16")}, []string{"10.2.0.0/16", ""}},
		{"any, of the interface", []apply.Selector{selector("::/0", "::/0")}, []string{"::/0", "fd99::1"}},
		{"host to host", []apply.Selector{selector("192.0.2.1/32", "192.0.2.2/32")}, []string{"192.0.2.2/32", "192.0.2.1"}},
		{
			"a destination once, with the first source there is",
			[]apply.Selector{
				selector("10.7.0.0/16", "10.2.0.0/16"), selector("10.1.0.0/16", "10.2.0.0/16"),
				selector("10.99.0.0/30", "10.2.0.0/16"), selector("2001:db8::/64", "::/0"),
			},
			[]string{"10.2.0.0/16", "10.1.0.1", "::/0", "2001:db8::1"},
		},
	} {
		var got []string
		for _, r := range routes(c.selectors, device, own) {
			src := ""
			if r.Src.IsValid() {
				src = r.Src.String()
			}
			got = append(got, r.To.String(), src)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if r := routes([]apply.Selector{selector("0.0.0.0/0", "0.0.0.0/0")}, nil, own); r[0].Src.IsValid() {
		t.Errorf("with any source allowed %v is chosen, and not by the kernel", r[0].Src)
	}
}

func TestInterfaceID(t *testing.T) {
	first := chooseInterfaceID("office", nil, nil)
	if first < link.FirstID || first > link.LastID || first != chooseInterfaceID("office", nil, nil) || first == chooseInterfaceID("world", nil, nil) {
		t.Errorf("%#x", first)
	}
	second := chooseInterfaceID("office", map[string]*facts{"x": {InterfaceID: first}}, nil)
	third := chooseInterfaceID("office", map[string]*facts{"x": {InterfaceID: first}}, map[string]uint32{"ipsec0": second})
	if second == first || third == first || third == second || min(second, third) < link.FirstID || max(second, third) > link.LastID {
		t.Errorf("taken: %#x, %#x, %#x", first, second, third)
	}
}

func TestSameInterface(t *testing.T) {
	named := func(name string) *conf.Tunnel { return &conf.Tunnel{Interface: &conf.Interface{Name: name}} }
	for _, c := range []struct {
		have string
		file *conf.Tunnel
		key  string
	}{
		{"", &conf.Tunnel{}, ""},
		{"office", named("office"), ""},
		{"", named("office"), "[interface]"},
		{"office", &conf.Tunnel{}, "[interface]"},
		{"office", named("ipsec0"), "interface.name"},
	} {
		err := (&facts{Interface: c.have}).sameInterface(c.file)
		var fixed *Fixed
		if errors.As(err, &fixed) != (c.key != "") || fixed != nil && fixed.Key != c.key {
			t.Errorf("%q: %v, want %q", c.have, err, c.key)
		}
	}
}

// What an SA is to the MTU: cipher, integrity, UDP, the family of the peer.
func TestOutbound(t *testing.T) {
	c := &ike.ChildSA{Remote: netip.MustParseAddrPort("[2001:db8::2]:4500"), Encap: true, Choice: suite.Choice{
		Encr: wire.Transform{Type: wire.TransformENCR, ID: wire.EncrAESCBC, KeyLength: 128}, Integ: wire.Transform{Type: wire.TransformINTEG, ID: wire.AuthHMACSHA256_128},
	}}
	if got := outbound(c).MTU(1500); got != 1406 {
		t.Error(got)
	}
	c = &ike.ChildSA{Remote: netip.MustParseAddrPort("192.0.2.2:500"), Choice: suite.Choice{
		Encr: wire.Transform{Type: wire.TransformENCR, ID: wire.EncrAESGCM16, KeyLength: 256},
	}}
	if got := outbound(c).MTU(1500); got != 1446 {
		t.Error(got)
	}
}

// Without IPv6 policies of its own, a route-based tunnel needs none to find neighbours.
func TestGuardsOfInterface(t *testing.T) {
	tunnel := loadTunnel(t, "office", `[interface]
[[peer]]
name = "all"
endpoint = "2001:db8::2"
psk_file = "psk"
local_ts = ["::/0"]
remote_ts = ["::/0"]
`)
	p := &peer{conf: &tunnel.Peers[0], routed: true, ifID: 7}
	list, err := guards(p)
	if err != nil || len(list) != 1 || list[0].Action != apply.Block || list[0].IfID != 7 {
		t.Errorf("%+v, %v", list, err)
	}
	p.routed, p.ifID = false, 0
	if list, err = guards(p); err != nil || len(list) < 2 || list[0].Action != apply.Bypass {
		t.Errorf("policy-based: %+v, %v", list, err)
	}
}

func TestPlanInterface(t *testing.T) {
	tunnel := loadTunnel(t, "office", `dataplane = "kernel"
[interface]
addresses = ["10.99.0.1/30"]
[[peer]]
name = "branch"
endpoint = "127.0.0.2"
psk_file = "psk"
local_ts = ["10.99.0.0/30"]
remote_ts = ["10.2.0.0/16", "0.0.0.0/0"]
`)
	lines, err := Plan(tunnel)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"ip link add office type xfrm if_id 0x18eba31", "ip link set office mtu 1280", "ip addr add 10.99.0.1/30 dev office",
		"ip route add 10.2.0.0/16 dev office scope link src 10.99.0.1 table main protocol 50",
		"ip rule add pref 31066 table 26130993 protocol 50", "ip rule add pref 31065 table main protocol 50 suppress_prefixlength 0",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("no %q in:\n%q", want, lines)
		}
	}
}
