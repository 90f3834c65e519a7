package userspace

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ipsec-quick/apply"
)

// Workers look up, send and receive while everything changes. It is the race
// detector that judges, and that no sequence number is taken twice.
func TestChangesUnderTraffic(t *testing.T) {
	p, _ := openBench(t, t.TempDir())
	guard := apply.Policy{Selector: inner, Action: apply.Block, Guard: true}
	must(t, p.SetPolicy(guard))
	must(t, p.InstallSA(inSA(0xc1000000)))
	var stop atomic.Bool
	var workers sync.WaitGroup
	var sent, received, events atomic.Uint64
	type number struct {
		a   *association
		seq uint64
	}
	taken := make(chan map[number]bool, 2)
	for range 2 {
		workers.Go(func() {
			mine := map[number]bool{}
			for !stop.Load() {
				tb := p.tables.Load()
				if e := tb.outbound(&leaves); e.sa != nil {
					if first, n := send(e.sa, 5, 1000); n > 0 {
						sent.Add(uint64(n))
						mine[number{e.sa, first}] = true
					}
				} else {
					p.acquire(e, &leaves, now())
				}
			}
			taken <- mine
		})
		workers.Go(func() {
			for low := uint32(1); !stop.Load(); low++ {
				tb := p.tables.Load()
				a := tb.find(0xc1000000, us)
				if a != nil && receive(a, low, 100) {
					received.Add(1)
					tb.permits(a, &enters)
				}
			}
		})
	}
	workers.Go(func() {
		for range p.Events() {
			events.Add(1)
		}
	})
	workers.Go(func() {
		for !stop.Load() {
			if _, err := p.List([]uint32{7}); err != nil && !errors.Is(err, os.ErrClosed) {
				t.Error(err)
			}
		}
	})
	end := time.Now().Add(time.Second)
	for spi := uint32(0xc0000001); time.Now().Before(end); spi++ {
		sa := outSA(spi)
		sa.Soft.Packets, sa.Hard.Packets = 50, 100
		must(t, p.InstallSA(sa))
		must(t, p.SetPolicy(protect(spi)))
		sa.Dst = moved
		if spi%3 == 0 {
			_ = p.UpdateSA(sa) // it may have expired
		} else {
			sa.Dst = peer
		}
		must(t, p.UpdateSA(inSA(0xc1000000)))
		if spi%2 == 0 {
			must(t, p.RemovePolicy(protect(spi)))
		}
		_ = p.RemoveSA(sa.ID())
	}
	stop.Store(true)
	must(t, p.Close())
	workers.Wait()
	one, two := <-taken, <-taken
	for n := range one {
		if two[n] {
			t.Fatalf("%d was taken twice", n.seq)
		}
	}
	t.Logf("%d sent, %d received, %d events", sent.Load(), received.Load(), events.Load())
	if sent.Load() == 0 || received.Load() == 0 {
		t.Error("no traffic")
	}
}
