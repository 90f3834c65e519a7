package conf

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// A TS is a traffic selector: what of one end's traffic a Child SA covers
// (RFC 7296, Section 2.9). Either Prefix or From and To is set; with neither
// the selector is dynamic and stands for the end's own address.
type TS struct {
	Prefix   netip.Prefix // host bits are zero
	From, To netip.Addr   // a range, both ends in it

	Protocol         uint8  // IANA's number; 0: any
	FromPort, ToPort uint16 // 0 to 65535: any. ICMP: type in the upper octet, code in the lower
}

// Dynamic reports whether the selector stands for the end's own address.
func (ts TS) Dynamic() bool { return !ts.Prefix.IsValid() && !ts.From.IsValid() }

// Bounds is the first and the last address, zero for a dynamic selector.
func (ts TS) Bounds() (from, to netip.Addr) {
	if ts.Prefix.IsValid() {
		return ts.Prefix.Addr(), lastAddr(ts.Prefix)
	}
	return ts.From, ts.To
}

// lastAddr is the highest address of a prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		switch bits := p.Bits() - 8*i; {
		case bits <= 0:
			b[i] = 0xff
		case bits < 8:
			b[i] |= 0xff >> bits
		}
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr
}

// ResolveTS is list with own in the place of what is dynamic: the selectors
// of an end whose address is known. An empty list is own alone.
func ResolveTS(list []TS, own netip.Addr) []TS {
	list = orDynamic(list)
	resolved := make([]TS, len(list))
	for i, ts := range list {
		if ts.Dynamic() {
			ts.Prefix = netip.PrefixFrom(own, own.BitLen())
		}
		resolved[i] = ts
	}
	return resolved
}

func orDynamic(list []TS) []TS {
	if len(list) == 0 {
		return []TS{{ToPort: maxPort}}
	}
	return list
}

// String is the selector as a tunnel file spells it.
func (ts TS) String() string {
	s := "dynamic"
	switch {
	case ts.Prefix.IsValid():
		s = ts.Prefix.String()
	case ts.From.IsValid():
		s = ts.From.String() + "-" + ts.To.String()
	}
	if ts.Protocol == 0 {
		return s
	}
	s += "[" + protocolName(ts.Protocol)
	from, to := ts.FromPort, ts.ToPort
	switch {
	case from == 0 && to == maxPort:
	case isICMP(ts.Protocol) && from&0xff == 0 && to == from|0xff:
		s += fmt.Sprintf("/%d", from>>8)
	case from == to && !(isICMP(ts.Protocol) && from < 256):
		s += fmt.Sprintf("/%d", from)
	default:
		s += fmt.Sprintf("/%d-%d", from, to)
	}
	return s + "]"
}

const maxPort = 65535

// protocols are the names that may stand in a selector, IANA's in lower case.
var protocols = []struct {
	name   string
	number uint8
}{
	{"icmp", 1}, {"ipip", 4}, {"tcp", 6}, {"udp", 17}, {"dccp", 33}, {"ipv6", 41}, {"gre", 47}, {"esp", 50},
	{"ah", 51}, {"icmpv6", 58}, {"ipv6-icmp", 58}, {"ospf", 89}, {"sctp", 132}, {"l2tp", 115}, {"udplite", 136},
}

const (
	protocolICMP   = 1
	protocolICMPv6 = 58
)

func isICMP(protocol uint8) bool { return protocol == protocolICMP || protocol == protocolICMPv6 }

func protocolName(number uint8) string {
	for _, p := range protocols {
		if p.number == number {
			return p.name
		}
	}
	return strconv.Itoa(int(number))
}

// hasPorts reports whether packets of the protocol have what a selector's
// ports are compared with.
func hasPorts(protocol uint8) bool {
	switch protocolName(protocol) {
	case "tcp", "udp", "dccp", "sctp", "udplite", "icmp", "icmpv6":
		return true
	}
	return false
}

