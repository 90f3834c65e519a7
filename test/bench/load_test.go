//go:build lab

package bench_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// udpSizes are those of the data of a UDP packet, in octets.
var udpSizes = []int{64, 512, 1300}

const (
	// lossAllowed is what counts as no loss: where all share two processors some
	// buffer overflows now and then whatever the rate.
	lossAllowed = 0.001
	// late is after how long a packet counts as lost.
	late = 100 * time.Millisecond
	// mostTrials bounds the search of a rate.
	mostTrials = 14
	// closeEnough is the step at which the search ends.
	closeEnough = 1.04
	// batch is how many packets one system call sends or receives.
	batch = 32
)

func udpRates(t *testing.T, c *contestant) map[string]float64 {
	l := newLink(t, c)
	defer l.close()
	figures := map[string]float64{}
	for _, size := range udpSizes {
		start, step := 50e3, 2.0
		if before := c.rates[size]; before > 0 {
			start, step = before, math.Sqrt2
		}
		rate := l.highestRate(size, start, step)
		if rate == 0 {
			t.Fatalf("%s: no rate of %d octets without loss", c.name, size)
		}
		c.rates[size] = rate
		figures[udpRow(size)] = rate
	}
	return figures
}

func udpRow(size int) string { return fmt.Sprintf("UDP, %d octets", size) }

// highestRate is the highest rate, in packets a second, that loses nothing. It
// goes up while nothing is lost and down while something is, in steps that become
// smaller at each turn. What is lost in one trial may be lost to something else,
// so each rate gets a second one.
func (l *link) highestRate(size int, rate, step float64) float64 {
	best, before := 0.0, false
	for trial := 0; trial < mostTrials && step > closeEnough; trial++ {
		var good bool
		for try := 0; try < 2 && !good; try++ {
			got := l.trial(size, rate, *span/4)
			if got.loss <= lossAllowed {
				best = max(best, got.rate)
				good = got.rate > 0.95*rate // else the sender cannot do more
			}
		}
		if trial > 0 && good != before {
			step = math.Sqrt(step)
		}
		if before = good; good {
			rate *= step
		} else {
			rate /= step
		}
	}
	return best
}

// A link is a pair of UDP sockets that are connected through the tunnel.
type link struct {
	t        *testing.T
	from, to int
	number   uint64 // of the trial
}

func newLink(t *testing.T, c *contestant) *link {
	t.Helper()
	l := &link{t: t}
	var addrFrom, addrTo unix.Sockaddr
	var err error
	if l.from, addrFrom, err = c.a.UDPSocket(c.a.Inner4); err != nil {
		t.Fatal(err)
	}
	if l.to, addrTo, err = c.b.UDPSocket(c.b.Inner4); err != nil {
		t.Fatal(err)
	}
	for fd, peer := range map[int]unix.Sockaddr{l.from: addrTo, l.to: addrFrom} {
		wait := unix.NsecToTimeval(late.Nanoseconds())
		err := errors.Join(unix.Connect(fd, peer), unix.SetNonblock(fd, false),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait))
		if err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func (l *link) close() {
	unix.Close(l.from)
	unix.Close(l.to)
}

// outcome is how a trial ended.
type outcome struct {
	rate float64 // that was sent, in packets a second
	loss float64 // the part of it that did not come in time
}

// trial sends at a rate, or as fast as can be at an infinite one, and counts what
// arrives.
func (l *link) trial(size int, rate float64, length time.Duration) outcome {
	l.t.Helper()
	l.number++
	var ended atomic.Int64 // when the last was sent, in nanoseconds since start
	start := time.Now()
	arrived := make(chan int, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		arrived <- l.receive(start, &ended)
	}()
	runtime.LockOSThread()
	sent := l.send(size, rate, start, length)
	runtime.UnlockOSThread()
	took := time.Since(start)
	ended.Store(int64(took))
	return outcome{rate: float64(sent) / took.Seconds(), loss: 1 - float64(<-arrived)/float64(sent)}
}

// messages are what sendmmsg and recvmmsg take.
type messages [batch]struct {
	header unix.Msghdr
	length uint32
}

// newMessages gives each message its own buffer of a size.
func newMessages(size int) (*messages, [][]byte) {
	m, buffers := &messages{}, make([][]byte, batch)
	for i := range m {
		buffers[i] = make([]byte, size)
		iov := &unix.Iovec{Base: &buffers[i][0]}
		iov.SetLen(size)
		m[i].header.Iov = iov
		m[i].header.SetIovlen(1)
	}
	return m, buffers
}

func (m *messages) call(number uintptr, fd, count int, flags uintptr) (int, error) {
	n, _, errno := unix.Syscall6(number, uintptr(fd), uintptr(unsafe.Pointer(m)), uintptr(count), flags, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// send returns how many packets it has sent.
func (l *link) send(size int, rate float64, start time.Time, length time.Duration) (sent int) {
	m, buffers := newMessages(size)
	for _, b := range buffers {
		binary.BigEndian.PutUint64(b, l.number)
	}
	for {
		elapsed := time.Since(start)
		if elapsed >= length {
			return sent
		}
		due := batch
		if !math.IsInf(rate, 1) {
			due = min(int(rate*elapsed.Seconds())-sent, batch)
		}
		if due <= 0 {
			time.Sleep(50 * time.Microsecond)
			continue
		}
		n, err := m.call(unix.SYS_SENDMMSG, l.from, due, 0)
		switch {
		case err == nil:
			sent += n
		case !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOBUFS):
			l.t.Errorf("sendmmsg: %v", err)
			return sent
		}
	}
}

// receive counts what arrives of this trial until it is late, and goes on until
// nothing comes any more, so that the next trial has the tunnel to itself.
func (l *link) receive(start time.Time, ended *atomic.Int64) (count int) {
	m, buffers := newMessages(2048)
	for {
		n, err := m.call(unix.SYS_RECVMMSG, l.to, batch, unix.MSG_WAITFORONE)
		end := time.Duration(ended.Load())
		if end > 0 && (err != nil || time.Since(start) > end+5*time.Second) {
			return count
		}
		if end > 0 && time.Since(start) > end+late {
			continue
		}
		for _, b := range buffers[:n] {
			if binary.BigEndian.Uint64(b) == l.number {
				count++
			}
		}
	}
}
