package userspace

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
	"ipsec-quick/apply/userspace/esp"
	"ipsec-quick/apply/userspace/offload"
	"ipsec-quick/apply/userspace/packet"
)

// FuzzOutbound: whatever a TUN device hands over, what comes out at the peer is
// within the policy, and what a sound packet was.
func FuzzOutbound(f *testing.F) {
	w := newWire(f, nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		w.t = t
		if len(b) > offload.HeaderLen+maxPacket {
			return
		}
		super := make([]byte, len(b), len(b)+esp.MaxTrailer)
		copy(super, b)
		w.out.superPacket(super)
		w.out.send()
		w.everythingIsInside()
		w.read(w.back)
		for range 16 { // what came in between is read too
			if _, err := unix.Read(w.into, w.buffer); err != nil {
				break
			}
		}
		if d := w.drops(); d.Forged+d.Replayed > 0 {
			t.Fatalf("%+v of our own packets", d)
		}
	})
}

// everythingIsInside reads what comes out at the peer, and checks it.
func (w *wire) everythingIsInside() {
	w.t.Helper()
	for _, b := w.take(); b != nil; _, b = w.read(w.into) {
		h, err := packet.Parse(b)
		if err != nil {
			w.t.Fatalf("%x comes out", b)
		}
		flow := h.Flow
		if quoted, ok := packet.Quoted(b, &h); ok && quoted.Dst == h.Dst && !w.to.tables.Load().permits(w.got, &flow) {
			flow = quoted
		}
		if !w.to.tables.Load().permits(w.got, &flow) {
			w.t.Fatalf("%v comes out", h.Flow)
		}
	}
}

// FuzzInbound: whatever datagrams come, garbage or sealed by the peer, what
// comes out is within the policy, and each packet comes out or is counted.
func FuzzInbound(f *testing.F) {
	w := newWire(f, nil)
	f.Fuzz(func(t *testing.T, garbage, payload []byte, next, tos uint8) {
		w.t = t
		if len(garbage) == 0 || len(garbage) > 1400 || len(payload) > 1400 {
			return
		}
		w.ike = nil
		w.datagram(garbage, tos)
		w.everythingIsInside()
		before := w.drops()
		w.datagram(w.seal(payload, next), tos)
		_, got := w.take()
		after := w.drops()
		if dropped := after != before; dropped == (got != nil) && next != esp.NextNone {
			t.Fatalf("%d octets came out, dropped %+v, before %+v", len(got), after, before)
		}
		if got != nil && !bytes.HasSuffix(payload[:len(got)], got[packet.IPv4Len:]) {
			t.Fatalf("%x became %x", payload, got)
		}
		if after.Forged > before.Forged {
			t.Fatal("forged by ourselves")
		}
	})
}

func BenchmarkWorkers(b *testing.B) {
	w := newWire(b, func(sa *apply.SA) { sa.ReplayWindow = 4096 })
	h, p := super4(leaves, 1360, 44*1360)
	super := make([]byte, offload.HeaderLen+len(p), offload.HeaderLen+len(p)+esp.MaxTrailer)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		h.Put(super)
		copy(super[offload.HeaderLen:], p[:100])
		w.out.superPacket(super)
		w.out.send()
		w.worker.drain(w.got.path.Load())
		if _, err := unix.Read(w.into, w.buffer); err != nil {
			b.Fatal(err)
		}
	}
}
