package steer

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"ipsec-quick/apply"
)

func selector(local, remote string, protocol uint8, remotePort apply.PortMask) apply.Selector {
	return apply.Selector{
		Local: netip.MustParsePrefix(local), Remote: netip.MustParsePrefix(remote), Protocol: protocol, RemotePort: remotePort,
	}
}

func protect(s apply.Selector) apply.Policy {
	return apply.Policy{Selector: s, Action: apply.Protect}
}

func (n *network) open(device string, ports ...uint16) *Steer {
	return Open(Options{
		Device: device, Ports: ports, Log: slog.New(slog.NewTextHandler(n.t.Output(), nil)),
		Change: func(command string) { n.changes = append(n.changes, command) },
	})
}

func (n *network) sync(s *Steer, policies ...apply.Policy) {
	n.t.Helper()
	var err error
	n.gw.do(func() { err = s.Sync(policies) })
	if err != nil {
		n.t.Fatal(err)
	}
	if s.warned {
		n.t.Skip(errNoGuard)
	}
}

// syncAway is sync for policies some of which go.
func (n *network) syncAway(s *Steer, policies ...apply.Policy) {
	n.t.Helper()
	n.sync(s, policies...)
	n.gw.do(s.lift) // the timer's goroutine is in another namespace
}

func (n *network) expect(want string, p packet) {
	n.t.Helper()
	if got := n.path(p); got != want {
		n.t.Errorf("%+v: %s, want %s", p, got, want)
	}
}

var anyPort apply.PortMask

// A network behind each end.
func TestTunnelMode(t *testing.T) {
	n := newNetwork(t)
	before := n.gw.state()
	s := n.open(device, 500, 4500)
	n.expect("clear 10.1.0.1", packet{what: "udp/7", from: "10.1.0.1", to: "10.2.0.1"})
	guards := []apply.Policy{
		{Selector: selector("10.1.0.0/24", "10.2.0.0/24", 0, anyPort), Action: apply.Block, Guard: true},
		{Selector: selector("2001:db8:1::/64", "2001:db8:2::/64", 0, anyPort), Action: apply.Trap, Guard: true},
	}
	n.sync(s, append(guards, protect(guards[0].Selector))...)
	for _, what := range []string{"udp/7", "tcp/7", "ping"} {
		n.expect("tun 10.1.0.1", packet{what: what, from: "10.1.0.1", to: "10.2.0.1"})
		n.expect("tun 2001:db8:1::1", packet{what: what, from: "2001:db8:1::1", to: "2001:db8:2::1"})
		n.expect("tun 10.1.0.2", packet{what: what, to: "10.2.0.1", lan: true})
		n.expect("tun 2001:db8:1::2", packet{what: what, to: "2001:db8:2::1", lan: true})
		// The main table has the outer address for it, which no policy covers.
		n.expect("clear 192.0.2.1", packet{what: what, to: "10.2.0.1"})
		n.expect("clear 2001:db8::1", packet{what: what, to: "2001:db8:2::1"})
		n.expect("clear 192.0.2.1", packet{what: what, to: "192.0.2.2"})
	}
	// What cannot be steered does not get out either.
	n.expect("none", packet{what: "udp/7", from: "10.1.0.1", to: "10.2.0.1", dev: "out"})
	n.expect("none", packet{what: "udp/7", from: "2001:db8:1::1", to: "2001:db8:2::1", dev: "out"})
	n.expect("clear 10.1.0.1", packet{what: "udp/7", from: "10.1.0.1", to: "10.2.0.1", mark: apply.Mark})
	n.expect("clear 2001:db8:1::1", packet{what: "udp/7", from: "2001:db8:1::1", to: "2001:db8:2::1", mark: apply.Mark})
	n.sync(s)
	if after := n.gw.state(); after != before {
		t.Errorf("left:\n%s\nbefore:\n%s", after, before)
	}
}

