package userspace

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
)

// transfer sends octets by TCP to the other end and back.
func transfer(from, to *end, local, remote netip.Addr, octets int) {
	t := from.t
	t.Helper()
	var listener *net.TCPListener
	var conn *net.TCPConn
	var err error
	to.do(func() {
		listener, err = net.ListenTCP("tcp", &net.TCPAddr{IP: remote.AsSlice()})
		must(t, err)
	})
	defer listener.Close()
	done := make(chan error, 1)
	go func() {
		c, err := listener.Accept()
		if err == nil {
			_, err = io.Copy(c, c)
			c.Close()
		}
		done <- err
	}()
	from.do(func() {
		conn, err = net.DialTCP("tcp", &net.TCPAddr{IP: local.AsSlice()}, listener.Addr().(*net.TCPAddr))
		must(t, err)
	})
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(60*time.Second)))
	data := make([]byte, octets)
	for i := range data {
		data[i] = byte(i ^ i>>8 ^ i>>16)
	}
	go func() {
		_, _ = conn.Write(data)
		_ = conn.CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	must(t, err)
	must(t, <-done)
	if !bytes.Equal(got, data) {
		t.Fatalf("%d octets came back, not those %d that were sent", len(got), len(data))
	}
}

// datagrams are sockets for UDP from one end to the other.
func datagrams(t testing.TB, from, to *end) (sender, receiver *net.UDPConn) {
	t.Helper()
	var err error
	to.do(func() { receiver, err = net.ListenUDP("udp", &net.UDPAddr{IP: inner4(to.n).AsSlice()}) })
	must(t, err)
	t.Cleanup(func() { receiver.Close() })
	from.do(func() {
		sender, err = net.DialUDP("udp", &net.UDPAddr{IP: inner4(from.n).AsSlice()}, receiver.LocalAddr().(*net.UDPAddr))
	})
	must(t, err)
	t.Cleanup(func() { sender.Close() })
	return sender, receiver
}

// counted sends numbered datagrams from one end to the other while it does
// something, and returns how many were sent and how many arrived.
func counted(from, to *end, every time.Duration, while func()) (sent, arrived int) {
	t := from.t
	t.Helper()
	sender, receiver := datagrams(t, from, to)
	must(t, receiver.SetReadBuffer(4<<20))
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		b := make([]byte, 300)
		for seen := map[uint32]bool{}; ; {
			if _, err := receiver.Read(b); err != nil {
				done <- n
				return
			}
			if i := binary.BigEndian.Uint32(b); !seen[i] {
				seen[i] = true
				n++
			}
		}
	}()
	go func() {
		b := make([]byte, 300)
		n := 0
		for tick := time.NewTicker(every); ; n++ {
			select {
			case <-stop:
				tick.Stop()
				done <- n
				return
			case <-tick.C:
			}
			binary.BigEndian.PutUint32(b, uint32(n))
			_, _ = sender.Write(b)
		}
	}()
	while()
	close(stop)
	sent = <-done
	time.Sleep(300 * time.Millisecond)
	receiver.Close()
	sender.Close()
	return sent, <-done
}

func TestTraffic(t *testing.T) {
	one, two := twoEnds(t)
	cbc := tunnelKind{encryption: apply.AESCBC, keyLen: 32, integrity: apply.HMACSHA256, macLen: 32, window: 128}
	chacha := tunnelKind{encryption: apply.ChaCha20Poly1305, keyLen: 36, esn: true, window: 4096}
	kinds := []tunnelKind{gcm, chacha, cbc}
	for _, change := range []func(*tunnelKind){
		func(k *tunnelKind) { k.ipv6 = true },
		func(k *tunnelKind) { k.raw = true },
		func(k *tunnelKind) { k.ipv6, k.raw = true, true },
		func(k *tunnelKind) { k.mode = apply.Transport },
		func(k *tunnelKind) { k.mode, k.ipv6 = apply.Transport, true },
		func(k *tunnelKind) { k.mode, k.raw = apply.Transport, true },
	} {
		k := gcm
		change(&k)
		kinds = append(kinds, k)
	}
	for _, k := range kinds {
		connect(one, two, k)
		switch {
		case k.mode == apply.Tunnel:
			transfer(one, two, inner4(1), inner4(2), 2<<20)
			transfer(two, one, inner6(2), inner6(1), 2<<20)
		case k.ipv6:
			transfer(one, two, outer6(1), outer6(2), 2<<20)
		default:
			transfer(two, one, outer4(2), outer4(1), 2<<20)
		}
		for _, e := range []*end{one, two} {
			list, err := e.plane.List([]uint32{1})
			must(t, err)
			for _, s := range list {
				if s.Packets < 500 || s.Drops != (apply.Drops{}) {
					t.Errorf("%v: %v: %d packets, dropped %+v", k, s.SAID, s.Packets, s.Drops)
				}
			}
			if n := e.plane.Unknown(); n != 0 {
				t.Errorf("%v: %d packets of no SA", k, n)
			}
		}
		disconnect(one, two, k)
		if out := one.ip("link show"); strings.Contains(out, "iq0") {
			t.Errorf("the TUN device is there after the last policy:\n%s", out)
		}
	}
}

