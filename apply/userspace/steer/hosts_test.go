package steer

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// host is a network namespace, by the thread that is in it.
type host struct {
	t    *testing.T
	work chan func()
}

func newHost(t *testing.T) *host {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: network namespaces are made")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs iproute2")
	}
	h := &host{t: t, work: make(chan func())}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		made <- unix.Unshare(unix.CLONE_NEWNET)
		for f := range h.work {
			f()
		}
	}()
	if err := <-made; err != nil {
		t.Skipf("no network namespace: %v", err)
	}
	t.Cleanup(func() { close(h.work) })
	h.command("sysctl -qw net.ipv6.conf.default.accept_dad=0") // no waiting for it
	h.ip("link set lo up")
	return h
}

// do runs f in the namespace.
func (h *host) do(f func()) {
	done := make(chan struct{})
	h.work <- func() { defer close(done); f() }
	<-done
}

func (h *host) ip(args string) string {
	h.t.Helper()
	return h.command("ip " + args)
}

func (h *host) command(line string) string {
	h.t.Helper()
	var out []byte
	var err error
	h.do(func() { out, err = exec.Command("sh", "-c", line).CombinedOutput() })
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// listRouting shows all rules and routes but those that the kernel makes itself.
const listRouting = `for what in "-4 rule" "-6 rule" "-4 route show table all" "-6 route show table all"; do
	ip $what | grep -v "proto kernel"; done`

// state is all that steering may change, as ip(8) and nft(8) show it.
func (h *host) state() string {
	h.t.Helper()
	return h.command(listRouting + "; ! which nft >/dev/null || nft list ruleset")
}

// network is a gateway with a peer outside, a host of its own network inside, and
// a TUN device.
//
//	lan 10.1.0.2 --- 10.1.0.1 gw 192.0.2.1 --- 192.0.2.2 peer, 10.2.0.1
type network struct {
	t             *testing.T
	gw, peer, lan *host
	changes       []string
	got           chan string // what the TUN and the peer get: "tun udp A > B", "clear udp A > B"
}

const device = "tun-test"

func newNetwork(t *testing.T) *network {
	t.Helper()
	t.Parallel()
	n := &network{t: t, gw: newHost(t), peer: newHost(t), lan: newHost(t), got: make(chan string, 64)}
	link := func(a, b *host, nameA, nameB string) {
		var fd int
		b.do(func() { fd, _ = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0) })
		defer unix.Close(fd)
		a.ip(fmt.Sprintf("link add %s type veth peer name %s netns /proc/%d/fd/%d", nameA, nameB, os.Getpid(), fd))
		a.ip("link set " + nameA + " up")
		b.ip("link set " + nameB + " up")
	}
	link(n.gw, n.peer, "out", "out")
	link(n.gw, n.lan, "in", "in")
	for _, a := range []string{"192.0.2.1/24 dev out", "2001:db8::1/64 dev out nodad", "10.1.0.1/24 dev in", "2001:db8:1::1/64 dev in nodad"} {
		n.gw.ip("addr add " + a)
	}
	for _, a := range []string{"192.0.2.2/24 dev out", "2001:db8::2/64 dev out nodad", "10.2.0.1/24 dev lo", "2001:db8:2::1/64 dev lo nodad"} {
		n.peer.ip("addr add " + a)
	}
	for _, a := range []string{"10.1.0.2/24 dev in", "2001:db8:1::2/64 dev in nodad"} {
		n.lan.ip("addr add " + a)
	}
	n.gw.command("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
	n.gw.ip("route add default via 192.0.2.2")
	n.gw.ip("-6 route add default via 2001:db8::2")
	n.peer.ip("route add default via 192.0.2.1")
	n.peer.ip("-6 route add default via 2001:db8::1")
	n.lan.ip("route add default via 10.1.0.1")
	n.lan.ip("-6 route add default via 2001:db8:1::1")
	n.gw.do(func() { n.tun() })
	n.peer.do(func() { n.listen() })
	time.Sleep(100 * time.Millisecond) // until the links have settled
	return n
}

// tun makes the device, whose other end answers every UDP packet and echo.
func (n *network) tun() {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		n.t.Skipf("no TUN device: %v", err)
	}
	request, err := unix.NewIfreq(device)
	if err != nil {
		n.t.Fatal(err)
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		n.t.Fatal(err)
	}
	n.read(fd, func(file *os.File, b []byte) {
		if n.report("tun", b) {
			_, _ = file.Write(answer(b))
		}
	})
}