// With a route that has an inner source, sockets that are not bound are covered.
func TestUnbound(t *testing.T) {
	n := newNetwork(t)
	n.gw.ip("route add 10.2.0.0/16 via 192.0.2.2 src 10.1.0.1")
	n.gw.ip("route add 10.2.0.128/25 via 192.0.2.2")
	n.gw.ip("-6 route add 2001:db8:2::/48 via 2001:db8::2 src 2001:db8:1::1")
	n.gw.ip("-6 route add 2001:db8:2::8000/113 via 2001:db8::2")
	s := n.open(device)
	n.sync(s, protect(selector("10.1.0.0/24", "10.2.0.0/24", 0, anyPort)), protect(selector("2001:db8:1::/64", "2001:db8:2::/64", 0, anyPort)))
	for _, what := range []string{"udp/7", "tcp/7", "ping"} {
		n.expect("tun 10.1.0.1", packet{what: what, to: "10.2.0.1"})
		n.expect("tun 2001:db8:1::1", packet{what: what, to: "2001:db8:2::1"})
		n.expect("clear 192.0.2.1", packet{what: what, to: "10.2.0.129"})
		n.expect("clear 2001:db8::1", packet{what: what, to: "2001:db8:2::8001"})
	}
}

// Two hosts: the selectors are the outer addresses.
func TestTransportMode(t *testing.T) {
	n := newNetwork(t)
	n.gw.command("sysctl -qw net.ipv4.conf.out.rp_filter=1")
	policies := []apply.Policy{
		protect(selector("192.0.2.1/32", "192.0.2.2/32", 0, anyPort)),
		protect(selector("2001:db8::1/128", "2001:db8::2/128", 0, anyPort)),
	}
	for _, nd := range apply.PortMasks(133, 136) { // neighbour discovery
		bypass := selector("2001:db8::1/128", "2001:db8::2/128", 58, anyPort)
		bypass.LocalPort = nd
		policies = append(policies, apply.Policy{Selector: bypass, Action: apply.Bypass, Guard: true})
	}
	s := n.open(device, 500, 4500)
	n.sync(s, policies...)
	for _, what := range []string{"udp/7", "tcp/7", "ping"} {
		n.expect("tun 192.0.2.1", packet{what: what, to: "192.0.2.2"})
		n.expect("tun 192.0.2.1", packet{what: what, from: "192.0.2.1", to: "192.0.2.2"})
		n.expect("tun 2001:db8::1", packet{what: what, to: "2001:db8::2"})
		n.expect("clear 192.0.2.1", packet{what: what, to: "192.0.2.2", mark: apply.Mark})
		n.expect("clear 2001:db8::1", packet{what: what, to: "2001:db8::2", mark: apply.Mark})
	}
	n.gw.ip("-6 neigh flush dev out") // neighbour discovery goes on
	n.expect("clear 2001:db8::1", packet{what: "udp/4500", to: "2001:db8::2", mark: apply.Mark})
}

