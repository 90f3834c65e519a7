package userspace

import (
	"bytes"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
	"ipsec-quick/apply/userspace/esp"
	"ipsec-quick/apply/userspace/offload"
	"ipsec-quick/apply/userspace/packet"
)

// A super-packet becomes a train, and comes out as the super-packet that it was.
func TestSuperPacketGoesThrough(t *testing.T) {
	w := newWire(t, nil)
	h, b := super4(leaves, 1000, 30500)
	want := bytes.Clone(b)
	w.put(h, b)
	gotH, got := w.take()
	if gotH != h || !bytes.Equal(got, want) {
		t.Errorf("%+v, %d octets; want %+v, %d", gotH, len(got), h, len(want))
	}
	if _, more := w.take(); more != nil {
		t.Errorf("%d octets more", len(more))
	}
	for _, p := range []*Plane{w.from, w.to} {
		u, err := p.Query(w.sent.id())
		must(t, err)
		if u.Packets != 31 || u.Bytes != uint64(30500+31*40) {
			t.Errorf("%d packets, %d octets", u.Packets, u.Bytes)
		}
	}
}

// Packets of different kinds in one batch arrive in their order.
func TestMixedPackets(t *testing.T) {
	w := newWire(t, nil)
	udp := leaves
	udp.Protocol = unix.IPPROTO_UDP
	want := [][]byte{
		flow4(leaves, 0, make([]byte, 100)), flow4(udp, 0x28, make([]byte, 500)), flow4(udp, 0x28, make([]byte, 501)),
		flow4(udp, 0, make([]byte, 1)), flow4(leaves, 0, nil), flow4(udp, 2, make([]byte, 1400)),
	}
	for _, b := range want {
		super := make([]byte, offload.HeaderLen+len(b), offload.HeaderLen+len(b)+esp.MaxTrailer)
		copy(super[offload.HeaderLen:], b)
		w.out.superPacket(super)
	}
	w.out.send()
	for i := range want {
		if h, got := w.take(); h != (offload.Header{}) || !bytes.Equal(got, want[i]) {
			t.Errorf("packet %d: %+v\n%x, want\n%x", i, h, got, want[i])
		}
	}
}

// The hard limit is exact within a super-packet.
func TestHardLimitWithinSuperPacket(t *testing.T) {
	w := newWire(t, func(sa *apply.SA) { sa.Hard.Packets = 7 })
	w.put(super4(leaves, 1000, 30000))
	_, got := w.take()
	if len(got) != 40+7*1000 {
		t.Errorf("%d octets came out, want 7 segments", len(got))
	}
	w.put(super4(leaves, 1000, 1000))
	if _, got := w.take(); got != nil {
		t.Error("a packet behind the hard limit")
	}
}

func TestInboundCausesOfDrops(t *testing.T) {
	w := newWire(t, nil)
	inside, outside := flow4(leaves, 0, []byte("inside")), leaves
	outside.Dst[1] = 99
	sealed := w.seal(inside, esp.NextIPv4)
	for _, c := range []struct {
		name     string
		datagram []byte
		tos      uint8
		want     apply.Drops
		unknown  uint64
	}{
		{"forged", append(bytes.Clone(sealed[:len(sealed)-1]), sealed[len(sealed)-1]^1), 0, apply.Drops{Forged: 1}, 0},
		{"truncated", sealed[:len(sealed)-1], 0, apply.Drops{Malformed: 1}, 0},
		{"header only", sealed[:8], 0, apply.Drops{Malformed: 1}, 0},
		{"no SPI", sealed[:7], 0, apply.Drops{}, 1},
		{"other SPI", append([]byte{1, 2, 3, 4}, sealed[4:]...), 0, apply.Drops{}, 1},
		{"keepalive", []byte{0xff}, 0, apply.Drops{}, 0},
		{"one octet", []byte{0xfe}, 0, apply.Drops{}, 1},
		{"outside the selectors", w.seal(flow4(outside, 0, nil), esp.NextIPv4), 0, apply.Drops{Selectors: 1}, 0},
		{"no IP", w.seal([]byte("no IP at all, but long enough for a header"), esp.NextIPv4), 0, apply.Drops{Malformed: 1}, 0},
		{"longer than it is", w.seal(inside[:len(inside)-1], esp.NextIPv4), 0, apply.Drops{Malformed: 1}, 0},
		{"IPv4 as IPv6", w.seal(inside, esp.NextIPv6), 0, apply.Drops{Malformed: 1}, 0},
		{"TCP as it is", w.seal(inside, unix.IPPROTO_TCP), 0, apply.Drops{Malformed: 1}, 0},
		{"dummy", w.seal(inside, esp.NextNone), 0, apply.Drops{}, 0},
		{"congestion that cannot be told", w.seal(inside, esp.NextIPv4), 3, apply.Drops{Malformed: 1}, 0},
	} {
		before, unknown := w.drops(), w.to.Unknown()
		w.datagram(c.datagram, c.tos)
		if _, got := w.take(); got != nil {
			t.Errorf("%s: %x came out", c.name, got)
		}
		d := w.drops()
		d.Forged -= before.Forged
		d.Replayed -= before.Replayed
		d.Malformed -= before.Malformed
		d.Selectors -= before.Selectors
		if d != c.want || w.to.Unknown()-unknown != c.unknown {
			t.Errorf("%s: %+v, %d unknown; want %+v, %d", c.name, d, w.to.Unknown()-unknown, c.want, c.unknown)
		}
	}
	for i, replays := range []uint64{0, 1, 2} {
		w.datagram(sealed, 0)
		if _, got := w.take(); (got != nil) != (i == 0) || w.drops().Replayed != replays {
			t.Errorf("time %d: %d octets, %d replayed", i, len(got), w.drops().Replayed)
		}
	}
}

