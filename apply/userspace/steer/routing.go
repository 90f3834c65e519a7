package steer

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
)

// Preferences of our rules. They stand between the table of local addresses (0)
// and the main table (32766).
const (
	prefExempt = 10000 // what is not steered, wherever it goes
	prefBypass = 10001
	prefBound  = 10002 // and the width of the selector

	// What comes here with a source address has matched no policy.
	prefSource  = prefBound + widths
	prefUnbound = prefSource + 1 // and the width of the destination, see unbound.go
	prefEnd     = prefUnbound + 2*129

	widths = (2*256+1)*33 + 32 + 1
)

// narrowest is the priority of the narrowest selector that there is.
var narrowest = apply.Policy{Action: apply.Block, Selector: apply.Selector{
	Local: netip.MustParsePrefix("::1/128"), Remote: netip.MustParsePrefix("::1/128"), Protocol: unix.IPPROTO_TCP,
	LocalPort: apply.PortMask{Mask: 0xffff}, RemotePort: apply.PortMask{Mask: 0xffff},
}}.Priority()

// width of a selector: one that lies within another has a smaller one. The last
// bit of a priority tells a policy from its guard, which is the same here.
func width(s apply.Selector) int {
	return int(apply.Policy{Action: apply.Block, Selector: s}.Priority()-narrowest) / 2
}

// ports are a range; the zero value is any.
type ports struct{ from, to uint16 }

// portsOf is a mask as a rule has it, if there is anything left: the kernel takes
// neither 0 nor 65535. The guard drops those.
func portsOf(m apply.PortMask) (p ports, ok bool) {
	if m.IsAny() {
		return ports{}, true
	}
	p = ports{max(m.Port, 1), min(m.Port|^m.Mask, 65534)}
	return p, p.from <= p.to
}

// rule is an entry of ip-rule(8). It looks the tunnel's table up, or skips the
// rest of our rules; the one that ends them does nothing.
type rule struct {
	ipv6         bool
	pref         int
	from, to     netip.Prefix // not valid: any
	protocol     uint8        // 0: any
	sport, dport ports
	mark         uint32 // 0: any
	local        bool   // sent by this host
	skip         bool   // to prefEnd
	table        int    // also of a rule that does not look it up: whose it is
}

// route is an entry of the tunnel's table.
type route struct {
	to          netip.Prefix
	src         netip.Addr // preferred; not valid: none
	unreachable bool
}

// routing is what a policy needs.
type routing struct {
	rules  []rule
	routes []route
}

// A planner says what policies need.
type planner struct {
	table   int
	ports   []uint16
	strict  bool // rp_filter
	main    map[bool][]netip.Prefix
	sources map[netip.Prefix]netip.Addr
}

func newPlanner(table int, ports []uint16) (*planner, error) {
	strict, err := strictReversePath()
	return &planner{
		table: table, ports: ports, strict: strict, main: map[bool][]netip.Prefix{}, sources: map[netip.Prefix]netip.Addr{},
	}, err
}

// policy is what a policy needs, what others need as well first.
func (pl *planner) policy(p policy) (*routing, error) {
	r := new(routing)
	pl.frame(r, p.Local.Addr().Is6())
	bound(r, p)
	if err := pl.unbound(r, p); err != nil {
		return nil, err
	}
	for i := range r.rules {
		r.rules[i].table = pl.table
	}
	return r, nil
}

func (r *routing) rule(e rule) { r.rules = append(r.rules, e) }

// frame is what all policies of a family need.
func (pl *planner) frame(r *routing, ipv6 bool) {
	r.rule(rule{ipv6: ipv6, pref: prefExempt, mark: Mark, skip: true})
	if ipv6 {
		r.rule(rule{ipv6: true, pref: prefSource, from: netip.MustParsePrefix("::/1"), skip: true})
		r.rule(rule{ipv6: true, pref: prefSource, from: netip.MustParsePrefix("8000::/1"), skip: true})
	}
	r.rule(rule{ipv6: ipv6, pref: prefEnd})
	// Without the device, which somebody might delete, nothing is reachable.
	all := anywhere(ipv6)
	r.routes = append(r.routes, route{to: all}, route{to: all, unreachable: true})
	if ipv6 || !pl.strict {
		return
	}
	// What comes for our sockets has no mark: the way back to where it comes from
	// must not be found to be the device (rp_filter, which IPv6 has not).
	for _, port := range pl.ports {
		r.rule(rule{pref: prefExempt, protocol: unix.IPPROTO_UDP, sport: ports{port, port}, local: true, skip: true})
	}
	r.rule(rule{pref: prefExempt, protocol: unix.IPPROTO_ESP, local: true, skip: true})
}

// bound brings packets that have a source address.
func bound(r *routing, p policy) {
	e, exact, ok := matching(p.Selector)
	e.from, e.to = limited(p.Local), limited(p.Remote)
	switch {
	case !ok:
	case !p.bypass:
		e.pref = prefBound + width(p.Selector)
		r.rule(e)
	case exact: // one that cannot be said exactly would let too much pass
		e.pref, e.skip = prefBypass, true
		r.rule(e)
	}
}

// matching is a selector's protocol and ports, as far as a rule can tell them.
// ICMP's type and code it cannot, and the ports of unusual protocols: then it is
// not exact. Without ok no rule can tell anything of the selector.
func matching(s apply.Selector) (e rule, exact, ok bool) {
	e = rule{ipv6: s.Local.Addr().Is6(), protocol: s.Protocol}
	if !hasPorts(s.Protocol) {
		return e, s.LocalPort.IsAny() && s.RemotePort.IsAny(), true
	}
	var sport, dport bool
	e.sport, sport = portsOf(s.LocalPort)
	e.dport, dport = portsOf(s.RemotePort)
	return e, true, sport && dport
}

func hasPorts(protocol uint8) bool {
	switch protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP, unix.IPPROTO_DCCP, unix.IPPROTO_UDPLITE:
		return true
	}
	return false
}

func anywhere(ipv6 bool) netip.Prefix {
	if ipv6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

// limited is the prefix, if it is not all there is.
func limited(p netip.Prefix) netip.Prefix {
	if p.Bits() == 0 {
		return netip.Prefix{}
	}
	return p
}

// explain names what a kernel has to have.
func explain(err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
		return fmt.Errorf("this kernel has no routing rules, which ESP in user space needs: "+
			"it lacks CONFIG_IP_MULTIPLE_TABLES or CONFIG_IPV6_MULTIPLE_TABLES: %w", err)
	}
	return fmt.Errorf("add a rule: %w", err)
}

func family(ipv6 bool) int {
	if ipv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func ipNet(p netip.Prefix) *net.IPNet {
	if !p.IsValid() {
		return nil
	}
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits)
}
