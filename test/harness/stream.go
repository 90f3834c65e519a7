//go:build linux

package harness

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A stopped stream waits for packets under way: until all have arrived, or
// nothing has for quiet, or for drain in all.
const (
	quiet = 1500 * time.Millisecond
	drain = 6 * time.Second
)

// shortestTick is how often a stream sends and receives at most. Under emulation
// it is waking up that costs, much more than the packets do.
const shortestTick = 2 * time.Millisecond

// Stream is UDP packets with sequence numbers, both ways at a constant rate. One
// goroutine sends what is due and receives what has come, tick by tick.
type Stream struct {
	t    testing.TB
	a, b *Host
	rate int
	quit chan struct{}
	done chan struct{}
	once sync.Once

	mu          sync.Mutex
	sending     bool
	took        time.Duration // of sending
	there, back *direction
}

// Report is what became of one direction of a Stream.
type Report struct {
	Sent, Received, Lost  int
	Duplicated, Reordered int
	// Gap is the longest time between two packets that arrived.
	Gap time.Duration
	// Errors counts sends that the sender's kernel refused; not in Sent.
	Errors int
	// LastError is the latest of these, RefusedAt its time.
	LastError error
	RefusedAt time.Time
	// Holes are the packets that were lost. Only a stopped stream knows them.
	Holes []Hole
}

// Hole is packets in a row that were lost.
type Hole struct {
	First, Count int
	From, To     time.Time // when the first and the last of them were sent
}

// clock is how times of day are printed, as `ipsec-quick monitor` does.
const clock = "15:04:05.000"

func (h Hole) String() string {
	return fmt.Sprintf("%d from number %d on, sent %s to %s", h.Count, h.First, h.From.Format(clock), h.To.Format(clock))
}

func (r Report) String() string {
	s := fmt.Sprintf("%d sent, %d lost, %d duplicated, %d reordered, longest gap %v",
		r.Sent, r.Lost, r.Duplicated, r.Reordered, r.Gap.Round(time.Millisecond))
	if r.Errors > 0 {
		s += fmt.Sprintf(", %d refused (at %s: %v)", r.Errors, r.RefusedAt.Format(clock), r.LastError)
	}
	for i, h := range r.Holes {
		if i == 10 {
			s += fmt.Sprintf("\n  and %d holes more", len(r.Holes)-i)
			break
		}
		s += "\n  lost: " + h.String()
	}
	return s
}

// direction is one sender and its receiver.
type direction struct {
	from, to int // sockets
	dst      unix.Sockaddr

	report Report
	tried  int
	ticks  []tick
	seen   []bool
	newest int
	last   time.Time
}

// A tick is when packets were sent, those from the first on. To note the time of each
// would take so much memory that the stream stands still while it grows.
type tick struct {
	first int
	at    time.Time
}

// StartStream sends rate packets a second from an address of a to an address of
// b, and as many back, until Stop.
func StartStream(t testing.TB, a *Host, from netip.Addr, b *Host, to netip.Addr, rate int) *Stream {
	t.Helper()
	s := &Stream{t: t, a: a, b: b, rate: rate, sending: true, quit: make(chan struct{}), done: make(chan struct{})}
	fa, sa, err := a.UDPSocket(from)
	if err != nil {
		t.Fatalf("stream: %s: %v", a.Name, err)
	}
	fb, sb, err := b.UDPSocket(to)
	if err != nil {
		t.Fatalf("stream: %s: %v", b.Name, err)
	}
	s.there = &direction{from: fa, to: fb, dst: sb, newest: -1}
	s.back = &direction{from: fb, to: fa, dst: sa, newest: -1}
	go s.pump()
	t.Cleanup(s.end)
	return s
}

