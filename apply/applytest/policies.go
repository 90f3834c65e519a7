package applytest

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
)

// inClear counts the packets among those that left whose destination is a host's
// inner address.
func inClear(packets [][]byte, to *host) (n int) {
	for _, b := range packets {
		if len(b) >= 20 && [4]byte(b[16:20]) == to.inner.Addr().As4() {
			n++
		}
	}
	return n
}

// try sends a datagram from one host's inside to the other's.
func try(from, to *host) {
	c := from.listen(from.inner.Addr(), port, nil)
	defer shut(c)
	_, _ = c.WriteToUDPAddrPort(make([]byte, 100), netip.AddrPortFrom(to.inner.Addr(), port))
}

// A trap raises one Acquire for many packets, and lets nothing out.
func testTrap(t *testing.T, open Opener) {
	a, b := twoHosts(t, open)
	trap := apply.Policy{
		Selector: plain.selector(a, b), Action: apply.Trap, Guard: true,
		Local: a.outer[false], Remote: b.outer[false], ReqID: reqID,
	}
	must(t, a.plane.SetPolicy(trap))
	left := a.capture()
	try(a, b)
	ev, ok := a.next().(apply.Acquire)
	want := apply.Acquire{ReqID: reqID, Local: a.outer[false], Remote: b.outer[false], Packet: apply.Selector{
		Local: netip.PrefixFrom(a.inner.Addr(), 32), Remote: netip.PrefixFrom(b.inner.Addr(), 32), Protocol: unix.IPPROTO_UDP,
		LocalPort: apply.PortMask{Port: port, Mask: 0xffff}, RemotePort: apply.PortMask{Port: port, Mask: 0xffff},
	}}
	if !ok || ev != want {
		t.Errorf("%+v, want %+v", ev, want)
	}
	for range 5 {
		try(a, b)
	}
	a.none(200 * time.Millisecond)
	if n := inClear(left(), b); n > 0 {
		t.Errorf("%d packets in clear", n)
	}
	must(t, a.plane.RemovePolicy(trap))
	a.empty()
}

// A guard drops what nothing else carries, yields to what does, and only its
// removal lets packets out in clear.
func testGuard(t *testing.T, open Opener) {
	a, b := twoHosts(t, open)
	guard := apply.Policy{Selector: plain.selector(a, b), Action: apply.Block, Guard: true}
	must(t, a.plane.SetPolicy(guard))
	left := a.capture()
	leaks := func(want bool) {
		t.Helper()
		try(a, b)
		time.Sleep(50 * time.Millisecond)
		if n := inClear(left(), b); (n > 0) != want {
			t.Errorf("%d packets in clear", n)
		}
	}
	leaks(false)
	a.listenESP(a.outer[false], natPort)
	b.listenESP(b.outer[false], natPort)
	p := plain.install(t, a, b)
	p.exchange()
	if n := inClear(left(), b); n > 0 {
		t.Errorf("%d packets in clear beside the tunnel", n)
	}
	p.remove()
	leaks(false)
	must(t, a.plane.RemovePolicy(guard))
	if err := a.plane.RemovePolicy(guard); !errors.Is(err, apply.ErrAbsent) {
		t.Errorf("removed twice: %v", err)
	}
	leaks(true) // else the test proves nothing
}

// A datagram that is too large for a packet is of its ports' policy as a whole.
func testFragments(t *testing.T, open Opener) {
	a, b := twoHosts(t, open)
	a.listenESP(a.outer[false], natPort)
	b.listenESP(b.outer[false], natPort)
	l := plain
	l.ports = true
	guard := apply.Policy{Selector: plain.selector(a, b), Action: apply.Block, Guard: true}
	must(t, a.plane.SetPolicy(guard))
	p := l.install(t, a, b)
	for _, octets := range []int{100, 1400, 5000, 20000} {
		p.exchangeOf(octets)
	}
	if d := p.usage(a, p.ba).Drops; d != (apply.Drops{}) {
		t.Errorf("%+v", d)
	}
	p.remove()
	must(t, a.plane.RemovePolicy(guard))
}

// What is forged, replayed, or of no SA is dropped and counted.
func testDrops(t *testing.T, open Opener) {
	a, b := twoHosts(t, open)
	a.listenESP(a.outer[false], natPort)
	sock := b.listenESP(b.outer[false], natPort)
	p := plain.install(t, a, b)
	seen := b.capture()
	p.exchange()
	to := netip.AddrPortFrom(a.outer[false], natPort)
	sent := func() []byte { // the last ESP packet of b's, without IP and UDP
		packets := seen()
		for i := len(packets) - 1; i >= 0; i-- {
			if b := packets[i]; len(b) > 36 && binary.BigEndian.Uint32(b[28:]) == p.ba.SPI {
				return b[28:]
			}
		}
		t.Fatalf("no ESP among %d packets", len(packets))
		return nil
	}
	packet := sent()
	throw := func(b []byte) {
		t.Helper()
		if _, err := sock.WriteToUDPAddrPort(b, to); err != nil {
			t.Fatal(err)
		}
	}
	forged := append([]byte(nil), packet...)
	binary.BigEndian.PutUint32(forged[4:], 100) // else it is a replay
	short := append([]byte(nil), packet[:12]...)
	binary.BigEndian.PutUint32(short[4:], 101)
	unknown := append([]byte(nil), packet...)
	binary.BigEndian.PutUint32(unknown, 0xc0ffee)
	for range 3 {
		throw(packet)
	}
	throw(forged)
	throw(forged)
	throw(unknown)
	throw(short)
	p.lost(p.aSock)
	u := p.usage(a, p.ba)
	if u.Packets != 1 || u.Drops.Replayed != 3 || u.Drops.Forged != 2 {
		t.Errorf("%+v", u)
	}
	if n := a.plane.Unknown(); n != 1 {
		t.Errorf("%d packets of no SA", n)
	}
	p.exchange()
	if u := p.usage(a, p.ba); u.Packets != 2 {
		t.Errorf("%d packets", u.Packets)
	}
}
