// Package link is the device of a route-based tunnel on this host: what is routed
// to it is encrypted or dropped. Here are the xfrm interface (where the kernel does
// ESP; in user space the TUN device is there already), addresses, MTU, routes and,
// for routes that lead to a peer's own address, rules.
//
// All of it is the kernel's and outlives the process. It is found again by the
// device's name, the protocol number of rules and routes, and the tunnel's ID.
package link

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply/link/rtnl"
)

// An ID tells the tunnels of a network namespace apart: it is the if_id of an xfrm
// interface and the number of a tunnel's own routing table.
const (
	FirstID = 1 << 24
	LastID  = 1<<25 - 1
)

// Options of Open.
type Options struct {
	Name   string // of the device
	ID     uint32 // from FirstID to LastID
	XFRM   bool   // the device is made here; else it is a TUN device of another's making
	Ports  []uint16
	Change func(command string) // gets each change to this host, as a command that does it
}

// State is what a tunnel is to have.
type State struct {
	MTU       int            // 0: what it has
	Addresses []netip.Prefix // host bits are kept
	Routes    []Route        // to what is behind the peers, each prefix once
	Table     int            // where the routes are; 0: the main one, but see Endpoints

	// Endpoints are the peers' outer addresses, which stay reachable: with Table 0
	// a route that leads to one of them, and a default route, is in a table of the
	// tunnel's own, which a rule looks up for what has not the mark of IKE and ESP.
	Endpoints []netip.Addr
}

// Route is a route to the device. Behind it, with the last metric, there is one
// that makes the same destination unreachable: without the device, nothing leaves
// in clear.
type Route struct {
	To  netip.Prefix
	Src netip.Addr // preferred source; not valid: the kernel's choice
}

// Captive reports whether a route is one that peers are reached past.
func (s *State) Captive(to netip.Prefix) bool {
	return s.Table == 0 && (to.Bits() == 0 || slices.ContainsFunc(s.Endpoints, to.Contains))
}

// Link is the device of one tunnel. It is for one goroutine at a time.
type Link struct {
	o    Options
	last State // that Sync was given
}

// Open changes nothing.
func Open(o Options) *Link { return &Link{o: o} }

// Sync makes this host have what the tunnel is to have, and nothing else of the
// tunnel's. What this or another process left half done is put right. What others
// have added to the device stays.
func (l *Link) Sync(s State) error {
	index, err := l.syncDevice(s)
	if err != nil {
		err = fmt.Errorf("interface %s: %w", l.o.Name, err)
	}
	// Without the device there are at least the routes that nothing leaves by.
	err = errors.Join(err, l.syncRouting(index, &s))
	if err == nil {
		// Not before no route has them as its source.
		err = l.dropAddresses(s.Addresses)
	}
	if err == nil {
		l.last = s
	}
	return err
}

// syncRouting brings routes and rules into line; index is that of the device, 0:
// there is none. What is new comes first.
func (l *Link) syncRouting(index int, s *State) error {
	want, err := l.o.plan(index, s)
	if err != nil {
		return err
	}
	all, err := installed()
	if err != nil {
		return err
	}
	if err := l.o.contested(want, all); err != nil {
		return err
	}
	have := l.o.of(all, index)
	sources := map[rtnl.Route]netip.Addr{}
	for _, e := range have.routes {
		sources[sourceless(e)] = e.Src
	}
	for _, e := range want.routes {
		src, there := sources[sourceless(e)]
		if there && src == e.Src {
			continue
		}
		if err := l.putRoute(e, there); err != nil {
			return err
		}
	}
	for _, e := range want.rules {
		if slices.Contains(have.rules, e) {
			continue
		}
		if _, err := e.Add(); err != nil {
			return err
		}
		l.o.Change(e.Command("add"))
	}
	return l.remove(have.without(want))
}

// putRoute adds a route, or puts it in the place of one with another source.
func (l *Link) putRoute(e rtnl.Route, there bool) error {
	verb, put := "add", e.Add
	if there {
		verb, put = "replace", e.Replace
	}
	err := put()
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("there is another route to it in table %d (see `ip route show table %d`), "+
			"remove that or set table in [interface]: %w", e.Table, e.Table, err)
	}
	if err == nil {
		l.o.Change(e.Command(verb, l.o.Name))
	}
	return err
}

// sourceless is the same for routes of which one takes the other's place.
func sourceless(e rtnl.Route) rtnl.Route {
	e.Src = netip.Addr{}
	return e
}

// Remove takes all away. It does not matter if there is nothing.
func (l *Link) Remove() error {
	index, err := l.removeDevice()
	if err != nil {
		return fmt.Errorf("interface %s: %w", l.o.Name, err)
	}
	all, err := installed()
	if err != nil {
		return err
	}
	return l.remove(l.o.of(all, index))
}

// installed is the routing of all our tunnels.
func installed() (r routing, err error) {
	if r.routes, err = rtnl.Routes(); err == nil {
		r.rules, err = rtnl.Rules()
	}
	return r, err
}

// remove removes rules, then routes. What IKE and ESP skip the rules by goes last,
// and so do the routes that nothing leaves by.
func (l *Link) remove(gone routing) error {
	framing := func(e rtnl.Rule) int {
		if e.Pref == rtnl.PrefRoute || e.Pref == rtnl.PrefRouteEnd {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(gone.rules, func(a, b rtnl.Rule) int { return framing(a) - framing(b) })
	slices.SortStableFunc(gone.routes, func(a, b rtnl.Route) int { return b.Device - a.Device })
	var failed error
	for _, e := range gone.rules {
		there, err := e.Delete()
		if there {
			l.o.Change(e.Command("del"))
		}
		failed = errors.Join(failed, err)
	}
	for _, e := range gone.routes {
		there, err := e.Delete()
		if there {
			l.o.Change(e.Command("del", l.o.Name))
		}
		failed = errors.Join(failed, err)
	}
	return failed
}
