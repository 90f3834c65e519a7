package packet

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// FuzzParse gives Parse any octets. What it takes, the other functions work on
// within bounds, and their packets parse.
func FuzzParse(f *testing.F) {
	for _, test := range parses {
		f.Add(unhex(f, test.hex), uint8(0x29))
	}
	f.Fuzz(func(t *testing.T, b []byte, tos uint8) {
		before := bytes.Clone(b)
		h, err := Parse(b)
		if err != nil {
			if h != (Header{}) {
				t.Fatalf("%v and %+v", err, h)
			}
			return
		}
		if h.HeaderLen < IPv4Len || h.HeaderLen > h.Transport || h.Transport > h.Len || h.Len > len(b) || h.Offset > 0xffff {
			t.Fatalf("out of bounds: %+v", h)
		}
		// The packet alone is the same, and without its last octet is none.
		if again, err := Parse(b[:h.Len]); err != nil || again != h {
			t.Fatalf("%+v without what is behind it, %v, want %+v", again, err, h)
		}
		if again, err := Parse(b[:h.Len-1]); err == nil {
			t.Fatalf("parsed cut off: %+v", again)
		}
		Quoted(b, &h)
		if !bytes.Equal(b, before) {
			t.Fatal("Parse or Quoted changed the packet")
		}

		SetChecksum(b, &h)
		if !bytes.Equal(b[:h.Transport], before[:h.Transport]) || !bytes.Equal(b[h.Len:], before[h.Len:]) {
			t.Fatal("SetChecksum changed more than the transport's header")
		}
		SetTOS(b, tos)
		want := h
		want.TOS = tos
		if again, err := Parse(b); err != nil || again != want {
			t.Fatalf("with another TOS: %+v, %v, want %+v", again, err, want)
		}
	})
}

// FuzzFragment: fragments of any packet are within the MTU, and together they are
// the packet.
func FuzzFragment(f *testing.F) {
	f.Add(packet4(200, ""), uint16(100))
	f.Add(packet4(100, "\x83\x03\x04\x94\x04\x00\x00\x00"), uint16(0))
	f.Add(packet4(3000, "\x07\x07\x04\x00\x00\x00\x00\x01"), uint16(1500))
	f.Fuzz(func(t *testing.T, b []byte, mtu uint16) {
		h, err := Parse(b)
		if err != nil || h.IPv6 {
			return
		}
		before := bytes.Clone(b)
		all := fragments(t, b, h, int(mtu))
		header, data, last := reassemble(t, all)
		if !bytes.Equal(b, before) {
			t.Fatal("the packet was changed")
		}
		// All but length, flags and checksum is as it was.
		want := bytes.Clone(b[:h.HeaderLen])
		copy(want[2:4], header[2:4])
		copy(want[6:8], header[6:8])
		copy(want[10:12], header[10:12])
		if !bytes.Equal(header, want) || !bytes.Equal(data, b[h.HeaderLen:h.Len]) {
			t.Fatalf("%x\nis\n%x%x", b[:h.Len], header, data)
		}
		if last.More != h.More || last.Offset != h.Offset {
			t.Fatalf("%+v, want %+v", last, h)
		}
	})
}

// FuzzTooBig: an answer is a whole packet to the sender, with right checksums,
// not longer than RFCs allow, and itself never answered.
func FuzzTooBig(f *testing.F) {
	for _, test := range parses {
		f.Add(unhex(f, test.hex), uint32(1400))
	}
	f.Add(packet4(1400, ""), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, mtu uint32) {
		h, err := Parse(b)
		if err != nil {
			return
		}
		before := bytes.Clone(b)
		answer := AppendTooBig([]byte("head"), b, &h, int(mtu))
		if !bytes.Equal(b, before) || string(answer[:4]) != "head" {
			t.Fatal("something else was changed")
		}
		if answer = answer[4:]; len(answer) == 0 {
			return
		}
		a, err := Parse(answer)
		if err != nil || a.Src != h.Dst || a.Dst != h.Src || a.IPv6 != h.IPv6 || a.Len != len(answer) || a.IsFragment() {
			t.Fatalf("%+v, %v, an answer to %+v", a, err, h)
		}
		sum, longest := slowSum(answer[a.Transport:]), 576
		if a.IPv6 {
			sum, longest = transportSum(answer, a), 1280
		} else if slowSum(answer[:20]) != 0xffff {
			t.Fatal("the header's checksum is wrong")
		}
		if sum != 0xffff || len(answer) > longest {
			t.Fatalf("%d octets, sum %#04x", len(answer), sum)
		}
		if quote := answer[a.Transport+8:]; !bytes.HasPrefix(b[:h.Len], quote) || len(quote) < min(h.Len, IPv6Len) {
			t.Fatalf("%x quotes %x", answer, b)
		}
		told := int(binary.BigEndian.Uint32(answer[a.Transport+4:]))
		if told < minMTU || !a.IPv6 && told > 0xffff || int(mtu) >= minMTUv6 && int(mtu) <= 0xffff && told != int(mtu) {
			t.Fatalf("MTU %d told as %d", mtu, told)
		}
		if again := AppendTooBig(nil, answer, &a, int(mtu)); len(again) > 0 {
			t.Fatal("an error is answered with an error")
		}
	})
}
