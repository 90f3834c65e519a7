//go:build linux

package harness

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
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

// Stream is UDP packets with sequence numbers, both ways at a constant rate.
type Stream struct {
	t       testing.TB
	a, b    *Host
	there   *direction
	back    *direction
	cancel  context.CancelFunc
	sending sync.WaitGroup
	done    sync.WaitGroup
	once    sync.Once
}

// Report is what became of one direction of a Stream.
type Report struct {
	Sent, Received, Lost  int
	Duplicated, Reordered int
	// Gap is the longest time between two packets that arrived.
	Gap time.Duration
	// Errors counts sends that the sender's kernel refused; not in Sent.
	Errors int
	// LastError is the latest of these.
	LastError error
}

func (r Report) String() string {
	s := fmt.Sprintf("%d sent, %d lost, %d duplicated, %d reordered, longest gap %v",
		r.Sent, r.Lost, r.Duplicated, r.Reordered, r.Gap.Round(time.Millisecond))
	if r.Errors > 0 {
		s += fmt.Sprintf(", %d refused (%v)", r.Errors, r.LastError)
	}
	return s
}

// direction is one sender and its receiver.
type direction struct {
	from, to *net.UDPConn
	dst      netip.AddrPort

	mu     sync.Mutex
	report Report
	seen   []bool
	newest int
	last   time.Time
}

// StartStream sends rate packets a second from an address of a to an address of
// b, and as many back, until Stop.
func StartStream(t testing.TB, a *Host, from netip.Addr, b *Host, to netip.Addr, rate int) *Stream {
	t.Helper()
	ca, err := a.ListenUDP(netip.AddrPortFrom(from, 0))
	if err != nil {
		t.Fatalf("stream: %s: %v", a.Name, err)
	}
	cb, err := b.ListenUDP(netip.AddrPortFrom(to, 0))
	if err != nil {
		t.Fatalf("stream: %s: %v", b.Name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Stream{t: t, a: a, b: b, cancel: cancel}
	s.there = &direction{from: ca, to: cb, dst: localAddr(cb), newest: -1}
	s.back = &direction{from: cb, to: ca, dst: localAddr(ca), newest: -1}
	for _, d := range []*direction{s.there, s.back} {
		// What comes while the receiver does not get to run must not be lost in
		// its socket, which is no part of the tunnel.
		if err := forceReadBuffer(d.to, 32<<20); err != nil {
			t.Fatalf("stream: %v", err)
		}
		s.sending.Add(1)
		s.done.Add(1)
		go func() { defer s.sending.Done(); d.send(ctx, rate) }()
		go func() { defer s.done.Done(); d.receive() }()
	}
	t.Cleanup(s.end)
	return s
}

// forceReadBuffer sets a receive buffer above net.core.rmem_max.
func forceReadBuffer(c *net.UDPConn, size int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size)
	})
	return errors.Join(err, set)
}

func localAddr(c *net.UDPConn) netip.AddrPort {
	return c.LocalAddr().(*net.UDPAddr).AddrPort() //nolint:errcheck // a UDPConn's address is a UDPAddr
}

// end stops sending, waits for what is under way and closes the sockets.
func (s *Stream) end() {
	s.once.Do(func() {
		s.cancel()
		s.sending.Wait()
		there, back := s.Peek()
		for start, last := time.Now(), time.Now(); there.Lost+back.Lost > 0 &&
			time.Since(last) < quiet && time.Since(start) < drain; time.Sleep(20 * time.Millisecond) {
			before := there.Received + back.Received
			if there, back = s.Peek(); there.Received+back.Received != before {
				last = time.Now()
			}
		}
		s.there.from.Close()
		s.back.from.Close()
		s.done.Wait()
	})
}

// Stop ends the stream and reports on both directions, from a to b first.
func (s *Stream) Stop() (there, back Report) {
	s.end()
	return s.there.result(), s.back.result()
}

// Peek reports while the stream runs; packets under way count as lost.
func (s *Stream) Peek() (there, back Report) {
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
	return fmt.Sprintf("%d packets, %d lost%s", there.Sent+back.Sent, lost, note)
}

// xfrmErrors lists what the host's kernel has counted of packets that it could
// not encrypt or decrypt.
func (h *Host) xfrmErrors() string {
	var text []byte
	err := h.Do(func() error {
		var err error
		text, err = os.ReadFile("/proc/thread-self/net/xfrm_stat")
		return err
	})
	if err != nil {
		return err.Error()
	}
	var out strings.Builder
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 2 && f[1] != "0" {
			fmt.Fprintf(&out, " %s: %s %s\n", h.Name, f[0], f[1])
		}
	}
	return out.String()
}

// send sends at the rate; what the clock's ticks miss is caught up with.
func (d *direction) send(ctx context.Context, rate int) {
	tick := time.NewTicker(max(time.Second/time.Duration(rate), 2*time.Millisecond))
	defer tick.Stop()
	packet := make([]byte, 64)
	start := time.Now()
	for seq, tried := 0, 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		due := int(time.Since(start).Seconds() * float64(rate))
		for ; tried < due && ctx.Err() == nil; tried++ {
			binary.BigEndian.PutUint64(packet, uint64(seq))
			_, err := d.from.WriteToUDPAddrPort(packet, d.dst)
			d.mu.Lock()
			if err != nil {
				d.report.Errors++
				d.report.LastError = err
			} else {
				seq++
				d.report.Sent = seq
			}
			d.mu.Unlock()
		}
	}
}

// receive counts what arrives until the socket is closed.
func (d *direction) receive() {
	buf := make([]byte, 2048)
	for {
		n, _, err := d.to.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		// Another error is an ICMP message about what this socket sent.
		if err != nil || n < 8 {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			continue
		}
		d.count(int(binary.BigEndian.Uint64(buf)), time.Now())
	}
}

// count notes one packet that arrived.
func (d *direction) count(seq int, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if seq < 0 || seq > d.report.Sent+1<<16 {
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
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.report
	r.Lost = r.Sent - r.Received
	return r
}
