package watch

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"ipsec-quick/ike"
)

// crowd are n tunnels of one host on the same ports, and the other ends.
func crowd(t *testing.T, n int, weBegin bool) (h *host, loops []*running, far []*host) {
	t.Helper()
	h = newHost(t)
	port, natPort := freePorts(t)
	for i := range n {
		a, b := sites(t)
		a.name, a.port, a.natPort = fmt.Sprintf("near%d", i), port, natPort
		a.localTS, a.remoteTS = fmt.Sprintf("10.1.%d.0/24", i), fmt.Sprintf("10.2.%d.0/24", i)
		b.localTS, b.remoteTS = a.remoteTS, a.localTS
		b.id = fmt.Sprintf("right%d.example", i)
		a.peerID = b.id
		hb := newHost(t)
		far = append(far, hb)
		if weBegin {
			hb.start(loadTunnel(t, b.name, b.text()))
			loops = append(loops, h.start(loadTunnel(t, a.name, a.text())))
			continue
		}
		// The other end is at 127.0.0.1 and calls us at 127.0.0.2.
		a.remotePort, b.remotePort = 0, port
		loops = append(loops, h.start(loadTunnel(t, a.name, a.text())))
		defer hb.start(loadTunnel(t, b.name, b.text())) // when all of ours are there
	}
	return h, loops, far
}

// handedOver counts datagrams that went from one tunnel to another.
func handedOver(t *testing.T, loops []*running) (n uint64) {
	t.Helper()
	for _, r := range loops {
		if !r.call(func() { n += r.drops.sent }) {
			t.Fatal("a loop has ended")
		}
	}
	return n
}

func TestSharedPortsInitiators(t *testing.T) {
	h, loops, far := crowd(t, 6, true)
	for i := range loops {
		name := fmt.Sprintf("near%d", i)
		eventually(t, name+" established", func() bool { return h.established(name) })
		if err := Rekey(h.root, name, "", false); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := Rekey(far[i].root, "right", "", true); err != nil {
			t.Errorf("%s, by the peer: %v", name, err)
		}
	}
	// With six sockets the chance that all datagrams meet their own is 6^-6.
	if handedOver(t, loops) == 0 {
		t.Error("nothing was handed over")
	}
	for _, r := range loops {
		r.down()
	}
	h.clean()
	h.correct()
}

func TestSharedPortsResponders(t *testing.T) {
	h, loops, far := crowd(t, 4, false)
	for i := range loops {
		name := fmt.Sprintf("near%d", i)
		eventually(t, name+" established", func() bool { return h.established(name) })
		eventually(t, "and its other end", func() bool { return far[i].established("right") })
	}
	for i := range loops {
		if err := Rekey(far[i].root, "right", "", true); err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	for _, r := range loops {
		r.down()
	}
	h.clean()
	h.correct()
}

// TestUnknownPeerIsRefused: no tunnel of ours wants it, and it hears so.
func TestUnknownPeerIsRefused(t *testing.T) {
	a, b := sites(t)
	a.id = "stranger.example"
	ha, hb := newHost(t), newHost(t)
	hb.start(loadTunnel(t, b.name, b.text()))
	other := b
	other.name, other.peerID, other.localTS = "third", "third.example", "10.3.0.0/16"
	hb.start(loadTunnel(t, other.name, other.text()))
	ha.start(loadTunnel(t, a.name, a.text()))
	eventually(t, "refused", func() bool {
		ha.rec.mu.Lock()
		defer ha.rec.mu.Unlock()
		return len(ha.rec.lost) > 0 && ike.Refused(ha.rec.lost[0])
	})
}

func TestHandoverFormat(t *testing.T) {
	for _, d := range []ike.Datagram{
		{Local: netip.MustParseAddrPort("192.0.2.1:500"), Remote: netip.MustParseAddrPort("198.51.100.7:4500"), NATT: true, Data: []byte("message")},
		{Local: netip.MustParseAddrPort("[2001:db8::1]:500"), Remote: netip.MustParseAddrPort("[2001:db8::2]:500"), Data: bytes.Repeat([]byte{7}, 60000)},
	} {
		b := encodeHandover(d)
		got, err := parseHandover(b)
		if err != nil || got.Local != d.Local || got.Remote != d.Remote || got.NATT != d.NATT || !bytes.Equal(got.Data, d.Data) {
			t.Errorf("%v: %v, %v", d, got, err)
		}
		for n := range len(b) - len(d.Data) {
			if _, err := parseHandover(b[:n]); err == nil {
				t.Errorf("%d octets are taken", n)
			}
		}
	}
}

func FuzzHandover(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parseHandover(b)
		if err != nil {
			return
		}
		again, err := parseHandover(encodeHandover(d))
		if err != nil || again.Local != d.Local || again.Remote != d.Remote || again.NATT != d.NATT || !bytes.Equal(again.Data, d.Data) {
			t.Errorf("%v became %v, %v", d, again, err)
		}
	})
}