// The SAs are replaced all the time while a stream goes each way.
func TestRekeyLosesNothing(t *testing.T) {
	one, two := twoEnds(t)
	connect(one, two, gcm)
	sent, arrived := counted(one, two, 500*time.Microsecond, func() {
		const kept = 10 // old inbound SAs, for packets under way
		for g := range uint32(50) {
			time.Sleep(20 * time.Millisecond)
			rekey(one, two, gcm, g+1)
			if g < kept {
				continue
			}
			for _, e := range []*end{one, two} {
				e.do(func() { must(t, e.plane.RemoveSA(e.sa(gcm, 3-e.n, spiFrom(3-e.n, g-kept)).ID())) })
			}
		}
	})
	if arrived != sent || sent < 200 {
		t.Errorf("%d of %d datagrams arrived; of no SA: %d", arrived, sent, two.plane.Unknown())
	}
}

// Another process takes over while a stream goes: what comes in between is in
// the queues of the TUN device's successor, or lost; all else arrives.
func TestPlaneIsOpenedAgainUnderTraffic(t *testing.T) {
	one, two := twoEnds(t)
	connect(one, two, gcm)
	sent, arrived := counted(one, two, time.Millisecond, func() {
		for range 3 {
			time.Sleep(200 * time.Millisecond)
			must(t, two.plane.Close())
			two.open()
		}
		time.Sleep(200 * time.Millisecond)
	})
	if arrived < sent*3/4 {
		t.Errorf("%d of %d datagrams arrived", arrived, sent)
	}
	list, err := two.plane.List([]uint32{1})
	must(t, err)
	for _, s := range list {
		if s.Drops != (apply.Drops{}) {
			t.Errorf("%v: dropped %+v", s.SAID, s.Drops)
		}
	}
	transfer(one, two, inner4(1), inner4(2), 1<<20)
}

// A program in the place of this one goes on with its descriptors: nothing is lost,
// nor if there is no such program in the end.
func TestBequeathLosesNothing(t *testing.T) {
	for _, k := range []tunnelKind{gcm, {encryption: apply.AESGCM16, keyLen: 20, window: 64, raw: true, ipv6: true}} {
		for _, procs := range []int{fewProcs, fewProcs + 1} {
			t.Run(fmt.Sprintf("%v, %d processors", k, procs), func(t *testing.T) { bequeathLosesNothing(t, k, procs) })
		}
	}
}

func bequeathLosesNothing(t *testing.T, k tunnelKind, procs int) {
	one, two := twoEndsOf(t, procs)
	connect(one, two, k)
	sent, arrived := counted(one, two, time.Millisecond, func() {
		for _, e := range []*end{one, two, one, two} {
			time.Sleep(100 * time.Millisecond)
			fds, err := e.plane.Bequeath()
			must(t, err)
			must(t, e.plane.Close())
			e.open(fds...)
		}
		for _, e := range []*end{one, two} {
			time.Sleep(100 * time.Millisecond)
			fds, err := e.plane.Bequeath()
			must(t, err)
			for _, fd := range fds {
				must(t, unix.Close(fd))
			}
			e.plane.Resume()
		}
		time.Sleep(100 * time.Millisecond)
	})
	if arrived != sent {
		t.Errorf("%d of %d datagrams arrived", arrived, sent)
	}
	disconnect(one, two, k)
}

