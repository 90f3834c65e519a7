package xfrm

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
)

func TestAllocSPI(t *testing.T) {
	enterNamespace(t)
	k := opened(t)
	for _, c := range []struct{ src, dst netip.Addr }{{peer, us}, {peer6, us6}} {
		spi, err := k.AllocSPI(42, c.src, c.dst, apply.Tunnel)
		if err != nil {
			t.Fatal(err)
		}
		if spi < lowestSPI || spi > highestSPI {
			t.Errorf("SPI %08x", spi)
		}
		id := apply.SAID{Dst: c.dst, SPI: spi}
		list, err := k.List([]uint32{42, 43})
		if err != nil || len(list) != 1 {
			t.Fatalf("%v, %v", list, err)
		}
		if got := list[0]; got.SAID != id || got.Src != c.src || got.ReqID != 42 || got.Direction != apply.In || !got.Larval {
			t.Errorf("%+v", got)
		}
		if s := ip(t, "xfrm state"); !strings.Contains(s, " reqid 43 ") {
			t.Errorf("in the list that packets' SAs are looked for in:\n%s", s)
		}
		if _, err := k.Query(id); err != nil {
			t.Error(err)
		}
		if err := k.RemoveSA(id); err != nil {
			t.Error(err)
		}
		if err := k.RemoveSA(id); !errors.Is(err, apply.ErrAbsent) {
			t.Errorf("removed twice: %v", err)
		}
		if _, err := k.Query(id); !errors.Is(err, apply.ErrAbsent) {
			t.Errorf("query: %v", err)
		}
	}
}

// A guard and a Protect with one selector are two policies for the kernel.
func TestGuardStaysUnderProtect(t *testing.T) {
	enterNamespace(t)
	k := opened(t)
	guard := apply.Policy{Selector: pair, Action: apply.Block, Guard: true}
	protect := apply.Policy{Selector: pair, Action: apply.Protect, Local: us, Remote: peer, ReqID: 7, SPI: 0xc0001234}
	for _, p := range []apply.Policy{guard, protect, guard, protect} { // the second time they are updated
		if err := k.SetPolicy(p); err != nil {
			t.Fatal(err)
		}
	}
	list := ip(t, "xfrm policy")
	if n := strings.Count(list, "dir "); n != 6 {
		t.Errorf("%d policies, want 6:\n%s", n, list)
	}
	if !strings.Contains(list, "spi 0xc0001234") {
		t.Errorf("no SPI in the template:\n%s", list)
	}
	protect.SPI = 0xc0005678
	if err := k.SwitchOutbound(protect); err != nil {
		t.Fatal(err)
	}
	if list := ip(t, "xfrm policy"); !strings.Contains(list, "spi 0xc0005678") || strings.Count(list, "dir ") != 6 {
		t.Errorf("after the switch:\n%s", list)
	}
	if err := k.RemovePolicy(protect); err != nil {
		t.Fatal(err)
	}
	if list := ip(t, "xfrm policy"); strings.Count(list, "action block") != 3 || strings.Count(list, "dir ") != 3 {
		t.Errorf("guard alone:\n%s", list)
	}
	if err := sendUDP(t, "10.1.0.1", "10.2.0.1", nil); !errors.Is(err, unix.EPERM) {
		t.Errorf("under the guard: %v, want EPERM", err)
	}
	if err := k.RemovePolicy(guard); err != nil {
		t.Fatal(err)
	}
	if err := k.RemovePolicy(guard); !errors.Is(err, apply.ErrAbsent) {
		t.Errorf("removed twice: %v", err)
	}
	if list := ip(t, "xfrm policy"); list != "" {
		t.Errorf("left:\n%s", list)
	}
	seen := capture(t)
	if err := sendUDP(t, "10.1.0.1", "10.2.0.1", nil); err != nil || seen() == 0 {
		t.Errorf("without policies nothing leaves (%v): the other tests prove nothing", err)
	}
}

// What another daemon installed is neither overwritten nor removed.
func TestForeignPolicy(t *testing.T) {
	enterNamespace(t)
	k := opened(t)
	ip(t, "xfrm policy add src 10.1.0.0/16 dst 10.2.0.0/16 dir out priority 375423 "+
		"tmpl src 192.0.2.1 dst 192.0.2.9 proto esp reqid 1 mode tunnel")
	before := ip(t, "xfrm policy")
	err := k.SetPolicy(apply.Policy{Selector: pair, Action: apply.Protect, Local: us, Remote: peer, ReqID: 7, SPI: 0xc0001234})
	if !errors.Is(err, apply.ErrExists) {
		t.Errorf("error %v", err)
	}
	if after := ip(t, "xfrm policy"); after != before {
		t.Errorf("changed:\n%s", after)
	}
}