// A narrow pair beside a wide one, and traffic that is let pass.
func TestPorts(t *testing.T) {
	n := newNetwork(t)
	s := n.open(device)
	narrow := selector("10.1.0.0/24", "10.2.0.0/24", 17, apply.PortMask{Port: 1024, Mask: 0xfc00}) // 1024 to 2047
	wide := selector("10.1.0.0/24", "10.2.0.0/16", 6, anyPort)
	bypass := selector("10.1.0.1/32", "10.2.0.0/16", 6, apply.PortMask{Port: 22, Mask: 0xffff})
	echo := selector("10.1.0.1/32", "10.2.0.0/16", 1, anyPort)
	echo.LocalPort = apply.PortMask{Port: 8, Mask: 0xffff}
	n.sync(s, protect(narrow), protect(wide), apply.Policy{Selector: bypass, Action: apply.Bypass})
	from := "10.1.0.1"
	n.expect("clear 10.1.0.1", packet{what: "udp/1023", from: from, to: "10.2.0.1"})
	n.expect("tun 10.1.0.1", packet{what: "udp/1024", from: from, to: "10.2.0.1"})
	n.expect("tun 10.1.0.1", packet{what: "udp/2047", from: from, to: "10.2.0.1"})
	n.expect("clear 10.1.0.1", packet{what: "udp/2048", from: from, to: "10.2.0.1"})
	n.expect("tun 10.1.0.1", packet{what: "tcp/80", from: from, to: "10.2.0.1"})
	n.expect("clear 10.1.0.1", packet{what: "tcp/22", from: from, to: "10.2.0.1"})
	n.expect("tun 10.1.0.2", packet{what: "tcp/22", to: "10.2.0.1", lan: true})
	n.expect("clear 10.1.0.1", packet{what: "ping", from: from, to: "10.2.0.1"})
	// A rule cannot tell ports 0 and 65535: what has them is dropped.
	high := selector("10.1.0.0/24", "10.2.0.0/24", 17, apply.PortMask{Port: 0x8000, Mask: 0x8000})
	low := selector("10.1.0.0/24", "10.2.0.0/24", 17, apply.PortMask{Mask: 0xfc00})
	last := selector("10.1.0.0/24", "10.2.0.0/24", 6, apply.PortMask{Port: 0xffff, Mask: 0xffff})
	n.syncAway(s, protect(high), protect(low), protect(last))
	n.expect("tun 10.1.0.1", packet{what: "udp/1", from: from, to: "10.2.0.1"})
	n.expect("tun 10.1.0.1", packet{what: "udp/1023", from: from, to: "10.2.0.1"})
	n.expect("clear 10.1.0.1", packet{what: "udp/1024", from: from, to: "10.2.0.1"})
	n.expect("tun 10.1.0.1", packet{what: "udp/65534", from: from, to: "10.2.0.1"})
	n.expect("none", packet{what: "udp/65535", from: from, to: "10.2.0.1"})
	n.expect("none", packet{what: "tcp/65535", from: from, to: "10.2.0.1"})
	// Nor an echo request from another ICMP message: all of it is
	// steered, and the rest of it is dropped.
	n.syncAway(s, protect(echo))
	n.expect("tun 10.1.0.1", packet{what: "ping", from: from, to: "10.2.0.1"})
	n.expect("clear 10.1.0.1", packet{what: "udp/1024", from: from, to: "10.2.0.1"})
	n.sync(s)
	n.expect("clear 10.1.0.1", packet{what: "ping", from: from, to: "10.2.0.1"})
}

// Cleartext that pretends to be the peer's does not come in.
func TestInboundCheck(t *testing.T) {
	n := newNetwork(t)
	s := n.open(device, 4500)
	n.sync(s, protect(selector("10.1.0.0/24", "10.2.0.0/24", 0, anyPort)), protect(selector("2001:db8:1::/64", "2001:db8:2::/64", 0, anyPort)),
		protect(selector("192.0.2.1/32", "192.0.2.2/32", 0, anyPort)))
	for _, c := range []struct {
		at       *host
		from, to string
		port     uint16
		comes    bool
	}{
		{n.gw, "10.2.0.1", "10.1.0.1", 7, false},
		{n.lan, "10.2.0.1", "10.1.0.2", 7, false},
		{n.gw, "2001:db8:2::1", "2001:db8:1::1", 7, false},
		{n.lan, "2001:db8:2::1", "2001:db8:1::2", 7, false},
		{n.gw, "192.0.2.2", "192.0.2.1", 7, false},
		{n.gw, "192.0.2.2", "192.0.2.1", 4500, true}, // ESP in UDP
		{n.gw, "192.0.2.2", "10.1.0.1", 7, true},
		{n.lan, "2001:db8::2", "2001:db8:1::2", 7, true},
	} {
		if got := n.arrives(c.at, c.from, c.to, c.port); got != c.comes {
			t.Errorf("%s to %s port %d arrives: %v, want %v", c.from, c.to, c.port, got, c.comes)
		}
	}
}

