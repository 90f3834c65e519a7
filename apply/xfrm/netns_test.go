package xfrm

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
	"ipsec-quick/apply/applytest"
)

// enterNamespace puts the test into a network namespace of its own, with an
// interface that leads to 192.0.2.0/24, 10.1.0.0/16, 10.2.0.0/16 and
// 2001:db8::/32.
func enterNamespace(t *testing.T) {
	t.Helper()
	applytest.EnterNamespace(t)
	ip(t, "link set lo up")
	ip(t, "link add outer type veth peer name other")
	ip(t, "link set outer up")
	ip(t, "link set other up")
	ip(t, "addr add 192.0.2.1/24 dev outer")
	ip(t, "addr add 10.1.0.1/16 dev outer")
	ip(t, "-6 addr add 2001:db8::1/32 dev outer nodad")
	ip(t, "route add 10.2.0.0/16 via 192.0.2.2")
	ip(t, "neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev outer")
	ip(t, "-6 neigh add 2001:db8::2 lladdr 02:00:00:00:00:02 dev outer")
}

func ip(t *testing.T, args string) string {
	t.Helper()
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v\n%s", args, err, out)
	}
	return string(out)
}

func opened(t *testing.T) *Kernel {
	t.Helper()
	k, err := open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

var (
	us    = netip.MustParseAddr("192.0.2.1")
	peer  = netip.MustParseAddr("192.0.2.2")
	us6   = netip.MustParseAddr("2001:db8::1")
	peer6 = netip.MustParseAddr("2001:db8::2")
	pair  = apply.Selector{Local: netip.MustParsePrefix("10.1.0.0/16"), Remote: netip.MustParsePrefix("10.2.0.0/16")}
)

func next(t *testing.T, k *Kernel) apply.Event {
	t.Helper()
	select {
	case ev := <-k.Events():
		return ev
	case <-time.After(5 * time.Second):
		t.Fatal("no event within 5 s")
		return nil
	}
}

func none(t *testing.T, k *Kernel, d time.Duration) {
	t.Helper()
	select {
	case ev := <-k.Events():
		t.Fatalf("unexpected event %#v", ev)
	case <-time.After(d):
	}
}

// sendUDP sends a datagram from one address to another's port 7.
func sendUDP(t *testing.T, from, to string, prepare func(fd int)) error {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: netip.MustParseAddr(from).As4()}); err != nil {
		t.Fatal(err)
	}
	if prepare != nil {
		prepare(fd)
	}
	return unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrInet4{Addr: netip.MustParseAddr(to).As4(), Port: 7})
}

// capture counts the IPv4 packets to 10.2.0.1 that leave.
func capture(t *testing.T) (count func() int) {
	t.Helper()
	const ipv4 = 0x0008 // ETH_P_IP in network byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, ipv4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return func() int {
		n := 0
		buf := make([]byte, 2048)
		for {
			l, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return n
			}
			if l >= 20 && [4]byte(buf[16:20]) == [4]byte{10, 2, 0, 1} {
				n++
			}
		}
	}
}
