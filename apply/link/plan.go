package link

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
	"ipsec-quick/apply/link/rtnl"
)

// routing is what the kernel's routing has of a tunnel, in the order in which it is
// to come; it goes the other way round.
type routing struct {
	routes []rtnl.Route
	rules  []rtnl.Rule
}

// without is what others do not have.
func (r routing) without(others routing) (rest routing) {
	kept := map[rtnl.Route]bool{}
	for _, e := range others.routes {
		kept[sourceless(e)] = true
	}
	for _, e := range r.routes {
		if !kept[sourceless(e)] {
			rest.routes = append(rest.routes, e)
		}
	}
	for _, e := range r.rules {
		if !slices.Contains(others.rules, e) {
			rest.rules = append(rest.rules, e)
		}
	}
	return rest
}

// metric of the tunnel's unreachable routes. All other routes come before them,
// and no other tunnel has it.
func (o *Options) metric() uint32 { return rtnl.LastMetric - LastID + o.ID }

func (o *Options) table() int { return int(o.ID) }

// plan is what a State needs; index is the device's.
func (o *Options) plan(index int, s *State) (r routing, err error) {
	captive := map[bool][]netip.Prefix{} // by IPv6
	for _, one := range s.Routes {
		table := s.Table
		switch {
		case s.Captive(one.To):
			table = o.table()
			captive[one.To.Addr().Is6()] = append(captive[one.To.Addr().Is6()], one.To)
		case table == 0:
			table = unix.RT_TABLE_MAIN
		}
		r.routes = append(r.routes, rtnl.Route{To: one.To, Table: table, Metric: o.metric()})
		if index > 0 {
			r.routes = append(r.routes, rtnl.Route{To: one.To, Src: one.Src, Table: table, Device: index})
		}
	}
	for _, ipv6 := range []bool{false, true} {
		if len(captive[ipv6]) == 0 {
			continue
		}
		if err := o.exempt(&r, ipv6); err != nil {
			return r, err
		}
		for _, to := range captive[ipv6] {
			r.rules = append(r.rules, o.past(to)...)
		}
	}
	return r, nil
}

// exempt adds the rules that IKE and ESP skip ours by.
func (o *Options) exempt(r *routing, ipv6 bool) error {
	skip := rtnl.Rule{IPv6: ipv6, Pref: rtnl.PrefRoute, Table: o.table(), Goto: rtnl.PrefRouteEnd}
	add := func(change func(e *rtnl.Rule)) {
		e := skip
		change(&e)
		r.rules = append(r.rules, e)
	}
	add(func(e *rtnl.Rule) { e.Pref, e.Goto = rtnl.PrefRouteEnd, 0 })
	add(func(e *rtnl.Rule) { e.Mark = apply.Mark })
	if ipv6 {
		return nil
	}
	// An ICMP error about the kernel's ESP, such as that it is too long for the path,
	// is about the route that this finds.
	add(func(e *rtnl.Rule) { e.Protocol, e.Local = unix.IPPROTO_ESP, true })
	strict, err := rtnl.StrictReversePath()
	if err != nil || !strict {
		return err
	}
	// What comes for our sockets has no mark: the way back to where it comes from
	// must not be found to be the device (rp_filter, which IPv6 has not).
	for _, port := range o.Ports {
		add(func(e *rtnl.Rule) {
			e.Protocol, e.Sport, e.Local = unix.IPPROTO_UDP, rtnl.Ports{From: port, To: port}, true
		})
	}
	return nil
}

// past are the rules for a destination that is in the tunnel's own table: before it,
// narrower routes of the main one count. The narrower a destination, the sooner.
// Who finds the first of them here knows whose the second is.
func (o *Options) past(to netip.Prefix) []rtnl.Rule {
	pref := rtnl.PrefRoute + 2*(to.Addr().BitLen()-to.Bits()) + 1
	e := rtnl.Rule{IPv6: to.Addr().Is6(), Pref: pref + 1, Table: o.table()}
	if to.Bits() > 0 {
		e.To = to
	}
	return []rtnl.Rule{e, narrower(e)}
}

// narrower is the rule that stands before one that looks the tunnel's table up.
func narrower(e rtnl.Rule) rtnl.Rule {
	e.Pref, e.Table, e.Narrower = e.Pref-1, unix.RT_TABLE_MAIN, true
	return e
}

// of is what of all our tunnels' routing is this tunnel's; index is that of the
// device, 0: there is none.
func (o *Options) of(all routing, index int) (r routing) {
	for _, e := range all.routes {
		if e.Table == o.table() || e.Device == 0 && e.Metric == o.metric() || index > 0 && e.Device == index {
			r.routes = append(r.routes, e)
		}
	}
	for _, e := range all.rules {
		if e.Table != o.table() {
			continue
		}
		r.rules = append(r.rules, e)
		if n := narrower(e); slices.Contains(all.rules, n) {
			r.rules = append(r.rules, n)
		}
	}
	return r
}

// contested is an error if another tunnel has a destination that we want.
func (o *Options) contested(want, all routing) error {
	for _, e := range all.rules {
		ours := e
		ours.Table = o.table()
		if e.Table != ours.Table && e.Goto == 0 && e.Pref < rtnl.PrefRouteEnd && slices.Contains(want.rules, ours) {
			return &Contest{To: e.To}
		}
	}
	return nil
}

// A Contest is a destination that another tunnel has the route to. One that is not
// valid is all there is.
type Contest struct{ To netip.Prefix }

// Error says what to do.
func (c *Contest) Error() string {
	to := "all destinations (a default route)"
	if c.To.IsValid() {
		to = c.To.String()
	}
	return fmt.Sprintf("another tunnel has the route to %s: take that one down, or set table in [interface]", to)
}
