package watch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
	"ipsec-quick/conf"
	"ipsec-quick/ike"
)

const (
	// resolveTimeout bounds one look at the names: a resolver tries each of its
	// servers twice for 5 s.
	resolveTimeout = 15 * time.Second
	// refreshEvery is how often the name of a peer is looked up that may begin
	// to speak from its new address before we do.
	refreshEvery = 5 * time.Minute
	// refreshFailed is the same after a lookup that failed.
	refreshFailed = 20 * time.Second
)

// A resolver finds the addresses of a name.
type resolver func(ctx context.Context, host string) ([]netip.Addr, error)

// answer is what a lookup found.
type answer struct {
	peer      string
	host      string // that was asked for
	addresses []netip.Addr
	err       error
}

// lookup asks for the addresses of a peer's endpoint; the loop gets an answer.
// Only one lookup per peer is under way.
func (l *loop) lookup(p *peer) {
	if p.looking {
		return
	}
	p.looking = true
	host, name, resolver := p.conf.Endpoint.Host, p.conf.Name, l.resolver
	go func() {
		ctx, cancel := context.WithTimeout(l.ctx, resolveTimeout)
		defer cancel()
		addresses, err := resolver(ctx, host)
		for i := range addresses {
			addresses[i] = addresses[i].Unmap()
		}
		select {
		case l.answers <- answer{name, host, addresses, err}:
		case <-l.ctx.Done():
		}
	}()
}

// resolvePastPolicies asks the host's name servers.
func (l *loop) resolvePastPolicies(ctx context.Context, host string) ([]netip.Addr, error) {
	r := net.Resolver{PreferGo: true, Dial: l.dialPastPolicies}
	return r.LookupNetIP(ctx, "ip", host)
}

// dialPastPolicies is how the resolver reaches its servers: our guards may cover
// them (a tunnel for 0.0.0.0/0), and without an address there is no tunnel.
func (l *loop) dialPastPolicies(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Control: func(network, _ string, raw syscall.RawConn) error {
		ipv6 := network == "udp6" || network == "tcp6"
		if err := prepareRaw(l.dp, raw, ipv6, false); err != nil {
			l.log.Debug("resolver's socket", "err", err)
		}
		return nil
	}}
	return d.DialContext(ctx, network, address)
}

// answered takes the addresses of a name.
func (l *loop) answered(a answer) {
	p := l.peers[a.peer]
	if p == nil || p.conf.Endpoint.Host != a.host {
		return // it was removed meanwhile, or is to be found elsewhere
	}
	p.looking = false
	p.refreshAt = l.now().Add(refreshEvery)
	if a.err != nil {
		p.refreshAt = l.now().Add(refreshFailed)
		l.log.Warn("cannot resolve the peer's name", "peer", a.peer, "name", p.conf.Endpoint.Host, "err", a.err)
	} else if usable := usable(a.addresses, p.conf); len(usable) == 0 {
		a.err = fmt.Errorf("%s has no address of the family of local.address %v", p.conf.Endpoint.Host, p.conf.Address)
	} else {
		p.addresses = usable
		l.knowAddresses()
		l.push(ike.PeerAddresses{Peer: a.peer, Addresses: slices.Clone(p.addresses)})
		if !p.up && !slices.Contains(p.addresses, p.remote) {
			l.locate(p, p.addresses[0])
		}
	}
	if p.wanted {
		p.wanted = false
		if len(p.addresses) > 0 {
			a.err = nil // those that are known from before may do
		}
		l.initiate(p, a.err)
	}
}

// knowAddresses tells the readers from where our peers speak.
func (l *loop) knowAddresses() {
	all := map[netip.Addr]bool{}
	for _, p := range l.peers {
		for _, a := range p.addresses {
			all[a] = true
		}
	}
	l.in.peers.replace(all)
}

// usable leaves out the addresses of a family that we do not speak from.
func usable(addresses []netip.Addr, c *conf.Peer) []netip.Addr {
	if !c.Address.IsValid() {
		return addresses
	}
	return slices.DeleteFunc(addresses, func(a netip.Addr) bool { return a.Is4() != c.Address.Is4() })
}

