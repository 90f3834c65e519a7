package userspace

import (
	"bytes"
	"encoding/binary"
	"testing"

	"ipsec-quick/apply"
	"ipsec-quick/apply/userspace/esp"
	"ipsec-quick/apply/userspace/outer"
	"ipsec-quick/apply/userspace/packet"
)

// A packet that continues the ones before is not looked up again; one that came in
// another way is. Each case is three packets of a stream, the second of which is
// changed.
func TestJoiningLooksAgain(t *testing.T) {
	const ect, ce = 2, 3
	for _, c := range []struct {
		name        string
		inner       uint8 // TOS of all
		outer       uint8 // of the second
		next        uint8 // of the second
		spi         uint32
		pad         int
		flow        func(*packet.Flow) // of the second
		drops       apply.Drops
		arrive      []int // octets of payload in each packet that comes out
		tosOfSecond uint8
	}{
		{name: "the same", inner: ect, outer: ect, arrive: []int{300}},
		{name: "congestion", inner: ect, outer: ce, arrive: []int{100, 100, 100}, tosOfSecond: ce},
		{name: "congestion without ECN", outer: ce, arrive: []int{100, 100}, drops: apply.Drops{Malformed: 1}},
		{name: "another next header", next: esp.NextIPv6, arrive: []int{100, 100}, drops: apply.Drops{Malformed: 1}},
		{name: "another SA", spi: wireSPI + 8, arrive: []int{100, 100}, drops: apply.Drops{Selectors: 1}},
		{name: "octets behind it", pad: 8, arrive: []int{300}},
		{name: "a port", flow: func(f *packet.Flow) { f.DstPort++ }, arrive: []int{100, 100, 100}},
		{name: "an address that is not the policy's", flow: func(f *packet.Flow) { f.Src[0]++ }, arrive: []int{100, 100}, drops: apply.Drops{Selectors: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWire(t, nil)
			other := inSA(wireSPI + 8)
			other.Src, other.Dst, other.ReqID, other.Encap = w.got.place.Load().src, w.got.place.Load().dst, 99, w.got.place.Load().encap
			must(t, w.to.InstallSA(other))
			in := w.worker.in
			in.begin()
			for i := range 3 {
				flow, tos, next, spi := leaves, c.inner&ect, uint8(esp.NextIPv4), uint32(wireSPI)
				second := i == 1
				if second && c.flow != nil {
					c.flow(&flow)
				}
				b := segment(flow, c.inner, uint32(i*100))
				if second {
					tos = c.outer
					b = append(b, make([]byte, c.pad)...)
					if c.next != 0 {
						next = c.next
					}
					if c.spi != 0 {
						spi = c.spi
					}
				}
				sealed := w.sealOn(spi, uint64(i+1), b, next)
				in.message(w.got.path.Load().conn.Local, &outer.Message{Data: sealed, Size: len(sealed), TOS: tos}, true)
			}
			in.flush()
			drops := w.drops()
			if c.spi != 0 {
				u, err := w.to.Query(other.ID())
				must(t, err)
				drops = u.Drops
			}
			if drops != c.drops {
				t.Errorf("dropped %+v", drops)
			}
			for i, n := range c.arrive {
				_, b := w.read(w.into)
				if len(b) != 40+n {
					t.Fatalf("packet %d has %d octets", i, len(b))
				}
				want := c.inner
				if c.tosOfSecond != 0 && i == 1 {
					want = c.tosOfSecond
				}
				if b[1] != want {
					t.Errorf("packet %d has TOS %d", i, b[1])
				}
			}
			if _, b := w.read(w.into); b != nil {
				t.Errorf("one more: %x", b)
			}
		})
	}
}

// segment is a packet of TCP with 100 octets at a place of the stream.
func segment(f packet.Flow, tos uint8, at uint32) []byte {
	b := flow4(f, tos, bytes.Repeat([]byte{byte(at)}, 100))
	binary.BigEndian.PutUint32(b[24:], at)
	setChecksum(b)
	return b
}
