package ike

import (
	"flag"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

var (
	seeds     = flag.Uint64("seeds", 50, "how many seeds the simulation plays")
	firstSeed = flag.Uint64("first-seed", 1, "the first of them")
	shown     = flag.Int("shown", 5, "how many failing seeds the simulation shows")
	traced    = flag.Int("traced", 300, "how many lines of what came before a failure it shows")
)

// TestSimulation plays many lives of a tunnel, each decided by a seed, and checks
// after each action that no packet is lost and that what the protocol demands
// holds. A seed that fails does so again when it is played alone.
func TestSimulation(t *testing.T) {
	found := simulateAll(*firstSeed, *seeds, mutation{}, *shown)
	for _, f := range found.shown {
		again := simulate(f.seed, mutation{}, true)
		if again == nil || again.text != f.text {
			t.Errorf("seed %d: %s\nand not the same when it was played again: %v", f.seed, f.text, again)
			continue
		}
		last := again.trace[max(0, len(again.trace)-*traced):]
		t.Errorf("%s\nseed %d: %s\nreplay it: go test ./ike -run Simulation -seeds 1 -first-seed %d",
			strings.Join(last, "\n"), f.seed, f.text, f.seed)
	}
	fmt.Printf("%d seeds from %d, %d violations\n", *seeds, *firstSeed, found.count)
	if found.count > 0 {
		t.Errorf("%d violations", found.count)
	}
}

// findings are the seeds that failed.
type findings struct {
	count uint64
	shown []*violation // the first of them that were found
}

// simulateAll plays seeds on all CPUs. With enough failing seeds it stops looking
// for more to show, but goes on counting.
func simulateAll(from, count uint64, breaks mutation, show int) (all findings) {
	var next atomic.Uint64
	var lock sync.Mutex
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < count; i = next.Add(1) - 1 {
				f := simulate(from+i, breaks, false)
				if f == nil {
					continue
				}
				lock.Lock()
				if all.count++; len(all.shown) < show {
					all.shown = append(all.shown, f)
				}
				lock.Unlock()
			}
		})
	}
	workers.Wait()
	return all
}
