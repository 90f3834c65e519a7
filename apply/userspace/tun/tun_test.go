package tun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply/applytest"
	"ipsec-quick/apply/userspace/offload"
	"ipsec-quick/apply/userspace/packet"
)

// enterNamespace puts the test into a network namespace of its own.
func enterNamespace(t *testing.T) {
	t.Helper()
	applytest.EnterNamespace(t)
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip("needs /dev/net/tun")
	}
	run(t, "ip link set lo up")
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

func open(t *testing.T, name string, queues int, want Offloads) *Device {
	t.Helper()
	var qs []*Queue
	for range queues {
		q, err := OpenQueue()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { q.Close() })
		qs = append(qs, q)
	}
	d, err := Attach(name, qs, want)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// read waits for the next packet that is not the kernel's own, which speaks to
// groups: of its neighbours and of what it listens to.
func read(t *testing.T, queues ...*Queue) []byte {
	t.Helper()
	b := make([]byte, 1<<17)
	for i, deadline := 0, time.Now().Add(5*time.Second); time.Now().Before(deadline); i++ {
		n, err := queues[i%len(queues)].Read(b)
		switch {
		case errors.Is(err, unix.EAGAIN):
			time.Sleep(time.Millisecond)
		case err != nil:
			t.Fatal(err)
		case n > offload.HeaderLen+40 && (b[offload.HeaderLen]>>4 == 4 || b[offload.HeaderLen+24] != 0xff):
			return b[:n]
		}
	}
	t.Fatal("no packet within 5 s")
	return nil
}

func TestDeviceStaysAndIsTakenAgain(t *testing.T) {
	enterNamespace(t)
	d := open(t, "iq0", 2, Offloads{TCP: true, UDP: true})
	if len(d.queues) != 2 || !d.Offloads.TCP || !d.New {
		t.Fatalf("%d queues, offloads %+v, new: %t", len(d.queues), d.Offloads, d.New)
	}
	if err := d.SetMTU(1380, 44); err != nil {
		t.Fatal(err)
	}
	if out := run(t, "ip -d link show iq0"); !strings.Contains(out, "mtu 1380") || !strings.Contains(out, ",UP") || !strings.Contains(out, "gso_max_segs 44") {
		t.Errorf("not as it was set:\n%s", out)
	}
	if out := run(t, "ip -6 addr show iq0"); strings.Contains(out, "fe80") {
		t.Errorf("it has an address of its own making:\n%s", out)
	}
	for _, q := range d.queues {
		q.Close()
	}
	if out := run(t, "ip link show iq0"); !strings.Contains(out, "NO-CARRIER") {
		t.Errorf("closed, and not without carrier:\n%s", out)
	}
	again := open(t, "iq0", 2, Offloads{})
	if again.Offloads != (Offloads{}) || again.New {
		t.Errorf("offloads %+v that nobody wanted; new: %t", again.Offloads, again.New)
	}
	for range 2 {
		if _, err := Remove("iq0"); err != nil {
			t.Fatal(err)
		}
	}
	if exec.Command("ip", "link", "show", "iq0").Run() == nil {
		t.Error("it is still there")
	}
	// The descriptors make it anew.
	d, err := Attach("iq0", again.queues, Offloads{TCP: true})
	if err != nil {
		t.Fatal(err)
	}
	run(t, "ip addr add 10.9.0.1/24 dev iq0")
	if out := run(t, "ip link show iq0"); strings.Contains(out, "NO-CARRIER") {
		t.Errorf("attached, and without carrier:\n%s", out)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	payload := bytes.Repeat([]byte("again"), 30)
	if err := unix.Sendto(fd, payload, 0, &unix.SockaddrInet4{Port: 7, Addr: [4]byte{10, 9, 0, 2}}); err != nil {
		t.Fatal(err)
	}
	if p := read(t, d.queues...); !bytes.HasSuffix(p, payload) {
		t.Errorf("read %x", p)
	}
}

// The command that is told makes such a device.
func TestAddCommand(t *testing.T) {
	enterNamespace(t)
	run(t, AddCommand("iq0"))
	if d := open(t, "iq0", 2, Offloads{TCP: true}); d.New || !d.Offloads.TCP {
		t.Errorf("new: %t, offloads %+v", d.New, d.Offloads)
	}
	if _, err := Remove("iq0"); err != nil {
		t.Error(err)
	}
	if exec.Command("ip", "link", "show", "iq0").Run() == nil {
		t.Error("it is still there")
	}
}

func TestOtherInterfacesAreLeftAlone(t *testing.T) {
	enterNamespace(t)
	run(t, "ip link add iq0 type veth peer name iq1")
	run(t, "ip tuntap add dev iq2 mode tun")
	q, err := OpenQueue()
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	for _, name := range []string{"iq0", "iq2"} {
		if _, err := Attach(name, []*Queue{q}, Offloads{}); err == nil {
			t.Errorf("%s, another interface, was opened", name)
		}
		if removed, err := Remove(name); removed || err != nil {
			t.Error(err)
		}
		run(t, "ip link show "+name)
	}
	if _, err := Attach("a-name-that-is-too-long", []*Queue{q}, Offloads{}); err == nil {
		t.Error("a name of 23 octets was taken")
	}
}

// The kernel hands over super-packets of TCP that the Splitter takes apart.
func TestSuperPacketFromTheKernel(t *testing.T) {
	enterNamespace(t)
	d := open(t, "iq0", 1, Offloads{TCP: true, UDP: true})
	run(t, "ip addr add 10.9.0.1/24 dev iq0")
	if !d.Offloads.UDP {
		t.Skip("no USO here")
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 1000); err != nil {
		t.Fatal(err)
	}
	payload := bytes.Repeat([]byte("0123456789"), 450)
	if err := unix.Sendto(fd, payload, 0, &unix.SockaddrInet4{Port: 7, Addr: [4]byte{10, 9, 0, 2}}); err != nil {
		t.Fatal(err)
	}
	p := read(t, d.queues[0])
	var s offload.Splitter
	if err := s.Reset(offload.ParseHeader(p), p[offload.HeaderLen:]); err != nil {
		t.Fatal(err)
	}
	if s.Len() != 5 {
		t.Fatalf("%d segments, want 5", s.Len())
	}
	var got []byte
	for b := s.Next(); b != nil; b = s.Next() {
		udp := b[20:]
		if packet.PseudoHeader(b[12:20], unix.IPPROTO_UDP, len(udp)).Add(udp).Fold() != 0xffff || packet.Sum(0).Add(b[:20]).Fold() != 0xffff {
			t.Error("a checksum is wrong")
		}
		got = append(got, udp[8:]...)
	}
	if !bytes.Equal(got, payload) {
		t.Error("payload differs")
	}
}

// What is joined, written, and forwarded by the kernel to a device without
// offloads comes out as the packets that were joined.
func TestKernelSplitsWhatWasJoined(t *testing.T) {
	enterNamespace(t)
	in := open(t, "iq0", 1, Offloads{TCP: true, UDP: true})
	out := open(t, "iq1", 1, Offloads{})
	run(t, "ip addr add 10.9.0.1/24 dev iq0")
	run(t, "ip route add 10.8.0.0/24 dev iq1")
	run(t, "ip -6 route add 2001:db8:8::/64 dev iq1")
	run(t, "ip -6 route add 2001:db8:9::/64 dev iq0")
	if err := errors.Join(os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0),
		os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0)); err != nil {
		t.Skip(err)
	}
	for _, udp := range []bool{false, true} {
		if udp && !in.Offloads.UDP {
			continue
		}
		for _, ipv6 := range []bool{false, true} {
			joiner := offload.NewJoiner()
			joiner.TCP, joiner.UDP = true, true
			var want [][]byte
			for i := range 5 {
				b := testPacket(ipv6, udp, i)
				want = append(want, b)
				if !joiner.Add(b) {
					t.Fatal("not joined")
				}
			}
			if err := in.queues[0].Write(joiner.Take()); err != nil {
				t.Fatal(err)
			}
			for i := range want {
				got := read(t, out.queues[0])
				if h := offload.ParseHeader(got); h != (offload.Header{}) {
					t.Fatalf("a super-packet: %+v", h)
				}
				if got := got[offload.HeaderLen:]; !bytes.Equal(got, forwarded(want[i])) {
					t.Errorf("IPv6 %v, UDP %v: packet %d is\n%x, want\n%x", ipv6, udp, i, got, forwarded(want[i]))
				}
			}
		}
	}
}

