//go:build lab

package lab_test

import (
	"fmt"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/test/harness"
)

const interfaceGroup = "Route-based tunnels"

// everywhere are addresses behind the gateway, which stand for the internet.
var everywhere = []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:ffff::1")}

// TestDefaultRoute has all of a host's traffic go through a tunnel to strongSwan:
// while the gateway does not answer yet, established, over rekeys, when the loop is
// killed and when the gateway is lost, nothing but IKE and ESP leaves the host; down
// restores its routing.
func TestDefaultRoute(t *testing.T) {
	t.Parallel()
	for _, ipv6 := range []bool{false, true} {
		family := map[bool]string{false: "IPv4", true: "IPv6"}[ipv6]
		row := harness.NewRow(interfaceGroup, "all traffic through strongSwan, over "+family, "initiator")
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			row.Of(t)
			defaultRoute(t, ipv6, row)
		})
	}
}

func defaultRoute(t *testing.T, ipv6 bool, row *harness.Row) {
	n := harness.NewNet(t, "a", "b")
	a, b := n.A(), n.B()
	for _, addr := range everywhere {
		b.Run("ip", "addr", "add", netip.PrefixFrom(addr, addr.BitLen()).String(), "dev", "lo")
	}
	before := a.Snapshot()

	file := between(a, b)
	file.localTS, file.remoteTS = netip.Prefix{}, netip.Prefix{}
	file.device = "[interface]\naddresses = [\"10.1.9.9/32\", \"fd00:1::9:9/128\"]"
	file.more = fmt.Sprintf("local_ts = [%q, %q]\nremote_ts = [\"0.0.0.0/0\", \"::/0\"]", a.Net4, a.Net6)
	conn := swanBetween(b, a)
	conn.Child.LocalTS, conn.Child.RemoteTS = "0.0.0.0/0,::/0", fmt.Sprintf("%s,%s", a.Net4, a.Net6)
	if ipv6 {
		file.peer, conn.Local, conn.Remote = b.Outer6.String(), b.Outer6.String(), a.Outer6.String()
	}
	q := harness.NewQuick(t, a, "world", file.String())

	// The gateway is not there yet.
	if r := q.Exec("up", "world", "--keep-trying", "--timeout", "1s"); r.Err != nil {
		t.Fatal(r)
	}
	capture := harness.StartCapture(t, n)
	silence := chatter(t, a, netip.IPv4Unspecified(), a.Inner4, netip.IPv6Unspecified(), a.Inner6)
	answered := func() int { return unbound(a) }
	if got := answered(); got > 0 {
		t.Errorf("%d answers without a gateway", got)
	}
	quiet(t, capture, a, "without a gateway")

	swan := harness.StartCharon(t, b)
	swan.Load(conn.String(), nil)
	within(t, 20*time.Second, "established", func() bool { return q.Established() })
	within(t, 10*time.Second, "all addresses answer", func() bool { return answered() == len(everywhere) })
	for _, flags := range [][]string{nil, {"--ike"}} {
		old := q.Peer()
		q.Rekey(flags...)
		within(t, 10*time.Second, "rekeyed", func() bool { return rekeyed(old, q.Peer(), flags != nil) })
	}
	within(t, 10*time.Second, "answers after rekeys", func() bool { return answered() == len(everywhere) })
	quiet(t, capture, a, "up and over rekeys")

	a.Signal(q.PID(), syscall.SIGKILL)
	within(t, 5*time.Second, "the loop is dead", func() bool { s, ok := q.Status(); return ok && s.WatchPID == 0 })
	want := len(everywhere)
	if inUserspace() {
		want = 0
	}
	if got := answered(); got != want {
		t.Errorf("%d answers without the loop, want %d", got, want)
	}
	q.Up()
	within(t, 10*time.Second, "answers of the next loop", func() bool { return answered() == len(everywhere) })
	quiet(t, capture, a, "kill -9")

	swan.Stop()
	within(t, 10*time.Second, "the gateway is lost", func() bool { return !q.Established() })
	if got := answered(); got > 0 {
		t.Errorf("%d answers of a gateway that is lost", got)
	}
	// Somebody takes the interface away.
	a.Run("ip", "link", "set", "world", "down")
	if got := answered(); got > 0 {
		t.Errorf("%d answers without the interface", got)
	}
	quiet(t, capture, a, "the gateway lost, the interface down")
	swan = harness.StartCharon(t, b)
	swan.Load(conn.String(), nil)
	within(t, 90*time.Second, "all addresses answer again", func() bool { return answered() == len(everywhere) })
	silence()
	capture.NothingClear()
	if n := capture.Count(espKind()); n < 50 {
		t.Errorf("%d packets of ESP: %v", n, capture)
	}
	q.Down()
	a.Unchanged(before, "up, kill -9, loss of the gateway and down")
	row.Notef("%v", capture)
}

// unbound pings all addresses from a socket that has none of its own, and returns
// how many answer.
func unbound(h *harness.Host) (answers int) {
	for _, addr := range everywhere {
		if h.Exec("ping", "-n", "-c", "1", "-W", "1", addr.String()).Err == nil {
			answers++
		}
	}
	return answers
}

// chatter sends datagrams everywhere until it is stopped, from sockets that are bound
// to addresses.
func chatter(t *testing.T, h *harness.Host, from ...netip.Addr) (stop func()) {
	t.Helper()
	quit, done := make(chan struct{}), make(chan struct{})
	var sockets []int
	for _, addr := range from {
		fd, _, err := h.UDPSocket(addr)
		if err != nil {
			t.Fatal(err)
		}
		sockets = append(sockets, fd)
	}
	go func() {
		defer close(done)
		for {
			for i, fd := range sockets {
				to := unix.Sockaddr(&unix.SockaddrInet4{Port: 9, Addr: everywhere[0].As4()})
				if from[i].Is6() {
					to = &unix.SockaddrInet6{Port: 9, Addr: everywhere[1].As16()}
				}
				_ = unix.Sendto(fd, make([]byte, 100), 0, to) // what is refused has not left
			}
			select {
			case <-quit:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	stop = sync.OnceFunc(func() {
		close(quit)
		<-done
		for _, fd := range sockets {
			unix.Close(fd)
		}
	})
	t.Cleanup(stop)
	return stop
}

// quiet wants nothing but IKE and ESP to have left a host.
func quiet(t *testing.T, c *harness.Capture, h *harness.Host, when string) {
	t.Helper()
	if n, first := c.ClearFrom(h); n > 0 {
		t.Errorf("%s: %d packets in clear, %q", when, n, first)
	}
}
