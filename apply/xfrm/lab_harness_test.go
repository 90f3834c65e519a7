//go:build lab

// These tests need a kernel with ESP. They are run in the lab:
//
//	CGO_ENABLED=0 go test -c -tags lab -o bin/xfrm.test ./apply/xfrm
//	test/lab/run bin/xfrm.test -test.v -test.run Lab
package xfrm

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
)

// host is a network namespace with a data plane.
type host struct {
	t      *testing.T
	ns     int
	kernel *Kernel
	outer  map[bool]netip.Addr // by IPv6
	inner  netip.Prefix
}

// enter puts the thread into the host's namespace.
func (h *host) enter() {
	h.t.Helper()
	if err := unix.Setns(h.ns, unix.CLONE_NEWNET); err != nil {
		h.t.Fatal(err)
	}
}

// newHost makes a namespace and stays in it.
func newHost(t *testing.T, last byte) *host {
	t.Helper()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	ns, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(ns) })
	ip(t, "link set lo up")
	k, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	v6 := us6.As16()
	v6[15] = last
	return &host{
		t: t, ns: ns, kernel: k,
		outer: map[bool]netip.Addr{false: netip.AddrFrom4([4]byte{192, 0, 2, last}), true: netip.AddrFrom16(v6)},
		inner: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, last, 0, 1}), 16),
	}
}

// twoHosts are connected: 192.0.2.1 and .2, 2001:db8::1 and ::2 outside,
// 10.1.0.1 and 10.2.0.1 inside.
func twoHosts(t *testing.T) (a, b *host) {
	t.Helper()
	runtime.LockOSThread()
	a = newHost(t, 1)
	b = newHost(t, 2)
	ip(t, "link add outer type veth peer name other")
	cmd := exec.Command("ip", "link", "set", "other", "netns", fmt.Sprintf("/proc/%d/fd/%d", unix.Getpid(), a.ns))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, h := range []*host{b, a} {
		h.enter()
		other := b
		if h == b {
			other = a
		} else {
			ip(t, "link set other name outer")
		}
		ip(t, "link set outer up")
		for _, o := range h.outer {
			if o.Is6() {
				ip(t, fmt.Sprintf("addr add %v/32 dev outer nodad", o))
			} else {
				ip(t, fmt.Sprintf("addr add %v/24 dev outer", o))
			}
		}
		ip(t, fmt.Sprintf("addr add %v/32 dev lo", h.inner.Addr()))
		ip(t, fmt.Sprintf("route add %v via %v src %v", other.inner.Masked(), other.outer[false], h.inner.Addr()))
	}
	return a, b
}

// listen opens a UDP socket of the host's.
func (h *host) listen(addr netip.Addr, port uint16) *net.UDPConn {
	h.t.Helper()
	h.enter()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, port)))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	return c
}

// listenESP opens the socket that takes ESP in UDP.
func (h *host) listenESP(addr netip.Addr, port uint16) *net.UDPConn {
	h.t.Helper()
	c := h.listen(addr, port)
	raw, err := c.SyscallConn()
	if err != nil {
		h.t.Fatal(err)
	}
	if cerr := raw.Control(func(fd uintptr) { err = h.kernel.PrepareSocket(int(fd), addr, true) }); cerr != nil || err != nil {
		h.t.Fatal(cerr, err)
	}
	return c
}

// link is a pair of SAs between two hosts, seen from the first one.
type link struct {
	suite Suite
	mode  apply.Mode
	ipv6  bool
	esn   bool
	encap bool
	soft  apply.Limits
	hard  apply.Limits
}

func (l link) String() string {
	s := fmt.Sprintf("%s%d %v", l.suite.Encryption, l.suite.KeyLen*8, l.mode)
	if l.suite.Integrity != "" {
		s += " " + l.suite.Integrity
	}
	if l.ipv6 {
		s += " ipv6"
	}
	if l.esn {
		s += " esn"
	}
	if l.encap {
		s += " udp"
	}
	return s
}

// sa is one direction of the link, from one host to another, as dir sees it.
func (l link) sa(from, to *host, spi uint32, dir apply.Direction) apply.SA {
	sa := l.suite.sample(from.outer[l.ipv6])
	sa.Hard = apply.Limits{}
	sa.SPI, sa.Direction, sa.Src, sa.Dst, sa.ReqID, sa.Mode = spi, dir, from.outer[l.ipv6], to.outer[l.ipv6], 77, l.mode
	sa.ESN, sa.ReplayWindow = l.esn, 128
	if l.encap {
		sa.Encap = &apply.Encap{SrcPort: 4500, DstPort: 4500}
	}
	return sa
}

