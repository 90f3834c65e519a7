package steer

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
	"ipsec-quick/apply/link/rtnl"
)

// A socket that is not bound has no source address when it looks for a route; it
// takes that of the route which it finds. The kernel's own policies see it
// afterwards. Here it is known beforehand: for each destination of the main table
// that a policy's remote addresses touch there is the source that the kernel would
// choose, and if that is one of the policy's local addresses, the policy covers
// the packet: a rule brings it here, and a route gives it the same source.
//
// IPv4 has a rule for this, from 0.0.0.0/32. A rule of IPv6 with a source
// matches no packet without; there whatever has a source has left before
// (prefSource).

// piece is a part of a policy's remote addresses, and the source that the kernel
// chooses for it. Narrower pieces may lie within.
type piece struct {
	to  netip.Prefix
	src netip.Addr // not valid: there is no route
}

// maxRoutes bounds what is looked at: a router with a full table has addresses of
// its own to bind to.
const maxRoutes = 512

// unbound brings packets that have no source address yet.
func (pl *planner) unbound(r *routing, p policy) error {
	matched, _, ok := matching(p.Selector)
	if p.bypass || !ok {
		return nil // what is let pass is ICMP of the kernel's own
	}
	ipv6 := p.Local.Addr().Is6()
	main, known := pl.main[ipv6]
	if !known {
		var err error
		if main, err = mainTable(ipv6); err != nil {
			return err
		}
		pl.main[ipv6] = main
	}
	pieces := split(p.Remote, main, pl.sources)
	covered := func(q piece) bool { return q.src.IsValid() && p.Local.Contains(q.src) }
	for _, q := range pieces {
		e := matched
		e.To, e.Pref = limited(q.to), prefUnbound+2*(q.to.Addr().BitLen()-q.to.Bits())
		if !ipv6 {
			e.From = netip.PrefixFrom(netip.IPv4Unspecified(), 32)
		}
		switch {
		case covered(q):
			r.rule(e)
			r.routes = append(r.routes, rtnl.Route{To: q.to, Src: q.src, Table: pl.table, Device: pl.device})
		case within(q, pieces, covered):
			// A narrower destination that the kernel uses another source for.
			r.rule(rtnl.Rule{IPv6: ipv6, Pref: e.Pref + 1, From: e.From, To: e.To, Goto: prefEnd})
		}
	}
	return nil
}

// within reports whether a wider piece is covered.
func within(q piece, pieces []piece, covered func(piece) bool) bool {
	for _, w := range pieces {
		if w.to.Bits() < q.to.Bits() && w.to.Contains(q.to.Addr()) && covered(w) {
			return true
		}
	}
	return false
}

// split cuts a prefix along the routes of the main table.
func split(remote netip.Prefix, main []netip.Prefix, sources map[netip.Prefix]netip.Addr) []piece {
	destinations := []netip.Prefix{remote}
	for _, d := range main {
		if d.Bits() > remote.Bits() && remote.Contains(d.Addr()) {
			destinations = append(destinations, d)
		}
	}
	var out []piece
	for _, d := range destinations {
		src, ok := sources[d]
		if !ok {
			src = sourceFor(d, main)
			sources[d] = src
		}
		out = append(out, piece{d, src})
	}
	return out
}

// sourceFor asks the kernel which source it would choose, for an address of the
// prefix that no narrower route has.
func sourceFor(d netip.Prefix, main []netip.Prefix) netip.Addr {
	for _, a := range []netip.Addr{d.Addr().Next(), d.Addr(), lastOf(d).Prev(), lastOf(d)} {
		if !d.Contains(a) || narrower(a, d, main) {
			continue
		}
		routes, err := netlink.RouteGetWithOptions(a.AsSlice(), &netlink.RouteGetOptions{Mark: apply.Mark})
		if err != nil {
			continue
		}
		for _, r := range routes {
			if src, ok := netip.AddrFromSlice(r.Src); ok && r.Type == unix.RTN_UNICAST {
				return src.Unmap()
			}
		}
	}
	return netip.Addr{}
}

func narrower(a netip.Addr, d netip.Prefix, main []netip.Prefix) bool {
	for _, m := range main {
		if m.Bits() > d.Bits() && m.Contains(a) {
			return true
		}
	}
	return false
}

// lastOf is the highest address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// mainTable lists the destinations of the main table.
func mainTable(ipv6 bool) ([]netip.Prefix, error) {
	list, err := rtnl.Stable(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(int(family(ipv6)), &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	})
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	if len(list) > maxRoutes {
		return nil, nil
	}
	var out []netip.Prefix
	for _, r := range list {
		if d := rtnl.PrefixOf(r.Dst); d.IsValid() && d.Bits() > 0 {
			out = append(out, d)
		}
	}
	return out, nil
}
