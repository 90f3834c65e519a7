package offload

import (
	"bytes"
	"errors"
	"testing"
)

func TestSplit(t *testing.T) {
	for name, s := range specs {
		for _, size := range []int{1, 19, 1000, 1448, len(s.payload) - 1, len(s.payload), len(s.payload) + 1} {
			h, b := s.super(size)
			got, want := split(t, h, b), s.segments(size)
			if len(got) != len(want) {
				t.Errorf("%s by %d: %d segments, want %d", name, size, len(got), len(want))
				continue
			}
			for i := range want {
				if !right(got[i]) {
					t.Errorf("%s by %d: segment %d has a wrong length or checksum", name, size, i)
				}
				if !bytes.Equal(got[i], want[i]) {
					t.Errorf("%s by %d: segment %d is\n%x, want\n%x", name, size, i, got[i][:80], want[i][:80])
				}
			}
		}
	}
}

func TestSplitSizes(t *testing.T) {
	for name, s := range specs {
		for _, size := range []int{100, 1448, 9000} {
			h, b := s.super(size)
			want := s.segments(size)
			var sp Splitter
			if err := sp.Reset(h, b); err != nil {
				t.Fatal(err)
			}
			each, last := sp.Sizes()
			if sp.Len() != len(want) || each != len(want[0]) || last != len(want[len(want)-1]) {
				t.Errorf("%s by %d: %d segments of %d and %d", name, size, sp.Len(), each, last)
			}
		}
	}
}

// The trailer of ESP is written behind a segment, and what was there put back.
func TestSplitLeavesRoomBehind(t *testing.T) {
	const room = 17
	s := specs["TCP4"]
	h, b := s.super(1000)
	buffer := make([]byte, len(b), len(b)+room)
	copy(buffer, b)
	want := s.segments(1000)
	var sp Splitter
	if err := sp.Reset(h, buffer); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		segment := sp.Next()
		if segment == nil {
			break
		}
		if cap(segment)-len(segment) < room {
			t.Fatalf("segment %d has %d octets behind it", i, cap(segment)-len(segment))
		}
		behind := segment[len(segment) : len(segment)+room]
		saved := bytes.Clone(behind)
		copy(behind, fill(room))
		if !bytes.Equal(segment, want[i]) {
			t.Errorf("segment %d differs", i)
		}
		clear(segment) // sent
		copy(behind, saved)
	}
}

func TestSplitSingle(t *testing.T) {
	for name, s := range specs {
		want := s.build()
		got := split(t, Header{}, bytes.Clone(want))
		if len(got) != 1 || !bytes.Equal(got[0], want) {
			t.Errorf("%s: a packet as it is was changed", name)
		}
		h, b := s.super(0)
		h.Kind = Single
		if got := split(t, h, b); len(got) != 1 || !bytes.Equal(got[0], want) {
			t.Errorf("%s: checksum not completed", name)
		}
	}
}

func TestSplitRefuses(t *testing.T) {
	s := specs["TCP4"]
	for name, change := range map[string]func(h *Header, b []byte) []byte{
		"no size":           func(h *Header, b []byte) []byte { h.SegmentSize = 0; return b },
		"checksum is there": func(h *Header, b []byte) []byte { h.NeedsChecksum = false; return b },
		"other family":      func(h *Header, b []byte) []byte { h.Kind = TCP6; return b },
		"no kind":           func(h *Header, b []byte) []byte { h.Kind = 3; return b },
		"start":             func(h *Header, b []byte) []byte { h.ChecksumStart = 24; return b },
		"start far away":    func(h *Header, b []byte) []byte { h.ChecksumStart = 0xffff; return b },
		"offset":            func(h *Header, b []byte) []byte { h.ChecksumOffset = 6; return b },
		"short":             func(_ *Header, b []byte) []byte { return b[:30] },
		"headers only":      func(_ *Header, b []byte) []byte { return b[:40] },
		"empty":             func(_ *Header, b []byte) []byte { return nil },
		"data offset":       func(_ *Header, b []byte) []byte { b[32] = 4 << 4; return b },
		"single, start":     func(h *Header, b []byte) []byte { h.Kind = Single; h.ChecksumStart = 0xfff0; return b },
		"single, at end": func(h *Header, b []byte) []byte {
			h.Kind, h.ChecksumStart, h.ChecksumOffset = Single, uint16(len(b)-1), 0
			return b
		},
	} {
		h, b := s.super(1000)
		b = change(&h, b)
		var sp Splitter
		if err := sp.Reset(h, b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: error %v", name, err)
		}
		if sp.Next() != nil {
			t.Errorf("%s: there is a segment", name)
		}
	}
}

func TestHeader(t *testing.T) {
	h := Header{NeedsChecksum: true, Kind: TCP6, HeaderLen: 72, SegmentSize: 1428, ChecksumStart: 40, ChecksumOffset: 16}
	var b [HeaderLen]byte
	h.Put(b[:])
	if got := ParseHeader(b[:]); got != h {
		t.Errorf("%+v became %+v", h, got)
	}
	b[1] |= kindECN
	if got := ParseHeader(b[:]); got != h {
		t.Errorf("with CWR %+v became %+v", h, got)
	}
	Header{}.Put(b[:])
	if b != [HeaderLen]byte{} {
		t.Errorf("the empty header is %x", b)
	}
}

func BenchmarkSplit(b *testing.B) {
	s := spec{options: 12, flags: flagACK, payload: fill(44 * 1368)}
	h, original := s.super(1368)
	buffer := make([]byte, len(original), len(original)+32)
	b.SetBytes(int64(len(original)))
	b.ReportAllocs()
	var sp Splitter
	for b.Loop() {
		copy(buffer, original[:60])
		if err := sp.Reset(h, buffer); err != nil {
			b.Fatal(err)
		}
		for sp.Next() != nil {
		}
	}
}