// resolve answers the core's ike.Resolve: at once for an address, later for a
// name. A name is asked for again each time (the peer may have moved).
func (l *loop) resolve(name string) {
	p := l.peers[name]
	if p == nil || l.ending || l.closing != nil {
		return // nothing begins any more
	}
	if p.conf.Endpoint.Host == "" {
		// A peer without endpoint that we lost or were asked to connect to.
		l.push(ike.Initiate{Peer: name, Err: errors.New("there is no endpoint to connect to")})
		return
	}
	if p.conf.Endpoint.Addr.IsValid() {
		l.initiate(p, nil)
		return
	}
	p.wanted = true
	l.lookup(p)
}

// initiate tells the core between which addresses to try: on each attempt the
// next of the peer's that there is a route to.
func (l *loop) initiate(p *peer, err error) {
	ev := ike.Initiate{Peer: p.conf.Name, Others: len(p.addresses) > 1, Err: err}
	for range p.addresses {
		if err != nil {
			break
		}
		remote := p.next()
		var local netip.Addr
		if local, ev.Err = l.localFor(p, remote); ev.Err == nil {
			ev.Local = netip.AddrPortFrom(local, l.tunnel.Port)
			ev.Remote = netip.AddrPortFrom(remote, p.conf.Endpoint.Port)
			l.moved(p, local, remote)
			break
		}
	}
	l.push(ev)
}

// next is the peer's address to try now: the first that was not tried since all
// were. Name servers give them in any order, and may give others each time.
func (p *peer) next() netip.Addr {
	i := slices.IndexFunc(p.addresses, func(a netip.Addr) bool { return !slices.Contains(p.tried, a) })
	if i < 0 {
		i, p.tried = 0, nil
	}
	p.tried = append(p.tried, p.addresses[i])
	return p.addresses[i]
}

// localFor is the address that we speak to a peer from.
func (l *loop) localFor(p *peer, remote netip.Addr) (netip.Addr, error) {
	return sourceFor(p.conf.Address, remote)
}

// sourceFor asks the kernel which address it would send from, or whether it can
// from the one that is set. The question is about the route alone: no policy, not
// even a guard for the peer's own address, is in its way.
func sourceFor(set, remote netip.Addr) (netip.Addr, error) {
	ask := &netlink.RouteGetOptions{Mark: apply.Mark}
	if set.IsValid() {
		if err := hasAddress(set); err != nil {
			return netip.Addr{}, err
		}
		ask.SrcAddr = set.AsSlice()
	}
	routes, err := netlink.RouteGetWithOptions(remote.AsSlice(), ask)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("no route to %v: %w", remote, err)
	}
	if set.IsValid() {
		return set, nil
	}
	for _, r := range routes {
		if local, ok := netip.AddrFromSlice(r.Src); ok && r.Type != unix.RTN_UNREACHABLE && r.Type != unix.RTN_BLACKHOLE && r.Type != unix.RTN_PROHIBIT {
			return local.Unmap(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no route to %v", remote)
}

// hasAddress checks that a configured address is one of this host's.
func hasAddress(a netip.Addr) error {
	family := unix.AF_INET
	if a.Is6() {
		family = unix.AF_INET6
	}
	list, err := netlink.AddrList(nil, family)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // others may come and go
		return fmt.Errorf("local.address %v: %w", a, err)
	}
	for i := range list {
		if own, ok := netip.AddrFromSlice(list[i].IP); ok && own.Unmap() == a {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("local.address %v: %w", a, err)
	}
	return fmt.Errorf("local.address %v is none of this host's", a)
}

// refresh looks names up again when it is time.
func (l *loop) refresh(now time.Time) {
	for _, p := range l.peers {
		if p.named() && !p.refreshAt.After(now) {
			p.refreshAt = now.Add(refreshEvery)
			l.lookup(p)
		}
	}
}

// nextRefresh is when a name is to be looked up.
func (l *loop) nextRefresh() (next time.Time) {
	for _, p := range l.peers {
		if p.named() && (next.IsZero() || p.refreshAt.Before(next)) {
			next = p.refreshAt
		}
	}
	return next
}