// UDPSocket opens a UDP socket in the host that does not block, on a port of the
// kernel's choice, and returns the address that it got. Whoever opens it closes it.
func (h *Host) UDPSocket(addr netip.Addr) (fd int, bound unix.Sockaddr, err error) {
	family := unix.AF_INET6
	if addr.Is4() {
		family = unix.AF_INET
	}
	err = h.Do(func() error {
		var err error
		fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return -1, nil, err
	}
	// What comes while the receiver does not get to run must not be lost in its
	// socket, which is no part of the tunnel.
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20); err == nil {
		if err = unix.Bind(fd, sockaddr(addr)); err == nil {
			bound, err = unix.Getsockname(fd)
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, bound, nil
}

// pump is the stream's goroutine.
func (s *Stream) pump() {
	defer close(s.done)
	ticker := time.NewTicker(max(time.Second/time.Duration(s.rate), shortestTick))
	defer ticker.Stop()
	buf := make([]byte, 2048)
	start := time.Now()
	for {
		select {
		case <-s.quit:
			return
		case <-ticker.C:
		}
		s.mu.Lock()
		if s.sending {
			s.took = time.Since(start)
		}
		for _, d := range []*direction{s.there, s.back} {
			now := time.Now()
			if s.sending {
				d.send(int(now.Sub(start).Seconds()*float64(s.rate)), now)
			}
			d.receive(buf)
		}
		s.mu.Unlock()
	}
}

// end stops sending, waits for what is under way and closes the sockets.
func (s *Stream) end() {
	s.once.Do(func() {
		s.mu.Lock()
		s.sending = false
		s.mu.Unlock()
		there, back := s.Peek()
		for start, last := time.Now(), time.Now(); there.Lost+back.Lost > 0 &&
			time.Since(last) < quiet && time.Since(start) < drain; time.Sleep(20 * time.Millisecond) {
			before := there.Received + back.Received
			if there, back = s.Peek(); there.Received+back.Received != before {
				last = time.Now()
			}
		}
		close(s.quit)
		<-s.done
		unix.Close(s.there.from)
		unix.Close(s.back.from)
		s.there.findHoles()
		s.back.findHoles()
	})
}

// Stop ends the stream and reports on both directions, from a to b first.
func (s *Stream) Stop() (there, back Report) {
	s.end()
	return s.Peek()
}

// Peek reports while the stream runs; packets under way count as lost.
func (s *Stream) Peek() (there, back Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.there.result(), s.back.result()
}

// Lossless stops the stream and fails the test when anything was lost, or when
// a host's kernel refused to send. Refusals in foreign hosts are another
// implementation's and only noted: a kernel refuses a packet that has found its
// SA when the SA is removed at this moment, which strongSwan does.
func (s *Stream) Lossless(what string, foreign ...*Host) string {
	s.t.Helper()
	there, back := s.Stop()
	lost, refused, note := there.Lost+back.Lost, 0, ""
	for host, r := range map[*Host]Report{s.a: there, s.b: back} {
		if slices.Contains(foreign, host) {
			if r.Errors > 0 {
				note = fmt.Sprintf(", %d refused by the peer's kernel", r.Errors)
			}
			continue
		}
		refused += r.Errors
	}
	if lost+refused != 0 || there.Received == 0 || back.Received == 0 {
		s.t.Errorf("%s: packets lost:\n %s → %s: %v\n %s → %s: %v\n%s%s", what,
			s.a.Name, s.b.Name, there, s.b.Name, s.a.Name, back, s.a.xfrmErrors(), s.b.xfrmErrors())
	}
	return fmt.Sprintf("%d packets, %.0f a second each way, %d lost%s", there.Sent+back.Sent,
		float64(there.Sent)/s.took.Seconds(), lost, note)
}

// xfrmErrors lists what the host's kernel has counted of packets that it could
// not encrypt or decrypt.
func (h *Host) xfrmErrors() string {
	var out strings.Builder
	stat := h.XfrmStat()
	for _, name := range slices.Sorted(maps.Keys(stat)) {
		fmt.Fprintf(&out, " %s: %s %d\n", h.Name, name, stat[name])
	}
	return out.String()
}

// mostAtOnce bounds what is sent before what has come is read: who is late for
// long must not fill the receiver's socket.
const mostAtOnce = 128

// send sends what is due until now: what ticks were missed is caught up with, if
// the machine can.
func (d *direction) send(due int, now time.Time) {
	packet := make([]byte, 64)
	d.ticks = append(d.ticks, tick{d.report.Sent, now})
	for due = min(due, d.tried+mostAtOnce); d.tried < due; d.tried++ {
		binary.BigEndian.PutUint64(packet, uint64(d.report.Sent))
		err := unix.Sendto(d.from, packet, 0, d.dst)
		if errors.Is(err, unix.EAGAIN) {
			return // too much is under way, so at the next tick
		}
		if err != nil {
			d.report.Errors++
			d.report.LastError, d.report.RefusedAt = err, now
			continue
		}
		d.report.Sent++
	}
}

// receive counts what has come.
func (d *direction) receive(buf []byte) {
	for {
		n, err := unix.Read(d.to, buf)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EBADF) {
			return
		}
		// Another error is an ICMP message about what this socket sent.
		if err == nil && n >= 8 {
			d.count(int(binary.BigEndian.Uint64(buf)), time.Now())
		}
	}
}

// count notes one packet that arrived.
func (d *direction) count(seq int, now time.Time) {
	if seq < 0 || seq >= d.report.Sent {
		return // not ours
	}
	for len(d.seen) <= seq {
		d.seen = append(d.seen, false)
	}
	if d.seen[seq] {
		d.report.Duplicated++
		return
	}
	d.seen[seq] = true
	d.report.Received++
	if seq < d.newest {
		d.report.Reordered++
	} else {
		d.newest = seq
	}
	if !d.last.IsZero() {
		d.report.Gap = max(d.report.Gap, now.Sub(d.last))
	}
	d.last = now
}

func (d *direction) result() Report {
	r := d.report
	r.Lost = r.Sent - r.Received
	return r
}

// findHoles lists what has not arrived.
func (d *direction) findHoles() {
	for seq := 0; seq < d.report.Sent; seq++ {
		if seq < len(d.seen) && d.seen[seq] {
			continue
		}
		if n := len(d.report.Holes); n > 0 && d.report.Holes[n-1].First+d.report.Holes[n-1].Count == seq {
			d.report.Holes[n-1].Count++
			d.report.Holes[n-1].To = d.sentAt(seq)
			continue
		}
		d.report.Holes = append(d.report.Holes, Hole{First: seq, Count: 1, From: d.sentAt(seq), To: d.sentAt(seq)})
	}
}

// sentAt is when a packet was sent.
func (d *direction) sentAt(seq int) time.Time {
	later, _ := slices.BinarySearchFunc(d.ticks, seq+1, func(t tick, next int) int { return t.first - next })
	return d.ticks[later-1].at
}
