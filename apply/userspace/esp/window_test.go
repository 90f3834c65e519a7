package esp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

func newWindow(size uint32, esn bool) Window {
	return NewWindow(new(uint64), make([]uint64, WindowWords(size)), size, esn)
}

func TestWindowWords(t *testing.T) {
	for size, want := range map[uint32]int{0: 1, 1: 1, 2: 2, 32: 2, 64: 2, 65: 2, 66: 4, 128: 4, 256: 8, 4032: 64, 4096: 128} {
		if got := WindowWords(size); got != want {
			t.Errorf("%d packets: %d words, want %d", size, got, want)
		}
	}
}

func TestWindowEdges(t *testing.T) {
	for _, size := range []uint32{1, 2, 31, 32, 33, 63, 64, 65, 128, 1000, 4096} {
		for _, top := range []uint64{uint64(size), 63, 64, 65, 5000, 1<<32 - 1, 1 << 32, 1<<32 + 63, math.MaxUint64} {
			w := newWindow(size, true)
			if !w.Accept(top) {
				t.Fatalf("size %d: first packet %d refused", size, top)
			}
			if w.Check(top) || w.Accept(top) {
				t.Errorf("size %d, top %d: accepted twice", size, top)
			}
			oldest := uint64(1)
			if top > uint64(size) {
				oldest = top - uint64(size) + 1
			}
			if oldest < top {
				if !w.Accept(oldest) || w.Accept(oldest) {
					t.Errorf("size %d, top %d: the oldest in the window, %d, is not accepted once", size, top, oldest)
				}
			}
			if w.Accept(oldest - 1) {
				t.Errorf("size %d, top %d: %d is before the window", size, top, oldest-1)
			}
			if top < math.MaxUint64 {
				if !w.Accept(top+1) || w.Accept(top) || w.Check(top+1) {
					t.Errorf("size %d, top %d: the next one", size, top)
				}
				if oldest > 1 && w.Check(oldest-1) || w.Check(oldest) {
					t.Errorf("size %d, top %d: the one that left the window", size, top)
				}
			}
		}
	}
}

func TestWindowZero(t *testing.T) {
	w := newWindow(64, false)
	if w.Check(0) || w.Accept(0) {
		t.Error("sequence number 0 accepted")
	}
	w = newWindow(0, false)
	for _, seq := range []uint64{5, 5, 3, 700, 3} {
		if !w.Accept(seq) {
			t.Errorf("%d refused without a window", seq)
		}
	}
	if w.Accept(0) {
		t.Error("sequence number 0 accepted without a window")
	}
}

// model is a window by the book: all that was ever accepted.
type model struct {
	top  uint64
	seen map[uint64]bool
	size uint64
}

func (m *model) accept(seq uint64) bool {
	if seq == 0 || m.seen[seq] || seq+m.size <= m.top {
		return false
	}
	m.seen[seq] = true
	m.top = max(m.top, seq)
	return true
}

func TestWindowAgainstModel(t *testing.T) {
	for _, size := range []uint32{1, 7, 32, 64, 100, 128, 1024, 4096} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(size), 1))
			for range 20 {
				top, bits := new(uint64), make([]uint64, WindowWords(size))
				w, m := NewWindow(top, bits, size, true), &model{seen: map[uint64]bool{}, size: uint64(size)}
				seq := uint64(0)
				for range 5000 {
					switch r.IntN(10) {
					case 0: // a jump, now and then over all of the window
						seq = m.top + r.Uint64N(3*uint64(size)+70)
					case 1, 2, 3: // late, also too late
						seq = m.top - min(m.top, r.Uint64N(uint64(size)+70))
					case 4: // again
					default:
						seq = m.top + 1
					}
					if r.IntN(500) == 0 { // another process goes on
						w = NewWindow(top, bits, size, true)
					}
					before := m.top
					check, want := w.Check(seq), m.accept(seq)
					if got := w.Accept(seq); got != want || check != want {
						t.Fatalf("top %d, packet %d: checked %v, accepted %v, want %v", before, seq, check, got, want)
					}
				}
			}
		})
	}
}

// A process that ends within Accept leaves no packet that can be accepted twice:
// whatever of the stores is there, what was accepted stays so.
func TestWindowAdvanceForgetsNothing(t *testing.T) {
	const size = 100
	for step := uint64(1); step < 600; step++ {
		w := newWindow(size, true)
		for seq := uint64(1); seq <= 1000; seq++ {
			w.Accept(seq)
		}
		*w.top = 1000 + step // as if killed after the first store of advance
		for seq := uint64(1); seq <= 1000; seq++ {
			if w.Check(seq) {
				t.Fatalf("step %d: %d would be accepted again", step, seq)
			}
		}
	}
}

// The cases of RFC 4303, Appendix A2.2.
func TestInfer(t *testing.T) {
	const g = uint64(1) << 32
	for _, test := range []struct {
		size uint32
		top  uint64
		low  uint32
		want uint64
	}{
		// Case A: the window is in one subspace, Tl >= W-1.
		{64, 1000, 937, 937},     // bottom of the window
		{64, 1000, 936, g + 936}, // below: the next subspace
		{64, 1000, 1001, 1001},
		{64, 1000, 0xffffffff, 0xffffffff},
		{64, 3*g + 63, 0, 3 * g},
		{64, 3*g + 64, 0, 4 * g},
		{64, 3*g + 0xffffffff, 0, 4 * g}, // goes on over the end
		{64, 3*g + 0xffffffff, 0xffffffff, 3*g + 0xffffffff},
		{64, 3*g + 0xffffffff, 0xffffffc0, 3*g + 0xffffffc0},
		{64, 3*g + 0xffffffff, 0xffffffbf, 4*g + 0xffffffbf},
		// Case B: it spans two.
		{64, 3 * g, 0xffffffff, 2*g + 0xffffffff},
		{64, 3 * g, 0xffffffc1, 2*g + 0xffffffc1}, // bottom
		{64, 3 * g, 0xffffffc0, 3*g + 0xffffffc0}, // below: far ahead
		{64, 3 * g, 1, 3*g + 1},
		{64, 3*g + 62, 0xffffffff, 2*g + 0xffffffff},
		{64, 3*g + 62, 0xfffffffe, 3*g + 0xfffffffe},
		{64, 3*g + 62, 63, 3*g + 63},
		// Before the first subspace there is none.
		{64, 0, 1, 1},
		{64, 0, 0xffffffff, 0xffffffff},
		{64, 10, 0xfffffff0, 0xfffffff0},
		// Other sizes.
		{1, 3 * g, 0, 3 * g},
		{1, 3 * g, 0xffffffff, 3*g + 0xffffffff},
		{4096, 3*g + 4094, 0xffffffff, 2*g + 0xffffffff},
		{4096, 3*g + 4095, 0xffffffff, 3*g + 0xffffffff},
		// Without a window: the nearer one.
		{0, 3*g + 5, 0xffffffff, 2*g + 0xffffffff},
		{0, 3*g + 0x80000000, 0, 4 * g},
		{0, 3*g + 0x80000000, 1, 3*g + 1},
		{0, 5, 0xffffffff, 0xffffffff},
	} {
		w := newWindow(test.size, true)
		*w.top = test.top
		if got := w.Infer(test.low); got != test.want {
			t.Errorf("window %d, top %#x, low %#x: %#x, want %#x", test.size, test.top, test.low, got, test.want)
		}
		w = newWindow(test.size, false)
		*w.top = test.top
		if got := w.Infer(test.low); got != uint64(test.low) {
			t.Errorf("without ESN, low %#x: %#x", test.low, got)
		}
	}
}

