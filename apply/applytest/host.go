package applytest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
)

// port is where the hosts' traffic goes to, natPort where ESP in UDP does.
const (
	port    = 7
	natPort = 4500
)

// host is a network namespace with a data plane.
type host struct {
	t     *testing.T
	ns    int
	plane apply.Dataplane
	outer map[bool]netip.Addr // by IPv6
	inner netip.Prefix
}

// enter puts the thread into the host's namespace.
func (h *host) enter() {
	h.t.Helper()
	must(h.t, unix.Setns(h.ns, unix.CLONE_NEWNET))
}

// newHost makes a namespace and stays in it.
func newHost(t *testing.T, open Opener, last byte) *host {
	t.Helper()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("no network namespace: %v", err)
	}
	ns, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(ns) })
	ip(t, "link set lo up")
	h := &host{
		t: t, ns: ns,
		outer: map[bool]netip.Addr{
			false: netip.AddrFrom4([4]byte{192, 0, 2, last}),
			true:  netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, 15: last}),
		},
		inner: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, last, 0, 1}), 16),
	}
	plane, err := open(t.TempDir())
	must(t, err)
	h.plane = within{plane, h}
	t.Cleanup(func() { must(t, h.plane.Close()) })
	return h
}

// twoHosts are connected: 192.0.2.1 and .2, 2001:db8::1 and ::2 outside,
// 10.1.0.1 and 10.2.0.1 inside.
func twoHosts(t *testing.T, open Opener) (a, b *host) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: network namespaces are made")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs iproute2")
	}
	runtime.LockOSThread() // the thread ends with the test
	a = newHost(t, open, 1)
	b = newHost(t, open, 2)
	ip(t, "link add outer type veth peer name other")
	ip(t, fmt.Sprintf("link set other netns /proc/%d/fd/%d", unix.Getpid(), a.ns))
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

func ip(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v\n%s", args, err, out)
	}
}

// within is a data plane whose methods are called in its host's namespace.
type within struct {
	apply.Dataplane
	h *host
}

func (w within) AllocSPI(reqID uint32, src, dst netip.Addr, mode apply.Mode) (uint32, error) {
	w.h.enter()
	return w.Dataplane.AllocSPI(reqID, src, dst, mode)
}

func (w within) InstallSA(sa apply.SA) error {
	w.h.enter()
	return w.Dataplane.InstallSA(sa)
}

func (w within) UpdateSA(sa apply.SA) error {
	w.h.enter()
	return w.Dataplane.UpdateSA(sa)
}

func (w within) RemoveSA(id apply.SAID) error {
	w.h.enter()
	return w.Dataplane.RemoveSA(id)
}

func (w within) SetPolicy(p apply.Policy) error {
	w.h.enter()
	return w.Dataplane.SetPolicy(p)
}

func (w within) RemovePolicy(p apply.Policy) error {
	w.h.enter()
	return w.Dataplane.RemovePolicy(p)
}

func (w within) SwitchOutbound(p apply.Policy) error {
	w.h.enter()
	return w.Dataplane.SwitchOutbound(p)
}

func (w within) List(reqIDs []uint32) ([]apply.Installed, error) {
	w.h.enter()
	return w.Dataplane.List(reqIDs)
}

// listen opens a UDP socket of the host's.
func (h *host) listen(addr netip.Addr, port uint16, prepare func(fd int) error) *net.UDPConn {
	h.t.Helper()
	h.enter()
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			if failed == nil && prepare != nil {
				failed = prepare(int(fd))
			}
		})
		return errors.Join(err, failed)
	}}
	network := "udp4"
	if addr.Is6() {
		network = "udp6" // for IPv6 alone, as IKE's sockets are
	}
	c, err := config.ListenPacket(context.Background(), network, netip.AddrPortFrom(addr, port).String())
	must(h.t, err)
	h.t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

// shut closes a socket for good. Between fork and exec a child has a copy of it, such
// as the ip of a test that runs beside, and as long as it has, the closed socket goes
// on taking packets.
func shut(c *net.UDPConn) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	c.Close()
}

// listenESP opens a socket as an IKE daemon has it on its port for NAT: what comes
// there and is ESP goes to the data plane.
func (h *host) listenESP(addr netip.Addr, port uint16) *net.UDPConn {
	h.t.Helper()
	c := h.listen(addr, port, func(fd int) error { return h.plane.PrepareSocket(fd, addr, true) })
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			h.plane.ReceiveESP(netip.AddrPortFrom(addr, port), from, buf[:n])
		}
	}()
	return c
}

// next is the host's next event.
func (h *host) next() apply.Event {
	h.t.Helper()
	select {
	case ev := <-h.plane.Events():
		return ev
	case <-time.After(10 * time.Second):
		h.t.Fatal("no event within 10 s")
		return nil
	}
}

// none wants no event.
func (h *host) none(d time.Duration) {
	h.t.Helper()
	select {
	case ev := <-h.plane.Events():
		h.t.Fatalf("unexpected event %#v", ev)
	case <-time.After(d):
	}
}

// empty wants nothing to be left.
func (h *host) empty() {
	h.t.Helper()
	list, err := h.plane.List([]uint32{reqID})
	if err != nil || len(list) != 0 {
		h.t.Errorf("left: %+v, %v", list, err)
	}
}

// capture watches the host's outer interface, and returns a function for the IPv4
// packets since the last call that leave there, from their IP header on.
func (h *host) capture() func() [][]byte {
	h.t.Helper()
	h.enter()
	const ipv4 = 0x0008 // ETH_P_IP in network byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	must(h.t, err)
	h.t.Cleanup(func() { unix.Close(fd) })
	link, err := net.InterfaceByName("outer")
	must(h.t, err)
	must(h.t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: link.Index})) // ETH_P_ALL: what leaves too
	return func() (list [][]byte) {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return list
			}
			ll, ok := from.(*unix.SockaddrLinklayer)
			if ok && ll.Protocol == ipv4 && ll.Pkttype == unix.PACKET_OUTGOING {
				list = append(list, append([]byte(nil), buf[:n]...))
			}
		}
	}
}
