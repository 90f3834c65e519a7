package esp

import "sync/atomic"

// MaxWindow is the largest anti-replay window, in packets.
const MaxWindow = 4096

// WindowWords is how many words the bitmap of a window of size packets has: a
// power of two, and one word more than the window needs, so that as the window
// moves whole words are cleared (RFC 6479, Section 3). At most 128.
func WindowWords(size uint32) int {
	words := 1
	for words*64 < int(size)+63 {
		words *= 2
	}
	return words
}

// A Window is what an inbound SA has received (RFC 4303, Section 3.4.3): the
// highest sequence number and which of those before it. Both lie in memory that
// it is given, which may be a file's, and at no time does that memory forget a
// packet that was accepted. It is for one goroutine at a time.
type Window struct {
	top  *uint64
	bits []uint64
	size uint32
	esn  bool
}

// NewWindow makes a window of size packets, at most MaxWindow, over the highest
// sequence number so far and a bitmap of WindowWords(size) words. Zeros are an SA
// that has received nothing. A size of zero accepts all packets, the same ones
// again too. Without esn sequence numbers have 32 bits.
func NewWindow(top *uint64, bits []uint64, size uint32, esn bool) Window {
	return Window{top: top, bits: bits[:WindowWords(size)], size: size, esn: esn}
}

// Infer is the sequence number whose lower half a packet has: the one nearest to
// the window (RFC 4303, Appendix A2.2). Only the ICV says whether it is right.
func (w *Window) Infer(low uint32) uint64 {
	if !w.esn {
		return uint64(low)
	}
	size := uint64(w.size)
	if size == 0 {
		size = 1 << 31 // nothing is too old: as far back as ahead
	}
	top := *w.top
	high := top &^ 0xffffffff
	bottom := uint32(top - (size - 1)) // of the window, its lower half
	switch window := uint32(top) >= uint32(size-1); {
	case window && low < bottom: // the window is in one subspace, this is in the next
		high += 1 << 32
	case !window && low >= bottom && high > 0: // it spans two, this is in the one before
		high -= 1 << 32
	}
	return high | uint64(low)
}

// Check reports whether a packet may be new, before its ICV is looked at. What it
// refuses is a replay, too old to tell, or has the sequence number zero, which no
// packet has (RFC 4303, Section 3.3.3).
func (w *Window) Check(seq uint64) bool {
	switch top := *w.top; {
	case seq == 0:
		return false
	case seq > top || w.size == 0:
		return true
	case top-seq >= uint64(w.size):
		return false
	}
	word, bit := w.find(seq)
	return *word&bit == 0
}

// Accept marks an authentic packet as received, before it is passed on. It
// reports what Check would: another worker may have been quicker.
func (w *Window) Accept(seq uint64) bool {
	if !w.Check(seq) {
		return false
	}
	if seq > *w.top {
		w.advance(seq)
	}
	word, bit := w.find(seq)
	*word |= bit
	return true
}

// advance moves the window and clears the words that come in. The new top has to
// be there first: a process that is killed in between leaves packets that seem
// received, not one that can be received twice.
func (w *Window) advance(seq uint64) {
	from, to := *w.top/64, seq/64
	atomic.StoreUint64(w.top, seq)
	words := uint64(len(w.bits))
	if to-from > words {
		from = to - words
	}
	for i := from + 1; i <= to; i++ {
		w.bits[i&(words-1)] = 0
	}
}

func (w *Window) find(seq uint64) (word *uint64, bit uint64) {
	return &w.bits[seq/64&uint64(len(w.bits)-1)], 1 << (seq % 64)
}