// A trap raises one Acquire, lets nothing out, and leaves no larval SA.
func TestTrap(t *testing.T) {
	enterNamespace(t)
	k := opened(t)
	trap := apply.Policy{Selector: pair, Action: apply.Trap, Guard: true, Local: us, Remote: peer, ReqID: 9}
	if err := k.SetPolicy(trap); err != nil {
		t.Fatal(err)
	}
	leaked := capture(t)
	_ = sendUDP(t, "10.1.0.1", "10.2.0.1", nil)
	ev, ok := next(t, k).(apply.Acquire)
	if !ok || ev.ReqID != 9 || ev.Local != us || ev.Remote != peer {
		t.Fatalf("%+v", ev)
	}
	if p := ev.Packet; p.Local.String() != "10.1.0.1/32" || p.Remote.String() != "10.2.0.1/32" || p.Protocol != 17 ||
		p.RemotePort != (apply.PortMask{Port: 7, Mask: 0xffff}) {
		t.Errorf("packet %v", p)
	}
	_ = sendUDP(t, "10.1.0.1", "10.2.0.1", nil)
	none(t, k, 100*time.Millisecond)
	if n := leaked(); n != 0 {
		t.Errorf("%d packets in clear", n)
	}
	if s := ip(t, "xfrm state"); !strings.Contains(s, "reqid") {
		t.Errorf("no larval SA:\n%s", s)
	}
	if err := k.RemovePolicy(trap); err != nil {
		t.Fatal(err)
	}
	if s := ip(t, "xfrm state") + ip(t, "xfrm policy"); s != "" {
		t.Errorf("left:\n%s", s)
	}
}

// A Protect policy whose SA is gone drops, says so, and leaves no larval SA.
func TestProtectWithoutSA(t *testing.T) {
	enterNamespace(t)
	k := opened(t)
	protect := apply.Policy{Selector: pair, Action: apply.Protect, Local: us, Remote: peer, ReqID: 7, SPI: 0xc0001234}
	if err := k.SetPolicy(protect); err != nil {
		t.Fatal(err)
	}
	leaked := capture(t)
	_ = sendUDP(t, "10.1.0.1", "10.2.0.1", nil)
	if ev, ok := next(t, k).(apply.Acquire); !ok || ev.ReqID != 7 {
		t.Errorf("%+v", ev)
	}
	if n := leaked(); n != 0 {
		t.Errorf("%d packets in clear", n)
	}
	if err := k.RemovePolicy(protect); err != nil {
		t.Fatal(err)
	}
	if s := ip(t, "xfrm state"); s != "" {
		t.Errorf("left:\n%s", s)
	}
}

func TestPrepareSocket(t *testing.T) {
	enterNamespace(t)
	k := opened(t)
	all := netip.MustParsePrefix("0.0.0.0/0")
	if err := k.SetPolicy(apply.Policy{Selector: apply.Selector{Local: all, Remote: all}, Action: apply.Block, Guard: true}); err != nil {
		t.Fatal(err)
	}
	if err := sendUDP(t, "192.0.2.1", "192.0.2.2", nil); !errors.Is(err, unix.EPERM) {
		t.Errorf("without bypass: %v, want EPERM", err)
	}
	err := sendUDP(t, "192.0.2.1", "192.0.2.2", func(fd int) {
		if err := k.PrepareSocket(fd, us, false); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Errorf("with bypass: %v", err)
	}

	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := k.PrepareSocket(fd, netip.IPv6Unspecified(), false); err == nil {
		t.Error("an IPv6 socket for both families was accepted")
	}
	mapped := netip.MustParseAddr("::ffff:192.0.2.1")
	if err := k.PrepareSocket(fd, mapped, false); err != nil {
		t.Error(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet6{Addr: mapped.As16()}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrInet6{
		Addr: netip.MustParseAddr("::ffff:192.0.2.2").As16(), Port: 7}); err != nil {
		t.Errorf("mapped: %v", err)
	}
}

// On a kernel without ESP the preflight says so.
func TestNoESP(t *testing.T) {
	enterNamespace(t)
	k, err := New()
	if err == nil {
		k.Close()
		t.Skip("this kernel has ESP")
	}
	var missing *NoESP
	if !errors.As(err, &missing) {
		t.Fatal(err)
	}
	if s := err.Error(); !strings.Contains(s, "CONFIG_INET_ESP and CONFIG_INET6_ESP") || !strings.Contains(s, "modprobe -a esp4 esp6") {
		t.Error(s)
	}
	sa := Suite{Encryption: apply.AESCBC, KeyLen: 16, Integrity: apply.HMACSHA256}.sample(us6)
	if err := opened(t).InstallSA(sa); !errors.As(err, &missing) || !slices.Equal(missing.Options, []string{"CONFIG_INET6_ESP"}) {
		t.Errorf("%v", err)
	}
}

// Without the capability there is a message about it.
func TestNoPermission(t *testing.T) {
	enterNamespace(t)
	if err := unix.Setresuid(-1, 65534, -1); err != nil { // all threads
		t.Skip(err)
	}
	defer func() { _ = unix.Setresuid(-1, 0, -1) }()
	_, err := New()
	var denied *NoPermission
	if !errors.As(err, &denied) {
		t.Errorf("%v", err)
	}
}

func TestCloseEndsEvents(t *testing.T) {
	enterNamespace(t)
	k := opened(t)
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if _, open := <-k.Events(); open {
		t.Error("an event after Close")
	}
	if err := k.Close(); err != nil {
		t.Error(err)
	}
	if _, err := k.AllocSPI(1, peer, us, apply.Tunnel); err == nil {
		t.Error("works after Close")
	}
}
