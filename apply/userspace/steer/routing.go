package steer

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
	"ipsec-quick/apply/link/rtnl"
)

// Preferences of our rules.
const (
	prefExempt = rtnl.PrefSteer // what is not steered, wherever it goes
	prefBypass = prefExempt + 1
	prefBound  = prefBypass + 1 // and the width of the selector

	// What comes here with a source address has matched no policy.
	prefSource  = prefBound + widths
	prefUnbound = prefSource + 1 // and the width of the destination, see unbound.go
	prefEnd     = rtnl.PrefSteerEnd

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

// portsOf is a mask as a rule has it, if there is anything left: the kernel takes
// neither 0 nor 65535. The guard drops those.
func portsOf(m apply.PortMask) (p rtnl.Ports, ok bool) {
	if m.IsAny() {
		return rtnl.Ports{}, true
	}
	p = rtnl.Ports{From: max(m.Port, 1), To: min(m.Port|^m.Mask, 65534)}
	return p, p.From <= p.To
}

// routing is what a policy needs.
type routing struct {
	rules  []rtnl.Rule
	routes []rtnl.Route
}

// A planner says what policies need.
type planner struct {
	table   int
	device  int // its index
	ports   []uint16
	strict  bool // rp_filter
	main    map[bool][]netip.Prefix
	sources map[netip.Prefix]netip.Addr
}

func newPlanner(device int, ports []uint16) (*planner, error) {
	strict, err := rtnl.StrictReversePath()
	return &planner{
		table: tableBase + device, device: device, ports: ports, strict: strict, main: map[bool][]netip.Prefix{}, sources: map[netip.Prefix]netip.Addr{},
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
		r.rules[i].Table = pl.table
	}
	return r, nil
}

func (r *routing) rule(e rtnl.Rule) { r.rules = append(r.rules, e) }

// frame is what all policies of a family need.
func (pl *planner) frame(r *routing, ipv6 bool) {
	r.rule(rtnl.Rule{IPv6: ipv6, Pref: prefExempt, Mark: apply.Mark, Goto: prefEnd})
	if ipv6 {
		r.rule(rtnl.Rule{IPv6: true, Pref: prefSource, From: netip.MustParsePrefix("::/1"), Goto: prefEnd})
		r.rule(rtnl.Rule{IPv6: true, Pref: prefSource, From: netip.MustParsePrefix("8000::/1"), Goto: prefEnd})
	}
	r.rule(rtnl.Rule{IPv6: ipv6, Pref: prefEnd})
	// Without the device, which somebody might delete, nothing is reachable.
	all := rtnl.Anywhere(ipv6)
	r.routes = append(r.routes,
		rtnl.Route{To: all, Table: pl.table, Device: pl.device}, rtnl.Route{To: all, Table: pl.table, Metric: rtnl.LastMetric})
	if ipv6 || !pl.strict {
		return
	}
	// What comes for our sockets has no mark: the way back to where it comes from
	// must not be found to be the device (rp_filter, which IPv6 has not).
	for _, port := range pl.ports {
		r.rule(rtnl.Rule{Pref: prefExempt, Protocol: unix.IPPROTO_UDP, Sport: rtnl.Ports{From: port, To: port}, Local: true, Goto: prefEnd})
	}
	r.rule(rtnl.Rule{Pref: prefExempt, Protocol: unix.IPPROTO_ESP, Local: true, Goto: prefEnd})
}

// bound brings packets that have a source address.
func bound(r *routing, p policy) {
	e, exact, ok := matching(p.Selector)
	e.From, e.To = limited(p.Local), limited(p.Remote)
	switch {
	case !ok:
	case !p.bypass:
		e.Pref = prefBound + width(p.Selector)
		r.rule(e)
	case exact: // one that cannot be said exactly would let too much pass
		e.Pref, e.Goto = prefBypass, prefEnd
		r.rule(e)
	}
}

// matching is a selector's protocol and ports, as far as a rule can tell them.
// ICMP's type and code it cannot, and the ports of unusual protocols: then it is
// not exact. Without ok no rule can tell anything of the selector.
func matching(s apply.Selector) (e rtnl.Rule, exact, ok bool) {
	e = rtnl.Rule{IPv6: s.Local.Addr().Is6(), Protocol: s.Protocol}
	if !hasPorts(s.Protocol) {
		return e, s.LocalPort.IsAny() && s.RemotePort.IsAny(), true
	}
	var sport, dport bool
	e.Sport, sport = portsOf(s.LocalPort)
	e.Dport, dport = portsOf(s.RemotePort)
	return e, true, sport && dport
}

func hasPorts(protocol uint8) bool {
	switch protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP, unix.IPPROTO_DCCP, unix.IPPROTO_UDPLITE:
		return true
	}
	return false
}

// limited is the prefix, if it is not all there is.
func limited(p netip.Prefix) netip.Prefix {
	if p.Bits() == 0 {
		return netip.Prefix{}
	}
	return p
}