// read gives what comes from a descriptor to f, until the test ends.
func (n *network) read(fd int, f func(file *os.File, b []byte)) {
	file := os.NewFile(uintptr(fd), "network")
	n.t.Cleanup(func() { file.Close() })
	go func() {
		buf := make([]byte, 65536)
		for {
			l, err := file.Read(buf)
			if err != nil {
				return
			}
			f(file, buf[:l])
		}
	}()
}

// listen reports what comes to the peer in clear.
func (n *network) listen() {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0x0300) // ETH_P_ALL
	if err != nil {
		n.t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: 2}); err != nil {
		n.t.Fatal(err)
	}
	n.read(fd, func(_ *os.File, b []byte) { n.report("clear", b) })
}

// report says what a packet is; only UDP, TCP and echo requests and replies count.
func (n *network) report(where string, b []byte) bool {
	p, ok := parse(b)
	if !ok {
		return false
	}
	select {
	case n.got <- where + " " + p:
	default:
	}
	return true
}

func headers(b []byte) (src, dst netip.Addr, protocol byte, payload []byte, ok bool) {
	if len(b) < 28 {
		return
	}
	if b[0]>>4 == 4 {
		return netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:])), b[9], b[int(b[0]&15)*4:], true
	}
	if b[0]>>4 != 6 || len(b) < 48 {
		return
	}
	return netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:])), b[6], b[40:], true
}

func parse(b []byte) (string, bool) {
	src, dst, protocol, payload, ok := headers(b)
	if !ok {
		return "", false
	}
	kind := ""
	switch {
	case protocol == unix.IPPROTO_UDP:
		kind = fmt.Sprintf("udp/%d", binary.BigEndian.Uint16(payload[2:]))
	case protocol == unix.IPPROTO_TCP:
		kind = fmt.Sprintf("tcp/%d", binary.BigEndian.Uint16(payload[2:]))
	case protocol == unix.IPPROTO_ICMP && payload[0] == 8, protocol == unix.IPPROTO_ICMPV6 && payload[0] == 128:
		kind = "ping"
	default:
		return "", false
	}
	return fmt.Sprintf("%s %v > %v", kind, src, dst), true
}

// answer turns a UDP packet or an echo request around. Neither exchanging fields
// nor IPv6's new type, made up for in the checksum, needs it to be computed.
func answer(b []byte) []byte {
	out := append([]byte(nil), b...)
	src, dst, protocol, payload, _ := headers(out)
	at := 12
	if src.Is6() {
		at = 8
	}
	copy(out[at:], dst.AsSlice())
	copy(out[at+len(src.AsSlice()):], src.AsSlice())
	switch protocol {
	case unix.IPPROTO_UDP:
		p := [4]byte(payload)
		copy(payload, []byte{p[2], p[3], p[0], p[1]})
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		change := int32(payload[0]) << 8 // of the type: 8 to 0, 128 to 129
		payload[0] = 0
		if src.Is6() {
			change, payload[0] = -1<<8, 129
		}
		sum := int32(binary.BigEndian.Uint16(payload[2:])) + change
		if sum > 0xffff {
			sum -= 0xffff
		} else if sum < 0 {
			sum += 0xffff
		}
		binary.BigEndian.PutUint16(payload[2:], uint16(sum))
	}
	return out
}

// packet is what a host sends. from is an address to bind to, empty: none.
type packet struct {
	what     string // "udp/PORT", "tcp/PORT" or "ping"
	from, to string
	dev      string // to bind to
	mark     int
	lan      bool // the inner host sends it
}

