//go:build linux

package harness

import "time"

// Poll calls f now and then until it returns true or the time is up.
func Poll(limit time.Duration, f func() bool) bool {
	for end := time.Now().Add(limit); ; {
		asked := time.Now()
		if f() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
		time.Sleep(min(Rest(asked, 50*time.Millisecond), time.Second))
	}
}

// Rest is how long to wait before asking again what was asked at a time and is
// answered now: most questions are processes, which under emulation would cost
// more than what they wait for.
func Rest(asked time.Time, least time.Duration) time.Duration {
	return max(least, 4*time.Since(asked))
}
