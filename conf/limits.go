package conf

import (
	"fmt"
	"math"
	"time"
)

// A pair is a soft and a hard limit; zeros are no limit.
type pair[T time.Duration | uint64] struct{ soft, hard T }

// A scale is what a pair of limits is counted in.
type scale[T time.Duration | uint64] struct {
	parse   func(value) (T, bool)
	show    func(T) string
	step    T // the least there is of it
	example string
	off     bool // "off" may stand for no limit
}

var (
	timeScale = scale[time.Duration]{
		parse: func(v value) (time.Duration, bool) { return v.duration(`"50m"`) },
		show:  FormatDuration, step: time.Second, off: true,
		example: `{ soft = "50m", hard = "60m" }`,
	}
	ikeScale = scale[time.Duration]{
		parse: func(v value) (time.Duration, bool) { return v.duration(`"4h"`) },
		show:  FormatDuration, step: time.Second,
		example: `{ soft = "4h", hard = "4h30m" }`,
	}
	byteScale = scale[uint64]{
		parse: value.size, show: func(n uint64) string { return fmt.Sprint(n) }, step: 1, off: true,
		example: `{ soft = "90GiB", hard = "100GiB" }`,
	}
	packetScale = scale[uint64]{
		parse: value.packets, show: func(n uint64) string { return fmt.Sprint(n) }, step: 1, off: true,
		example: `{ soft = 3_000_000_000, hard = 4_000_000_000 }`,
	}
)

// read is a pair of limits. Where one is left out it follows from the other:
// the hard limit is the soft one and a tenth, as with strongSwan; the soft
// limit is nine tenths of the hard one.
func (s scale[T]) read(v value) (pair[T], bool) {
	if s.off && v.raw == "off" {
		return pair[T]{}, true
	}
	t, ok := v.table(s.example, limitKeys)
	if !ok {
		return pair[T]{}, false
	}
	soft, hard := read(t, "soft", s.parse), read(t, "hard", s.parse)
	_, softWritten := t.get("soft")
	_, hardWritten := t.get("hard")
	if softWritten && !soft.set || hardWritten && !hard.set {
		return pair[T]{}, false // said already
	}
	p := pair[T]{soft.val, hard.val}
	switch {
	case !softWritten && !hardWritten:
		v.wrong("write "+s.example, "neither limit is there")
		return p, false
	case !hardWritten:
		p.hard = p.soft + s.tenth(p.soft)
	case !softWritten:
		if p.hard <= s.step {
			v.add(hard.at, "write more, or a soft limit too", "a hard limit of %s leaves no room for a soft one below it", s.show(p.hard))
			return p, false
		}
		p.soft = p.hard - s.tenth(p.hard)
	case p.soft >= p.hard:
		v.add(soft.at, fmt.Sprintf("a rekey starts at soft and must be done at hard; write %s", s.example),
			"the soft limit %s is not below the hard limit %s", s.show(p.soft), s.show(p.hard))
		return p, false
	}
	return p, true
}

// tenth is a tenth of n, up to whole steps.
func (s scale[T]) tenth(n T) T { return (n + 10*s.step - 1) / (10 * s.step) * s.step }

// lifetimeSettings is a [lifetime] or [peer.lifetime].
type lifetimeSettings struct {
	time, use      option[pair[time.Duration]]
	bytes, packets option[pair[uint64]]
	jitter         option[float64]
}

func readLifetime(t *table) lifetimeSettings {
	return lifetimeSettings{
		time:    read(t, "time", timeScale.read),
		use:     read(t, "use", timeScale.read),
		bytes:   read(t, "bytes", byteScale.read),
		packets: read(t, "packets", packetScale.read),
		jitter:  read(t, "jitter", value.percent),
	}
}

func (s lifetimeSettings) over(base lifetimeSettings) lifetimeSettings {
	return lifetimeSettings{
		time:    s.time.over(base.time),
		use:     s.use.over(base.use),
		bytes:   s.bytes.over(base.bytes),
		packets: s.packets.over(base.packets),
		jitter:  s.jitter.over(base.jitter),
	}
}

// The defaults of a Child SA's life. Limits of use, bytes and packets have none.
const (
	defaultSoftTime = 50 * time.Minute
	defaultHardTime = 60 * time.Minute
	defaultJitter   = 0.1
)

// shortGap is the least time between soft and hard that a rekey to a peer
// that is slow or loses packets has a chance in.
const shortGap = 5 * time.Second

// resolve fills in the defaults and sees that jitter leaves something of each
// limit. The default jitter yields to a limit that cannot bear it.
func (s lifetimeSettings) resolve(p *problems) Lifetime {
	span := s.time.or(pair[time.Duration]{defaultSoftTime, defaultHardTime})
	use, bytes, packets := s.use.or(pair[time.Duration]{}), s.bytes.or(pair[uint64]{}), s.packets.or(pair[uint64]{})
	l := Lifetime{
		SoftTime: span.soft, HardTime: span.hard,
		SoftUse: use.soft, HardUse: use.hard,
		SoftBytes: bytes.soft, HardBytes: bytes.hard,
		SoftPackets: packets.soft, HardPackets: packets.hard,
		Jitter: s.jitter.or(defaultJitter),
	}
	for _, c := range []struct {
		name string
		soft float64 // in steps
		show string
	}{
		{"time", l.SoftTime.Seconds(), FormatDuration(l.SoftTime)},
		{"use", l.SoftUse.Seconds(), FormatDuration(l.SoftUse)},
		{"bytes", float64(l.SoftBytes), byteScale.show(l.SoftBytes)},
		{"packets", float64(l.SoftPackets), packetScale.show(l.SoftPackets)},
	} {
		if c.soft == 0 || c.soft*(1-l.Jitter) >= 1-1e-9 {
			continue
		}
		if s.jitter.set {
			p.add(s.jitter.at, "write less, such as \"0%\", or a higher limit",
				"%v%% earlier than %s.soft = %s may be zero", math.Round(l.Jitter*1e8)/1e6, c.name, c.show)
		} else {
			l.Jitter = 0
		}
	}
	if gap := span.hard - span.soft; s.time.set && span.hard > 0 && gap < shortGap {
		p.warn(s.time.at, "", "a rekey that takes longer than the %s between soft and hard interrupts the traffic", FormatDuration(gap))
	}
	if span.hard == 0 && use.hard == 0 && bytes.hard == 0 && packets.hard == 0 {
		p.warn(s.time.at, "write "+timeScale.example, "no limit is left: the keys of ESP are never changed")
	}
	return l
}

// Draw is l with each soft limit drawn earlier by up to Jitter of itself: by
// r of that, 0 to 1. A fresh r for each SA keeps the rekeys of many SAs, and
// those of the two ends, apart. No limit becomes zero.
func (l Lifetime) Draw(r float64) Lifetime {
	part := 1 - l.Jitter*min(max(r, 0), 1)
	seconds := func(d time.Duration) time.Duration {
		if d == 0 {
			return 0
		}
		return max(time.Duration(float64(d)*part).Truncate(time.Second), time.Second)
	}
	count := func(n uint64) uint64 {
		if n == 0 || part == 1 {
			return n
		}
		return min(max(uint64(float64(n)*part), 1), n)
	}
	l.SoftTime, l.SoftUse = seconds(l.SoftTime), seconds(l.SoftUse)
	l.SoftBytes, l.SoftPackets = count(l.SoftBytes), count(l.SoftPackets)
	return l
}
