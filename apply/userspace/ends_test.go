package userspace

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
)

// An end is one of two hosts: a network namespace with a plane in it. There is a
// veth between the two, and behind each one address of each family.
type end struct {
	t     testing.TB
	name  string // of the namespace
	n     int    // 1 or 2
	dir   string // of the plane's files
	procs int    // as the plane's workers see it
	plane *Plane
	log   bench
	ike   chan string
}

func outer4(n int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}) }
func outer6(n int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", n)) }
func inner4(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, byte(n), 1}) }
func inner6(n int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("fd00:9:%d::1", n)) }

// host runs a command on this machine.
func host(t testing.TB, command string, args ...any) string {
	t.Helper()
	words := strings.Fields(fmt.Sprintf(command, args...))
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(words, " "), err, out)
	}
	return string(out)
}

// twoEnds makes the hosts, and a plane on each.
func twoEnds(t testing.TB) (one, two *end) {
	t.Helper()
	return twoEndsOf(t, procs())
}

// twoEndsOf is twoEnds for a number of processors.
func twoEndsOf(t testing.TB, procs int) (one, two *end) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: network namespaces are made")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip("needs /dev/net/tun")
	}
	ends := [2]*end{}
	for i := range ends {
		e := &end{t: t, name: fmt.Sprintf("iq%d-%d", os.Getpid(), i+1), n: i + 1, dir: t.TempDir(), procs: procs, ike: make(chan string, 100)}
		host(t, "ip netns add %s", e.name)
		t.Cleanup(func() { host(t, "ip netns del %s", e.name) })
		ends[i] = e
	}
	one, two = ends[0], ends[1]
	host(t, "ip -n %s link add outer type veth peer name outer netns %s", one.name, two.name)
	for _, e := range ends {
		e.ip("link set lo up")
		e.ip("link set outer up")
		e.ip("addr add %v/24 dev outer", outer4(e.n))
		e.ip("addr add %v/64 dev outer nodad", outer6(e.n))
		e.ip("addr add %v/32 dev lo", inner4(e.n))
		e.ip("addr add %v/128 dev lo nodad", inner6(e.n))
		e.open()
	}
	return one, two
}

// open opens a plane, which is closed when the test ends. It takes descriptors that
// one before it bequeathed.
func (e *end) open(inherited ...int) {
	e.t.Helper()
	e.do(func() {
		var err error
		e.plane, err = open(Options{
			Dir: e.dir, Name: "iq0", Steering: e, Log: slog.New(slog.NewTextHandler(&e.log, nil)), Inherited: inherited,
			Change: func(string) {},
			IKE: func(local, remote netip.AddrPort, data []byte) {
				e.ike <- fmt.Sprintf("%v %v %s", local, remote, data)
			},
		}, newWorkers(e.procs))
		must(e.t, err)
	})
	plane := e.plane
	e.t.Cleanup(func() { must(e.t, plane.Close()) })
}

// ip runs a command of iproute2 on the host.
func (e *end) ip(command string, args ...any) string {
	e.t.Helper()
	return host(e.t, "ip -n "+e.name+" "+command, args...)
}

// do runs a function in the host's network namespace.
func (e *end) do(f func()) {
	e.t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	back, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		e.t.Fatal(err)
	}
	defer back.Close()
	there, err := os.Open("/run/netns/" + e.name)
	if err != nil {
		e.t.Fatal(err)
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		e.t.Fatal(err)
	}
	defer func() {
		if err := unix.Setns(int(back.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(err) // the thread is of no use any more
		}
	}()
	f()
}

// Sync is the plane's Steering: routes that are there as long as a policy is, and
// for transport mode a rule for TCP between the hosts themselves.
func (e *end) Sync(policies []apply.Policy) error {
	if len(policies) == 0 {
		return nil
	}
	other := 3 - e.n
	commands := []string{
		fmt.Sprintf("route replace %v/32 dev iq0 src %v", inner4(other), inner4(e.n)),
		fmt.Sprintf("-6 route replace %v/128 dev iq0 src %v", inner6(other), inner6(e.n)),
	}
	if policies[0].Mode == apply.Transport {
		commands = []string{
			fmt.Sprintf("route replace %v dev iq0 src %v table 100", outer4(other), outer4(e.n)),
			fmt.Sprintf("-6 route replace %v dev iq0 src %v table 100", outer6(other), outer6(e.n)),
			"rule del pref 50", "-6 rule del pref 50",
			fmt.Sprintf("rule add pref 50 to %v ipproto tcp lookup 100", outer4(other)),
			fmt.Sprintf("-6 rule add pref 50 to %v ipproto tcp lookup 100", outer6(other)),
		}
	}
	for _, c := range commands {
		out, err := exec.Command("ip", strings.Fields("-n "+e.name+" "+c)...).CombinedOutput()
		if err != nil && !strings.Contains(c, "rule del") {
			return errors.New(c + ": " + string(out))
		}
	}
	return nil
}

