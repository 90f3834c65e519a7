package main

import (
	"fmt"
	"strings"
	"time"

	"ipsec-quick/conf"
	"ipsec-quick/watch"
)

// The width of bars, in characters.
const (
	leastBar = 10
	mostBar  = 50
)

// limit is how far an SA has come to one pair of its limits; one of 0 is none.
type limit struct {
	name             string
	used, soft, hard float64
	text             string
}

func timeLimit(name string, s watch.Seconds) limit {
	span := func(n int64) string { return conf.FormatDuration(seconds(n)) }
	return limit{name, float64(s.Used), float64(s.Soft), float64(s.Hard), limitText(span(s.Used), span(s.Soft), span(s.Hard), s.Soft != 0, s.Hard != 0)}
}

func countLimit(name string, c watch.Count, show func(uint64) string) limit {
	return limit{name, float64(c.Used), float64(c.Soft), float64(c.Hard), limitText(show(c.Used), show(c.Soft), show(c.Hard), c.Soft != 0, c.Hard != 0)}
}

// limitText spells limits as the tunnel file does.
func limitText(used, soft, hard string, hasSoft, hasHard bool) string {
	var of []string
	if hasSoft {
		of = append(of, soft+" soft")
	}
	if hasHard {
		of = append(of, hard+" hard")
	}
	return used + " of " + strings.Join(of, ", ")
}

// childLimits are those in force on a Child SA.
func childLimits(l *watch.Lifetime) []limit {
	return inForce([]limit{
		timeLimit("time", l.Time), timeLimit("use", l.Use), countLimit("bytes", l.Bytes, size),
		countLimit("packets", l.Packets, func(n uint64) string { return fmt.Sprint(n) }),
	})
}

func inForce(all []limit) []limit {
	var list []limit
	for _, l := range all {
		if l.soft != 0 || l.hard != 0 {
			list = append(list, l)
		}
	}
	return list
}

// showLimits prints a line for each limit, with bars of one width, or the bars
// below the text where there is no room beside it.
func showLimits(s screen, limits []limit) {
	const indent = "    "
	text := 0
	for _, l := range limits {
		text = max(text, len(l.text))
	}
	const around = len(indent) + len("packets: ") + len("[] ")
	room := s.width - around - text
	for _, l := range limits {
		name := s.paint(bold, l.name) + ":" + strings.Repeat(" ", len("packets")-len(l.name))
		if room >= leastBar {
			fmt.Fprintf(s, "%s%s [%s] %s\n", indent, name, l.bar(s, min(room, mostBar)), l.text)
			continue
		}
		fmt.Fprintf(s, "%s%s %s\n", indent, name, l.text)
		fmt.Fprintf(s, "%s[%s]\n", indent, l.bar(s, max(s.width-len(indent+"[]"), 1)))
	}
}

// bar is n characters from nothing to the hard limit, what is used filled, with
// a | where the soft limit stands.
func (l limit) bar(s screen, n int) string {
	end := l.hard
	if end == 0 {
		end = l.soft
	}
	cells := []byte(strings.Repeat(".", n))
	for i := range min(n, int(float64(n)*l.used/end)) {
		cells[i] = '#'
	}
	if l.soft != 0 {
		cells[min(n-1, int(float64(n)*l.soft/end))] = '|'
	}
	style := green
	switch {
	case l.hard != 0 && l.used >= l.hard:
		style = red
	case l.soft != 0 && l.used >= l.soft:
		style = yellow
	}
	return s.paint(style, string(cells))
}

// size is "1.50 KiB".
func size(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1024, 0
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for v >= 1024 && unit < len(units)-1 {
		v, unit = v/1024, unit+1
	}
	return fmt.Sprintf("%.2f %s", v, units[unit])
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }
