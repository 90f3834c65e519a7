// Package steer brings the traffic of a tunnel's policies into its TUN device,
// and keeps it from going any other way.
//
// The kernel's own ESP sees every packet after it was routed, with its source
// address. A TUN device gets what is routed to it. So there are, for each policy,
//
//   - rules (ip-rule(8)) that look up a table of the tunnel's own, whose default
//     route is the device: from the policy's local addresses to its remote ones,
//     the narrower selector first, as apply.Policy.Priority has it;
//   - the same for sockets that have no source address yet when they look for a
//     route, see unbound.go;
//   - a guard, one nftables table, that drops what matches a policy and comes or
//     goes by another device, see guard.go.
//
// All of it is the kernel's and outlives the process: what the device then gets
// is dropped, and nothing leaves in clear. It is found again by the routing
// protocol number, the numbers of the tables and the device's name.
package steer

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"ipsec-quick/apply"
	"ipsec-quick/apply/link/rtnl"
)

// tableBase and the device's index make the number of a tunnel's table. No two
// devices of a network namespace have the same.
const tableBase = 45000000

// Options of Open.
type Options struct {
	Device string   // the TUN device
	Ports  []uint16 // UDP ports of IKE and of ESP in UDP on this host
	Log    *slog.Logger
	Change func(command string) // gets each change to this host, as a command that does it
}

// Steer is one tunnel's. Its methods may be called from several goroutines.
type Steer struct {
	o Options

	mu     sync.Mutex
	warned bool       // of a kernel without nftables
	have   *installed // nil: not known
}

// A policy is what of an apply.Policy makes a difference here. A guard and the
// policy that it stands behind are the same.
type policy struct {
	apply.Selector
	bypass bool
}

// Open changes nothing.
func Open(o Options) *Steer { return &Steer{o: o} }

// Sync makes the kernel have what these policies, all of the tunnel's, need, and
// nothing of the tunnel's besides. The device has to be there; without policies
// it need not. What this or another process left half done is put right.
func (s *Steer) Sync(policies []apply.Policy) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	want := make(map[policy]bool, len(policies))
	for _, p := range policies {
		want[policy{p.Selector, p.Action == apply.Bypass}] = true
	}
	have := s.have
	s.have = nil // until it is known again
	switch {
	case len(want) == 0:
		return s.clear()
	case have == nil || have.change(want, s.o) != nil:
		return s.install(want, false)
	}
	s.have = have
	if len(have.stale) > 0 {
		time.AfterFunc(liftAfter, s.lift)
	}
	return nil
}

// liftAfter is how long a policy that has gone is guarded. A removal from a table of
// nftables takes the kernel some hundredths of a second, and often many policies go
// together.
const liftAfter = 100 * time.Millisecond

// lift removes the guards of policies that have gone.
func (s *Steer) lift() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.have == nil {
		return
	}
	if err := s.have.lift(); err != nil {
		s.o.Log.Error("traffic that no policy covers any more is still dropped", "err", err)
	}
}

// Refresh puts back what somebody took away since the last Sync: a network
// manager the rules that it does not know, a firewall all tables. The sources of
// sockets that are not bound are found anew.
func (s *Steer) Refresh() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.have == nil {
		return nil
	}
	guarded, err := hasGuard(s.o.Device)
	if err != nil && !errors.Is(err, errNoGuard) {
		return fmt.Errorf("guard: %w", err)
	}
	want := make(map[policy]bool, len(s.have.policies))
	for p := range s.have.policies {
		want[p] = true
	}
	stale := s.have.stale
	if err := s.install(want, guarded); err != nil {
		return err
	}
	if guarded {
		s.have.stale = stale // they are still to be lifted
	}
	return nil
}

// install makes the kernel have all, whatever it has. The guard comes first, then
// the routes, then the rules to them: at no time does anything leave in clear.
// With guarded it is there.
func (s *Steer) install(want map[policy]bool, guarded bool) error {
	link, err := netlink.LinkByName(s.o.Device)
	if err == nil {
		_, err = rtnl.SetUp(link)
	}
	if err != nil {
		return fmt.Errorf("TUN device %s: %w", s.o.Device, err)
	}
	i := newInstalled(link.Attrs(), s.o)
	if !guarded {
		err = i.guard.replace(want, s.o.Ports)
	}
	switch {
	case errors.Is(err, errNoGuard):
		i.guard = nil
		if !s.warned {
			s.o.Log.Warn(err.Error())
		}
		s.warned = true
	case err != nil:
		return err
	case !guarded:
		s.o.Change(fmt.Sprintf("nft 'table inet %s' # drops what the selectors cover, unless it comes or goes by a TUN device",
			guardTable(s.o.Device).Name))
	}
	plan, err := i.plan(s.o)
	if err != nil {
		return err
	}
	for p := range want {
		r, err := plan.policy(p)
		if err != nil {
			return err
		}
		i.count(p, r)
	}
	if err := i.replace(s.o.Change); err != nil {
		return err
	}
	s.have = i
	return nil
}

// clear takes all away. The guard goes last.
func (s *Steer) clear() error {
	device := &netlink.LinkAttrs{Name: s.o.Device} // which may have gone
	link, err := netlink.LinkByName(s.o.Device)
	var absent netlink.LinkNotFoundError
	switch {
	case err == nil:
		device = link.Attrs()
	case !errors.As(err, &absent):
		return fmt.Errorf("TUN device %s: %w", s.o.Device, err)
	}
	if err := newInstalled(device, s.o).replace(s.o.Change); err != nil {
		return err
	}
	removed, err := removeGuard(s.o.Device)
	if removed {
		s.o.Change("nft delete table inet " + guardTable(s.o.Device).Name)
	}
	return err
}