// Refresh has nothing to put back.
func (e *end) Refresh() error { return nil }

// A tunnelKind says what is between two ends.
type tunnelKind struct {
	encryption, integrity string
	keyLen, macLen        int
	mode                  apply.Mode
	ipv6, raw, esn        bool
	window                uint32
}

func (k tunnelKind) String() string {
	s := k.encryption + " " + k.integrity + " " + k.mode.String()
	for name, is := range map[string]bool{"IPv6": k.ipv6, "raw": k.raw, "ESN": k.esn} {
		if is {
			s += " " + name
		}
	}
	return s
}

var gcm = tunnelKind{encryption: apply.AESGCM16, keyLen: 20, esn: true, window: 1024}

// sa is the SA of one direction as an end has it.
func (e *end) sa(k tunnelKind, from int, spi uint32) apply.SA {
	addr := outer4
	if k.ipv6 {
		addr = outer6
	}
	sa := apply.SA{
		SPI: spi, ReqID: 1, Mode: k.mode, Src: addr(from), Dst: addr(3 - from), ESN: k.esn, ReplayWindow: k.window,
		Direction:  apply.In,
		Encryption: apply.Algorithm{Name: k.encryption, Key: bytes.Repeat([]byte{byte(spi)}, k.keyLen)},
		Encap:      &apply.Encap{SrcPort: 4500, DstPort: 4500},
	}
	if k.integrity != "" {
		sa.Integrity = apply.Algorithm{Name: k.integrity, Key: bytes.Repeat([]byte{byte(spi), 7}, k.macLen/2)}
	}
	if k.raw {
		sa.Encap = nil
	}
	if from == e.n {
		sa.Direction = apply.Out
	}
	return sa
}

// policies of the end.
func (e *end) policies(k tunnelKind, spi uint32) []apply.Policy {
	local, remote := outer4, outer4
	if k.ipv6 {
		local, remote = outer6, outer6
	}
	p := apply.Policy{
		Action: apply.Protect, Mode: k.mode, ReqID: 1, SPI: spi,
		Local: local(e.n), Remote: remote(3 - e.n),
	}
	if k.mode == apply.Transport {
		p.Selector = apply.Selector{
			Local: netip.PrefixFrom(p.Local, p.Local.BitLen()), Remote: netip.PrefixFrom(p.Remote, p.Remote.BitLen()), Protocol: unix.IPPROTO_TCP,
		}
		return []apply.Policy{p}
	}
	var all []apply.Policy
	for _, inner := range []func(int) netip.Addr{inner4, inner6} {
		l, r := inner(e.n), inner(3-e.n)
		p.Selector = apply.Selector{Local: netip.PrefixFrom(l, l.BitLen()), Remote: netip.PrefixFrom(r, r.BitLen())}
		all = append(all, p)
	}
	return all
}

// spiFrom is the SPI of the SA with packets from an end.
func spiFrom(n int, generation uint32) uint32 { return 0xc0000000 + generation<<8 + uint32(n) }

// connect installs a tunnel on both ends.
func connect(one, two *end, k tunnelKind) {
	one.t.Helper()
	for _, e := range []*end{one, two} {
		e.do(func() {
			for from := 1; from <= 2; from++ {
				must(e.t, e.plane.InstallSA(e.sa(k, from, spiFrom(from, 0))))
			}
			for _, p := range e.policies(k, spiFrom(e.n, 0)) {
				must(e.t, e.plane.SetPolicy(p))
			}
		})
	}
}

// disconnect takes it away.
func disconnect(one, two *end, k tunnelKind) {
	one.t.Helper()
	for _, e := range []*end{one, two} {
		e.do(func() {
			for _, p := range e.policies(k, 0) {
				must(e.t, e.plane.RemovePolicy(p))
			}
			for from := 1; from <= 2; from++ {
				must(e.t, e.plane.RemoveSA(e.sa(k, from, spiFrom(from, 0)).ID()))
			}
		})
	}
}

// rekey puts SAs of a generation in the place of those before, in the order in
// which IKE does.
func rekey(one, two *end, k tunnelKind, generation uint32) {
	one.t.Helper()
	each := func(f func(e *end) error) {
		for _, e := range []*end{one, two} {
			e.do(func() { must(e.t, f(e)) })
		}
	}
	each(func(e *end) error { return e.plane.InstallSA(e.sa(k, 3-e.n, spiFrom(3-e.n, generation))) })
	each(func(e *end) error { return e.plane.InstallSA(e.sa(k, e.n, spiFrom(e.n, generation))) })
	each(func(e *end) error {
		for _, p := range e.policies(k, spiFrom(e.n, generation)) {
			if err := e.plane.SwitchOutbound(p); err != nil {
				return err
			}
		}
		return e.plane.RemoveSA(e.sa(k, e.n, spiFrom(e.n, generation-1)).ID())
	})
}
