package watch

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"testing"

	"ipsec-quick/apply"
	"ipsec-quick/apply/fake"
	"ipsec-quick/ike"
)

var (
	espLocal  = netip.MustParseAddrPort("192.0.2.1:4500")
	espRemote = netip.MustParseAddrPort("198.51.100.7:4500")
)

// receiver is a data plane that tells what it is given.
type receiver struct {
	*fake.Dataplane
	got chan []byte
}

func (r *receiver) ReceiveESP(local, remote netip.AddrPort, data []byte) {
	if local == espLocal && remote == espRemote {
		r.got <- bytes.Clone(data)
	}
}

// newRouter is that of a tunnel in a run directory.
func newRouter(t *testing.T, root, name string) (*espRouter, *receiver) {
	t.Helper()
	d := newDir(root, name)
	if err := os.MkdirAll(d.file(dirSPI), 0o700); err != nil {
		t.Fatal(err)
	}
	r := &receiver{fake.New(), make(chan []byte, 10)}
	e, err := newESPRouter(r, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.exch.close)
	return e, r
}

func espPacket(spi uint32) []byte {
	return append(binary.BigEndian.AppendUint32(nil, spi), "\x00\x00\x00\x01 sealed"...)
}

func TestESPFindsItsTunnel(t *testing.T) {
	root := runDir(t)
	a, dpA := newRouter(t, root, "a")
	b, dpB := newRouter(t, root, "b")
	for e, spi := range map[*espRouter]uint32{a: 0xc0000001, b: 0xc0000002} {
		if err := e.enter(apply.SAID{Dst: espLocal.Addr(), SPI: spi}); err != nil {
			t.Fatal(err)
		}
	}
	for spi, dp := range map[uint32]*receiver{0xc0000001: dpA, 0xc0000002: dpB} {
		if !a.route(espLocal, espRemote, espPacket(spi)) {
			t.Errorf("%08x was not taken", spi)
		} else if got := <-dp.got; !bytes.Equal(got, espPacket(spi)) {
			t.Errorf("%08x: %q came", spi, got)
		}
	}
	if a.route(espLocal, espRemote, espPacket(0xc0000003)) {
		t.Error("a packet of no SA was taken")
	}
	b.leave(apply.SAID{Dst: espLocal.Addr(), SPI: 0xc0000002})
	other, _ := newRouter(t, root, "c")
	if other.route(espLocal, espRemote, espPacket(0xc0000002)) {
		t.Error("a packet of an SA that has gone was taken")
	}
	// Another process has its place.
	b.exch.close()
	again, dpB := newRouter(t, root, "b")
	if err := again.recover([]apply.Installed{
		{SAID: apply.SAID{Dst: espLocal.Addr(), SPI: 0xc0000004}, Direction: apply.In},
		{SAID: apply.SAID{Dst: espRemote.Addr(), SPI: 0xc0000005}, Direction: apply.Out},
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a packet for the next process", func() bool { return a.route(espLocal, espRemote, espPacket(0xc0000004)) })
	if got := <-dpB.got; !bytes.Equal(got, espPacket(0xc0000004)) {
		t.Errorf("%q came", got)
	}
	if other.route(espLocal, espRemote, espPacket(0xc0000005)) {
		t.Error("a packet for the peer's SPI was taken")
	}
}

// Anybody can send any SPI: few of them are looked for, and none keeps memory.
func TestESPOfNobody(t *testing.T) {
	root := runDir(t)
	a, _ := newRouter(t, root, "a")
	b, dp := newRouter(t, root, "b")
	if err := b.enter(apply.SAID{Dst: espLocal.Addr(), SPI: 0xc0000001}); err != nil {
		t.Fatal(err)
	}
	a.route(espLocal, espRemote, espPacket(0xc0000001)) // it is known from now on
	<-dp.got
	for spi := range uint32(10_000) {
		if a.route(espLocal, espRemote, espPacket(0xd0000000+spi)) {
			t.Fatalf("%08x was taken", 0xd0000000+spi)
		}
	}
	if a.limit.Allow() || len(a.owners) != 1 {
		t.Errorf("all were looked for; %d are remembered", len(a.owners))
	}
	if !a.route(espLocal, espRemote, espPacket(0xc0000001)) {
		t.Error("a packet that is known was not taken meanwhile")
	}
}

// An IKE message that comes to the data plane's sockets goes to the loop, or waits
// for the next one in the handover socket; nobody waits for either.
func TestIKEFromTheDataPlane(t *testing.T) {
	d := newDir(runDir(t), "a")
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		t.Fatal(err)
	}
	conn, err := listenHandover(d.file(fileHandover))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	hand, err := newHandover(conn)
	if err != nil {
		t.Fatal(err)
	}
	defer hand.close()
	want := ike.Datagram{Local: espLocal, Remote: espRemote, NATT: true, Data: []byte("message")}
	same := func(d ike.Datagram) bool {
		return d.Local == want.Local && d.Remote == want.Remote && d.NATT && bytes.Equal(d.Data, want.Data)
	}
	w := &inward{dir: d}
	w.receive(espLocal, espRemote, want.Data)
	hand.start()
	if got := <-hand.in; !same(got) {
		t.Errorf("handed over: %+v", got)
	}
	in := newInbox()
	w.to(&in)
	for range 3 * strangerQueue {
		w.receive(espLocal, espRemote, want.Data)
	}
	if got := <-in.strangers; !same(got) {
		t.Errorf("read: %+v", got)
	}
	if n := in.drops.flood.Load(); n != 2*strangerQueue {
		t.Errorf("%d of %d were dropped", n, 3*strangerQueue)
	}
	w.to(nil)
	w.receive(espLocal, espRemote, want.Data)
	if got := <-hand.in; !same(got) {
		t.Errorf("handed over again: %+v", got)
	}
}
