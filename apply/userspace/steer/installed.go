package steer

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// installed is what the kernel has of a tunnel. Policies share rules and routes.
type installed struct {
	device   *netlink.LinkAttrs
	policies map[policy]*routing
	rules    map[rule]int // how many policies need it
	routes   map[route]int
	guard    *guard   // nil: the kernel has no nftables
	stale    []policy // still guarded, see lift
}

func newInstalled(device *netlink.LinkAttrs, o Options) *installed {
	return &installed{
		device: device, policies: map[policy]*routing{}, rules: map[rule]int{}, routes: map[route]int{},
		guard: &guard{table: guardTable(o.Device)},
	}
}

func (i *installed) table() int { return tableBase + i.device.Index }

func (i *installed) plan(o Options) (*planner, error) { return newPlanner(i.table(), o.Ports) }

// count counts what a policy needs, and returns what was not there before.
func (i *installed) count(p policy, r *routing) (added routing) {
	i.policies[p] = r
	for _, e := range r.rules {
		if i.rules[e]++; i.rules[e] == 1 {
			added.rules = append(added.rules, e)
		}
	}
	for _, e := range r.routes {
		if i.routes[e]++; i.routes[e] == 1 {
			added.routes = append(added.routes, e)
		}
	}
	return added
}

// discount takes back what count did, and returns what nobody needs any more, in
// the order in which it is to go.
func (i *installed) discount(p policy) (gone routing) {
	r := i.policies[p]
	delete(i.policies, p)
	for _, e := range slices.Backward(r.rules) {
		if i.rules[e]--; i.rules[e] == 0 {
			delete(i.rules, e)
			gone.rules = append(gone.rules, e)
		}
	}
	for _, e := range slices.Backward(r.routes) {
		if i.routes[e]--; i.routes[e] == 0 {
			delete(i.routes, e)
			gone.routes = append(gone.routes, e)
		}
	}
	return gone
}

// change makes the kernel have what other policies need: the guards of new ones
// first. Those of old ones are left to lift.
func (i *installed) change(want map[policy]bool, o Options) error {
	var added, gone []policy
	for p := range want {
		if i.policies[p] == nil {
			added = append(added, p)
		}
	}
	for p := range i.policies {
		if !want[p] {
			gone = append(gone, p)
		}
	}
	if len(added) > 0 {
		if err := i.extend(added, o); err != nil {
			return err
		}
	}
	for _, p := range gone {
		r := i.discount(p)
		for _, e := range r.rules {
			if err := i.removeRule(e, o.Change); err != nil {
				return err
			}
		}
		for _, e := range r.routes {
			if err := i.removeRoute(e, i.table(), o.Change); err != nil {
				return err
			}
		}
	}
	i.stale = append(i.stale, gone...)
	return nil
}

// lift removes the guards of policies that have gone.
func (i *installed) lift() error {
	gone := i.stale
	i.stale = nil
	if i.guard == nil || len(gone) == 0 {
		return nil
	}
	return i.guard.remove(gone)
}

// extend adds what policies need.
func (i *installed) extend(policies []policy, o Options) error {
	if i.guard != nil {
		if err := errors.Join(i.lift(), i.guard.add(policies)); err != nil {
			return err
		}
	}
	plan, err := i.plan(o)
	if err != nil {
		return err
	}
	for _, p := range policies {
		r, err := plan.policy(p)
		if err != nil {
			return err
		}
		new := i.count(p, r)
		for _, e := range new.routes {
			if err := i.addRoute(e, o.Change); err != nil {
				return err
			}
		}
		for _, e := range new.rules {
			if err := i.addRule(e, o.Change); err != nil {
				return err
			}
		}
	}
	return nil
}

// replace makes the kernel have just this of the tunnel, whatever it has. What is
// new comes first. Tables of devices that are no more are nobody's, and go too.
func (i *installed) replace(change func(string)) error {
	dead, err := deadTables()
	if err != nil {
		return err
	}
	haveRoutes, err := listRoutes()
	if err != nil {
		return err
	}
	haveRules, err := listRules()
	if err != nil {
		return err
	}
	there := map[route]bool{}
	for _, old := range haveRoutes {
		if old.Table == i.table() {
			there[routeOf(old)] = true
		}
	}
	for e := range i.routes {
		if !there[e] {
			if err := i.addRoute(e, change); err != nil {
				return err
			}
		}
	}
	have := map[rule]bool{}
	for _, e := range haveRules {
		have[e] = true
	}
	var missing []rule
	for e := range i.rules {
		if !have[e] {
			missing = append(missing, e)
		}
	}
	// What exempts our sockets comes before what they are exempted from, and goes
	// after it.
	slices.SortFunc(missing, func(a, b rule) int { return framing(b) - framing(a) })
	for _, e := range missing {
		if err := i.addRule(e, change); err != nil {
			return err
		}
	}
	slices.SortStableFunc(haveRules, func(a, b rule) int { return framing(a) - framing(b) })
	var failed error
	for _, e := range haveRules {
		if i.rules[e] == 0 && (e.table == i.table() || dead(e.table)) {
			failed = errors.Join(failed, i.removeRule(e, change))
		}
	}
	for _, old := range haveRoutes {
		e := routeOf(old)
		if old.Table == i.table() && i.routes[e] == 0 || old.Table != i.table() && dead(old.Table) {
			failed = errors.Join(failed, i.removeRoute(e, old.Table, change))
		}
	}
	return failed
}

func (i *installed) addRule(e rule, change func(string)) error {
	err := changeRule(netlink.RuleAdd, e)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err != nil {
		return explain(err)
	}
	change(e.command("add"))
	return nil
}

func (i *installed) removeRule(e rule, change func(string)) error {
	err := changeRule(netlink.RuleDel, e)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove a rule: %w", err)
	}
	change(e.command("del"))
	return nil
}

func (i *installed) addRoute(e route, change func(string)) error {
	if err := netlink.RouteReplace(e.netlink(i.table(), i.device.Index)); err != nil {
		return fmt.Errorf("add a route for %v: %w", e.to, err)
	}
	change(e.command("replace", i.device.Name, i.table()))
	return nil
}

func (i *installed) removeRoute(e route, table int, change func(string)) error {
	device := i.device.Index
	if table != i.table() {
		device = 0 // that has gone
	}
	err := netlink.RouteDel(e.netlink(table, device))
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove a route: %w", err)
	}
	change(e.command("del", i.device.Name, table))
	return nil
}

// framing is 1 for what all policies need, see frame.
func framing(e rule) int {
	if e.pref == prefExempt || e.pref == prefEnd || e.pref == prefSource {
		return 1
	}
	return 0
}

// deadTables tells the tables whose device is not there.
func deadTables() (func(table int) bool, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	return func(table int) bool {
		return !slices.ContainsFunc(links, func(l netlink.Link) bool { return tableBase+l.Attrs().Index == table })
	}, nil
}