// What a process that was killed left is taken over and taken away by another, and
// what somebody took away is put back.
func TestAnotherProcess(t *testing.T) {
	n := newNetwork(t)
	before := n.gw.state()
	pair := protect(selector("10.1.0.0/24", "10.2.0.0/24", 0, anyPort))
	other := protect(selector("10.1.0.0/24", "10.3.0.0/24", 6, anyPort))
	n.sync(n.open(device), pair, other)
	both := n.gw.state()
	s := n.open(device)
	n.gw.ip("rule del from 10.1.0.0/24 to 10.2.0.0/24")
	n.sync(s, pair, other)
	if got := n.gw.state(); got != both {
		t.Errorf("after another process: %s\nwant: %s", got, both)
	}
	n.syncAway(s, pair)
	n.expect("tun 10.1.0.1", packet{what: "udp/7", from: "10.1.0.1", to: "10.2.0.1"})
	n.expect("clear 10.1.0.1", packet{what: "tcp/7", from: "10.1.0.1", to: "10.3.0.1"})
	// The device goes, and nothing leaves in clear.
	n.gw.ip("link del " + device)
	n.expect("none", packet{what: "udp/7", from: "10.1.0.1", to: "10.2.0.1"})
	n.expect("none", packet{what: "udp/7", to: "10.2.0.1", lan: true})
	n.sync(n.open(device))
	if after := n.gw.state(); after != before {
		t.Errorf("left:\n%s\nbefore:\n%s", after, before)
	}
}

// A network manager removes rules that it does not know, a firewall all tables.
func TestRefresh(t *testing.T) {
	n := newNetwork(t)
	s := n.open(device)
	refresh := func() {
		t.Helper()
		var err error
		n.gw.do(func() { err = s.Refresh() })
		if err != nil {
			t.Fatal(err)
		}
	}
	refresh() // nothing to be there yet
	n.sync(s, protect(selector("10.1.0.0/24", "10.2.0.0/24", 0, anyPort)))
	want := n.gw.state()
	n.changes = nil
	refresh()
	if len(n.changes) > 0 {
		t.Errorf("changed: %q", n.changes)
	}
	n.gw.command("ip rule flush && ip rule add pref 32766 lookup main && ip rule add pref 32767 lookup default")
	n.gw.command("! which nft >/dev/null || nft flush ruleset")
	n.gw.ip("route flush table all proto 50")
	refresh()
	if got := n.gw.state(); got != want {
		t.Errorf("after it:\n%s\nwant:\n%s", got, want)
	}
	n.expect("tun 10.1.0.1", packet{what: "udp/7", from: "10.1.0.1", to: "10.2.0.1"})
	// Sockets that are not bound follow the main table.
	n.gw.ip("route add 10.2.0.0/16 via 192.0.2.2 src 10.1.0.1")
	n.expect("none", packet{what: "udp/7", to: "10.2.0.1"})
	refresh()
	n.expect("tun 10.1.0.1", packet{what: "udp/7", to: "10.2.0.1"})
	n.gw.ip("route del 10.2.0.0/16")
	n.expect("tun 10.1.0.1", packet{what: "udp/7", to: "10.2.0.1"})
	refresh()
	n.expect("clear 192.0.2.1", packet{what: "udp/7", to: "10.2.0.1"})
}

// Two tunnels: the narrower selectors go first, whatever came first, and the guard
// of the wide one lets pass what the other one decrypts.
func TestTwoTunnels(t *testing.T) {
	n := newNetwork(t)
	n.gw.ip("tuntap add dev tun-wide mode tun")
	wide := n.open("tun-wide")
	n.sync(wide, protect(selector("10.1.0.0/24", "0.0.0.0/0", 0, anyPort)))
	n.expect("none", packet{what: "udp/7", from: "10.1.0.1", to: "10.2.0.1"})
	narrow := n.open(device)
	n.sync(narrow, protect(selector("10.1.0.0/24", "10.2.0.0/24", 0, anyPort)))
	n.expect("tun 10.1.0.1", packet{what: "udp/7", from: "10.1.0.1", to: "10.2.0.1"})
	n.expect("none", packet{what: "udp/7", from: "10.1.0.1", to: "192.0.2.2"})
	n.sync(wide)
	n.expect("tun 10.1.0.1", packet{what: "udp/7", from: "10.1.0.1", to: "10.2.0.1"})
	n.expect("clear 10.1.0.1", packet{what: "udp/7", from: "10.1.0.1", to: "192.0.2.2"})
}

