//go:build lab

package bench_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/test/harness"
)

// steps are what is measured in each run. Each returns figures by the name of
// their row.
var steps = []struct {
	name    string
	measure func(*testing.T, *contestant) map[string]float64
}{
	{"tcp", tcpOne},
	{"tcp", tcpFour},
	{"tcp", tcpBoth},
	{"udp", udpRates},
	{"latency", latencyIdle},
	{"latency", latencyLoaded},
}

func tcpOne(t *testing.T, c *contestant) map[string]float64 {
	before := busy(t)
	r := c.iperf(t)
	used := busy(t) - before
	return map[string]float64{"TCP, one stream": r.Rate / 1e9, "CPU, one stream": used / (r.Bytes / (1 << 30))}
}

func tcpFour(t *testing.T, c *contestant) map[string]float64 {
	return map[string]float64{"TCP, four streams": c.iperf(t, "--parallel", "4").Rate / 1e9}
}

func tcpBoth(t *testing.T, c *contestant) map[string]float64 {
	r := c.iperf(t, "--bidir")
	return map[string]float64{"TCP, one stream each way": (r.Rate + r.Back) / 1e9}
}

// iperf sends TCP from a to b.
func (c *contestant) iperf(t *testing.T, flags ...string) harness.Iperf {
	t.Helper()
	r, err := c.a.Iperf(c.a.Inner4, c.b.Inner4, *span, flags...)
	if err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	return r
}

// busy is for how many seconds the machine's processors have worked, all
// together: for the tunnel, for those who use it, and for what else is there.
func busy(t *testing.T) float64 {
	t.Helper()
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	var user, nice, system, idle, wait, irq, softirq float64
	if _, err := fmt.Sscanf(string(text), "cpu %f %f %f %f %f %f %f",
		&user, &nice, &system, &idle, &wait, &irq, &softirq); err != nil {
		t.Fatal(err)
	}
	const userHZ = 100
	return (user + nice + system + irq + softirq) / userHZ
}

func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}

func latencyIdle(t *testing.T, c *contestant) map[string]float64 {
	median, p99 := roundTrips(t, c, *span/2)
	return map[string]float64{"round trip, idle, median": median, "round trip, idle, p99": p99}
}

// latencyLoaded is latencyIdle while a TCP stream takes all that it can get.
func latencyLoaded(t *testing.T, c *contestant) map[string]float64 {
	done := make(chan error, 1)
	go func() {
		_, err := c.a.Iperf(c.a.Inner4, c.b.Inner4, *span/2+time.Second)
		done <- err
	}()
	time.Sleep(500 * time.Millisecond)
	median, p99 := roundTrips(t, c, *span/2)
	if err := <-done; err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	return map[string]float64{"round trip, loaded, median": median, "round trip, loaded, p99": p99}
}

// patience is how long an answer is waited for. Behind a TCP stream packets of
// some wait for long.
const patience = time.Second

// roundTrips sends a packet a millisecond, each after the answer to the last,
// and returns the times in microseconds.
func roundTrips(t *testing.T, c *contestant, length time.Duration) (median, p99 float64) {
	t.Helper()
	l := newLink(t, c)
	defer l.close()
	echo := make(chan struct{})
	go func() {
		defer close(echo)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		buf := make([]byte, 64)
		for {
			n, err := unix.Read(l.to, buf)
			if errors.Is(err, unix.EAGAIN) {
				continue
			}
			if err != nil || n == 0 { // the socket was shut down
				return
			}
			_, _ = unix.Write(l.to, buf[:n]) // or it is lost, which is counted
		}
	}()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	wait := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(l.from, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		t.Fatal(err)
	}
	var times []float64
	packet, buf := make([]byte, 64), make([]byte, 64)
	number := uint64(0)
	for start := time.Now(); time.Since(start) < length; time.Sleep(time.Millisecond) {
		number++
		binary.BigEndian.PutUint64(packet, number)
		sent := time.Now()
		if _, err := unix.Write(l.from, packet); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		var err error
		for buf[0] = 0xff; err == nil && binary.BigEndian.Uint64(buf) != number; { // or late, of another
			_, err = unix.Read(l.from, buf)
		}
		if err == nil {
			times = append(times, float64(time.Since(sent))/float64(time.Microsecond))
		}
	}
	_ = unix.Shutdown(l.to, unix.SHUT_RDWR)
	<-echo
	if len(times) == 0 {
		t.Fatalf("%s: none of %d packets came back", c.name, number)
	}
	slices.Sort(times)
	return quantile(times, 0.5), quantile(times, 0.99)
}

// quantile is of a sorted list.
func quantile(list []float64, q float64) float64 {
	return list[int(q*float64(len(list)-1)+0.5)]
}

// remembered is what a contestant's daemons have resident, in MiB.
type remembered struct{ peak, after float64 }

const (
	floodFor  = 10 * time.Second
	restFor   = time.Minute
	floodSize = 1300
)

// memory floods each contestant that has daemons, and waits a minute for all
// together. Of the two daemons it is the larger one.
func memory(t *testing.T, field []*contestant) map[*contestant]remembered {
	t.Helper()
	result := map[*contestant]remembered{}
	for _, c := range field {
		if c.daemons == nil {
			continue
		}
		for _, pid := range c.daemons {
			// So that VmHWM counts from here.
			if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		}
		flood := newLink(t, c)
		got := flood.trial(floodSize, math.Inf(1), floodFor)
		flood.close()
		result[c] = remembered{peak: c.resident(t, "VmHWM")}
		progress("%s: flooded with %.0f packets/s, %.1f %% arrived, %.0f MiB", c.name,
			got.rate, 100*(1-got.loss), result[c].peak)
	}
	time.Sleep(restFor)
	for c, m := range result {
		m.after = c.resident(t, "VmRSS")
		result[c] = m
	}
	return result
}
