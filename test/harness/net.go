//go:build linux

package harness

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
)

// Net is some hosts and what connects them.
//
// Every host's eth0 leads to the middle, which is a host too: a bridge, so that
// all hosts share 192.0.2.0/24 and 2001:db8::/64, or a router. The middle is
// where packets are captured, because on a host's own interface a packet that
// was decrypted is seen once more, in clear.
type Net struct {
	Hosts  []*Host
	Middle *Host

	t testing.TB
}

// A and B are the first two hosts.
func (n *Net) A() *Host { return n.Hosts[0] }

// B is the second host.
func (n *Net) B() *Host { return n.Hosts[1] }

// Use makes another test, a subtest, the one that failures belong to, until it
// ends.
func (n *Net) Use(t testing.TB) {
	before := n.t
	set := func(t testing.TB) {
		n.t, n.Middle.t = t, t
		for _, h := range n.Hosts {
			h.t = t
		}
	}
	set(t)
	t.Cleanup(func() { set(before) })
}

// NewNet connects hosts of these names with a switch. The i-th has the outer
// addresses 192.0.2.i and 2001:db8::i and the inner networks 10.i.0.0/16 and
// fd00:i::/32, with i counted from 1.
func NewNet(t testing.TB, names ...string) *Net {
	t.Helper()
	n := makeNet(t, names)
	middle := []string{"link add br0 type bridge forward_delay 0 mcast_snooping 0", "link set br0 up"}
	for i, h := range n.Hosts {
		middle = append(middle, cable(h, i), "link set "+portName(i)+" master br0", "link set "+portName(i)+" up")
	}
	n.Middle.batch(middle...)
	for i, h := range n.Hosts {
		// The rest of the world is behind the next host, so that a packet that
		// should have been encrypted goes out in clear and is seen.
		next := (i+1)%len(names) + 1
		h.batch(append(h.setup(i),
			fmt.Sprintf("route add default via 192.0.2.%d", next),
			fmt.Sprintf("route add default via 2001:db8::%d dev eth0", next),
		)...)
	}
	n.ready()
	return n
}

// NewCable connects two hosts by a cable and nothing else, for measurements in
// which a switch would have its share. Their addresses are those of NewNet, but
// only the outer ones are reached without a tunnel. There is no capture.
func NewCable(t testing.TB, a, b string) *Net {
	t.Helper()
	n := makeNet(t, []string{a, b})
	n.A().batch(fmt.Sprintf("link add eth0 type veth peer name eth0 netns /proc/%d/fd/%d", os.Getpid(), n.B().netns.Fd()))
	for i, h := range n.Hosts {
		h.batch(h.setup(i)...)
	}
	n.ready()
	return n
}

// NewNAT connects two hosts with a router that masquerades the first: a is
// 192.168.77.1 and appears to b, 203.0.113.2, as 203.0.113.1. IPv4 only.
func NewNAT(t testing.TB, a, b string) *Net {
	t.Helper()
	n := makeNet(t, []string{a, b})
	links := []struct{ host, gateway string }{
		{"192.168.77.1", "192.168.77.254"},
		{"203.0.113.2", "203.0.113.1"},
	}
	var middle []string
	for i, link := range links {
		middle = append(middle, cable(n.Hosts[i], i), "addr add "+link.gateway+"/24 dev "+portName(i),
			"link set "+portName(i)+" up")
	}
	n.Middle.batch(middle...)
	for i, link := range links {
		h := n.Hosts[i]
		h.Outer4 = netip.MustParseAddr(link.host)
		// Else its routes would come some time later.
		h.WriteFile("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1")
		h.batch(append(h.innerSetup(), "addr add "+link.host+"/24 dev eth0", "link set eth0 up",
			"route add default via "+link.gateway)...)
	}
	n.Middle.WriteFile("/proc/sys/net/ipv4/ip_forward", "1")
	r := n.Middle.ExecInput([]byte(`table ip nat {
		chain out {
			type nat hook postrouting priority srcnat;
			oifname "port1" masquerade
		}
	}`), "nft", "-f", "-")
	if r.Err != nil {
		t.Fatalf("nft: %s", r)
	}
	n.ready()
	return n
}