// testPacket is the i-th of a flow.
func testPacket(ipv6, udp bool, i int) []byte {
	const size = 500
	be := binary.BigEndian
	length, protocol, sum := 20, byte(unix.IPPROTO_TCP), 16
	if udp {
		length, protocol, sum = 8, unix.IPPROTO_UDP, 6
	}
	l4 := make([]byte, length+size)
	be.PutUint16(l4, 1000)
	be.PutUint16(l4[2:], 2000)
	if udp {
		be.PutUint16(l4[4:], uint16(len(l4)))
	} else {
		be.PutUint32(l4[4:], uint32(i*size))
		l4[12], l4[13] = 5<<4, 0x10
	}
	l4[length] = byte(i)
	var b, addresses []byte
	if ipv6 {
		b = make([]byte, 40)
		b[0], b[6], b[7] = 6<<4, protocol, 64
		be.PutUint16(b[4:], uint16(len(l4)))
		copy(b[8:], net.ParseIP("2001:db8:9::2"))
		copy(b[24:], net.ParseIP("2001:db8:8::2"))
		addresses = b[8:40]
	} else {
		b = make([]byte, 20)
		b[0], b[6], b[8], b[9] = 0x45, 0x40, 64, protocol
		be.PutUint16(b[2:], uint16(len(b)+len(l4)))
		be.PutUint16(b[4:], uint16(i))
		copy(b[12:], []byte{10, 9, 0, 2, 10, 8, 0, 2})
		be.PutUint16(b[10:], packet.Sum(0).Add(b).Checksum())
		addresses = b[12:20]
	}
	be.PutUint16(l4[sum:], packet.PseudoHeader(addresses, protocol, len(l4)).Add(l4).Checksum())
	return append(b, l4...)
}

// forwarded is a packet after one hop.
func forwarded(b []byte) []byte {
	b = bytes.Clone(b)
	if b[0]>>4 == 6 {
		b[7]--
		return b
	}
	b[8]--
	clear(b[10:12])
	binary.BigEndian.PutUint16(b[10:], packet.Sum(0).Add(b[:20]).Checksum())
	return b
}

func TestReadAndWriteDoNotAllocate(t *testing.T) {
	enterNamespace(t)
	d := open(t, "iq0", 1, Offloads{TCP: true})
	b := make([]byte, 1<<16)
	p := probePacket(offload.TCP4)
	if n := testing.AllocsPerRun(100, func() {
		d.queues[0].Read(b)
		if err := d.queues[0].Write(p); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