// In a train the packets before and behind a bad one arrive.
func TestBadPacketInTrain(t *testing.T) {
	w := newWire(t, nil)
	b := flow4(leaves, 0, make([]byte, 200))
	var train [][]byte
	for range 5 {
		train = append(train, w.seal(b, esp.NextIPv4))
	}
	train[2][20] ^= 1
	batch := w.out.batch
	for _, d := range train {
		batch.Add(copy(batch.Next()[:len(d)], d), 0, false)
	}
	must(t, w.sent.path.Load().conn.Send(batch))
	n := 0
	for _, got := w.take(); got != nil; _, got = w.read(w.into) {
		n++
	}
	if n != 4 || w.drops() != (apply.Drops{Forged: 1}) {
		t.Errorf("%d packets came out, dropped %+v", n, w.drops())
	}
}

func TestIKEBesideESP(t *testing.T) {
	w := newWire(t, nil)
	w.datagram([]byte("\x00\x00\x00\x00an IKE message"), 0)
	w.datagram(w.seal(flow4(leaves, 0, nil), esp.NextIPv4), 0)
	if _, got := w.take(); got == nil {
		t.Error("ESP behind IKE did not arrive")
	}
	if len(w.ike) != 1 || w.ike[0] != "127.0.0.1 an IKE message" {
		t.Errorf("IKE messages %q", w.ike)
	}
}

// What is of no SA here may be another tunnel's.
func TestStray(t *testing.T) {
	w := newWire(t, nil)
	var strays []string
	take := false
	w.worker.in.stray = func(_, remote netip.AddrPort, data []byte) bool {
		strays = append(strays, remote.Addr().String()+" "+string(data))
		return take
	}
	for i, took := range []bool{false, true} {
		take = took
		w.datagram([]byte("an ESP packet"), 0)
		if _, got := w.take(); got != nil || w.to.Unknown() != 1 || len(strays) != i+1 || strays[i] != "127.0.0.1 an ESP packet" {
			t.Errorf("taken %v: %q, %d unknown", took, strays, w.to.Unknown())
		}
	}
}

// RFC 6040, Figure 4, where the inner packet is changed; and DSCP goes out.
func TestTOS(t *testing.T) {
	w := newWire(t, nil)
	for _, c := range []struct{ inner, outer, want uint8 }{
		{0x28, 0x28, 0x28}, {0x2a, 0x2b, 0x2b}, {0x29, 0x2a, 0x29}, {0x2a, 0x29, 0x29}, {2, 0, 2}, {3, 2, 3},
	} {
		w.datagram(w.seal(flow4(leaves, c.inner, nil), esp.NextIPv4), c.outer)
		if _, got := w.take(); !bytes.Equal(got, flow4(leaves, c.want, nil)) {
			t.Errorf("%#x in %#x: %x", c.inner, c.outer, got)
		}
	}
	w.put(offload.Header{}, flow4(leaves, 0x2a, nil))
	if n, err := w.got.path.Load().conn.Receive(w.worker.receiver); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if m := w.got.path.Load().conn.Message(w.worker.receiver, 0); m.TOS != 0x2a {
		t.Errorf("outer TOS %#x, want that of the inner packet", m.TOS)
	}
}