// ParseTS reads "10.1.0.0/16", "10.1.0.5", "10.1.0.1-10.1.0.9" or "dynamic",
// with "[tcp]", "[tcp/443]", "[udp/5000-5010]", "[icmp/8]" or "[47]" behind.
func ParseTS(s string) (TS, error) {
	where, rest, bracket := strings.Cut(s, "[")
	ts := TS{ToPort: maxPort}
	if bracket {
		inner, ok := strings.CutSuffix(rest, "]")
		if !ok {
			return TS{}, fmt.Errorf("%q lacks its closing bracket; write \"10.1.0.0/16[tcp/443]\"", s)
		}
		var err error
		if ts, err = parseProtocol(inner); err != nil {
			return TS{}, err
		}
	}
	where = strings.TrimSpace(where)
	switch from, to, isRange := strings.Cut(where, "-"); {
	case where == "dynamic":
	case isRange:
		var err error
		if ts.From, err = parseTSAddr(strings.TrimSpace(from)); err != nil {
			return TS{}, err
		}
		if ts.To, err = parseTSAddr(strings.TrimSpace(to)); err != nil {
			return TS{}, err
		}
		if ts.From.Is4() != ts.To.Is4() || ts.To.Less(ts.From) {
			return TS{}, fmt.Errorf("the range %s ends before it begins; write the lower address first", where)
		}
	default:
		prefix, err := parsePrefix(where)
		if err != nil {
			return TS{}, err
		}
		ts.Prefix = prefix
	}
	from, _ := ts.Bounds()
	if ts.Protocol == protocolICMP && from.Is6() || ts.Protocol == protocolICMPv6 && from.Is4() {
		return TS{}, fmt.Errorf("%q: icmp goes with IPv4 and icmpv6 with IPv6", s)
	}
	return ts, nil
}

// parsePrefix reads a network, or an address as the network of it alone.
func parsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		addr, err := parseTSAddr(s)
		if err != nil {
			return netip.Prefix{}, err
		}
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("%q is no network; write \"10.1.0.0/16\" or \"2001:db8:1::/48\"", s)
	case prefix.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%q is an IPv4 network in IPv6 spelling; write it as IPv4", s)
	case prefix != prefix.Masked():
		return netip.Prefix{}, fmt.Errorf("%s has bits of a host behind its /%d; write %q for the network or %q for the host",
			s, prefix.Bits(), prefix.Masked(), prefix.Addr())
	}
	return prefix, nil
}

func parseTSAddr(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return netip.Addr{}, fmt.Errorf("%q is no network or address; write \"10.1.0.0/16\" or \"2001:db8:1::/48\"", s)
	case addr.Zone() != "":
		return netip.Addr{}, fmt.Errorf("%q has a zone, which no traffic selector can say; leave %q out", s, "%"+addr.Zone())
	case addr.Is4In6():
		return netip.Addr{}, fmt.Errorf("%q is an IPv4 address in IPv6 spelling; write %q", s, addr.Unmap())
	}
	return addr, nil
}

// parseProtocol reads what stands in the brackets.
func parseProtocol(s string) (TS, error) {
	name, ports, hasPort := strings.Cut(strings.TrimSpace(s), "/")
	ts := TS{ToPort: maxPort}
	if number, err := strconv.ParseUint(name, 10, 8); err == nil && number > 0 {
		ts.Protocol = uint8(number)
	} else {
		names := make([]string, 0, len(protocols))
		for _, p := range protocols {
			names = append(names, p.name)
			if p.name == strings.ToLower(name) {
				ts.Protocol = p.number
			}
		}
		if ts.Protocol == 0 {
			return TS{}, fmt.Errorf("%q is no protocol%s; write a name such as \"tcp\", or a number from 1 to 255", name, didYouMean(name, names))
		}
	}
	if !hasPort {
		return ts, nil
	}
	if !hasPorts(ts.Protocol) {
		return TS{}, fmt.Errorf("%s has no ports; write \"[%s]\"", name, name)
	}
	from, to, isRange := strings.Cut(ports, "-")
	if !isRange {
		to = from
	}
	low, err1 := strconv.ParseUint(from, 10, 16)
	high, err2 := strconv.ParseUint(to, 10, 16)
	if err1 != nil || err2 != nil || high < low {
		return TS{}, fmt.Errorf("%q is no port; write \"443\" or \"5000-5010\", 65535 at most", ports)
	}
	ts.FromPort, ts.ToPort = uint16(low), uint16(high)
	if isICMP(ts.Protocol) && !isRange && low < 256 {
		// A type alone, with all its codes (RFC 7296, Section 3.13.1).
		ts.FromPort, ts.ToPort = uint16(low)<<8, uint16(low)<<8|0xff
	}
	return ts, nil
}
