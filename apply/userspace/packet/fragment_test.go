package packet

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"testing"
)

// fragments are all of a packet, looked at one by one.
func fragments(t testing.TB, b []byte, h Header, mtu int) [][]byte {
	t.Helper()
	var all [][]byte
	for offset := 0; offset >= 0; {
		var one []byte
		last := offset
		one, offset = AppendFragment(nil, b, &h, offset, mtu)
		f, err := Parse(one)
		switch {
		case err != nil:
			t.Fatalf("fragment %x: %v", one, err)
		case f.Len != len(one) || f.Len > max(mtu, minMTU):
			t.Fatalf("fragment of %d octets, %d by its header, MTU %d", len(one), f.Len, mtu)
		case Sum(0).Add(one[:f.HeaderLen]).Fold() != 0xffff:
			t.Fatalf("fragment %x: the header's checksum is wrong", one)
		case offset >= 0 && offset <= last:
			t.Fatalf("fragment at %d after that at %d", offset, last)
		}
		all = append(all, one)
	}
	return all
}

// reassemble is RFC 791, Section 3.2, for fragments in order: the header of the
// first one and the data.
func reassemble(t testing.TB, all [][]byte) (header, data []byte, h Header) {
	t.Helper()
	for i, one := range all {
		f, err := Parse(one)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			header, h = one[:f.HeaderLen], f
		}
		if f.Offset != h.Offset+len(data) {
			t.Fatalf("fragment %d begins at %d, want %d", i, f.Offset, h.Offset+len(data))
		}
		if f.Src != h.Src || f.Dst != h.Dst || f.Protocol != h.Protocol || !bytes.Equal(one[4:6], all[0][4:6]) || f.TOS != h.TOS || f.DF != h.DF {
			t.Fatalf("fragment %d is of another packet", i)
		}
		if !f.More && i < len(all)-1 {
			t.Fatalf("fragment %d says it is the last of %d", i, len(all))
		}
		data = append(data, one[f.HeaderLen:f.Len]...)
		h.More = f.More
	}
	return header, data, h
}

// packet4 has n octets of data.
func packet4(n int, options string) []byte {
	b := make([]byte, IPv4Len+len(options)+n)
	PutHeader(b, flow4(17, 0, 0), 0xb9, len(b)-IPv4Len)
	b[0] = 0x40 | byte(5+len(options)/4)
	copy(b[20:], options)
	binary.BigEndian.PutUint32(b[4:], 0xbeef0000)
	for i := IPv4Len + len(options); i < len(b); i++ {
		b[i] = byte(i*7 + i>>8)
	}
	setIPv4Checksum(b[:IPv4Len+len(options)])
	return b
}

func TestFragments(t *testing.T) {
	for _, n := range []int{0, 1, 8, 47, 48, 49, 95, 96, 97, 1480, 1481, 4000, 65515} {
		for _, mtu := range []int{0, 68, 69, 75, 76, 1280, 1500, 65535} {
			b := packet4(n, "")
			h, err := Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			all := fragments(t, b, h, mtu)
			each := (max(mtu, 68) - 20) / 8 * 8
			want := (n + each - 1) / each
			if 20+n <= max(mtu, 68) {
				want = 1
			} else if rest := n - (want-2)*each; want > 1 && 20+rest <= max(mtu, 68) {
				want-- // the last one may fill the MTU to the last octet
			}
			if len(all) != want {
				t.Errorf("%d octets, MTU %d: %d fragments, want %d", n, mtu, len(all), want)
			}
			_, data, last := reassemble(t, all)
			if !bytes.Equal(data, b[20:]) || last.More {
				t.Errorf("%d octets, MTU %d: not what it was", n, mtu)
			}
		}
	}
}

// Loose source routing and the router alert are copied, record route and
// timestamps are not (RFC 791, Section 3.1).
func TestFragmentOptions(t *testing.T) {
	for _, test := range []struct{ options, later string }{
		{"\x01\x01\x01\x00", ""},
		{"\x94\x04\x00\x00", "94040000"},
		{"\x07\x07\x04\x00\x00\x00\x00\x01\x83\x03\x04\x00", "83030400"},
		{"\x83\x03\x04\x94\x04\x00\x00\x00", "8303049404000000"},
		{"\x94\x04\x00\x00\x94\x09\x00\x00", "94040000"}, // the second is cut off
		{"\x94\x01\x00\x00", ""},                         // shorter than itself
		{"\x01\x01\x01\x94", ""},                         // no length
	} {
		b := packet4(200, test.options)
		h, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		all := fragments(t, b, h, 100)
		for i, one := range all {
			want := hex.EncodeToString([]byte(test.options))
			if i > 0 {
				want = test.later
			}
			if got := hex.EncodeToString(one[20 : one[0]&15*4]); got != want {
				t.Errorf("options %x, fragment %d: %s, want %s", test.options, i, got, want)
			}
		}
		if _, data, _ := reassemble(t, all); !bytes.Equal(data, b[h.HeaderLen:]) {
			t.Errorf("options %x: not what it was", test.options)
		}
	}
}

// A fragment may be fragmented again.
func TestFragmentOfFragment(t *testing.T) {
	b := packet4(3000, "")
	h, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for _, one := range fragments(t, b, h, 1500) {
		f, err := Parse(one)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fragments(t, one, f, 300)...)
	}
	if _, data, last := reassemble(t, all); !bytes.Equal(data, b[20:]) || last.More {
		t.Error("not what it was")
	}
}

func TestFragmentDoesNotAllocate(t *testing.T) {
	b := packet4(3000, "\x94\x04\x00\x00")
	h, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	dst := make([]byte, 0, 1500)
	if n := testing.AllocsPerRun(10, func() {
		for offset := 0; offset >= 0; {
			_, offset = AppendFragment(dst, b, &h, offset, 1400)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func ExampleAppendFragment() {
	b := packet4(3000, "")
	h, _ := Parse(b)
	buffer := make([]byte, 0, 1500)
	for offset := 0; offset >= 0; {
		var fragment []byte
		fragment, offset = AppendFragment(buffer, b, &h, offset, 1400)
		fmt.Println(len(fragment), offset)
	}
	// Output:
	// 1396 1376
	// 1396 2752
	// 268 -1
}
