package watch

import (
	"fmt"
	"net/netip"
	"slices"

	"ipsec-quick/apply"
	"ipsec-quick/conf"
	"ipsec-quick/ike/wire"
)

// maxSelectors bounds the policies of one Child SA or one peer. A peer that
// narrows to odd ranges could ask for millions: 62 prefixes on either side, 30
// masks for either port. A thousand take the kernel some milliseconds.
const maxSelectors = 1024

const (
	anyPort        = 65535 // as the last port of a range that begins with 0
	protocolICMP   = 1
	protocolICMPv6 = 58
	protocolMH     = 135 // mobility header: a type, like ICMP's
)

// pairs are the selectors that a data plane needs for what IKE's traffic
// selectors of the two ends cover: every prefix, protocol and port mask of one
// with every one of the other.
func pairs(local, remote []wire.Selector) ([]apply.Selector, error) {
	var out []apply.Selector
	for _, l := range local {
		for _, r := range remote {
			more, err := pairsOf(l, r)
			if err != nil {
				return nil, err
			}
			for _, s := range more {
				if !slices.Contains(out, s) {
					out = append(out, s)
				}
			}
			if len(out) > maxSelectors {
				return nil, tooMany(len(out))
			}
		}
	}
	return out, nil
}

func tooMany(n int) error {
	return fmt.Errorf("the traffic selectors need %d policies or more, the limit is %d: use networks instead of ranges", n, maxSelectors)
}

// pairsOf is pairs for one selector on each side. Two that no packet fits, of
// different families or protocols, make none.
func pairsOf(l, r wire.Selector) ([]apply.Selector, error) {
	if !l.From.IsValid() || !r.From.IsValid() || l.From.Is4() != r.From.Is4() {
		return nil, nil
	}
	protocol := l.Protocol
	if protocol == 0 {
		protocol = r.Protocol
	} else if r.Protocol != 0 && r.Protocol != protocol {
		return nil, nil
	}
	ports, err := portPairs(protocol, l, r)
	if err != nil {
		return nil, err
	}
	locals, remotes := apply.PrefixesOf(l.From, l.To), apply.PrefixesOf(r.From, r.To)
	if n := len(locals) * len(remotes) * len(ports); n > maxSelectors {
		return nil, tooMany(n)
	}
	var out []apply.Selector
	for _, lp := range locals {
		for _, rp := range remotes {
			for _, port := range ports {
				out = append(out, apply.Selector{Local: lp, Remote: rp, Protocol: protocol, LocalPort: port[0], RemotePort: port[1]})
			}
		}
	}
	return out, nil
}

// portPairs are the masks for the local and the remote port.
func portPairs(protocol uint8, l, r wire.Selector) ([][2]apply.PortMask, error) {
	if protocol == 0 {
		return [][2]apply.PortMask{{}}, nil // IKE has no ports without a protocol (RFC 7296, Section 3.13.1)
	}
	for _, s := range []wire.Selector{l, r} {
		if s.ToPort < s.FromPort {
			return nil, fmt.Errorf("selector %v-%v: packets whose ports are hidden (OPAQUE) cannot be told apart by a policy", s.From, s.To)
		}
	}
	var out [][2]apply.PortMask
	if protocol == protocolICMP || protocol == protocolICMPv6 || protocol == protocolMH {
		// One number, type<<8 | code, for the packet as a whole: what both allow.
		for _, m := range apply.PortMasks(max(l.FromPort, r.FromPort), min(l.ToPort, r.ToPort)) {
			out = append(out, [2]apply.PortMask{
				{Port: m.Port >> 8, Mask: octetMask(m.Mask >> 8)},
				{Port: m.Port & 0xff, Mask: octetMask(m.Mask & 0xff)},
			})
		}
		return out, nil
	}
	locals, remotes := apply.PortMasks(l.FromPort, l.ToPort), apply.PortMasks(r.FromPort, r.ToPort)
	if n := len(locals) * len(remotes); n > maxSelectors {
		return nil, tooMany(n)
	}
	for _, lm := range locals {
		for _, rm := range remotes {
			out = append(out, [2]apply.PortMask{lm, rm})
		}
	}
	return out, nil
}

// octetMask is the mask of an octet in a field of 16 bits: whole where it is
// whole in the octet, so that it prints as a plain number.
func octetMask(m uint16) uint16 {
	if m == 0xff {
		return 0xffff
	}
	return m
}

// wireSelectors are the selectors of a tunnel file as IKE has them. One that is
// dynamic has no addresses; a list with nothing but that is empty.
func wireSelectors(list []conf.TS) []wire.Selector {
	if len(list) == 1 && list[0] == (conf.TS{ToPort: anyPort}) {
		return nil
	}
	var out []wire.Selector
	for _, ts := range list {
		from, to := ts.Bounds()
		out = append(out, wire.Selector{
			Protocol: ts.Protocol, FromPort: ts.FromPort, ToPort: ts.ToPort, From: from, To: to,
		})
	}
	return out
}

// resolved are the selectors of an end, with its own address in the place of
// what is dynamic. Without an address the dynamic ones are left out.
func resolved(list []conf.TS, own netip.Addr) []wire.Selector {
	var out []wire.Selector
	for _, s := range wireSelectors(conf.ResolveTS(list, own)) {
		if s.From.IsValid() {
			out = append(out, s)
		}
	}
	return out
}

// tsString is a selector as a tunnel file spells it.
func tsString(s wire.Selector) string {
	ts := conf.TS{From: s.From, To: s.To, Protocol: s.Protocol, FromPort: s.FromPort, ToPort: s.ToPort}
	if ps := apply.PrefixesOf(s.From, s.To); len(ps) == 1 {
		ts.Prefix, ts.From, ts.To = ps[0], netip.Addr{}, netip.Addr{}
	}
	return ts.String()
}
