package packet

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// unhex leaves spaces out.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// IP headers in pieces that tests put together: IPv4 from 10.1.0.1 to 10.2.0.2,
// IPv6 from 2001:db8:1::1 to 2001:db8:2::2.
const (
	v4Addresses = "0a010001 0a020002"
	v6Addresses = "20010db8000100000000000000000001 20010db8000200000000000000000002"
	ports       = "1234 5678 "
)

func flow4(protocol uint8, src, dst uint16) Flow {
	return Flow{Src: [16]byte{10, 1, 0, 1}, Dst: [16]byte{10, 2, 0, 2}, Protocol: protocol, SrcPort: src, DstPort: dst}
}

func flow6(protocol uint8, src, dst uint16) Flow {
	return Flow{
		Src:      netip.MustParseAddr("2001:db8:1::1").As16(),
		Dst:      netip.MustParseAddr("2001:db8:2::2").As16(),
		Protocol: protocol, SrcPort: src, DstPort: dst, IPv6: true,
	}
}

var parses = []struct {
	name string
	hex  string
	want Header
}{
	{"UDP", "45 b8 0020 0001 0000 40 11 0000" + v4Addresses + ports + "000c 0000 01020304",
		Header{Flow: flow4(17, 0x1234, 0x5678), Len: 32, HeaderLen: 20, Transport: 20, TOS: 0xb8}},
	{"octets behind it", "45 00 001c 0001 0000 40 11 0000" + v4Addresses + ports + "0008 0000 ffffffff",
		Header{Flow: flow4(17, 0x1234, 0x5678), Len: 28, HeaderLen: 20, Transport: 20}},
	{"TCP, DF, options", "46 03 0020 0001 4000 40 06 0000" + v4Addresses + "94040000" + ports + "00000000",
		Header{Flow: flow4(6, 0x1234, 0x5678), Len: 32, HeaderLen: 24, Transport: 24, TOS: 3, DF: true}},
	{"ICMP", "45 00 001c 0001 4000 40 01 0000" + v4Addresses + "08 09 0000 00000000",
		Header{Flow: flow4(1, 8, 9), Len: 28, HeaderLen: 20, Transport: 20, DF: true}},
	{"first fragment", "45 00 001c 0001 2000 40 11 0000" + v4Addresses + ports + "0008 0000",
		Header{Flow: flow4(17, 0x1234, 0x5678), Len: 28, HeaderLen: 20, Transport: 20, More: true, ID: 1}},
	{"a later fragment", "45 00 001c 0001 2003 40 11 0000" + v4Addresses + ports + "0008 0000",
		Header{Flow: flow4(17, 0, 0), Len: 28, HeaderLen: 20, Transport: 20, More: true, Offset: 24, ID: 1}},
	{"the last fragment", "45 00 001c 0001 1fff 40 11 0000" + v4Addresses + ports + "0008 0000", Header{}},
	{"the last fragment that fits", "45 00 0007 0001 1ffe 40 11 0000" + v4Addresses, Header{}},
	{"no transport", "45 00 0014 0001 0000 40 11 0000" + v4Addresses,
		Header{Flow: flow4(17, 0, 0), Len: 20, HeaderLen: 20, Transport: 20}},
	{"half of the ports", "45 00 0017 0001 0000 40 11 0000" + v4Addresses + "123456",
		Header{Flow: flow4(17, 0, 0), Len: 23, HeaderLen: 20, Transport: 20}},
	{"GRE", "45 00 0018 0001 0000 40 2f 0000" + v4Addresses + ports,
		Header{Flow: flow4(47, 0, 0), Len: 24, HeaderLen: 20, Transport: 20}},
	{"short header", "44 00 0014 0001 0000 40 11 0000" + v4Addresses, Header{}},
	{"longer than the packet", "45 00 0015 0001 0000 40 11 0000" + v4Addresses, Header{}},
	{"shorter than its header", "46 00 0014 0001 0000 40 11 0000" + v4Addresses + "00000000", Header{}},
	{"cut off", "45 00 0014 0001 0000 40 11 0000 0a010001 0a0200", Header{}},
	{"nothing", "", Header{}},
	{"version 5", "55 00 0014 0001 0000 40 11 0000" + v4Addresses, Header{}},

	{"UDP over IPv6", "6b 8 00000 0008 11 40" + v6Addresses + ports + "0008 0000",
		Header{Flow: flow6(17, 0x1234, 0x5678), Len: 48, HeaderLen: 40, Transport: 40, TOS: 0xb8, DF: true}},
	{"ICMPv6", "60 0 00000 0008 3a 40" + v6Addresses + "80 00 0000 00000000 ff",
		Header{Flow: flow6(58, 128, 0), Len: 48, HeaderLen: 40, Transport: 40, DF: true}},
	{"mobility header", "60 0 00000 0008 87 40" + v6Addresses + "3b 00 05 00 0000 0000",
		Header{Flow: flow6(135, 5, 0), Len: 48, HeaderLen: 40, Transport: 40, DF: true}},
	{"extension headers", "60 0 00000 0028 00 40" + v6Addresses +
		"2b 00 050200000000" + "3c 01 0000000000000000 000000000000" + "06 00 010400000000" + ports + "00000000",
		Header{Flow: flow6(6, 0x1234, 0x5678), Len: 80, HeaderLen: 40, Transport: 72, DF: true}},
	{"IPv6: first fragment", "60 0 00000 0010 2c 40" + v6Addresses + "11 00 0001 87654321" + ports + "0008 0000",
		Header{Flow: flow6(17, 0x1234, 0x5678), Len: 56, HeaderLen: 40, Transport: 48, DF: true, More: true, ID: 0x87654321}},
	{"IPv6: a later fragment", "60 0 00000 0010 2c 40" + v6Addresses + "11 00 0019 00000001" + ports + "0008 0000",
		Header{Flow: flow6(17, 0, 0), Len: 56, HeaderLen: 40, Transport: 48, DF: true, More: true, Offset: 24, ID: 1}},
	{"IPv6: a later fragment of an extension header", "60 0 00000 0010 2c 40" + v6Addresses + "3c 00 0018 00000001" + "ffffffffffffffff",
		Header{Flow: flow6(60, 0, 0), Len: 56, HeaderLen: 40, Transport: 48, DF: true, Offset: 24, ID: 1}},
	{"IPv6: atomic fragment", "60 0 00000 0010 2c 40" + v6Addresses + "11 00 0000 00000001" + ports + "0008 0000",
		Header{Flow: flow6(17, 0x1234, 0x5678), Len: 56, HeaderLen: 40, Transport: 48, DF: true}},
	{"IPv6: fragment beyond the end", "60 0 00000 0010 2c 40" + v6Addresses + "11 00 fff8 00000001" + ports + "0008 0000", Header{}},
	{"IPv6: fragment of a fragment", "60 0 00000 0010 2c 40" + v6Addresses + "2c 00 0001 00000001" + "11 00 0001 00000001", Header{}},
	{"IPv6: ESP is not looked into", "60 0 00000 0008 32 40" + v6Addresses + ports + "00000000",
		Header{Flow: flow6(50, 0, 0), Len: 48, HeaderLen: 40, Transport: 40, DF: true}},
	{"IPv6: no next header", "60 0 00000 0000 3b 40" + v6Addresses,
		Header{Flow: flow6(59, 0, 0), Len: 40, HeaderLen: 40, Transport: 40, DF: true}},
	{"IPv6: extension header cut off", "60 0 00000 0007 00 40" + v6Addresses + "11 00 050200000000", Header{}},
	{"IPv6: extension header too long", "60 0 00000 0008 00 40" + v6Addresses + "11 01 050200000000", Header{}},
	{"IPv6: fragment header cut off", "60 0 00000 0004 2c 40" + v6Addresses + "11 00 0000", Header{}},
	{"IPv6: jumbogram", "60 0 00000 0000 00 40" + v6Addresses + "11 00 c204 00010000", Header{}},
	{"IPv6: as many extension headers as there may be", "60 0 00000 0040 3c 40" + v6Addresses +
		strings.Repeat("3c 00 010400000000", 7) + "11 00 010400000000",
		Header{Flow: flow6(17, 0, 0), Len: 104, HeaderLen: 40, Transport: 104, DF: true}},
	{"IPv6: too many extension headers", "60 0 00000 0048 3c 40" + v6Addresses +
		strings.Repeat("3c 00 010400000000", 8) + "11 00 010400000000", Header{}},
	{"IPv6: cut off", "60 0 00000 0008 11 40" + v6Addresses + ports, Header{}},
	{"IPv6: header cut off", "60 0 00000 0000 11 40 20010db8", Header{}},
}

