package userspace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// What one end sends has to wait for a slow link. That keeps nothing of what it
// receives waiting, nor a plane from closing.
func TestSlowPath(t *testing.T) {
	for _, procs := range []int{fewProcs, fewProcs + 1} {
		t.Run(fmt.Sprintf("%d processors", procs), func(t *testing.T) { slowPath(t, procs) })
	}
}

func slowPath(t *testing.T, procs int) {
	one, two := twoEndsOf(t, procs)
	connect(one, two, gcm)
	one.ip("link set outer txqueuelen 100000")
	slow := strings.Fields("tc -n " + one.name + " qdisc add dev outer root tbf rate 20mbit burst 64kb limit 100mb")
	if out, err := exec.Command(slow[0], slow[1:]...).CombinedOutput(); err != nil {
		t.Skipf("needs a kernel with sch_tbf: %s", out)
	}
	flood, _ := datagrams(t, one, two)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		b := make([]byte, 1300)
		for {
			if _, err := flood.Write(b); errors.Is(err, net.ErrClosed) {
				return
			}
		}
	}()
	k := one.plane.carrier.(*workers).workers[0]
	isFull := func() bool {
		k.sending.Lock()
		defer k.sending.Unlock()
		return k.out.waiting > 0
	}
	// A machine that has other things to do is late, too, but not each time.
	const tries = 3
	for try := 1; ; try++ {
		full := 0
		delays := delaysOf(t, two, one, func() {
			for range 100 {
				time.Sleep(10 * time.Millisecond)
				if isFull() {
					full++
				}
			}
		})
		if full < 50 || len(delays) < 100 {
			t.Fatalf("the socket was full %d times of 100, %d datagrams arrived the other way", full, len(delays))
		}
		slices.Sort(delays)
		median := delays[len(delays)/2]
		if median < 20*time.Millisecond {
			break
		}
		if try == tries {
			t.Fatalf("the other way it takes %v", median)
		}
	}
	begun := time.Now()
	must(t, one.plane.Close())
	if took := time.Since(begun); took > time.Second {
		t.Errorf("it takes %v to close", took)
	}
	must(t, flood.Close())
	<-stopped
	host(t, "tc -n %s qdisc del dev outer root", one.name)
	one.open()
	transfer(one, two, inner4(1), inner4(2), 1<<20)
}

// delaysOf sends a datagram a millisecond while it does something, and returns how
// long those were under way that arrived.
func delaysOf(t *testing.T, from, to *end, while func()) []time.Duration {
	t.Helper()
	sender, receiver := datagrams(t, from, to)
	start := time.Now()
	result := make(chan []time.Duration)
	go func() {
		var delays []time.Duration
		b := make([]byte, 8)
		for {
			if _, err := receiver.Read(b); err != nil {
				result <- delays
				return
			}
			delays = append(delays, time.Since(start)-time.Duration(binary.BigEndian.Uint64(b)))
		}
	}()
	stop := make(chan struct{})
	go func() {
		b := make([]byte, 8)
		for tick := time.NewTicker(time.Millisecond); ; {
			select {
			case <-stop:
				tick.Stop()
				receiver.Close()
				return
			case <-tick.C:
			}
			binary.BigEndian.PutUint64(b, uint64(time.Since(start)))
			_, _ = sender.Write(b)
		}
	}()
	while()
	close(stop)
	return <-result
}
