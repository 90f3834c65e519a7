package outer

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply/applytest"
)

// enterNamespace puts the test into a network namespace of its own, with
// addresses of both families on the loopback.
func enterNamespace(t *testing.T) {
	t.Helper()
	applytest.EnterNamespace(t)
	run(t, "ip link set lo up mtu 1500")
	for _, a := range []string{"192.0.2.1/32", "192.0.2.2/32", "2001:db8::1/128 nodad", "2001:db8::2/128 nodad"} {
		run(t, "ip addr add dev lo "+a)
	}
	// An IPv6 address gets its route a little later.
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		routes := run(t, "ip -6 route show table local")
		if strings.Contains(routes, "2001:db8::1") && strings.Contains(routes, "2001:db8::2") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no routes to the addresses:\n%s", routes)
		}
	}
}

func run(t *testing.T, command string) string {
	t.Helper()
	args := strings.Fields(command)
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

var (
	one4, two4 = netip.MustParseAddrPort("192.0.2.1:4500"), netip.MustParseAddrPort("192.0.2.2:4500")
	one6, two6 = netip.MustParseAddrPort("[2001:db8::1]:4500"), netip.MustParseAddrPort("[2001:db8::2]:4500")
	all        = Offloads{Segment: true, Join: true}

	port = uint16(10000)
)

func conn(t *testing.T, make func() (*Conn, error)) *Conn {
	t.Helper()
	c, err := make()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// udpPair makes both ends, on ports that no pair before had.
func udpPair(t *testing.T, one, two netip.AddrPort, o Offloads) (a, b *Conn) {
	t.Helper()
	port++
	one, two = netip.AddrPortFrom(one.Addr(), port), netip.AddrPortFrom(two.Addr(), port)
	a = conn(t, func() (*Conn, error) { return DialUDP(one, two, Options{Offloads: o}) })
	return a, conn(t, func() (*Conn, error) { return DialUDP(two, one, Options{Offloads: o}) })
}

// A datagram of the tests.
type datagram struct {
	data string
	tos  uint8
}

// receive waits for n datagrams, and tells in how many messages they came.
func receive(t *testing.T, c *Conn, r *Receiver, n int) (got []datagram, messages int) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); len(got) < n; {
		k, err := c.Receive(r)
		if errors.Is(err, unix.EAGAIN) {
			if time.Now().After(deadline) {
				t.Fatalf("%d datagrams within 5 s, want %d", len(got), n)
			}
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range k {
			m := c.Message(r, i)
			if m.From != c.Remote {
				t.Errorf("from %v, want %v", m.From, c.Remote)
			}
			messages++
			for b := m.Data; len(b) > 0; {
				size := min(m.Size, len(b))
				got = append(got, datagram{string(b[:size]), m.TOS})
				b = b[size:]
			}
		}
	}
	return got, messages
}

func send(t *testing.T, c *Conn, b *Batch, what []datagram) {
	t.Helper()
	for _, d := range what {
		b.Add(copy(b.Next()[:len(d.data)], d.data), d.tos, false)
	}
	if err := c.Send(b); err != nil {
		t.Fatal(err)
	}
	if !b.Empty() || b.Len() != 0 {
		t.Fatal("the batch is not empty when it has been sent")
	}
}

func sizes(tos uint8, n ...int) (all []datagram) {
	for i, n := range n {
		all = append(all, datagram{strings.Repeat(string(rune('a'+i%26)), n), tos})
	}
	return all
}

func TestTrains(t *testing.T) {
	enterNamespace(t)
	for name, c := range map[string]struct {
		sent     []datagram
		messages int
	}{
		"one":              {sizes(0, 100), 1},
		"one train":        {sizes(0, 1000, 1000, 1000, 1000), 1},
		"a shorter last":   {sizes(0, 1000, 1000, 999), 1},
		"after a shorter":  {sizes(0, 1000, 999, 1000), 2},
		"a longer":         {sizes(0, 999, 1000, 1000), 2},
		"another TOS":      {append(sizes(0, 1000, 1000), sizes(0x28, 1000, 1000)...), 2},
		"ECN":              {append(sizes(1, 800, 800), sizes(2, 800, 800)...), 2},
		"more than 64":     {sizes(0, slices.Repeat([]int{500}, 70)...), 2},
		"more than 64 KiB": {sizes(0, slices.Repeat([]int{1400}, 50)...), 2},
	} {
		for _, pair := range [][2]netip.AddrPort{{one4, two4}, {one6, two6}} {
			for _, o := range []Offloads{all, {}, {Join: true}, {Segment: true}} {
				one, two := udpPair(t, pair[0], pair[1], o)
				send(t, one, NewBatch(), c.sent)
				got, messages := receive(t, two, NewReceiver(), len(c.sent))
				if !slices.Equal(got, c.sent) {
					t.Errorf("%s, %v, %+v: what arrives is not what was sent", name, pair[0], o)
				}
				if o == all && messages != c.messages {
					t.Errorf("%s, %v: %d messages, want %d", name, pair[0], messages, c.messages)
				}
			}
		}
	}
}

// Everything of one peer comes to its own socket, and nothing of others.
func TestPortIsShared(t *testing.T) {
	enterNamespace(t)
	one, two := udpPair(t, one4, two4, all)
	wild, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(wild)
	if err := errors.Join(unix.SetsockoptInt(wild, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1),
		unix.Bind(wild, &unix.SockaddrInet4{Port: int(port)})); err != nil {
		t.Fatal(err)
	}
	other := conn(t, func() (*Conn, error) {
		return DialUDP(netip.MustParseAddrPort("127.0.0.1:999"), one.Local, Options{})
	})
	send(t, two, NewBatch(), sizes(0, 10))
	send(t, other, NewBatch(), sizes(0, 20))
	if got, _ := receive(t, one, NewReceiver(), 1); len(got[0].data) != 10 {
		t.Error("not the peer's")
	}
	b := make([]byte, 100)
	if n, _, err := unix.Recvfrom(wild, b, 0); err != nil || n != 20 {
		t.Errorf("the other's came not to the wildcard socket: %d octets, %v", n, err)
	}
}

func TestESPWithoutUDP(t *testing.T) {
	enterNamespace(t)
	for _, pair := range [][2]netip.Addr{{one4.Addr(), two4.Addr()}, {one6.Addr(), two6.Addr()}} {
		one := conn(t, func() (*Conn, error) { return DialESP(pair[0], pair[1], Options{Offloads: all}) })
		two := conn(t, func() (*Conn, error) { return DialESP(pair[1], pair[0], Options{}) })
		want := append(sizes(0x2a, 1000, 1000), sizes(0, 200)...)
		send(t, one, NewBatch(), want)
		if got, _ := receive(t, two, NewReceiver(), len(want)); !slices.Equal(got, want) {
			t.Errorf("%v: what arrives is not what was sent", pair[0])
		}
		if one.MaxPacket() != 1500-one.Overhead() {
			t.Errorf("%v: at most %d octets", pair[0], one.MaxPacket())
		}
	}
}

func TestTooLongForThePath(t *testing.T) {
	enterNamespace(t)
	for _, o := range []Offloads{all, {}} {
		run(t, "ip link set lo mtu 1500")
		one, two := udpPair(t, one4, two4, o)
		if one.MaxPacket() != 1472 {
			t.Fatalf("at most %d octets, want 1472", one.MaxPacket())
		}
		send(t, one, NewBatch(), sizes(0, 1472, 1472))
		receive(t, two, NewReceiver(), 2)
		run(t, "ip link set lo mtu 1400")
		b := NewBatch()
		for _, n := range []int{1472, 1472, 300} {
			b.Add(n, 0, false)
		}
		b.Add(310, 0, false) // a train of its own
		if err := one.Send(b); !errors.Is(err, unix.EMSGSIZE) && !errors.Is(err, unix.EINVAL) {
			t.Errorf("%+v: error %v", o, err)
		}
		if one.MaxPacket() != 1372 {
			t.Errorf("%+v: at most %d octets, want 1372", o, one.MaxPacket())
		}
		if got, _ := receive(t, two, NewReceiver(), 1); len(got[0].data) != 310 {
			t.Errorf("%+v: %d octets arrived, want 310", o, len(got[0].data))
		}
		if one.segment.Load() != o.Segment {
			t.Error("the offload was given up")
		}
	}
}

// What must not be dropped is sent in fragments, whether the kernel knows before
// or only then how narrow the path is; and nothing else is.
func TestSendsFragments(t *testing.T) {
	enterNamespace(t)
	for _, pair := range [][2]netip.AddrPort{{one4, two4}, {one6, two6}} {
		run(t, "ip link set lo mtu 1500")
		one, two := udpPair(t, pair[0], pair[1], all)
		for i, mtu := range []int{1300, 1300, 1290} {
			run(t, fmt.Sprintf("ip link set lo mtu %d", mtu))
			b := NewBatch()
			var want []datagram
			for _, d := range append(sizes(0, 1400, 1400, 300), sizes(1, 200)...) {
				b.Add(copy(b.Next()[:len(d.data)], d.data), d.tos, true)
				want = append(want, d)
			}
			must := sizes(2, 1400)[0]
			b.Add(copy(b.Next()[:len(must.data)], must.data), must.tos, false)
			if err := one.Send(b); !errors.Is(err, unix.EMSGSIZE) {
				t.Errorf("%v, round %d: error %v", pair[0], i, err)
			}
			if got, _ := receive(t, two, NewReceiver(), len(want)); !slices.Equal(got, want) {
				t.Errorf("%v, round %d: %d datagrams arrived, not those that were sent", pair[0], i, len(got))
			}
		}
	}
}

// A peer whose port is closed for a while costs no packet afterwards.
func TestUnreachablePeer(t *testing.T) {
	enterNamespace(t)
	one := conn(t, func() (*Conn, error) { return DialUDP(one4, two4, Options{Offloads: all}) })
	b := NewBatch()
	send(t, one, b, sizes(0, 100)) // its ICMP error waits
	two := conn(t, func() (*Conn, error) { return DialUDP(two4, one4, Options{}) })
	send(t, one, b, sizes(0, 200, 200))
	if got, _ := receive(t, two, NewReceiver(), 2); len(got[0].data) != 200 {
		t.Errorf("%d octets", len(got[0].data))
	}
}

func TestBackpressure(t *testing.T) {
	enterNamespace(t)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	c := conn(t, func() (*Conn, error) { return &Conn{fd: fds[0]}, nil })
	b := NewBatch()
	var want [][]byte
	for i := 0; ; i++ {
		for b.Fits(1, 1000) {
			p := bytes.Repeat([]byte{byte(len(want))}, 1000-i&1)
			b.Add(copy(b.Next()[:len(p)], p), 0, false)
			want = append(want, p)
		}
		if err := c.Send(b); errors.Is(err, unix.EAGAIN) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	buffer := make([]byte, 2000)
	for i, p := range want {
		n, err := unix.Read(fds[1], buffer)
		if errors.Is(err, unix.EAGAIN) {
			if err := c.Send(b); err != nil && !errors.Is(err, unix.EAGAIN) {
				t.Fatal(err)
			}
			n, err = unix.Read(fds[1], buffer)
		}
		if err != nil || !bytes.Equal(buffer[:n], p) {
			t.Fatalf("packet %d: %d octets, error %v", i, n, err)
		}
	}
	if err := c.Send(b); err != nil || !b.Empty() {
		t.Errorf("not empty at the end: %v", err)
	}
}

func TestProbe(t *testing.T) {
	enterNamespace(t)
	if got, err := Probe(Offloads{}); err != nil || got != (Offloads{}) {
		t.Errorf("%+v, %v: nobody wants any", got, err)
	}
	if got, err := Probe(all); err != nil || got != all {
		t.Errorf("%+v, %v", got, err)
	}
	run(t, "ip link set lo down")
	if got, err := Probe(all); err == nil || got != all {
		t.Errorf("without a loopback: %+v, %v", got, err)
	}
}

func TestMixedFamilies(t *testing.T) {
	if _, err := DialUDP(one4, two6, Options{}); err == nil {
		t.Error("a socket between two families")
	}
}

func TestNoAllocations(t *testing.T) {
	enterNamespace(t)
	one, two := udpPair(t, one4, two4, all)
	b, r := NewBatch(), NewReceiver()
	if n := testing.AllocsPerRun(100, func() {
		for i := range 20 {
			b.Add(1000, uint8(i/10), false)
		}
		if err := one.Send(b); err != nil {
			t.Fatal(err)
		}
		k, err := two.Receive(r)
		if err != nil || k != 2 {
			t.Fatal(k, err)
		}
		for i := range k {
			if m := two.Message(r, i); m.Size != 1000 || len(m.Data) != 10000 || m.TOS != uint8(i) {
				t.Fatalf("%d octets of %d, TOS %d", len(m.Data), m.Size, m.TOS)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