func TestParse(t *testing.T) {
	for _, test := range parses {
		got, err := Parse(unhex(t, test.hex))
		if test.want == (Header{}) != errors.Is(err, ErrMalformed) || got != test.want {
			t.Errorf("%s:\n%+v, %v\nwant\n%+v", test.name, got, err, test.want)
		}
	}
}

func TestParseDoesNotAllocate(t *testing.T) {
	for _, test := range parses {
		b := unhex(t, test.hex)
		if n := testing.AllocsPerRun(10, func() { _, _ = Parse(b) }); n != 0 {
			t.Errorf("%s: %v allocations", test.name, n)
		}
	}
}

func TestPutHeader(t *testing.T) {
	for _, f := range []Flow{flow4(17, 0, 0), flow6(17, 0, 0)} {
		b := make([]byte, 100)
		n := PutHeader(b, f, 0xbb, 32)
		h, err := Parse(b[:n+32])
		want := Header{Flow: f, Len: n + 32, HeaderLen: n, Transport: n, TOS: 0xbb, DF: true}
		if err != nil || h != want {
			t.Errorf("%+v, %v, want %+v", h, err, want)
		}
		if !f.IPv6 && Sum(0).Add(b[:n]).Fold() != 0xffff {
			t.Error("the header's checksum is wrong")
		}
	}
}

