package conf

import (
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// maxDuration bounds every duration in a file: more than anyone means, and
// little enough that a tenth more does not overflow.
const maxDuration = 100 * 365 * 24 * time.Hour

var days = regexp.MustCompile(`^([0-9]{1,5})d`)

// parseDuration reads "30s", "50m", "1h30m", "1d" or "1d12h".
func parseDuration(s string) (time.Duration, error) {
	rest, whole := s, time.Duration(0)
	if m := days.FindStringSubmatch(s); m != nil {
		n, _ := strconv.Atoi(m[1])
		whole, rest = time.Duration(n)*24*time.Hour, s[len(m[0]):]
	}
	var part time.Duration
	if rest != "" || whole == 0 && s == "" {
		if rest == "" || rest[0] < '0' || rest[0] > '9' {
			return 0, notDuration(s)
		}
		var err error
		if part, err = time.ParseDuration(rest); err != nil {
			return 0, notDuration(s)
		}
	}
	if whole > maxDuration || part > maxDuration || whole+part > maxDuration {
		return 0, fmt.Errorf("%s is longer than %s", s, FormatDuration(maxDuration))
	}
	return whole + part, nil
}

func notDuration(s string) error {
	if strings.Trim(s, "0123456789") == "" && s != "" {
		return fmt.Errorf("%q has no unit; write %q or %q", s, s+"s", s+"m")
	}
	return fmt.Errorf("%q is no duration; write \"30s\", \"50m\", \"1h30m\" or \"1d\"", s)
}

// FormatDuration is d as parseDuration reads it, without parts that are zero.
func FormatDuration(d time.Duration) string {
	s := ""
	if n := d / (24 * time.Hour); n > 0 {
		s, d = fmt.Sprintf("%dd", n), d%(24*time.Hour)
	}
	if n := d / time.Hour; n > 0 {
		s, d = s+fmt.Sprintf("%dh", n), d%time.Hour
	}
	if n := d / time.Minute; n > 0 {
		s, d = s+fmt.Sprintf("%dm", n), d%time.Minute
	}
	if d > 0 || s == "" {
		s += d.String()
	}
	return s
}

// duration is a duration of whole seconds, at least one: nothing in IKE and
// in the kernel counts finer.
func (v value) duration(example string) (time.Duration, bool) {
	s, ok := v.raw.(string)
	if n, isInt := v.raw.(int64); isInt && n > 0 {
		v.wrong(fmt.Sprintf("write \"%ds\" or \"%dm\"", n, n), "%d has no unit", n)
		return 0, false
	}
	if !ok {
		v.wrongType("a duration", example)
		return 0, false
	}
	d, err := parseDuration(s)
	if err != nil {
		v.wrong("", "%v", err)
		return 0, false
	}
	if d < time.Second || d%time.Second != 0 {
		v.wrong("write "+strconv.Quote(FormatDuration(max(d.Round(time.Second), time.Second))), "%q is not one second or more, in whole seconds", s)
		return 0, false
	}
	return d, true
}

// sizeUnits are powers of 1000 and of 1024.
var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"B", 1},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"PB", 1e15},
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"PiB", 1 << 50},
}

var sizes = regexp.MustCompile(`^([0-9][0-9_]{0,23}(?:\.[0-9]{1,12})?) ?([A-Za-z]*)$`)

// parseSize reads "512KiB", "100MB", "1.5GiB" or "4096", in bytes.
func parseSize(s string) (uint64, error) {
	m := sizes.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("%q is no size; write \"512KiB\", \"100MB\" or \"90GiB\"", s)
	}
	unit := int64(1)
	if m[2] != "" {
		unit = 0
		for _, u := range sizeUnits {
			if u.name == m[2] {
				unit = u.bytes
			}
		}
	}
	if unit == 0 {
		return 0, fmt.Errorf("%q is no unit; write %q (1024-fold) or %q (1000-fold)", m[2], likelyUnit(m[1], m[2], "iB"), likelyUnit(m[1], m[2], "B"))
	}
	n, ok := new(big.Rat).SetString(strings.ReplaceAll(m[1], "_", ""))
	if !ok {
		return 0, fmt.Errorf("%q is no number", m[1])
	}
	n.Mul(n, new(big.Rat).SetInt64(unit))
	if !n.IsInt() {
		return 0, fmt.Errorf("%q is no whole number of bytes", s)
	}
	if !n.Num().IsInt64() {
		return 0, fmt.Errorf("%q is more than %d bytes", s, int64(math.MaxInt64))
	}
	return n.Num().Uint64(), nil
}

// likelyUnit is the number with the unit that begins like the one written.
func likelyUnit(number, written, suffix string) string {
	letter := strings.ToUpper(written[:1])
	if !strings.Contains("KMGTP", letter) {
		letter = "G"
	}
	return number + letter + suffix
}

// size is a number of bytes, at least one.
func (v value) size() (uint64, bool) {
	return v.count(parseSize, "a size in quotes or a whole number of bytes", `"90GiB"`)
}

// packets is a number of packets, at least one.
func (v value) packets() (uint64, bool) {
	return v.count(func(s string) (uint64, error) {
		n, err := strconv.ParseInt(strings.ReplaceAll(s, "_", ""), 10, 64)
		if err != nil || n < 0 {
			return 0, fmt.Errorf("%q is no number of packets; write 3_000_000_000, without quotes", s)
		}
		return uint64(n), nil
	}, "a whole number", "3_000_000_000")
}

func (v value) count(parse func(string) (uint64, error), want, example string) (uint64, bool) {
	if s, ok := v.raw.(string); ok {
		n, err := parse(s)
		if err != nil {
			v.wrong("", "%v", err)
			return 0, false
		}
		if n == 0 {
			v.wrong(`write "off" in place of the pair for no limit`, "a limit is not 0")
			return 0, false
		}
		return n, true
	}
	n, ok := v.raw.(int64)
	if !ok {
		v.wrongType(want, example)
		return 0, false
	}
	if n <= 0 {
		v.wrong(`write a number above 0, or "off" in place of the pair for no limit`, "a limit is not %d", n)
		return 0, false
	}
	return uint64(n), true
}

var percents = regexp.MustCompile(`^([0-9]{1,3}(?:\.[0-9]{1,6})?) ?%$`)

// percent is a part of the whole, 0 to below 1.
func (v value) percent() (float64, bool) {
	s, ok := v.raw.(string)
	if !ok {
		v.wrongType("a percentage in quotes", `"10%"`)
		return 0, false
	}
	m := percents.FindStringSubmatch(s)
	if m == nil {
		v.wrong(`write "10%"`, "%q is no percentage", s)
		return 0, false
	}
	p, err := strconv.ParseFloat(m[1], 64)
	if err != nil || p >= 100 {
		v.wrong(`write less, such as "10%"`, "%s of a limit earlier leaves nothing of it", s)
		return 0, false
	}
	return p / 100, true
}
