package watch

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"ipsec-quick/apply"
	"ipsec-quick/conf"
)

// Neighbour discovery (RFC 4861, Section 4): the ICMPv6 types of router
// solicitation and advertisement, neighbour solicitation and advertisement.
const (
	firstND = 133
	lastND  = 136
)

// guards are the policies that are there as long as the tunnel is: they drop
// what a peer's selectors cover when no Child SA carries it, and yield to the
// policies of one that does. For a peer that is connected on demand such a
// packet also raises an Acquire.
func guards(p *peer) ([]apply.Policy, error) {
	selectors, err := pairs(resolved(p.conf.LocalTS, p.local), resolved(p.conf.RemoteTS, p.remote))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.conf.Name, err)
	}
	var out []apply.Policy
	for _, s := range selectors {
		if p.routed {
			break // no other link's neighbours are behind the interface
		}
		for _, nd := range bypassND(s, p.local, p.remote) {
			if !slices.Contains(out, nd) {
				out = append(out, nd)
			}
		}
	}
	for _, s := range selectors {
		g := apply.Policy{Selector: s, Action: apply.Block, Mode: mode(p.conf.Mode == conf.ModeTransport), Guard: true, IfID: p.ifID}
		if p.conf.Start == conf.StartOnDemand && p.local.IsValid() && p.remote.IsValid() {
			g.Action, g.Local, g.Remote, g.ReqID = apply.Trap, p.local, p.remote, p.reqID
		}
		out = append(out, g)
	}
	return out, nil
}

// bypassND lets neighbour discovery through where a selector covers an outer
// address: without it the two ends of a link do not find each other, and no ESP
// packet leaves. No router forwards it (RFC 4861, Section 7.1: hop limit 255).
func bypassND(s apply.Selector, local, remote netip.Addr) []apply.Policy {
	if s.Local.Addr().Is4() || s.Protocol != 0 {
		return nil
	}
	covers := !local.IsValid() || !remote.IsValid() || s.Local.Contains(local) || s.Remote.Contains(remote)
	if !covers {
		return nil
	}
	var out []apply.Policy
	for _, m := range apply.PortMasks(firstND, lastND) {
		out = append(out, apply.Policy{
			Selector: apply.Selector{Local: s.Local, Remote: s.Remote, Protocol: protocolICMPv6, LocalPort: m},
			Action:   apply.Bypass,
			Mode:     apply.Transport, // it is not forwarded
			Guard:    true,
		})
	}
	return out
}

// setGuards installs the guards of peers. After that it removes those of addresses
// and selectors that they have no more, so that nothing leaves in clear in between.
func (l *loop) setGuards(peers ...*peer) error {
	want := map[*peer][]apply.Policy{}
	for _, p := range peers {
		list, err := guards(p)
		if err != nil {
			return err
		}
		if !slices.Equal(list, p.guards) {
			want[p] = list
		}
	}
	if err := l.claimTraffic(want); err != nil {
		return err
	}
	var old []apply.Policy
	for _, p := range peers {
		for _, g := range want[p] {
			if slices.Contains(p.guards, g) {
				continue
			}
			if err := l.journal.SetPolicy(g); err != nil {
				return fmt.Errorf("%s: guard for %v: %w", p.conf.Name, g.Selector, err)
			}
		}
	}
	for p, list := range want {
		for _, g := range p.guards {
			if !slices.ContainsFunc(list, func(w apply.Policy) bool { return w.Selector == g.Selector }) {
				old = append(old, g)
			}
		}
		p.guards = list
	}
	l.dropUnwanted(old)
	return nil
}

// dropUnwanted removes guards, but those for selectors that a peer has one for:
// traffic may have moved from one peer to another.
func (l *loop) dropUnwanted(list []apply.Policy) {
	if len(list) == 0 {
		return
	}
	wanted := map[apply.Selector]bool{}
	for _, p := range l.peers {
		for _, g := range p.guards {
			wanted[g.Selector] = true
		}
	}
	for _, g := range list {
		if !wanted[g.Selector] {
			l.dropGuard(g)
		}
	}
}

// dropStrays removes the guards that no peer has any more.
func (l *loop) dropStrays() {
	var all []apply.Policy
	for _, policy := range l.journal.Policies() {
		if policy.Guard {
			all = append(all, policy)
		}
	}
	l.dropUnwanted(all)
}

func (l *loop) dropGuard(g apply.Policy) {
	if err := l.journal.RemovePolicy(g); err != nil && !errors.Is(err, apply.ErrAbsent) {
		l.log.Error("cannot remove a guard", "selector", g.Selector, "err", err)
	}
}

// claimTraffic refuses selectors that another tunnel of this host guards: the
// data plane has one policy for a selector, and taking one tunnel down would
// take the other's guard away. Those of interfaces are apart. What is new is then
// entered in our facts.
func (l *loop) claimTraffic(want map[*peer][]apply.Policy) error {
	if len(want) == 0 || l.facts.Interface != "" {
		return nil
	}
	var mine []string
	for _, p := range l.peers {
		list, changed := want[p]
		if !changed {
			list = p.guards
		}
		for _, g := range list {
			if g.Action != apply.Bypass {
				mine = append(mine, g.Selector.String())
			}
		}
	}
	slices.Sort(mine)
	if slices.Equal(mine, l.facts.Guards) {
		return nil
	}
	for name, f := range l.dir.others(l.facts.Netns) {
		for _, theirs := range f.Guards {
			if _, both := slices.BinarySearch(mine, theirs); both {
				return &Conflict{Tunnel: name, Selector: theirs}
			}
		}
	}
	l.facts.Guards = mine
	return l.dir.writeFacts(l.facts)
}

// moved takes note of the outer addresses between which a peer is reached: the
// guards of dynamic selectors and the traps depend on them.
func (l *loop) moved(p *peer, local, remote netip.Addr) {
	if p.local == local && p.remote == remote {
		return
	}
	p.local, p.remote = local, remote
	l.device.stale = true
	if err := l.setGuards(p); err != nil {
		l.failed(err)
	}
}

// locate is moved for a peer's address, with ours by the route to it. Without
// a route nothing changes.
func (l *loop) locate(p *peer, remote netip.Addr) {
	local, err := l.localFor(p, remote)
	if err != nil {
		l.log.Debug("no route yet", "peer", p.conf.Name, "err", err)
		return
	}
	l.moved(p, local, remote)
}