func TestTooLong(t *testing.T) {
	w := newWire(t, nil)
	most := w.sent.transform.MaxPayload(w.sent.path.Load().conn.MaxPacket())
	w.put(offload.Header{}, flow4(leaves, 0, make([]byte, most-40)))
	if _, got := w.take(); len(got) != most {
		t.Fatalf("%d octets of the longest packet that fits, %d", len(got), most)
	}
	w.put(offload.Header{}, flow4(leaves, 0, make([]byte, most-39)))
	if _, got := w.take(); got != nil {
		t.Error("a packet that is too long went out")
	}
	_, answer := w.read(w.back)
	h, err := packet.Parse(answer)
	must(t, err)
	const unreachable, fragmentationNeeded = 3, 4
	if h.Protocol != unix.IPPROTO_ICMP || h.SrcPort != unreachable || h.DstPort != fragmentationNeeded || h.Dst != leaves.Src ||
		int(answer[26])<<8+int(answer[27]) != most {
		t.Errorf("answer %x", answer)
	}
	w.out.answered += 1e12 // as if it were just now
	w.put(offload.Header{}, flow4(leaves, 0, make([]byte, most-39)))
	if _, again := w.read(w.back); again != nil {
		t.Error("answered again at once")
	}
}

func TestFragments(t *testing.T) {
	w := newWire(t, nil)
	most := w.sent.transform.MaxPayload(w.sent.path.Load().conn.MaxPacket())
	udp := leaves
	udp.Protocol = unix.IPPROTO_UDP
	b := flow4(udp, 0, bytes.Repeat([]byte{5}, most-20))
	b[6] = 0 // may be fragmented
	w.put(offload.Header{}, b)
	var data []byte
	for n := 0; ; n++ {
		_, got := w.take()
		if got == nil {
			if n != 2 {
				t.Errorf("%d fragments, want 2", n)
			}
			break
		}
		h, err := packet.Parse(got)
		must(t, err)
		if h.Len > most || h.Offset != len(data) {
			t.Errorf("fragment of %d octets at %d", h.Len, h.Offset)
		}
		data = append(data, got[h.HeaderLen:]...)
	}
	if !bytes.Equal(data, b[20:]) {
		t.Error("the fragments are not the packet")
	}
}

func TestTransportMode(t *testing.T) {
	for _, encap := range []bool{true, false} {
		if !encap && unix.Getuid() != 0 {
			continue
		}
		w := newWire(t, func(sa *apply.SA) {
			sa.Mode = apply.Transport
			if !encap {
				sa.Encap = nil
			}
		})
		f := leaves
		copy(f.Src[:], []byte{127, 0, 0, 1})
		copy(f.Dst[:], []byte{127, 0, 0, 2})
		h, b := super4(f, 1000, 15000)
		want := bytes.Clone(b)
		w.put(h, b)
		// The ID of a header that is made anew is zero.
		if gotH, got := w.take(); gotH != h || !bytes.Equal(got, want) {
			t.Errorf("encap %v: %+v, %d octets; want %+v, %d", encap, gotH, len(got), h, len(want))
		}
		var several [][]byte
		for i := range byte(10) {
			b := flow4(f, 0, bytes.Repeat([]byte{i}, 100))
			several = append(several, b)
			w.datagram(w.seal(b[20:], f.Protocol), 0)
		}
		_, got := w.take()
		for i, want := range several {
			if !bytes.Equal(got, want) {
				t.Errorf("encap %v: packet %d is %x", encap, i, got)
			}
			_, got = w.read(w.into)
		}
		fragment := flow4(f, 0, make([]byte, 100))
		fragment[6] = 0x20
		w.put(offload.Header{}, fragment)
		if _, got := w.take(); got != nil {
			t.Errorf("encap %v: a fragment went out", encap)
		}
	}
}

