package esp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// fuzzed is one of all transforms, without ESN and with it.
type fuzzed struct {
	suite
	esn bool
	tr  *Transform
}

func allTransforms(f *testing.F) []fuzzed {
	var all []fuzzed
	for _, suite := range suites {
		for _, esn := range []bool{false, true} {
			all = append(all, fuzzed{suite, esn, suite.transform(f, esn)})
		}
	}
	return all
}

// within is b in the middle of a buffer, and a check that nothing around it changed.
func within(b []byte) (middle []byte, intact func() bool) {
	const guard = 64
	around := bytes.Repeat([]byte{0xa5}, guard)
	buffer := bytes.Join([][]byte{around, b, around}, nil)
	return buffer[guard : guard+len(b) : guard+len(b)], func() bool {
		return bytes.Equal(buffer[:guard], around) && bytes.Equal(buffer[guard+len(b):], around)
	}
}

// FuzzOpen gives Open octets as they come, which are no packet but by a miracle,
// and then the packet of a peer whose body they are.
func FuzzOpen(f *testing.F) {
	all := allTransforms(f)
	for i := range all {
		f.Add(uint8(i), uint64(1), bytes.Repeat([]byte{byte(i)}, 64))
		f.Add(uint8(i), uint64(1)<<32, []byte("\x45 and so on\x01\x02\x03\x03\x04"))
	}
	f.Fuzz(func(t *testing.T, which uint8, seq uint64, data []byte) {
		x := all[int(which)%len(all)]
		var s Scratch
		packet, intact := within(data)
		got, _, err := x.tr.Open(&s, nil, packet, seq)
		if !errors.Is(err, ErrForged) && !errors.Is(err, ErrMalformed) || got != nil {
			t.Fatalf("%v: opened %x: %x, %v", x.suite, data, got, err)
		}
		if !intact() {
			t.Fatalf("%v: Open wrote outside of the packet", x.suite)
		}

		body := data[:len(data)/x.align*x.align]
		if len(body) == 0 {
			return
		}
		iv := make([]byte, x.iv)
		binary.BigEndian.PutUint64(iv, seq)
		packet, intact = within(reference(t, x.suite, x.esn, 0x100, seq, iv, body))
		got, next, err := x.tr.Open(&s, nil, packet, seq)
		want, ok := trailer(body)
		if ok != (err == nil) || !bytes.Equal(got, want) || ok && next != body[len(body)-1] {
			t.Fatalf("%v: body %x: opened %x, next header %d, %v", x.suite, body, got, next, err)
		}
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("%v: body %x: %v", x.suite, body, err)
		}
		if !intact() {
			t.Fatalf("%v: Open wrote outside of the packet", x.suite)
		}
	})
}

// trailer finds the payload from the front: the one place where padding, its
// length and the next header fit what is left.
func trailer(body []byte) ([]byte, bool) {
	for n := max(0, len(body)-2-255); n <= len(body)-2; n++ {
		pad := countTo(len(body) - 2 - n)
		if string(body[n:len(body)-1]) == pad+string([]byte{byte(len(pad))}) {
			return body[:n], true
		}
	}
	return nil, false
}

// FuzzSeal: what is sealed is what the reference makes of it, is opened as what it
// was, and is nothing any more with one bit changed.
func FuzzSeal(f *testing.F) {
	all := allTransforms(f)
	for i := range all {
		f.Add(uint8(i), uint32(256), uint64(i)<<30, uint8(NextIPv4), uint16(i), []byte("payload")[:i%8])
	}
	f.Fuzz(func(t *testing.T, which uint8, spi uint32, seq uint64, next uint8, flip uint16, data []byte) {
		x := all[int(which)%len(all)]
		if !x.esn {
			seq &= 0xffffffff
		}
		var s Scratch
		src, intact := within(append(bytes.Clone(data), make([]byte, MaxTrailer)...))
		dst, around := within(make([]byte, x.tr.Len(len(data))))
		packet := x.tr.Seal(&s, dst[:0], spi, seq, src[:len(data)], next)
		if !bytes.Equal(src, append(bytes.Clone(data), make([]byte, MaxTrailer)...)) || !intact() || !around() {
			t.Fatalf("%v: Seal changed more than dst", x.suite)
		}
		if most := x.tr.MaxPayload(len(packet)); len(packet) != x.tr.Len(len(data)) || most < len(data) || x.tr.Len(most) != len(packet) {
			t.Fatalf("%v: %d octets in %d, MaxPayload %d", x.suite, len(data), len(packet), most)
		}

		body := bytes.Clone(data)
		for pad := 1; (len(body)+2)%x.align != 0; pad++ {
			body = append(body, byte(pad))
		}
		body = append(body, byte(len(body)-len(data)), next)
		if want := reference(t, x.suite, x.esn, spi, seq, packet[8:8+x.iv], body); !bytes.Equal(packet, want) {
			t.Fatalf("%v:\n%x\nwant\n%x", x.suite, packet, want)
		}

		forged := bytes.Clone(packet)
		forged[int(flip/8)%len(forged)] ^= 1 << (flip % 8)
		if _, _, err := x.tr.Open(&s, nil, forged, seq&^0xffffffff|uint64(binary.BigEndian.Uint32(forged[4:]))); !errors.Is(err, ErrForged) {
			t.Fatalf("%v: bit %d changed: %v", x.suite, flip, err)
		}
		got, gotNext, err := x.tr.Open(&s, nil, packet, seq)
		if err != nil || gotNext != next || !bytes.Equal(got, data) {
			t.Fatalf("%v: opened %x, next header %d, %v", x.suite, got, gotNext, err)
		}
	})
}

// FuzzWindow runs steps of a script against the model: three octets are a step
// back or ahead from the top.
func FuzzWindow(f *testing.F) {
	f.Add(uint16(64), uint64(0), []byte{0, 0, 1, 0, 0, 1, 0x80, 0, 1})
	f.Add(uint16(0), uint64(1)<<32-2, []byte{0, 0, 1, 0, 0, 3, 0x80, 0, 2, 0x80, 0, 2})
	f.Add(uint16(4096), uint64(1)<<33, []byte{0, 0x10, 1, 0x80, 0x0f, 0xff, 0x80, 0x10, 0, 0x7f, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, size uint16, top uint64, script []byte) {
		window := max(1, uint32(size)%(MaxWindow+1))
		top &= 1<<63 - 1
		w, m := newWindow(window, true), &model{seen: map[uint64]bool{}, size: uint64(window)}
		if w.Accept(top) != m.accept(top) {
			t.Fatalf("first packet %d", top)
		}
		for ; len(script) >= 3; script = script[3:] {
			step := uint64(script[0]&0x7f)<<16 | uint64(script[1])<<8 | uint64(script[2])
			seq := m.top + step
			if script[0]&0x80 != 0 {
				seq = m.top - min(step, m.top)
			}
			// What is in the window or less than half of a subspace ahead is told from
			// its lower half.
			if seq+uint64(window) > m.top {
				if got := w.Infer(uint32(seq)); got != seq {
					t.Fatalf("window %d, top %#x: %#x taken for %#x", window, m.top, seq, got)
				}
			}
			before := m.top
			check, want := w.Check(seq), m.accept(seq)
			if got := w.Accept(seq); got != want || check != want {
				t.Fatalf("window %d, top %#x, packet %#x: checked %v, accepted %v, want %v", window, before, seq, check, got, want)
			}
		}
	})
}
