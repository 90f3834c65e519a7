package ike

import (
	"net/netip"
	"slices"

	"ipsec-quick/ike/wire"
)

// anyPort is the range of all ports.
const anyPort = 65535

// selectors are the configured ones of a side. One without addresses, and none
// at all, mean the address used.
func selectors(configured []wire.Selector, own netip.Addr) []wire.Selector {
	if len(configured) == 0 {
		return []wire.Selector{hostSelector(own)}
	}
	list := slices.Clone(configured)
	for i := range list {
		if !list[i].From.IsValid() {
			list[i].From, list[i].To = own, own
		}
	}
	return list
}

func hostSelector(a netip.Addr) wire.Selector {
	return wire.Selector{ToPort: anyPort, From: a, To: a}
}

// narrow is what two lists of selectors have in common (RFC 7296, Section 2.9).
func narrow(offered, ours []wire.Selector) []wire.Selector {
	var common []wire.Selector
	for _, o := range offered {
		for _, own := range ours {
			if s, ok := intersect(o, own); ok {
				common = append(common, s)
			}
		}
	}
	return distinct(common)
}

func distinct(list []wire.Selector) []wire.Selector {
	var out []wire.Selector
	for i, s := range list {
		inside := false
		for j, other := range list {
			if both, ok := intersect(s, other); i != j && ok && both == s && (other != s || j < i) {
				inside = true // of another one, or the same again
			}
		}
		if !inside {
			out = append(out, s)
		}
	}
	return out
}

// intersect is what two selectors have in common. OPAQUE ports, which no policy
// of ours can express, have nothing in common with any.
func intersect(a, b wire.Selector) (wire.Selector, bool) {
	s := a
	switch {
	case a.From.Is4() != b.From.Is4():
		return s, false
	case a.Protocol == 0:
		s.Protocol = b.Protocol
	case b.Protocol != 0 && a.Protocol != b.Protocol:
		return s, false
	}
	if b.From.Compare(a.From) > 0 {
		s.From = b.From
	}
	if b.To.Compare(a.To) < 0 {
		s.To = b.To
	}
	s.FromPort, s.ToPort = max(a.FromPort, b.FromPort), min(a.ToPort, b.ToPort)
	return s, s.From.Compare(s.To) <= 0 && s.FromPort <= s.ToPort
}

// within reports whether each selector of a list lies in one of another list.
func within(list, outer []wire.Selector) bool {
	for _, s := range list {
		inside := false
		for _, o := range outer {
			if both, ok := intersect(s, o); ok && both == s {
				inside = true
			}
		}
		if !inside {
			return false
		}
	}
	return len(list) > 0
}

// substitute replaces the address that one end of a transport mode SA believes
// it has by the one that is seen from here, when a NAT stands between
// (RFC 7296, Section 2.23.1).
func substitute(list []wire.Selector, seen netip.Addr) []wire.Selector {
	if len(list) != 1 || list[0].From != list[0].To {
		return list
	}
	s := list[0]
	s.From, s.To = seen, seen
	return []wire.Selector{s}
}