func (l link) policy(local, remote *host, spi uint32) apply.Policy {
	sel := apply.Selector{Local: local.inner.Masked(), Remote: remote.inner.Masked()}
	if l.mode == apply.Transport {
		bits := local.outer[l.ipv6].BitLen()
		sel = apply.Selector{Local: netip.PrefixFrom(local.outer[l.ipv6], bits), Remote: netip.PrefixFrom(remote.outer[l.ipv6], bits)}
		sel.Protocol = unix.IPPROTO_UDP
		sel.LocalPort = apply.PortMask{Port: 7, Mask: 0xffff}
		sel.RemotePort = sel.LocalPort
	}
	return apply.Policy{
		Selector: sel, Action: apply.Protect, Mode: l.mode, ReqID: 77, SPI: spi,
		Local: local.outer[l.ipv6], Remote: remote.outer[l.ipv6],
	}
}

// ends of the traffic of the link.
func (l link) address(h *host) netip.Addr {
	if l.mode == apply.Transport {
		return h.outer[l.ipv6]
	}
	return h.inner.Addr()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pipe is what a link installs between a and b.
type pipe struct {
	link
	t            *testing.T
	a, b         *host
	ab, ba       apply.SA // as a sees them
	ab2, ba2     apply.SA // as b sees them
	aSock, bSock *net.UDPConn
}

// install connects two hosts. limits are those of a's SAs.
func (l link) install(t *testing.T, a, b *host) *pipe {
	t.Helper()
	p := &pipe{link: l, t: t, a: a, b: b}
	spiA, err := a.kernel.AllocSPI(77, b.outer[l.ipv6], a.outer[l.ipv6], l.mode)
	must(t, err)
	spiB, err := b.kernel.AllocSPI(77, a.outer[l.ipv6], b.outer[l.ipv6], l.mode)
	must(t, err)
	p.ab = l.sa(a, b, spiB, apply.Out)
	p.ba = l.sa(b, a, spiA, apply.In)
	p.ab2, p.ba2 = p.ab, p.ba
	p.ab2.Direction, p.ba2.Direction = apply.In, apply.Out
	p.ab.Soft, p.ab.Hard, p.ba.Soft, p.ba.Hard = l.soft, l.hard, l.soft, l.hard
	must(t, b.kernel.InstallSA(p.ab2))
	must(t, a.kernel.InstallSA(p.ba))
	must(t, b.kernel.InstallSA(p.ba2))
	must(t, a.kernel.InstallSA(p.ab))
	must(t, a.kernel.SetPolicy(l.policy(a, b, spiB)))
	must(t, b.kernel.SetPolicy(l.policy(b, a, spiA)))
	p.aSock = a.listen(l.address(a), 7)
	p.bSock = b.listen(l.address(b), 7)
	return p
}

// remove takes all away and checks that it is.
func (p *pipe) remove() {
	p.t.Helper()
	p.aSock.Close()
	p.bSock.Close()
	must(p.t, p.a.kernel.RemovePolicy(p.policy(p.a, p.b, p.ab.SPI)))
	must(p.t, p.b.kernel.RemovePolicy(p.policy(p.b, p.a, p.ba.SPI)))
	for _, sa := range []apply.SA{p.ab, p.ba} {
		must(p.t, p.a.kernel.RemoveSA(sa.ID()))
		must(p.t, p.b.kernel.RemoveSA(sa.ID()))
	}
	for _, h := range []*host{p.a, p.b} {
		list, err := h.kernel.List([]uint32{77})
		if err != nil || len(list) != 0 {
			p.t.Errorf("left: %v %v", list, err)
		}
	}
}

// send sends one datagram each way and wants them to arrive.
func (p *pipe) exchange() {
	p.t.Helper()
	p.send(p.aSock, p.bSock, p.address(p.b))
	p.send(p.bSock, p.aSock, p.address(p.a))
}

func (p *pipe) send(from, to *net.UDPConn, addr netip.Addr) {
	p.t.Helper()
	text := make([]byte, 100)
	_, _ = rand.Read(text)
	if _, err := from.WriteToUDPAddrPort(text, netip.AddrPortFrom(addr, 7)); err != nil {
		p.t.Fatalf("%v: %v", p.link, err)
	}
	_ = to.SetReadDeadline(time.Now().Add(3 * time.Second))
	buf := make([]byte, 200)
	if n, err := to.Read(buf); err != nil || string(buf[:n]) != string(text) {
		p.t.Fatalf("%v: received %d octets, %v", p.link, n, err)
	}
}

func (p *pipe) packets(h *host, sa apply.SA) uint64 {
	p.t.Helper()
	u, err := h.kernel.Query(sa.ID())
	must(p.t, err)
	return u.Packets
}
