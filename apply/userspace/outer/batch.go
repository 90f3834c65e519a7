package outer

// Limits of a train (net/ipv4/udp.c, UDP_MAX_SEGMENTS): packets, and octets that
// fit a UDP datagram over IPv4, which the train is on its way through the kernel.
const (
	MaxTrain       = 64
	MaxTrainOctets = 65507
)

const (
	batchOctets = 2 << 16 // two trains of the longest kind
	batchTrains = 64
)

// A Batch collects packets for one peer. They are written where they are sent
// from.
type Batch struct {
	buffer []byte
	used   int
	trains [batchTrains]train
	n      int // trains

	sent     int // trains that have left
	at       int // octets that have left
	messages messages
}

// A train is packets of equal length, one behind the other; the last one may be
// shorter.
type train struct {
	start, end int
	size       int // of a packet
	tos        uint8
	fragment   bool // rather than drop it
	closed     bool // nothing may follow
}

// NewBatch makes an empty one.
func NewBatch() *Batch { return &Batch{buffer: make([]byte, batchOctets)} }

// Empty tells that there is nothing to send.
func (b *Batch) Empty() bool { return b.sent == b.n }

// Len is how many octets there are to send.
func (b *Batch) Len() int { return b.used }

// Fits tells whether n packets with size octets each have room, whatever
// trains they make.
func (b *Batch) Fits(n, size int) bool {
	return b.used+n*size <= len(b.buffer) && b.n+(n+MaxTrain-1)/MaxTrain+n*size/MaxTrainOctets+1 < batchTrains
}

// Next is where the next packet is to be written: behind the slice, which is
// empty.
func (b *Batch) Next() []byte { return b.buffer[b.used:b.used] }

// Add takes the n octets written at Next as a packet, to be sent with tos as its
// type of service or traffic class. If it is too long for the path and fragment
// is set, it is sent in fragments.
func (b *Batch) Add(n int, tos uint8, fragment bool) {
	if b.n > 0 {
		t := &b.trains[b.n-1]
		if !t.closed && n <= t.size && tos == t.tos && fragment == t.fragment && t.end-t.start+n <= MaxTrainOctets {
			t.end += n
			t.closed = n < t.size || t.end-t.start == MaxTrain*t.size
			b.used += n
			return
		}
	}
	b.trains[b.n] = train{start: b.used, end: b.used + n, size: n, tos: tos, fragment: fragment}
	b.n++
	b.used += n
}

// Reset drops what has not been sent.
func (b *Batch) Reset() { b.used, b.n, b.sent, b.at = 0, 0, 0, 0 }