// transportSum is 0xffff if the checksum is right.
func transportSum(b []byte, h Header) uint16 {
	addresses := b[12:20]
	if h.IPv6 {
		addresses = b[8:40]
	}
	t := b[h.Transport:h.Len]
	return slowSum(append(binary.BigEndian.AppendUint32(append([]byte{}, addresses...), uint32(len(t))), append([]byte{0, h.Protocol}, t...)...))
}

func TestSetChecksum(t *testing.T) {
	for name, at := range map[string]int{"UDP": 6, "TCP, DF, options": -1, "UDP over IPv6": 6, "ICMPv6": 2, "extension headers": -1} {
		for _, test := range parses {
			if test.name != name || at < 0 {
				continue
			}
			b := unhex(t, test.hex)
			h, err := Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			b[h.Transport+at] = 0x77 // some checksum
			SetChecksum(b, &h)
			if got := transportSum(b, h); got != 0xffff {
				t.Errorf("%s: the sum is %#04x", name, got)
			}
		}
	}
	tcp := make([]byte, 60)
	n := PutHeader(tcp, flow4(6, 0, 0), 0, 40)
	for i := n; i < len(tcp); i++ {
		tcp[i] = byte(i * i)
	}
	h, err := Parse(tcp)
	if err != nil {
		t.Fatal(err)
	}
	SetChecksum(tcp, &h)
	if got := transportSum(tcp, h); got != 0xffff {
		t.Errorf("TCP: the sum is %#04x", got)
	}
}

// Where there is no checksum, or not all that it covers, nothing changes.
func TestSetChecksumLeaves(t *testing.T) {
	for _, test := range parses {
		switch test.name {
		case "octets behind it", "first fragment", "a later fragment", "no transport", "half of the ports", "GRE", "ICMP",
			"TCP, DF, options", "IPv6: first fragment", "IPv6: a later fragment", "mobility header", "IPv6: ESP is not looked into":
			b := unhex(t, test.hex)
			h, err := Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			SetChecksum(b, &h)
			if got, want := hex.EncodeToString(b), hex.EncodeToString(unhex(t, test.hex)); got != want {
				t.Errorf("%s: changed to %s", test.name, got)
			}
		}
	}
}

// A sum of zero is sent as ones, for UDP alone: zero means that there is none.
func TestSetChecksumZero(t *testing.T) {
	for _, protocol := range []uint8{protoUDP, protoTCP} {
		b := make([]byte, 40)
		n := PutHeader(b, flow4(protocol, 0, 0), 0, 20)
		h, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		rest := PseudoHeader(b[12:20], protocol, 20).Checksum() // makes the sum 0xffff
		binary.BigEndian.PutUint16(b[n:], rest)
		at, want := n+16, uint16(0)
		if protocol == protoUDP {
			at, want = n+6, 0xffff
			b[at] = 1
		}
		SetChecksum(b, &h)
		if got := binary.BigEndian.Uint16(b[at:]); got != want {
			t.Errorf("protocol %d: %#04x, want %#04x", protocol, got, want)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	for _, test := range parses {
		switch test.name {
		case "UDP", "UDP over IPv6", "extension headers":
			b.Run(test.name, func(b *testing.B) {
				packet := unhex(b, test.hex)
				b.ReportAllocs()
				for b.Loop() {
					if _, err := Parse(packet); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
