package ike

import (
	"fmt"
	"net/netip"
	"strings"

	"ipsec-quick/ike/wire"
)

// describe is one line on a message: what it is and what is in it.
func describe(kind, way string, remote any, ps []wire.Payload) string {
	words := make([]string, 0, len(ps))
	for _, p := range ps {
		switch p := p.(type) {
		case wire.Notify:
			words = append(words, "N("+p.Kind.String()+")")
		case wire.SK, wire.SKF:
		default:
			words = append(words, p.Type().String())
		}
	}
	return fmt.Sprintf("%s %s %v [%s]", kind, way, remote, strings.Join(words, " "))
}

// selectorText writes selectors as the tunnel file does.
func selectorText(list []wire.Selector) string {
	words := make([]string, len(list))
	for i, s := range list {
		words[i] = s.From.String() + "-" + s.To.String()
		if p, err := s.From.Prefix(prefixLen(s)); err == nil && p.Addr() == s.From {
			words[i] = p.String()
		}
		if s.Protocol != 0 || s.FromPort != 0 || s.ToPort != anyPort {
			words[i] += fmt.Sprintf("[%d/%d-%d]", s.Protocol, s.FromPort, s.ToPort)
		}
	}
	return strings.Join(words, ",")
}

// prefixLen is the length of the prefix that a range is, or -1.
func prefixLen(s wire.Selector) int {
	for bits := s.From.BitLen(); bits >= 0; bits-- {
		p := netip.PrefixFrom(s.From, bits)
		if !p.Contains(s.To) {
			continue
		}
		if after := s.To.Next(); p.Masked().Addr() == s.From && (!after.IsValid() || !p.Contains(after)) {
			return bits
		}
		return -1
	}
	return -1
}
