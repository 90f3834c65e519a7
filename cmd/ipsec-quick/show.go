package main

import (
	"fmt"
	"strings"
	"time"

	"ipsec-quick/watch"
)

// showTunnel prints a tunnel in the manner of `wg show`.
func showTunnel(s screen, t *watch.Status) {
	s.head(green, "tunnel", t.Tunnel)
	s.line(1, "data plane", "%s", t.Dataplane)
	if t.Interface != "" {
		s.line(1, "interface", "%s", t.Interface)
	}
	if t.WatchPID != 0 {
		s.line(1, "loop", "process %d, version %s", t.WatchPID, t.Version)
	} else {
		s.line(1, "loop", "%s; `ipsec-quick up %s` revives it", s.paint(red, "dead"), t.Tunnel)
	}
	d := &t.Dropped
	s.dropped(1, []cause{
		{d.Malformed, "malformed"}, {d.UnknownSPI, "of no IKE SA"}, {d.Integrity, "forged"}, {d.MessageID, "with a wrong message ID"},
		{d.Replayed, "repeated"}, {d.Unexpected, "unexpected"}, {d.Flooded, "over a limit"}, {d.ESP, "of no ESP SA"},
		{d.Handover, "of another tunnel"},
	})
	for i := range t.Peers {
		fmt.Fprintln(s)
		showPeer(s, &t.Peers[i])
	}
}

func showPeer(s screen, p *watch.PeerStatus) {
	s.head(yellow, "peer", p.Name)
	up := p.State == "established" || p.State == "rekeying"
	style, since := red, ""
	if up {
		style = green
	}
	if t := parseTime(p.IKE.Established); !t.IsZero() {
		since = ", " + ago(t)
	}
	s.line(1, "state", "%s%s", s.paint(style, p.State), since)
	if p.LastError != "" && !up {
		s.line(1, "last error", "%s", p.LastError)
	}
	if p.Remote != "" {
		nat := ""
		if p.NAT {
			nat = ", NAT detected"
		}
		s.line(1, "endpoint", "%s from %s%s", p.Remote, p.Local, nat)
	}
	if r := &p.Rekeys; r.Child+r.IKE+r.Failed != 0 {
		if t := parseTime(r.Last); !t.IsZero() {
			s.line(1, "last rekey", "%s", ago(t))
		}
		s.line(1, "rekeys", "%d of Child SAs, %d of IKE SAs, %d failed", r.Child, r.IKE, r.Failed)
	}
	if p.Expires != (watch.ExpireCount{}) {
		s.line(1, "expires", "%d soft, %d hard", p.Expires.Soft, p.Expires.Hard)
	}
	if p.IKE.Proposal != "" {
		s.line(1, "ike", "%s", p.IKE.Proposal)
		s.line(2, "spi", "%s initiator, %s responder", p.IKE.SPIi, p.IKE.SPIr)
		showLimits(s, inForce([]limit{timeLimit("time", p.IKE.Lifetime.Time)}))
	}
	for i := range p.Children {
		showChild(s, &p.Children[i])
	}
}

func showChild(s screen, c *watch.ChildStatus) {
	more := ""
	if c.Encap {
		more = ", in UDP"
	}
	if c.Retiring {
		more += ", replaced"
	}
	s.line(1, "child", "%s, %s mode%s", c.Proposal, c.Mode, more)
	s.line(2, "spi", "%s in, %s out", c.SPIIn, c.SPIOut)
	s.line(2, "selectors", "%s === %s", strings.Join(c.LocalTS, ", "), strings.Join(c.RemoteTS, ", "))
	s.line(2, "transfer", "%s received, %s sent", size(c.BytesIn), size(c.BytesOut))
	d := &c.Dropped
	s.dropped(2, []cause{
		{d.Integrity, "forged"}, {d.Replayed, "replayed"}, {d.Malformed, "malformed"}, {d.Selectors, "outside the selectors"},
	})
	showLimits(s, childLimits(&c.Lifetime))
}

// head begins a section.
func (s screen) head(style, what, name string) {
	fmt.Fprintf(s, "%s: %s\n", s.paint(style+bold, what), s.paint(style, name))
}

// line is a line of a section, or of a part of one.
func (s screen) line(depth int, name, format string, args ...any) {
	fmt.Fprintf(s, "%s%s: %s\n", strings.Repeat("  ", depth), s.paint(bold, name), fmt.Sprintf(format, args...))
}

// cause is how many packets came to nothing, and why.
type cause struct {
	count uint64
	why   string
}

// dropped is a line with the causes that occurred.
func (s screen) dropped(depth int, all []cause) {
	var list []string
	for _, c := range all {
		if c.count != 0 {
			list = append(list, fmt.Sprintf("%d %s", c.count, c.why))
		}
	}
	if len(list) > 0 {
		s.line(depth, "dropped", "%s", strings.Join(list, ", "))
	}
}

func parseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

// ago is "2 minutes, 3 seconds ago".
func ago(t time.Time) string {
	left := int64(max(time.Since(t), 0) / time.Second)
	if left == 0 {
		return "now"
	}
	var parts []string
	for _, u := range []struct {
		name string
		n    int64
	}{{"day", 86400}, {"hour", 3600}, {"minute", 60}, {"second", 1}} {
		if n := left / u.n; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, plural(int(n), u.name)))
			left %= u.n
		}
	}
	return strings.Join(parts, ", ") + " ago"
}
