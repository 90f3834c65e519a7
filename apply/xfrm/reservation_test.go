package xfrm

import (
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
)

func acqExpires(t *testing.T, seconds string) {
	t.Helper()
	// /proc/sys/net is that of the thread's namespace.
	if err := os.WriteFile("/proc/sys/net/core/xfrm_acq_expires", []byte(seconds), 0); err != nil {
		t.Skip(err)
	}
}

// That a reservation lapses is nobody's business but ours; another process's under
// the ReqID that one of ours would have is reported (it cannot be told apart).
func TestReservationLapses(t *testing.T) {
	enterNamespace(t)
	acqExpires(t, "1")
	k, other := opened(t), opened(t)
	if _, err := k.List([]uint32{aside(5)}); err != nil {
		t.Fatal(err)
	}
	mine, err := k.AllocSPI(8, peer, us, apply.Tunnel)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := other.AllocSPI(5, peer, us, apply.Tunnel)
	if err != nil {
		t.Fatal(err)
	}
	want := apply.Expire{SAID: apply.SAID{Dst: us, SPI: theirs}, ReqID: aside(5), Hard: true}
	if ev := next(t, k); ev != want {
		t.Errorf("%+v, want %+v", ev, want)
	}
	none(t, k, 1500*time.Millisecond)
	none(t, other, 0)
	if k.isReserved(apply.SAID{Dst: us, SPI: mine}) {
		t.Error("still held to be reserved")
	}
}

// Events that do not fit are lost, which is told when the rest has been read;
// what comes after is reported again.
func TestOverrun(t *testing.T) {
	enterNamespace(t)
	acqExpires(t, "1")
	k, other := opened(t), opened(t)
	if _, err := k.List([]uint32{aside(5)}); err != nil {
		t.Fatal(err)
	}
	if err := k.events.sock.raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
	}); err != nil {
		t.Fatal(err)
	}
	const n = 300
	for range n {
		if _, err := other.AllocSPI(5, peer, us, apply.Tunnel); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(2500 * time.Millisecond) // nobody reads
	var events []apply.Event
	for !slices.Contains(events, apply.Event(apply.Overrun{})) {
		events = append(events, next(t, k))
	}
	if len(events) > n {
		t.Errorf("%d events of %d", len(events), n)
	}
	t.Logf("%d of %d events before the overrun was told", len(events)-1, n)
	if _, err := other.AllocSPI(5, peer, us, apply.Tunnel); err != nil {
		t.Fatal(err)
	}
	if ev, ok := next(t, k).(apply.Expire); !ok {
		t.Errorf("after the overrun: %+v", ev)
	}
}
