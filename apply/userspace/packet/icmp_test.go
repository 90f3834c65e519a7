package packet

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
)

func TestTooBigIPv4(t *testing.T) {
	for _, n := range []int{28, 100, 1500, 65000} {
		b := make([]byte, n)
		PutHeader(b, flow4(17, 0, 0), 0, n-20)
		copy(b[20:], "\x12\x34\x56\x78")
		h, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		before := bytes.Clone(b)
		answer := AppendTooBig([]byte("head"), b, &h, 1400)[4:]
		if !bytes.Equal(b, before) {
			t.Error("the packet was changed")
		}
		quote := min(n, 576-28)
		got, err := Parse(answer)
		want := Header{
			Flow: Flow{Src: h.Dst, Dst: h.Src, Protocol: 1, SrcPort: 3, DstPort: 4},
			Len:  28 + quote, HeaderLen: 20, Transport: 20, TOS: 0xc0, DF: true,
		}
		if err != nil || got != want || len(answer) != want.Len {
			t.Errorf("%d octets: %+v, %v, want %+v", n, got, err, want)
		}
		if Sum(0).Add(answer[:20]).Fold() != 0xffff || Sum(0).Add(answer[20:]).Fold() != 0xffff {
			t.Errorf("%d octets: a checksum is wrong", n)
		}
		if mtu := binary.BigEndian.Uint16(answer[26:]); mtu != 1400 {
			t.Errorf("%d octets: MTU %d", n, mtu)
		}
		if !bytes.Equal(answer[28:], b[:quote]) {
			t.Errorf("%d octets: something else is quoted", n)
		}
	}
}

func TestTooBigIPv6(t *testing.T) {
	for _, n := range []int{48, 1500, 65000} {
		b := make([]byte, n)
		PutHeader(b, flow6(6, 0, 0), 0, n-40)
		h, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		for mtu, told := range map[int]uint32{1000: 1280, 1280: 1280, 1400: 1400, 70000: 70000} {
			answer := AppendTooBig(nil, b, &h, mtu)
			quote := min(n, 1280-48)
			got, err := Parse(answer)
			want := Header{
				Flow: Flow{Src: h.Dst, Dst: h.Src, Protocol: 58, SrcPort: 2, DstPort: 0, IPv6: true},
				Len:  48 + quote, HeaderLen: 40, Transport: 40, DF: true,
			}
			if err != nil || got != want || len(answer) != want.Len {
				t.Errorf("%d octets: %+v, %v, want %+v", n, got, err, want)
			}
			if sum := transportSum(answer, got); sum != 0xffff {
				t.Errorf("%d octets: sum %#04x", n, sum)
			}
			if got := binary.BigEndian.Uint32(answer[44:]); got != told {
				t.Errorf("%d octets, MTU %d: told %d", n, mtu, got)
			}
			if !bytes.Equal(answer[48:], b[:quote]) {
				t.Errorf("%d octets: something else is quoted", n)
			}
		}
	}
}

// What no ICMP error answers, beside packets that one does.
func TestTooBigAnswers(t *testing.T) {
	four := func(src, dst, rest string) string {
		a, b := netip.MustParseAddr(src).As4(), netip.MustParseAddr(dst).As4()
		return string(append(a[:], b[:]...)) + rest
	}
	for _, test := range []struct {
		name     string
		protocol byte
		flags    uint16
		rest     string // from the addresses on
		want     bool
	}{
		{"UDP", 17, 0x4000, four("10.1.0.1", "10.2.0.2", ""), true},
		{"first fragment", 17, 0x6000, four("10.1.0.1", "10.2.0.2", ""), true},
		{"a later fragment", 17, 0x4001, four("10.1.0.1", "10.2.0.2", ""), false},
		{"echo request", 1, 0x4000, four("10.1.0.1", "10.2.0.2", "\x08\x00"), true},
		{"echo reply", 1, 0x4000, four("10.1.0.1", "10.2.0.2", "\x00\x00"), true},
		{"unreachable", 1, 0x4000, four("10.1.0.1", "10.2.0.2", "\x03\x04"), false},
		{"source quench", 1, 0x4000, four("10.1.0.1", "10.2.0.2", "\x04\x00"), false},
		{"redirect", 1, 0x4000, four("10.1.0.1", "10.2.0.2", "\x05\x00"), false},
		{"time exceeded", 1, 0x4000, four("10.1.0.1", "10.2.0.2", "\x0b\x00"), false},
		{"parameter problem", 1, 0x4000, four("10.1.0.1", "10.2.0.2", "\x0c\x00"), false},
		{"to many", 17, 0x4000, four("10.1.0.1", "224.0.0.5", ""), false},
		{"to all", 17, 0x4000, four("10.1.0.1", "255.255.255.255", ""), false},
		{"from many", 17, 0x4000, four("224.0.0.5", "10.2.0.2", ""), false},
		{"from nobody", 17, 0x4000, four("0.0.0.0", "10.2.0.2", ""), false},
		{"from all", 17, 0x4000, four("255.255.255.255", "10.2.0.2", ""), false},
	} {
		b := make([]byte, 60)
		PutHeader(b, flow4(test.protocol, 0, 0), 0, 40)
		binary.BigEndian.PutUint16(b[6:], test.flags)
		copy(b[12:], test.rest)
		h, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(AppendTooBig([]byte("head"), b, &h, 50)) > 4; got != test.want {
			t.Errorf("%s: answered %v", test.name, got)
		}
	}
	for hexed, want := range map[string]bool{
		"60 0 00000 0008 11 40" + v6Addresses + ports + "00000000":                      true,
		"60 0 00000 0008 3a 40" + v6Addresses + "80 00 0000 00000000":                   true,
		"60 0 00000 0008 3a 40" + v6Addresses + "02 00 0000 00000000":                   false, // packet too big
		"60 0 00000 0008 3a 40" + v6Addresses + "7f 00 0000 00000000":                   false,
		"60 0 00000 0008 3a 40" + v6Addresses + "89 00 0000 00000000":                   false, // redirect
		"60 0 00000 0000 3a 40" + v6Addresses:                                           false, // of no known type
		"60 0 00000 0010 2c 40" + v6Addresses + "11 00 0010 00000001 0000000000000000":  true,  // a later fragment
		"60 0 00000 0000 3b 40" + v6Addresses[:33] + "ff020000000000000000000000000001": false,
		"60 0 00000 0000 3b 40" + strings.Repeat("0", 32) + v6Addresses[33:]:            false,
		"60 0 00000 0000 3b 40" + "ff020000000000000000000000000001" + v6Addresses[33:]: false,
	} {
		b := unhex(t, hexed)
		h, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(AppendTooBig(nil, b, &h, 1280)) > 0; got != want {
			t.Errorf("%s: answered %v", hexed, got)
		}
	}
}
