package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"ipsec-quick/watch"
)

// showTunnel prints a tunnel in the manner of `wg show`.
func showTunnel(w io.Writer, s *watch.Status) {
	fmt.Fprintf(w, "tunnel: %s\n", s.Tunnel)
	fmt.Fprintf(w, "  data plane: %s\n", s.Dataplane)
	if s.WatchPID != 0 {
		fmt.Fprintf(w, "  loop: process %d, version %s\n", s.WatchPID, s.Version)
	} else {
		fmt.Fprintf(w, "  loop: dead; `ipsec-quick up %s` revives it\n", s.Tunnel)
	}
	if s.Dropped.ESP != 0 {
		fmt.Fprintf(w, "  dropped: %d ESP packets of no SA\n", s.Dropped.ESP)
	}
	for i := range s.Peers {
		fmt.Fprintln(w)
		showPeer(w, &s.Peers[i])
	}
}

func showPeer(w io.Writer, p *watch.PeerStatus) {
	fmt.Fprintf(w, "peer: %s\n", p.Name)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %s: %s\n", name, fmt.Sprintf(format, args...))
	}
	state := p.State
	if t := parseTime(p.IKE.Established); !t.IsZero() {
		state += ", " + span(time.Since(t)) + " ago"
	}
	line("state", "%s", state)
	if p.LastError != "" && p.State != "established" && p.State != "rekeying" {
		line("last error", "%s", p.LastError)
	}
	if p.Remote != "" {
		nat := ""
		if p.NAT {
			nat = ", NAT detected"
		}
		line("endpoint", "%s from %s%s", p.Remote, p.Local, nat)
	}
	if p.IKE.Proposal != "" {
		again := ""
		if t := parseTime(p.IKE.RekeyAt); !t.IsZero() {
			again = ", new keys in " + span(time.Until(t))
		}
		line("ike", "%s, %s %s%s", p.IKE.Proposal, p.IKE.SPIi, p.IKE.SPIr, again)
	}
	for i := range p.Children {
		showChild(w, &p.Children[i])
	}
	if p.Rekeys != (watch.RekeyCount{}) {
		line("rekeys", "%d of Child SAs, %d of IKE SAs, %d failed", p.Rekeys.Child, p.Rekeys.IKE, p.Rekeys.Failed)
	}
	if p.Expires != (watch.ExpireCount{}) {
		line("expires", "%d soft, %d hard", p.Expires.Soft, p.Expires.Hard)
	}
}

func showChild(w io.Writer, c *watch.ChildStatus) {
	more := ""
	if c.Encap {
		more = ", in UDP"
	}
	if c.Retiring {
		more += ", replaced"
	}
	fmt.Fprintf(w, "  child: %s in, %s out, %s, %s mode%s\n", c.SPIIn, c.SPIOut, c.Proposal, c.Mode, more)
	fmt.Fprintf(w, "    selectors: %s === %s\n", strings.Join(c.LocalTS, ", "), strings.Join(c.RemoteTS, ", "))
	fmt.Fprintf(w, "    transfer: %s received, %s sent\n", size(c.BytesIn), size(c.BytesOut))
	if d := c.Dropped; d != (watch.ESPDrops{}) {
		fmt.Fprintf(w, "    dropped: %d forged, %d replayed, %d malformed, %d outside the selectors\n", d.Integrity, d.Replayed, d.Malformed, d.Selectors)
	}
	l := &c.Lifetime
	for _, one := range []struct {
		name string
		s    watch.Seconds
	}{{"age", l.Time}, {"use", l.Use}} {
		if one.s.Soft != 0 || one.s.Hard != 0 {
			fmt.Fprintf(w, "    %s: %s of %s soft, %s hard\n", one.name, span(seconds(one.s.Used)), span(seconds(one.s.Soft)), span(seconds(one.s.Hard)))
		}
	}
	if b := l.Bytes; b.Soft != 0 || b.Hard != 0 {
		fmt.Fprintf(w, "    bytes: %s of %s soft, %s hard\n", size(b.Used), size(b.Soft), size(b.Hard))
	}
	if n := l.Packets; n.Soft != 0 || n.Hard != 0 {
		fmt.Fprintf(w, "    packets: %d of %d soft, %d hard\n", n.Used, n.Soft, n.Hard)
	}
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }

func parseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

// span is "2 minutes, 3 seconds".
func span(d time.Duration) string {
	left := int64(max(d, 0) / time.Second)
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
	if len(parts) == 0 {
		return "0 seconds"
	}
	return strings.Join(parts, ", ")
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