// NewRouter connects two hosts with a router: 198.51.100.1 and 203.0.113.2,
// 2001:db8:1::1 and 2001:db8:2::2.
func NewRouter(t testing.TB, a, b string) *Net {
	t.Helper()
	n := makeNet(t, []string{a, b})
	links := []struct{ host4, gateway4, host6, gateway6 string }{
		{"198.51.100.1", "198.51.100.254", "2001:db8:1::1", "2001:db8:1::fe"},
		{"203.0.113.2", "203.0.113.254", "2001:db8:2::2", "2001:db8:2::fe"},
	}
	var middle []string
	for i, l := range links {
		middle = append(middle, cable(n.Hosts[i], i), "addr add "+l.gateway4+"/24 dev "+portName(i),
			"addr add "+l.gateway6+"/64 dev "+portName(i)+" nodad", "link set "+portName(i)+" up")
	}
	n.Middle.batch(middle...)
	for i, l := range links {
		h := n.Hosts[i]
		h.Outer4, h.Outer6 = netip.MustParseAddr(l.host4), netip.MustParseAddr(l.host6)
		h.batch(append(h.innerSetup(), "addr add "+l.host4+"/24 dev eth0", "addr add "+l.host6+"/64 dev eth0 nodad",
			"link set eth0 up", "route add default via "+l.gateway4, "route add default via "+l.gateway6+" dev eth0")...)
	}
	n.Middle.WriteFile("/proc/sys/net/ipv4/ip_forward", "1")
	n.Middle.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", "1")
	n.ready()
	return n
}

// portName is the middle's interface towards the i-th host, counted from 0.
func portName(i int) string { return fmt.Sprintf("port%d", i) }

// makeNet makes the namespaces of hosts and middle.
func makeNet(t testing.TB, names []string) *Net {
	t.Helper()
	n := &Net{t: t, Middle: newHost(t, "middle")}
	for i, name := range names {
		h := newHost(t, name)
		h.Net4 = netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/16", i+1))
		h.Net6 = netip.MustParsePrefix(fmt.Sprintf("fd00:%d::/32", i+1))
		h.Inner4 = netip.MustParseAddr(fmt.Sprintf("10.%d.0.1", i+1))
		h.Inner6 = netip.MustParseAddr(fmt.Sprintf("fd00:%d::1", i+1))
		n.Hosts = append(n.Hosts, h)
	}
	// IPv6 is configured before the cables exist: no duplicate address
	// detection, no router solicitations, nothing that runs late.
	for _, h := range append([]*Host{n.Middle}, n.Hosts...) {
		for _, conf := range []string{"all", "default"} {
			for _, name := range []string{"accept_dad", "router_solicitations", "accept_ra"} {
				h.WriteFile("/proc/sys/net/ipv6/conf/"+conf+"/"+name, "0")
			}
		}
	}
	return n
}

// innerSetup are the commands for the host's inner addresses.
func (h *Host) innerSetup() []string {
	return []string{
		"link set lo up",
		fmt.Sprintf("addr add %s/32 dev lo", h.Inner4),
		fmt.Sprintf("addr add %s/128 dev lo nodad", h.Inner6),
	}
}

// setup are the commands for the addresses of the i-th host of NewNet.
func (h *Host) setup(i int) []string {
	h.Outer4 = netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i+1))
	h.Outer6 = netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", i+1))
	return append(h.innerSetup(),
		fmt.Sprintf("addr add %s/24 dev eth0", h.Outer4),
		fmt.Sprintf("addr add %s/64 dev eth0 nodad", h.Outer6),
		"link set eth0 up",
	)
}

// cable is the command that makes the middle's i-th port and, at its other end,
// the host's eth0. iproute2 takes a path for a namespace.
func cable(h *Host, i int) string {
	return fmt.Sprintf("link add %s type veth peer name eth0 netns /proc/%d/fd/%d",
		portName(i), os.Getpid(), h.netns.Fd())
}

// ready sees that the first host reaches the second.
func (n *Net) ready() {
	n.t.Helper()
	if n.A().Ping(n.A().Outer4, n.B().Outer4, 1) == 0 && n.A().Ping(n.A().Outer4, n.B().Outer4, 20) == 0 {
		n.t.Fatalf("%s does not reach %s", n.A().Name, n.B().Name)
	}
}

// Netem sets tc-netem parameters ("delay 20ms loss 1%") on the way from the
// middle to the host; none removes them.
func (n *Net) Netem(h *Host, parameters ...string) {
	n.t.Helper()
	for i, x := range n.Hosts {
		if x != h {
			continue
		}
		if len(parameters) == 0 {
			n.Middle.Run("tc", "qdisc", "del", "dev", portName(i), "root")
			return
		}
		n.Middle.Run(append([]string{"tc", "qdisc", "replace", "dev", portName(i), "root", "netem"},
			strings.Fields(strings.Join(parameters, " "))...)...)
		return
	}
	n.t.Fatalf("%s is not of this net", h.Name)
}

// batch runs commands of ip(8) in one process.
func (h *Host) batch(commands ...string) {
	h.t.Helper()
	r := h.ExecInput([]byte(strings.Join(commands, "\n")+"\n"), "ip", "-batch", "-")
	if r.Err != nil {
		h.t.Fatalf("%s: ip -batch:\n%s\n%s", h.Name, strings.Join(commands, "\n"), r)
	}
}
