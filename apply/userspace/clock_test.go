package userspace

import (
	"testing"
	"time"
)

// A clock never goes back, is not ahead of the time, and catches up with it.
func TestClock(t *testing.T) {
	var c clock
	last, calls := int64(0), 0
	for start := time.Now(); time.Since(start) < 4*relyFor; calls++ {
		got := c.now()
		if got < last {
			t.Fatalf("%d ns after %d", got, last)
		}
		if after := now(); got > after {
			t.Fatalf("%d ns at %d", got, after)
		}
		last = got
	}
	t.Logf("%d calls", calls)
	c.at -= int64(time.Hour) // as if the host had been suspended since
	time.Sleep(relyFor)
	if before, got := now(), c.now(); got < before {
		t.Errorf("%v behind after %v", time.Duration(before-got), relyFor)
	}
}

func BenchmarkClock(b *testing.B) {
	var c clock
	for b.Loop() {
		c.now()
	}
}
