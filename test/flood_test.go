//go:build lab

package lab_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/test/harness"
)

// TestFlood has a tunnel that carries packets and rekeys every two seconds under
// requests for new IKE SAs from all over the loopback network, of which some have
// a cookie of nobody's. Meanwhile another peer gets in, whose address is in the
// tunnel file. The long form asks for 20,000 requests a second; how many an
// emulated machine sends it says.
func TestFlood(t *testing.T) {
	row := harness.NewRow("8. More", "a flood of IKE_SA_INIT requests", "responder")
	row.Of(t)
	duration, rate := form(10*time.Second, 30*time.Second), form(2000, 20_000)
	n := harness.NewNet(t, "a", "b", "c")
	a, b, c := n.A(), n.B(), n.Hosts[2]
	before := a.Snapshot()
	fa, fb, fc := between(a, b), between(b, a), between(c, a)
	fa.peer, fa.start = "", "passive" // anybody may be the peer
	fb.lifetime = `time = { soft = "2s", hard = "30s" }`
	text := fa.String() + fmt.Sprintf("[[peer]]\nname = \"third\"\nendpoint = %q\nid = \"c.example\"\npsk = %q\nlocal_ts = [%q]\nremote_ts = [%q]\nstart = \"passive\"\n",
		c.Outer4, testPSK, a.Net4, c.Net4)
	qa, qb, qc := harness.NewQuick(t, a, "flood", text), harness.NewQuick(t, b, "flood", fb.String()), harness.NewQuick(t, c, "flood", fc.String())
	qa.Up()
	qb.Up()
	pid := qa.PID()
	stream := harness.StartStream(t, a, a.Inner4, b, b.Inner4, soakRate())
	small, rekeys := residentKiB(t, pid), qb.Peer().Rekeys.Child

	stop := startFlood(t, a, rate)
	time.Sleep(duration / 2)
	start := time.Now()
	qc.Up()
	third := time.Since(start)
	large := residentKiB(t, pid)
	time.Sleep(duration - time.Since(start))
	large = max(large, residentKiB(t, pid))
	sent, took := stop()

	p := qb.Peer()
	rekeys = p.Rekeys.Child - rekeys
	note := stream.Lossless("under a flood")
	status, _ := qa.Status()
	left := residentKiB(t, pid)
	for end := time.Now().Add(70 * time.Second); left > small+4<<10 && time.Now().Before(end); time.Sleep(time.Second) {
		left = residentKiB(t, pid)
	}
	row.Notef("%.0f requests a second for %v, %d counted as flooded; %d rekeys, %s; another peer got in within %v; resident memory %d KiB, then %d, then %d",
		float64(sent)/took.Seconds(), took.Round(time.Second), status.Dropped["flooded"], rekeys, note, third.Round(time.Millisecond), small, large, left)
	if want := uint64(took.Seconds() / 3); uint64(rekeys) < want || p.Expires.Hard != 0 || p.Rekeys.Failed != 0 {
		t.Errorf("%d rekeys, not %d; %+v", rekeys, want, p)
	}
	if third > 2*time.Second {
		t.Errorf("the other peer got in after %v", third)
	}
	if large > small+32<<10 || left > small+4<<10 {
		t.Errorf("resident memory %d KiB, then %d, then %d", small, large, left)
	}
	qc.Down()
	qb.Down()
	qa.Down()
	a.Unchanged(before, "up and down")
}

// startFlood sends a host IKE_SA_INIT requests from its own loopback network,
// each from another address, until stop, which says how many there were.
func startFlood(t *testing.T, h *harness.Host, rate int) (stop func() (sent int, took time.Duration)) {
	t.Helper()
	plain := initRequest(t)
	forged := bytes.Clone(plain[:28])
	forged = append(forged, append([]byte{33, 0, 0, 40, 0, 0, 0x40, 6}, make([]byte, 32)...)...)
	forged = append(forged, plain[28:]...)
	forged[16] = 41 // Notify, COOKIE
	binary.BigEndian.PutUint32(forged[24:], uint32(len(forged)))
	var fd int
	if err := h.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var sent int
	var stopped atomic.Bool
	start, done := time.Now(), make(chan struct{})
	go func() {
		defer close(done)
		defer unix.Close(fd)
		r := rand.New(rand.NewPCG(1, 2))
		to := &unix.SockaddrInet4{Port: 500, Addr: [4]byte{127, 0, 0, 1}}
		for n := 0; !stopped.Load(); time.Sleep(time.Millisecond) {
			for due := int(time.Since(start).Seconds() * float64(rate)); n < due && !stopped.Load(); n++ {
				data := plain
				if n%8 == 0 {
					data = forged
				}
				binary.BigEndian.PutUint64(data, r.Uint64()|1)
				source := [4]byte{127, byte(1 + r.IntN(200)), byte(r.IntN(256)), byte(1 + r.IntN(254))}
				if _, err := unix.SendmsgN(fd, data, unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: source}), to, 0); err == nil {
					sent++
				}
			}
		}
	}()
	return func() (int, time.Duration) {
		stopped.Store(true)
		took := time.Since(start)
		<-done
		return sent, took
	}
}