// path is the way that it takes: "tun", "clear" or "none", with the source it has.
func (n *network) path(p packet) string {
	n.t.Helper()
	for len(n.got) > 0 {
		<-n.got
	}
	h := n.gw
	if p.lan {
		h = n.lan
	}
	h.do(func() { n.send(p) })
	way, answered := "none", false
	deadline := time.After(200 * time.Millisecond)
	for {
		select {
		case g := <-n.got:
			w := strings.Fields(g)
			switch {
			case w[1] != p.what || w[4] != p.to:
				continue
			case w[0] == "answered":
				answered = true
			default:
				way = w[0] + " " + w[2]
			}
			complete := answered || strings.HasPrefix(way, "clear") || strings.HasPrefix(p.what, "tcp")
			if complete && way != "none" {
				return way
			}
		case <-deadline:
			if strings.HasPrefix(way, "tun") {
				way += ", its answer is lost"
			}
			return way
		}
	}
}

func (n *network) send(p packet) {
	to := netip.MustParseAddr(p.to)
	domain, kind, protocol := unix.AF_INET, unix.SOCK_DGRAM, 0
	var number uint16
	message := []byte("x")
	name, rest, _ := strings.Cut(p.what, "/")
	_, _ = fmt.Sscan(rest, &number)
	switch name {
	case "tcp":
		kind = unix.SOCK_STREAM
	case "ping":
		kind, protocol = unix.SOCK_RAW, unix.IPPROTO_ICMP
		message = []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}
		if to.Is6() {
			protocol, message = unix.IPPROTO_ICMPV6, []byte{128, 0, 0, 0, 0, 0, 0, 0} // the kernel fills in the checksum
		}
	}
	sockaddr := func(a netip.Addr, port uint16) unix.Sockaddr {
		if name == "ping" {
			port = 0
		}
		if a.Is6() {
			return &unix.SockaddrInet6{Addr: a.As16(), Port: int(port)}
		}
		return &unix.SockaddrInet4{Addr: a.As4(), Port: int(port)}
	}
	if to.Is6() {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		n.t.Error(err)
		return
	}
	defer unix.Close(fd)
	if p.dev != "" {
		if err := unix.BindToDevice(fd, p.dev); err != nil {
			n.t.Error(err)
		}
	}
	if p.mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, p.mark); err != nil {
			n.t.Error(err)
		}
	}
	if p.from != "" {
		if err := unix.Bind(fd, sockaddr(netip.MustParseAddr(p.from), 0)); err != nil {
			n.t.Error(err)
		}
	}
	if name == "tcp" {
		_ = unix.Connect(fd, sockaddr(to, number))
		time.Sleep(10 * time.Millisecond) // the SYN leaves before the socket goes
		return
	}
	if err := unix.Sendto(fd, message, 0, sockaddr(to, number)); err != nil {
		n.t.Logf("%+v: %v", p, err)
		return
	}
	_ = unix.SetNonblock(fd, false)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100000})
	buf := make([]byte, 256)
	if _, _, err := unix.Recvfrom(fd, buf, 0); err == nil {
		select {
		case n.got <- "answered " + p.what + " - > " + p.to:
		default:
		}
	}
}

// arrives reports whether a datagram of the peer's comes to a host in clear.
func (n *network) arrives(at *host, from, to string, port uint16) bool {
	n.t.Helper()
	var in *net.UDPConn
	var err error
	at.do(func() { in, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(to), Port: int(port)}) })
	if err != nil {
		n.t.Fatal(err)
	}
	defer in.Close()
	n.peer.do(func() {
		var out *net.UDPConn
		if out, err = net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, &net.UDPAddr{IP: net.ParseIP(to), Port: int(port)}); err != nil {
			return
		}
		defer out.Close()
		_, err = out.Write([]byte("x"))
	})
	if err != nil {
		n.t.Fatal(err)
	}
	_ = in.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	_, err = in.Read(make([]byte, 16))
	return err == nil
}