func TestWidths(t *testing.T) {
	for _, c := range []struct {
		s    apply.Selector
		want int
	}{
		{apply.Selector{
			Local: netip.MustParsePrefix("10.0.0.1/32"), Remote: netip.MustParsePrefix("10.0.0.2/32"), Protocol: 17,
			LocalPort: apply.PortMask{Port: 1, Mask: 0xffff}, RemotePort: apply.PortMask{Port: 1, Mask: 0xffff},
		}, 0},
		{selector("::/0", "::/0", 0, anyPort), widths - 1},
	} {
		if got := width(c.s); got != c.want {
			t.Errorf("%v: %d, want %d", c.s, got, c.want)
		}
	}
	if last := prefUnbound + 2*128 + 1; last >= prefEnd {
		t.Errorf("the last rule, %d, comes after what ends them", last)
	}
}

// The commands that are printed do what was done.
func TestCommands(t *testing.T) {
	n := newNetwork(t)
	n.gw.command("sysctl -qw net.ipv4.conf.out.rp_filter=1")
	routing := func() string { return n.gw.command(listRouting + " | sort") }
	before := routing()
	s := n.open(device, 500, 4500)
	n.sync(s, protect(selector("10.1.0.0/24", "10.2.0.0/24", 17, apply.PortMask{Port: 1024, Mask: 0xfc00})),
		protect(selector("192.0.2.1/32", "0.0.0.0/0", 0, anyPort)), protect(selector("2001:db8::1/128", "::/0", 0, anyPort)),
		apply.Policy{Selector: selector("192.0.2.1/32", "192.0.2.2/32", 6, anyPort), Action: apply.Bypass})
	set, add := routing(), n.changes
	n.changes = nil
	n.sync(s)
	remove := n.changes
	for _, c := range []struct {
		commands []string
		want     string
	}{{add, set}, {remove, before}} {
		for _, command := range c.commands {
			if strings.HasPrefix(command, "ip ") {
				n.gw.command(command)
			}
		}
		if got := routing(); got != c.want {
			t.Errorf("after\n%s:\n%s\nwant:\n%s", strings.Join(c.commands, "\n"), got, c.want)
		}
	}
}

// A policy that goes and comes back is guarded, one that has gone is not.
func TestPolicyComesBack(t *testing.T) {
	n := newNetwork(t)
	s := n.open(device)
	stays := protect(selector("10.1.0.0/24", "10.3.0.0/24", 0, anyPort))
	comes := protect(selector("10.1.0.0/24", "10.2.0.0/24", 0, anyPort))
	n.sync(s, stays, comes)
	both := n.gw.state()
	n.sync(s, stays)
	n.sync(s, stays, comes)
	n.gw.do(s.lift)
	n.sync(s, stays)
	var err error
	n.gw.do(func() { err = s.Refresh() }) // before the guard of what has gone is lifted
	if err != nil {
		t.Fatal(err)
	}
	n.gw.do(s.lift)
	n.expect("clear 10.1.0.1", packet{what: "udp/7", from: "10.1.0.1", to: "10.2.0.1", dev: "out"})
	n.sync(s, stays, comes)
	n.expect("tun 10.1.0.1", packet{what: "udp/7", from: "10.1.0.1", to: "10.2.0.1"})
	n.expect("none", packet{what: "udp/7", from: "10.1.0.1", to: "10.2.0.1", dev: "out"})
	n.syncAway(s, stays)
	n.expect("clear 10.1.0.1", packet{what: "udp/7", from: "10.1.0.1", to: "10.2.0.1", dev: "out"})
	n.sync(s, stays, comes)
	if again := n.gw.state(); len(again) != len(both) {
		t.Errorf("after it:\n%s\nbefore:\n%s", again, both)
	}
}
