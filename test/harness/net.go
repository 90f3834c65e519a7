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
	n.Middle.batch("link add br0 type bridge forward_delay 0 mcast_snooping 0", "link set br0 up")
	for i, h := range n.Hosts {
		port := portName(i)
		h.Outer4 = netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i+1))
		h.Outer6 = netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", i+1))
		n.plug(h, port)
		n.Middle.batch("link set "+port+" master br0", "link set "+port+" up")
		h.batch(
			fmt.Sprintf("addr add %s/24 dev eth0", h.Outer4),
			fmt.Sprintf("addr add %s/64 dev eth0 nodad", h.Outer6),
			"link set eth0 up",
		)
		// The rest of the world is behind the next host, so that a packet that
		// should have been encrypted goes out in clear and is seen.
		next := (i+1)%len(names) + 1
		h.batch(
			fmt.Sprintf("route add default via 192.0.2.%d", next),
			fmt.Sprintf("route add default via 2001:db8::%d dev eth0", next),
		)
	}
	n.ready()
	return n
}

// NewNAT connects two hosts with a router that masquerades the first: a is
// 192.168.77.1 and appears to b, 203.0.113.2, as 203.0.113.1. IPv4 only.
func NewNAT(t testing.TB, a, b string) *Net {
	t.Helper()
	n := makeNet(t, []string{a, b})
	for i, link := range []struct{ host, gateway string }{
		{"192.168.77.1", "192.168.77.254"},
		{"203.0.113.2", "203.0.113.1"},
	} {
		h, port := n.Hosts[i], portName(i)
		h.Outer4 = netip.MustParseAddr(link.host)
		n.plug(h, port)
		n.Middle.batch("addr add "+link.gateway+"/24 dev "+port, "link set "+port+" up")
		h.batch("addr add "+link.host+"/24 dev eth0", "link set eth0 up",
			"route add default via "+link.gateway)
	}
	n.Middle.Shell("echo 1 > /proc/sys/net/ipv4/ip_forward")
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

// portName is the middle's interface towards the i-th host, counted from 0.
func portName(i int) string { return fmt.Sprintf("port%d", i) }

// makeNet makes the namespaces of hosts and middle, with inner addresses.
func makeNet(t testing.TB, names []string) *Net {
	t.Helper()
	n := &Net{t: t, Middle: newHost(t, "middle")}
	for i, name := range names {
		h := newHost(t, name)
		h.Net4 = netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/16", i+1))
		h.Net6 = netip.MustParsePrefix(fmt.Sprintf("fd00:%d::/32", i+1))
		h.Inner4 = netip.MustParseAddr(fmt.Sprintf("10.%d.0.1", i+1))
		h.Inner6 = netip.MustParseAddr(fmt.Sprintf("fd00:%d::1", i+1))
		h.batch("link set lo up",
			fmt.Sprintf("addr add %s/32 dev lo", h.Inner4),
			fmt.Sprintf("addr add %s/128 dev lo nodad", h.Inner6))
		n.Hosts = append(n.Hosts, h)
	}
	return n
}

// plug makes the cable from the middle's port to the host's eth0.
func (n *Net) plug(h *Host, port string) {
	n.t.Helper()
	// IPv6 is configured before the cables exist: no duplicate address
	// detection, no router solicitations, nothing that runs late.
	for _, end := range []*Host{h, n.Middle} {
		end.Shell(`cd /proc/sys/net/ipv6/conf
			for c in all default; do
				echo 0 >$c/accept_dad; echo 0 >$c/router_solicitations; echo 0 >$c/accept_ra
			done`)
	}
	// iproute2 takes a path for a namespace.
	n.Middle.batch(fmt.Sprintf("link add %s type veth peer name eth0 netns %s", port, h.nsPath()))
}

// nsPath names the host's network namespace for other processes.
func (h *Host) nsPath() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.netns.Fd())
}

// ready waits until every host reaches the next one.
func (n *Net) ready() {
	n.t.Helper()
	for i, h := range n.Hosts {
		to := n.Hosts[(i+1)%len(n.Hosts)]
		if i > 0 && to == n.Hosts[0] && !n.reaches(h, to) {
			continue // from outside, a masqueraded host is not reached
		}
		if h.Ping(h.Outer4, to.Outer4, 1) == 0 && h.Ping(h.Outer4, to.Outer4, 20) == 0 {
			n.t.Fatalf("%s does not reach %s", h.Name, to.Name)
		}
	}
}

// reaches says whether the hosts share a network.
func (n *Net) reaches(from, to *Host) bool {
	p, err := from.Outer4.Prefix(24)
	return err == nil && p.Contains(to.Outer4)
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
