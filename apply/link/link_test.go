package link

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
	"ipsec-quick/apply/applytest"
)

// host is a network namespace, which the test's thread is in: eth0 leads to
// 192.0.2.0/24 and 2001:db8::/64, and the rest of the world is behind .2. There
// are two TUN devices.
type host struct {
	t       *testing.T
	changes []string
}

func newHost(t *testing.T) *host {
	t.Helper()
	applytest.EnterNamespace(t)
	h := &host{t: t}
	h.run("sysctl -qw net.ipv6.conf.default.accept_dad=0")
	for _, args := range []string{
		"link set lo up", "link add eth0 type veth peer name other", "link set eth0 up", "link set other up",
		"addr add 192.0.2.1/24 dev eth0", "addr add 2001:db8::1/64 dev eth0 nodad",
		"route add default via 192.0.2.2", "-6 route add default via 2001:db8::2",
		"addr add 10.1.0.1/32 dev lo", "addr add fd00:1::1/128 dev lo nodad",
		"tuntap add mode tun name office", "tuntap add mode tun name world",
	} {
		h.ip(args)
	}
	return h
}

func (h *host) run(line string) string {
	h.t.Helper()
	out, err := exec.Command("sh", "-c", line).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

func (h *host) ip(args string) string { h.t.Helper(); return h.run("ip " + args) }

// routing is all rules, and all routes but those that the kernel makes itself, some
// time after their device is up.
func (h *host) routing() string {
	h.t.Helper()
	return h.run(`ip rule; ip -6 rule; { ip route show table all; ip -6 route show table all; } | grep -v "proto kernel"`)
}

// state is all that a link may change.
func (h *host) state() string {
	h.t.Helper()
	return h.routing() + h.ip("addr show dev office")
}

func (h *host) open(name string, id uint32) *Link {
	return Open(Options{
		Name: name, ID: id, Ports: []uint16{500, 4500}, Change: func(c string) { h.changes = append(h.changes, c) },
	})
}

func (h *host) sync(l *Link, s State) {
	h.t.Helper()
	if err := l.Sync(s); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) remove(l *Link) {
	h.t.Helper()
	if err := l.Remove(); err != nil {
		h.t.Fatal(err)
	}
}

// goes wants packets to an address to leave by a device, "" for none, and with the
// mark of ESP by another.
func (h *host) goes(to, device, marked string) {
	h.t.Helper()
	for mark, want := range map[int]string{0: device, apply.Mark: marked} {
		out, err := exec.Command("sh", "-c", fmt.Sprintf("ip route get %s mark %d", to, mark)).CombinedOutput()
		got := ""
		if _, after, ok := strings.Cut(string(out), " dev "); ok && err == nil {
			got, _, _ = strings.Cut(after, " ")
		}
		if got != want {
			h.t.Errorf("to %s with mark %#x: %q, want %q: %s", to, mark, got, want, out)
		}
	}
}

func prefixes(list ...string) []Route {
	var routes []Route
	for _, p := range list {
		routes = append(routes, Route{To: netip.MustParsePrefix(p)})
	}
	return routes
}

const (
	officeID = FirstID + 7
	worldID  = FirstID + 8
)

// Networks that no peer is in are in the main table.
func TestMainTable(t *testing.T) {
	h := newHost(t)
	h.ip("link set office up")
	h.ip("link set office down")
	before := h.state()
	l := h.open("office", officeID)
	s := State{
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.99.0.1/30"), netip.MustParsePrefix("fd99::1/64")},
		Routes:    prefixes("10.2.0.0/16", "fd00:2::/32"),
		Endpoints: []netip.Addr{netip.MustParseAddr("192.0.2.2")},
	}
	s.Routes[0].Src = netip.MustParseAddr("10.1.0.1")
	h.sync(l, s)
	if rules := h.ip("rule"); strings.Contains(rules, fmt.Sprint(officeID)) {
		t.Errorf("rules without need:\n%s", rules)
	}
	for _, want := range []string{"10.2.0.0/16 dev office proto 50 scope link src 10.1.0.1", "10.99.0.0/30 dev office"} {
		if routes := h.ip("route"); !strings.Contains(routes, want) {
			t.Errorf("no %q in:\n%s", want, routes)
		}
	}
	h.goes("10.2.3.4", "office", "office")
	h.goes("fd00:2::1", "office", "office")
	h.goes("203.0.113.1", "eth0", "eth0")

	// The same again changes nothing, whoever asks for it.
	h.changes = nil
	h.sync(l, s)
	h.sync(h.open("office", officeID), s)
	if len(h.changes) > 0 {
		t.Errorf("done again: %q", h.changes)
	}

	// What somebody takes away is put back, and until then nothing leaves.
	h.ip("link set office down")
	h.goes("10.2.3.4", "", "")
	h.goes("fd00:2::1", "", "")
	h.sync(l, s)
	h.goes("10.2.3.4", "office", "office")
	h.goes("fd00:2::1", "office", "office")
	h.ip("addr add 10.99.1.1/32 dev office") // another's

	// Other addresses, networks, sources.
	s.Addresses = s.Addresses[1:]
	s.Routes = []Route{{To: s.Routes[0].To, Src: netip.MustParseAddr("192.0.2.1")}}
	h.sync(l, s)
	if addrs := h.ip("addr show dev office"); strings.Contains(addrs, "10.99.0.1") || !strings.Contains(addrs, "10.99.1.1") || !strings.Contains(addrs, "fd99::1") {
		t.Errorf("addresses:\n%s", addrs)
	}
	if routes := h.ip("route"); !strings.Contains(routes, "10.2.0.0/16 dev office proto 50 scope link src 192.0.2.1") {
		t.Errorf("the source has not changed:\n%s", routes)
	}
	h.goes("fd00:2::1", "eth0", "eth0")

	// The device goes with its data plane; what is left is found by another process.
	h.ip("link set office down")
	h.ip("addr flush dev office")
	h.remove(h.open("office", officeID))
	if after := strings.ReplaceAll(h.state(), "group 50", "group default"); after != before {
		t.Errorf("left:\n%s\nbefore:\n%s", after, before)
	}
}

// An address that is replaced stays until no route has it as its source: without its
// source a route would be gone.
func TestAddressReplaced(t *testing.T) {
	h := newHost(t)
	l := h.open("office", officeID)
	state := func(address string) State {
		a := netip.MustParsePrefix(address)
		return State{Addresses: []netip.Prefix{a}, Routes: []Route{{To: netip.MustParsePrefix("10.2.0.0/16"), Src: a.Addr()}}}
	}
	h.sync(l, state("10.99.0.1/32"))
	h.changes = nil
	h.sync(l, state("10.99.0.2/32"))
	want := []string{
		"ip addr add 10.99.0.2/32 dev office",
		"ip route replace 10.2.0.0/16 dev office scope link src 10.99.0.2 table main protocol 50",
		"ip addr del 10.99.0.1/32 dev office",
	}
	if !slices.Equal(h.changes, want) {
		t.Errorf("done:\n%s\nwant:\n%s", strings.Join(h.changes, "\n"), strings.Join(want, "\n"))
	}
	h.remove(l)
}

// A default route leaves the peer, the networks that this host is in and narrower
// routes where they are.
func TestDefaultRoute(t *testing.T) {
	h := newHost(t)
	h.ip("route add 172.16.0.0/12 via 192.0.2.3")
	rules := h.ip("rule") + h.ip("-6 rule")
	l := h.open("world", worldID)
	s := State{Routes: prefixes("0.0.0.0/0", "::/0"), Endpoints: []netip.Addr{netip.MustParseAddr("198.51.100.1")}}
	h.sync(l, s)
	h.goes("203.0.113.1", "world", "eth0")
	h.goes("198.51.100.1", "world", "eth0") // what is for the peer itself is carried too
	h.goes("2001:db8:ffff::1", "world", "eth0")
	h.goes("192.0.2.7", "eth0", "eth0")
	h.goes("172.16.0.1", "eth0", "eth0")
	h.goes("2001:db8::7", "eth0", "eth0")
	if now := h.ip("rule"); !strings.Contains(now, "iif lo ipproto esp lookup") {
		t.Errorf("ICMP errors about ESP are not about its route:\n%s", now)
	}
	h.ip("link set world down")
	h.goes("203.0.113.1", "", "eth0")
	h.goes("2001:db8:ffff::1", "", "eth0")
	h.ip("link delete world")
	h.goes("203.0.113.1", "", "eth0")
	if err := l.Sync(s); err == nil {
		t.Error("nobody is told that the device is gone")
	}
	h.ip("tuntap add mode tun name world")
	h.run("ip rule flush && ip rule add pref 32766 lookup main && ip rule add pref 32767 lookup default")
	h.sync(l, s)
	h.goes("203.0.113.1", "world", "eth0")
	h.goes("2001:db8:ffff::1", "world", "eth0")
	h.remove(l)
	if after := h.ip("rule") + h.ip("-6 rule"); after != rules {
		t.Errorf("rules:\n%s\nbefore:\n%s", after, rules)
	}
	h.goes("203.0.113.1", "eth0", "eth0")
}

// A network that a peer is in, and that moves there, is passed by on the way to it.
func TestPeerInItsNetwork(t *testing.T) {
	h := newHost(t)
	l := h.open("office", officeID)
	s := State{Routes: prefixes("198.51.100.0/24", "10.0.0.0/8")}
	h.sync(l, s)
	h.goes("198.51.100.1", "office", "office")
	s.Endpoints = []netip.Addr{netip.MustParseAddr("198.51.100.1")}
	if !s.Captive(s.Routes[0].To) || s.Captive(s.Routes[1].To) {
		t.Error("Captive")
	}
	h.sync(l, s)
	h.goes("198.51.100.1", "office", "eth0")
	h.goes("198.51.100.2", "office", "eth0")
	h.goes("10.2.3.4", "office", "office")
	s.Endpoints = nil
	h.sync(l, s)
	h.goes("198.51.100.1", "office", "office")
	h.remove(l)
}

// Of several tunnels the narrower network counts, and nobody takes another's.
func TestSeveralTunnels(t *testing.T) {
	h := newHost(t)
	before := h.routing()
	world, office := h.open("world", worldID), h.open("office", officeID)
	everything := State{Routes: prefixes("0.0.0.0/0")}
	networks := State{
		Routes: prefixes("10.2.0.0/16", "198.51.100.0/24"), Endpoints: []netip.Addr{netip.MustParseAddr("198.51.100.1")},
	}
	h.sync(world, everything)
	h.sync(office, networks)
	h.goes("10.2.0.1", "office", "office")
	h.goes("198.51.100.2", "office", "eth0")
	h.goes("203.0.113.1", "world", "eth0")
	for _, s := range []State{everything, {Routes: prefixes("198.51.100.0/24", "0.0.0.0/0")}} {
		var contest *Contest
		if err := office.Sync(s); !errors.As(err, &contest) || contest.To.IsValid() {
			t.Errorf("a second default route: %v", err)
		}
	}
	h.remove(world)
	h.goes("203.0.113.1", "eth0", "eth0")
	h.goes("198.51.100.2", "office", "eth0")
	h.remove(h.open("office", officeID))
	h.ip("link set world down")
	h.ip("link set office down")
	if after := h.routing(); after != before {
		t.Errorf("left:\n%s\nbefore:\n%s", after, before)
	}
}

// A number is the table, and nothing is in its way.
func TestOwnTable(t *testing.T) {
	h := newHost(t)
	l := h.open("office", officeID)
	h.sync(l, State{Table: 200, Routes: prefixes("0.0.0.0/0"), Endpoints: []netip.Addr{netip.MustParseAddr("198.51.100.1")}})
	if routes := strings.Count(h.ip("route show table 200"), "default"); routes != 2 {
		t.Errorf("%d routes, want the one to the device and one behind it", routes)
	}
	h.goes("203.0.113.1", "eth0", "eth0")
	h.remove(l)
	if out := h.ip("route show table all"); strings.Contains(out, "table 200") {
		t.Errorf("left:\n%s", out)
	}
}

func TestForeign(t *testing.T) {
	h := newHost(t)
	h.ip("route add 10.2.0.0/16 via 192.0.2.3")
	l := h.open("office", officeID)
	if err := l.Sync(State{Routes: prefixes("10.2.0.0/16")}); !errors.Is(err, unix.EEXIST) {
		t.Errorf("another's route: %v", err)
	}
	h.remove(l)
	if routes := h.ip("route"); !strings.Contains(routes, "10.2.0.0/16 via 192.0.2.3") || strings.Contains(routes, "unreachable") {
		t.Errorf("another's route is not as it was:\n%s", routes)
	}
	h.ip("link add bridge0 type bridge")
	taken := h.open("bridge0", worldID)
	if err := taken.Sync(State{}); !errors.Is(err, errForeign) {
		t.Errorf("another's device: %v", err)
	}
	h.remove(taken)
	h.ip("link show bridge0")
}

// With a strict reverse path filter what comes from the peer is let in.
func TestStrictReversePath(t *testing.T) {
	h := newHost(t)
	h.run("sysctl -qw net.ipv4.conf.eth0.rp_filter=1")
	l := h.open("world", worldID)
	h.sync(l, State{Routes: prefixes("0.0.0.0/0")})
	for _, what := range []string{"ipproto udp sport 500 dport 500", "ipproto udp sport 4500 dport 1024"} {
		if out := h.ip("route get 198.51.100.1 " + what); !strings.Contains(out, "dev eth0") {
			t.Errorf("%s: %s", what, out)
		}
	}
	if out := h.ip("route get 198.51.100.1 ipproto udp sport 501 dport 500"); !strings.Contains(out, "dev world") {
		t.Error(out)
	}
	h.remove(l)
}

// A plan is what Sync then does.
func TestPlan(t *testing.T) {
	h := newHost(t)
	h.ip("link set office up")
	l := h.open("office", officeID)
	s := State{
		MTU: 1400, Addresses: []netip.Prefix{netip.MustParsePrefix("10.99.0.1/30"), netip.MustParsePrefix("fd99::1/64")},
		Routes: prefixes("10.2.0.0/16", "0.0.0.0/0", "::/0"), Endpoints: []netip.Addr{netip.MustParseAddr("198.51.100.1")},
	}
	plan, err := Plan(l.o, s)
	if err != nil {
		t.Fatal(err)
	}
	h.sync(l, s)
	if !slices.Equal(plan, h.changes) {
		t.Errorf("planned:\n%s\ndone:\n%s", strings.Join(plan, "\n"), strings.Join(h.changes, "\n"))
	}
	h.remove(l)
	// ip(8) takes the commands, and Sync finds nothing left to do.
	for _, command := range plan {
		if !strings.HasPrefix(command, "ip addr") && !strings.HasPrefix(command, "ip link") {
			h.run(command)
		}
	}
	h.changes = nil
	h.sync(l, s)
	if len(h.changes) > 0 {
		t.Errorf("after the commands: %q", h.changes)
	}
	h.remove(l)
}

// Metrics of unreachable routes tell the tunnels apart and come last.
func TestMetric(t *testing.T) {
	first, last := Options{ID: FirstID}, Options{ID: LastID}
	if last.metric() != 1<<32-1 || first.metric() != 1<<32-1-(LastID-FirstID) || first.metric() < 1<<31 {
		t.Errorf("%d to %d", first.metric(), last.metric())
	}
}