// The path gets narrower; senders are told. Through the narrowest the packets of
// IPv6 go in fragments.
func TestPathMTU(t *testing.T) {
	one, two := twoEnds(t)
	connect(one, two, gcm)
	for _, mtu := range []int{1500, 1420, 1320} {
		for _, e := range []*end{one, two} {
			e.ip("link set outer mtu %d", mtu)
		}
		transfer(one, two, inner4(1), inner4(2), 2<<20)
		transfer(two, one, inner6(2), inner6(1), 2<<20)
	}
	if out := one.ip("route get %v", inner4(2)); !strings.Contains(out, "mtu 12") {
		t.Errorf("the sender was not told:\n%s", out)
	}
	// Datagrams that may be fragmented arrive all the same.
	sender, receiver := datagrams(t, one, two)
	b := make([]byte, 4000)
	_, err := sender.Write(b)
	must(t, err)
	must(t, receiver.SetDeadline(time.Now().Add(10*time.Second)))
	if n, err := receiver.Read(b); n != 4000 || err != nil {
		t.Errorf("%d octets, error %v", n, err)
	}
}

// IKE messages come by the sockets of ESP, which the kernel prefers.
func TestIKEFromThePeer(t *testing.T) {
	one, two := twoEnds(t)
	connect(one, two, gcm)
	two.do(func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		defer unix.Close(fd)
		must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
		must(t, unix.Bind(fd, &unix.SockaddrInet4{Port: 4500, Addr: outer4(2).As4()}))
		must(t, unix.Sendto(fd, []byte("\x00\x00\x00\x00hello"), 0, &unix.SockaddrInet4{Port: 4500, Addr: outer4(1).As4()}))
	})
	select {
	case got := <-one.ike:
		if got != "192.0.2.1:4500 192.0.2.2:4500 hello" {
			t.Errorf("%q", got)
		}
	case <-time.After(10 * time.Second):
		t.Error("no IKE message")
	}
}

// With more paths there are more queues, and sequence numbers leave in order
// nevertheless: the peers' windows are the smallest that there are.
func TestQueuesGrow(t *testing.T) {
	for _, procs := range []int{fewProcs, fewProcs + 1} {
		t.Run(fmt.Sprintf("%d processors", procs), func(t *testing.T) { queuesGrow(t, procs) })
	}
}

func queuesGrow(t *testing.T, procs int) {
	one, two := twoEndsOf(t, procs)
	k := gcm
	k.window = 32
	connect(one, two, k)
	for _, e := range []*end{one, two} {
		e.do(func() { // another path, which no policy uses
			for from := 1; from <= 2; from++ {
				sa := e.sa(k, from, spiFrom(from, 9))
				sa.Encap = &apply.Encap{SrcPort: 4501, DstPort: 4501}
				must(t, e.plane.InstallSA(sa))
			}
		})
		w := e.plane.carrier.(*workers)
		if n := int(w.active.Load()); n != 2 {
			t.Errorf("%d queues for two paths", n)
		}
	}
	var flows sync.WaitGroup
	for range 4 {
		flows.Go(func() { transfer(one, two, inner4(1), inner4(2), 4<<20) })
	}
	flows.Wait()
	for _, e := range []*end{one, two} {
		u, err := e.plane.Query(e.sa(k, 3-e.n, spiFrom(3-e.n, 0)).ID())
		must(t, err)
		if u.Drops != (apply.Drops{}) {
			t.Errorf("dropped %+v", u.Drops)
		}
	}
}

// Somebody deletes the TUN device: it is told once, and nothing spins.
func TestDeviceIsDeleted(t *testing.T) {
	one, two := twoEnds(t)
	connect(one, two, gcm)
	one.ip("link del iq0")
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(one.log.said(), "is not read any more"); {
		if time.Now().After(deadline) {
			t.Fatal("it is not told")
		}
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond)
	if n := strings.Count(one.log.said(), "is not read any more"); n != 1 {
		t.Errorf("told %d times", n)
	}
}
