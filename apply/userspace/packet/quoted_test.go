package packet

import (
	"net/netip"
	"testing"
)

func flowOf(src, dst string, sport, dport uint16, protocol uint8) Flow {
	f := Flow{SrcPort: sport, DstPort: dport, Protocol: protocol}
	a, b := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	f.IPv6 = a.Is6()
	copy(f.Src[:], a.AsSlice())
	copy(f.Dst[:], b.AsSlice())
	return f
}

// sent is a packet of a flow with n octets of transport header and payload.
func sent(f Flow, n int) []byte {
	b := make([]byte, 40+n)
	b = b[:PutHeader(b, f, 0, n)+n]
	t := b[len(b)-n:]
	t[0], t[1], t[2], t[3] = byte(f.SrcPort>>8), byte(f.SrcPort), byte(f.DstPort>>8), byte(f.DstPort)
	if hasTypeCode := f.Protocol == protoICMP || f.Protocol == protoICMPv6; hasTypeCode {
		t[0], t[1], t[2], t[3] = byte(f.SrcPort), byte(f.DstPort), 0, 0
	}
	return b
}

func TestQuoted(t *testing.T) {
	for _, c := range []struct{ sent, want Flow }{
		{flowOf("10.1.0.1", "10.2.0.1", 1000, 80, protoTCP), flowOf("10.2.0.1", "10.1.0.1", 80, 1000, protoTCP)},
		{flowOf("2001:db8::1", "2001:db8::2", 1000, 53, protoUDP), flowOf("2001:db8::2", "2001:db8::1", 53, 1000, protoUDP)},
		{flowOf("10.1.0.1", "10.2.0.1", 8, 0, protoICMP), flowOf("10.2.0.1", "10.1.0.1", 8, 0, protoICMP)},
	} {
		for _, n := range []int{8, 500, 1400} {
			b := sent(c.sent, n)
			h, err := Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			answer := AppendTooBig(nil, b, &h, 1280)
			ah, err := Parse(answer)
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := Quoted(answer, &ah); !ok || got != c.want {
				t.Errorf("%v: %v, %v; want %v", c.sent, got, ok, c.want)
			}
		}
	}
}

func TestQuotedRefuses(t *testing.T) {
	echo := sent(flowOf("10.1.0.1", "10.2.0.1", 8, 0, protoICMP), 60)
	short := sent(flowOf("10.1.0.1", "10.2.0.1", 3, 4, protoICMP), 20)
	none := sent(flowOf("10.1.0.1", "10.2.0.1", 3, 4, protoICMP), 7)
	tcp := sent(flowOf("10.1.0.1", "10.2.0.1", 3, 4, protoTCP), 60)
	mixed := append(sent(flowOf("10.1.0.1", "10.2.0.1", 3, 4, protoICMP), 68)[:28], sent(flowOf("::1", "::2", 1, 2, protoUDP), 20)...)
	for i, b := range [][]byte{echo, short, none, tcp, mixed} {
		h, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if f, ok := Quoted(b, &h); ok {
			t.Errorf("packet %d quotes %v", i, f)
		}
	}
}

func TestQuotedDoesNotAllocate(t *testing.T) {
	b := sent(flowOf("10.1.0.1", "10.2.0.1", 1000, 80, protoTCP), 500)
	h, _ := Parse(b)
	answer := AppendTooBig(nil, b, &h, 1280)
	ah, _ := Parse(answer)
	if n := testing.AllocsPerRun(100, func() { Quoted(answer, &ah) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
