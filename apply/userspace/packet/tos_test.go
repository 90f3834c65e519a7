package packet

import "testing"

// RFC 6040, Figure 4: rows are the inner header's field, columns the outer's, in
// the order Not-ECT, ECT(0), ECT(1), CE.
func TestDecapsulateTOS(t *testing.T) {
	const drop = 0xff
	order := []uint8{notECT, ect0, ect1, ce}
	for i, row := range [][]uint8{
		{notECT, notECT, notECT, drop},
		{ect0, ect0, ect1, ce},
		{ect1, ect1, ect1, ce},
		{ce, ce, ce, ce},
	} {
		for j, want := range row {
			inner, outer := order[i]|0xb8, order[j]|0x50
			tos, ok := DecapsulateTOS(outer, inner)
			switch {
			case want == drop:
				if ok {
					t.Errorf("inner %d, outer %d: not dropped", order[i], order[j])
				}
			case !ok || tos != 0xb8|want:
				t.Errorf("inner %d, outer %d: %#x, %v, want %#x", order[i], order[j], tos, ok, 0xb8|want)
			}
		}
	}
}

func TestSetTOS(t *testing.T) {
	for _, test := range parses {
		if test.want.Len == 0 {
			continue
		}
		for _, tos := range []uint8{0, 1, 2, 3, 0xb8, 0xbb, 0xff} {
			b := unhex(t, test.hex)
			if !test.want.IPv6 {
				setIPv4Checksum(b[:test.want.HeaderLen])
			}
			SetTOS(b, tos)
			want := test.want
			want.TOS = tos
			if got, err := Parse(b); err != nil || got != want {
				t.Errorf("%s, TOS %#x: %+v, %v", test.name, tos, got, err)
			}
			if !want.IPv6 && Sum(0).Add(b[:want.HeaderLen]).Fold() != 0xffff {
				t.Errorf("%s, TOS %#x: the checksum is wrong", test.name, tos)
			}
		}
	}
}
