package steer

import (
	"errors"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ipsec-quick/apply/link/rtnl"
)

// installed is what the kernel has of a tunnel. Policies share rules and routes.
type installed struct {
	device   *netlink.LinkAttrs
	policies map[policy]*routing
	rules    map[rtnl.Rule]int // how many policies need it
	routes   map[rtnl.Route]int
	guard    *guard   // nil: the kernel has no nftables
	stale    []policy // still guarded, see lift
}

func newInstalled(device *netlink.LinkAttrs, o Options) *installed {
	return &installed{
		device: device, policies: map[policy]*routing{}, rules: map[rtnl.Rule]int{}, routes: map[rtnl.Route]int{},
		guard: &guard{table: guardTable(o.Device)},
	}
}

func (i *installed) table() int { return tableBase + i.device.Index }

func (i *installed) plan(o Options) (*planner, error) { return newPlanner(i.device.Index, o.Ports) }

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
			if err := i.removeRoute(e, o.Change); err != nil {
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
	haveRoutes, err := rtnl.Routes()
	if err != nil {
		return err
	}
	haveRules, err := rtnl.Rules()
	if err != nil {
		return err
	}
	dead, err := deadTables(haveRules, haveRoutes)
	if err != nil {
		return err
	}
	for e := range i.routes {
		if !slices.Contains(haveRoutes, e) {
			if err := i.addRoute(e, change); err != nil {
				return err
			}
		}
	}
	have := map[rtnl.Rule]bool{}
	for _, e := range haveRules {
		have[e] = true
	}
	var missing []rtnl.Rule
	for e := range i.rules {
		if !have[e] {
			missing = append(missing, e)
		}
	}
	// What exempts our sockets comes before what they are exempted from, and goes
	// after it.
	slices.SortFunc(missing, func(a, b rtnl.Rule) int { return framing(b) - framing(a) })
	for _, e := range missing {
		if err := i.addRule(e, change); err != nil {
			return err
		}
	}
	slices.SortStableFunc(haveRules, func(a, b rtnl.Rule) int { return framing(a) - framing(b) })
	var failed error
	for _, e := range haveRules {
		if i.rules[e] == 0 && (e.Table == i.table() || dead[e.Table]) {
			failed = errors.Join(failed, i.removeRule(e, change))
		}
	}
	for _, e := range haveRoutes {
		if i.routes[e] == 0 && (e.Table == i.table() || dead[e.Table]) {
			failed = errors.Join(failed, i.removeRoute(e, change))
		}
	}
	return failed
}

func (i *installed) addRule(e rtnl.Rule, change func(string)) error {
	added, err := e.Add()
	if added {
		change(e.Command("add"))
	}
	return err
}

func (i *installed) removeRule(e rtnl.Rule, change func(string)) error {
	there, err := e.Delete()
	if there {
		change(e.Command("del"))
	}
	return err
}

func (i *installed) addRoute(e rtnl.Route, change func(string)) error {
	if err := e.Replace(); err != nil {
		return err
	}
	change(e.Command("replace", i.device.Name))
	return nil
}

func (i *installed) removeRoute(e rtnl.Route, change func(string)) error {
	there, err := e.Delete()
	if there {
		change(e.Command("del", i.device.Name))
	}
	return err
}

// framing is 1 for what all policies need, see frame.
func framing(e rtnl.Rule) int {
	if e.Pref == prefExempt || e.Pref == prefEnd || e.Pref == prefSource {
		return 1
	}
	return 0
}

// deadTables are those, of rules and routes that were there, whose device is not. It
// has to be looked for after them: a tunnel that comes up has its device first.
func deadTables(rules []rtnl.Rule, routes []rtnl.Route) (map[int]bool, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	dead := map[int]bool{}
	look := func(table int) error {
		if _, known := dead[table]; known || table < tableBase {
			return nil
		}
		there, err := hasDevice(fd, table-tableBase)
		dead[table] = !there
		return err
	}
	for _, e := range rules {
		if err := look(e.Table); err != nil {
			return nil, err
		}
	}
	for _, e := range routes {
		if err := look(e.Table); err != nil {
			return nil, err
		}
	}
	return dead, nil
}

// hasDevice reports whether there is a device (netdevice(7), SIOCGIFNAME). A list of
// all would take long when hundreds of tunnels come up at once, and change meanwhile.
func hasDevice(fd, index int) (bool, error) {
	request, err := unix.NewIfreq("?")
	if err != nil {
		return false, err
	}
	request.SetUint32(uint32(index))
	err = unix.IoctlIfreq(fd, unix.SIOCGIFNAME, request)
	if errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	return err == nil, os.NewSyscallError("SIOCGIFNAME", err)
}