// All packets within the window and far ahead of it are told from their lower
// half, over the ends of subspaces too.
func TestInferAllAround(t *testing.T) {
	for _, size := range []uint32{1, 32, 64, 1024, 4096} {
		for _, around := range []uint64{1 << 32, 1 << 33, 7 << 32, 7<<32 + 1<<31} {
			for top := around - 5000; top < around+5000; top += 37 {
				w := newWindow(size, true)
				*w.top = top
				for _, seq := range []uint64{
					top, top + 1, top + 100, top + 1<<31, top + 1<<32 - uint64(size),
					top - uint64(size)/2, top - uint64(size-1),
				} {
					if got := w.Infer(uint32(seq)); got != seq {
						t.Fatalf("window %d, top %#x: %#x taken for %#x", size, top, seq, got)
					}
				}
			}
		}
	}
}

// An SA goes over the end of the first subspace, with packets late and lost.
func TestWindowAcrossSubspaces(t *testing.T) {
	w := newWindow(64, true)
	*w.top = 1<<32 - 200
	r := rand.New(rand.NewPCG(1, 2))
	order := r.Perm(400)
	seen := map[uint64]bool{}
	for i := range order { // at most 20 places out of order
		seq := uint64(1<<32-199) + uint64(i) - uint64(r.IntN(20))
		if got := w.Infer(uint32(seq)); got != seq {
			t.Fatalf("%#x taken for %#x", seq, got)
		}
		if w.Accept(seq) == seen[seq] && seq > 1<<32-200 {
			t.Fatalf("%#x: seen %v", seq, seen[seq])
		}
		seen[seq] = true
	}
}

// Packets over the end of a subspace, late and lost, by what is on the wire
// alone; and once more a subspace later, where they are no packets any more.
func TestESNOnTheWire(t *testing.T) {
	for _, suite := range mainSuites {
		out, in := suite.transform(t, true), suite.transform(t, true)
		var s Scratch
		var wire [][]byte
		for seq := uint64(1<<32 - 100); seq < 1<<32+100; seq++ {
			wire = append(wire, out.Seal(&s, make([]byte, 0, 200), 9, seq, payload(20), NextIPv4))
		}
		r := rand.New(rand.NewPCG(3, 4))
		for i := 0; i+20 <= len(wire); i += 20 {
			r.Shuffle(20, func(a, b int) { wire[i+a], wire[i+b] = wire[i+b], wire[i+a] })
		}
		w := newWindow(64, true)
		*w.top = 1<<32 - 101
		receive := func(packet []byte) error {
			seq := w.Infer(binary.BigEndian.Uint32(packet[4:]))
			if !w.Check(seq) {
				return errReplayed
			}
			if _, _, err := in.Open(&s, nil, bytes.Clone(packet), seq); err != nil {
				return err
			}
			if !w.Accept(seq) {
				return errReplayed
			}
			return nil
		}
		for i, packet := range wire {
			if i%7 == 0 {
				continue // lost
			}
			if err := receive(packet); err != nil {
				t.Fatalf("%v: packet %d: %v", suite, i, err)
			}
			if err := receive(packet); err != errReplayed {
				t.Fatalf("%v: packet %d again: %v", suite, i, err)
			}
		}
		if *w.top>>32 != 1 {
			t.Fatalf("%v: top %#x", suite, *w.top)
		}
		*w.top += 1<<32 - 300
		for i, packet := range wire {
			if err := receive(packet); err != ErrForged {
				t.Fatalf("%v: packet %d a subspace later: %v", suite, i, err)
			}
		}
	}
}

var errReplayed = errors.New("replayed")

func BenchmarkWindow(b *testing.B) {
	for _, size := range []uint32{32, 1024, 4096} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			w := newWindow(size, true)
			b.ReportAllocs()
			seq := uint64(0)
			for b.Loop() {
				seq++
				if full := w.Infer(uint32(seq)); !w.Check(full) || !w.Accept(full) {
					b.Fatal(seq)
				}
			}
		})
	}
}
