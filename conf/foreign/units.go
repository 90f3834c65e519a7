package foreign

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// maxSpan is what no lifetime in use exceeds.
const maxSpan = 10 * 365 * 24 * time.Hour

// timeUnits are those of strongSwan and libreswan. Without one it is seconds.
var timeUnits = []struct {
	name string
	unit time.Duration
}{
	{"ms", time.Millisecond}, {"s", time.Second}, {"m", time.Minute}, {"h", time.Hour}, {"d", 24 * time.Hour}, {"w", 7 * 24 * time.Hour}, {"", time.Second},
}

// parseTime reads "90", "90s" or "1h" in whole seconds.
func parseTime(s string) (time.Duration, bool) {
	for _, u := range timeUnits {
		digits, ok := strings.CutSuffix(strings.ToLower(strings.TrimSpace(s)), u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
		if err != nil || !(n >= 0) || n > float64(maxSpan/u.unit) {
			continue
		}
		return time.Duration(n * float64(u.unit)).Truncate(time.Second), true
	}
	return 0, false
}

// time is a key's duration, and whether there is one.
func (b block) time(key string) (time.Duration, bool) {
	v, _ := b.get(key)
	if v == "" {
		return 0, false
	}
	d, ok := parseTime(v)
	if !ok {
		b.remark(key, "%q was not understood as a time; it was left out", v)
	}
	return d, ok
}

// countUnits are those of limits; strongSwan's and libreswan's are 1024-fold.
var countUnits = []struct {
	name string
	unit uint64
}{
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40}, {"pib", 1 << 50}, {"eib", 1 << 60},
	{"ki", 1 << 10}, {"mi", 1 << 20}, {"gi", 1 << 30}, {"ti", 1 << 40}, {"pi", 1 << 50}, {"ei", 1 << 60},
	{"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}, {"t", 1 << 40}, {"p", 1 << 50}, {"", 1},
}

// number is a limit of bytes or packets; 0 for none, which is what one that no SA
// reaches is too.
func (b block) number(key string) uint64 {
	v, _ := b.get(key)
	if v == "" || v == "0" {
		return 0
	}
	for _, u := range countUnits {
		digits, ok := strings.CutSuffix(strings.ToLower(v), u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 64)
		switch {
		case err != nil:
			continue
		case n > math.MaxInt64/u.unit:
			return 0
		}
		return n * u.unit
	}
	b.remark(key, "%q was not understood as a number; it was left out", v)
	return 0
}

// jitter sets how much earlier than its soft limit an SA may be rekeyed.
func (e *ends) jitter(random, soft time.Duration) {
	percent := min(math.Round(1000*random.Seconds()/soft.Seconds())/10, 99)
	e.peer.lifetime.set("jitter", quote(strconv.FormatFloat(percent, 'f', -1, 64)+"%"))
}
