//go:build lab

package lab_test

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/test/harness"
)

// manyPeers is a tunnel file with a peer for each pair of addresses, which only
// the selectors tell apart: 10.1.x.y here and 10.2.x.y there for the peer number
// 250x+y-1, or the other way round.
func manyPeers(we, they *harness.Host, count int, lifetime func(i int) string, start string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "dataplane = \"kernel\"\n[local]\nid = \"%s.example\"\n", we.Name)
	fmt.Fprintf(&b, "[ike]\nproposals = [\"aes256gcm16-prfsha384-x25519\"]\ndpd = \"off\"\n[esp]\nproposals = [\"aes256gcm16\"]\npfs = \"no\"\n")
	for i := range count {
		fmt.Fprintf(&b, "[[peer]]\nname = \"p%d\"\nid = \"%s.example\"\nendpoint = %q\npsk = %q\nlocal_ts = [\"%s/32\"]\nremote_ts = [\"%s/32\"]\nstart = %q\n%s\n",
			i, they.Name, they.Outer4, testPSK, address(we, i), address(they, i), start, lifetime(i))
	}
	return b.String()
}

// address is the i-th inner address of a host.
func address(h *harness.Host, i int) netip.Addr {
	b := h.Inner4.As4()
	b[2], b[3] = byte(i/250), byte(i%250+1)
	return netip.AddrFrom4(b)
}

// sockets opens a UDP socket on each of the host's addresses.
func sockets(t *testing.T, h *harness.Host, count int) []*net.UDPConn {
	t.Helper()
	var list []*net.UDPConn
	err := h.Do(func() error {
		for i := range count {
			c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(address(h, i), 9)))
			if err != nil {
				return err
			}
			list = append(list, c)
		}
		return nil
	})
	t.Cleanup(func() {
		for _, c := range list {
			c.Close()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestManyExpires has all SAs of a tunnel with many peers reach their soft limit
// within a second, and the SAs of every other peer their hard limit too, while
// the loop's receive buffer holds a few events. The limits are real, of packets:
// the second packet through an SA meets the soft one, the third the hard one. No
// SA from before may be there in the end, and every peer must have new ones.
func TestManyExpires(t *testing.T) {
	peers := form(20, 1000)
	kernelOnly(t)
	row := harness.NewRow(soakGroup, fmt.Sprintf("%d SAs expire into a small buffer", 2*peers), "initiator")
	t.Parallel()
	row.Of(t)
	n := harness.NewNet(t, "a", "b")
	a, b := n.A(), n.B()
	for _, h := range []*harness.Host{a, b} {
		h.Run("ip", "addr", "add", netip.PrefixFrom(h.Net4.Addr(), 16).Addr().Next().Next().String()+"/16", "dev", "lo")
	}
	before := a.Snapshot()
	capture := harness.StartCapture(t, n)
	none := func(int) string { return "" }
	some := func(i int) string {
		if i%2 == 1 {
			return "[peer.lifetime]\njitter = \"0%\"\npackets = { soft = 1, hard = 2 }"
		}
		return "[peer.lifetime]\njitter = \"0%\"\npackets = { soft = 1, hard = 1000 }"
	}
	qa := harness.NewQuick(t, a, "many", manyPeers(a, b, peers, some, "now"))
	qb := harness.NewQuick(t, b, "answer", manyPeers(b, a, peers, none, "passive"))
	qb.Up()
	start := time.Now()
	qa.Up("--keep-trying", "--timeout", "20s")
	patience := form(60*time.Second, 15*time.Minute)
	var status harness.Status
	established := func(without map[string]bool) func() bool {
		return func() bool {
			time.Sleep(form(time.Second, 5*time.Second)) // each question costs
			var ok bool
			if status, ok = qa.Status(); !ok {
				return false
			}
			for _, p := range status.Peers {
				if !hasNew(p, without) {
					return false
				}
			}
			return true
		}
	}
	within(t, patience, "all peers established", established(nil))
	took := time.Since(start)
	_, old := spis(qa)
	if len(old) != 2*peers {
		t.Fatalf("%d SAs, not %d", len(old), 2*peers)
	}

	from, to := sockets(t, a, peers), sockets(t, b, peers)
	socket := qa.EventSocket()
	size := socket.Shrink()
	// One packet through each SA first, so that from here on each packet meets a limit.
	sendAll(t, from, to, 1)
	start = time.Now()
	sendAll(t, from, to, 2)
	sent := time.Since(start)
	if sent > time.Second {
		t.Errorf("all SAs met their limits within %v, not within a second", sent)
	}
	var left []string
	gone := func() bool {
		left = nil
		kernel, _ := spis(qa)
		for spi := range old {
			if kernel[spi] {
				left = append(left, spi)
			}
		}
		return len(left) == 0
	}
	if !harness.Poll(patience, func() bool { return gone() && established(old)() }) {
		t.Errorf("not within %v: every SA rekeyed or deleted; %d of %d SAs from before are left: %v", patience, len(left), len(old), left)
	}
	replaced := time.Since(start)
	drops := socket.Drops()
	if drops == 0 {
		t.Error("no event was dropped: the loop has not shown that it does without")
	}
	soft, hard := 0, 0
	for _, p := range status.Peers {
		soft, hard = soft+p.Expires.Soft, hard+p.Expires.Hard
	}
	row.Notef("%d peers up after %.1f s; buffer of %d bytes, all limits met within %.1f s, %d events dropped, %d soft and %d hard expires handled; %d SAs from before left, all replaced after %.1f s",
		peers, took.Seconds(), size, sent.Seconds(), drops, soft, hard, len(left), replaced.Seconds())
	capture.NothingClear()
	qa.Down()
	qb.Down()
	a.Unchanged(before, "up and down")
}

// sendAll sends rounds of packets between each pair of sockets, both ways at the
// same time. What meets an SA at its hard limit is dropped, with an error or
// without. It stands for hosts that do nothing else, so its threads, which end with
// it, have the processors before the loop that answers what they cause.
func sendAll(t *testing.T, a, b []*net.UDPConn, rounds int) {
	t.Helper()
	var ways sync.WaitGroup
	for _, way := range [][2][]*net.UDPConn{{a, b}, {b, a}} {
		ways.Go(func() {
			runtime.LockOSThread()
			if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -20); err != nil {
				t.Error(err)
			}
			for range rounds {
				for i, from := range way[0] {
					_, _ = from.WriteTo([]byte("expire"), way[1][i].LocalAddr())
				}
			}
		})
	}
	ways.Wait()
}

// hasNew says whether a peer has a living Child SA that is none of the old ones.
func hasNew(p harness.PeerStatus, old map[string]bool) bool {
	for _, c := range p.Children {
		if !c.Retiring && !old[c.SPIIn] && !old[c.SPIOut] {
			return true
		}
	}
	return false
}