// An ICMP error comes out of the tunnel for a packet that went in.
func TestICMPErrorFromBehindTheTunnel(t *testing.T) {
	w := newWire(t, nil)
	answered := enters // what the receiver's side sent
	b := flow4(answered, 0, make([]byte, 1000))
	h, err := packet.Parse(b)
	must(t, err)
	answer := packet.AppendTooBig(nil, b, &h, 1000)
	copy(answer[12:16], []byte{203, 0, 113, 1}) // from a router somewhere behind
	w.datagram(w.seal(answer, esp.NextIPv4), 0)
	if _, got := w.take(); !bytes.Equal(got, answer) {
		t.Errorf("it does not come out: %+v", w.drops())
	}
	elsewhere := bytes.Clone(answer)
	copy(elsewhere[16:20], []byte{192, 168, 9, 9}) // not to who sent what it quotes
	w.datagram(w.seal(elsewhere, esp.NextIPv4), 0)
	if _, got := w.take(); got != nil || w.drops().Selectors != 1 {
		t.Errorf("it comes out to another host: %x, %+v", got, w.drops())
	}
	answer[20+8+12] = 99 // of a packet that was never sent into the tunnel
	w.datagram(w.seal(answer, esp.NextIPv4), 0)
	if _, got := w.take(); got != nil || w.drops().Selectors != 2 {
		t.Errorf("it comes out: %x, %+v", got, w.drops())
	}
}

// No policy, no SA, an SA that has gone.
func TestOutboundDrops(t *testing.T) {
	w := newWire(t, nil)
	outside := leaves
	outside.Dst[1] = 99
	w.put(offload.Header{}, flow4(outside, 0, nil))
	w.put(offload.Header{}, []byte{1, 2, 3})
	w.put(offload.Header{Kind: offload.TCP4}, flow4(leaves, 0, []byte{1}))
	must(t, w.from.RemoveSA(w.sent.id()))
	for range 2 {
		w.put(offload.Header{}, flow4(leaves, 0, nil))
	}
	want := apply.Acquire{ReqID: 7, Local: w.from.tables.Load().entries[0].policy.Local, Remote: w.from.tables.Load().entries[0].policy.Remote, Packet: packetSelector(leaves)}
	wantEvent(t, w.from, want)
	none(t, w.from)
	if _, got := w.take(); got != nil {
		t.Errorf("%x went out", got)
	}
}

// What comes to an IKE socket from an address that a NAT gave the peer anew.
func TestReceiveFromNewAddress(t *testing.T) {
	w := newWire(t, nil)
	ws := w.worker.in.w
	ws.received = newInbound(ws)
	sealed := w.seal(flow4(leaves, 0, nil), esp.NextIPv4)
	local := w.got.path.Load().conn.Local
	from := w.got.path.Load().conn.Remote
	moved := netip.AddrPortFrom(from.Addr(), from.Port()+1)
	forged := bytes.Clone(sealed)
	forged[12] ^= 1
	ws.receive(local, moved, forged)
	none(t, w.to)
	ws.receive(local, moved, sealed)
	if _, got := w.read(w.into); got == nil {
		t.Error("it did not come out")
	}
	wantEvent(t, w.to, apply.Mapping{SAID: w.got.id(), ReqID: 7, New: moved})
	ws.receive(local, from, w.seal(flow4(leaves, 0, nil), esp.NextIPv4))
	none(t, w.to)
}

func TestStepsDoNotAllocate(t *testing.T) {
	w := newWire(t, nil)
	h, b := super4(leaves, 1360, 40*1360)
	super := make([]byte, offload.HeaderLen+len(b), offload.HeaderLen+len(b)+esp.MaxTrailer)
	single := flow4(leaves, 0, make([]byte, 100))
	alone := make([]byte, offload.HeaderLen+len(single), offload.HeaderLen+len(single)+esp.MaxTrailer)
	step := func() {
		h.Put(super)
		copy(super[offload.HeaderLen:], b)
		copy(alone[offload.HeaderLen:], single)
		w.out.superPacket(alone)
		w.out.superPacket(super)
		w.out.send()
		w.worker.drain(w.got.path.Load())
		for {
			if _, err := unix.Read(w.into, w.buffer); err != nil {
				break
			}
		}
	}
	if n := testing.AllocsPerRun(200, step); n != 0 {
		t.Errorf("%v allocations for 41 packets", n)
	}
	if u, err := w.to.Query(w.got.id()); err != nil || u.Packets != 201*41 {
		t.Errorf("%d packets arrived, error %v", u.Packets, err)
	}
}
