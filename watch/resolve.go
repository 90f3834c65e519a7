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

// answer is what a lookup found.
type answer struct {
	peer      string
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
	host, name := p.conf.Endpoint.Host, p.conf.Name
	go func() {
		ctx, cancel := context.WithTimeout(l.ctx, resolveTimeout)
		defer cancel()
		resolver := net.Resolver{PreferGo: true, Dial: l.dialPastPolicies}
		addresses, err := resolver.LookupNetIP(ctx, "ip", host)
		for i := range addresses {
			addresses[i] = addresses[i].Unmap()
		}
		select {
		case l.answers <- answer{name, addresses, err}:
		case <-l.ctx.Done():
		}
	}()
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
	if p == nil {
		return
	}
	p.looking = false
	p.refreshAt = l.now().Add(refreshEvery)
	if a.err != nil {
		p.refreshAt = l.now().Add(refreshFailed)
		l.log.Warn("cannot resolve the peer's name", "peer", a.peer, "name", p.conf.Endpoint.Host, "err", a.err)
	} else {
		p.addresses = usable(a.addresses, p.conf)
		if len(p.addresses) == 0 {
			a.err = fmt.Errorf("%s has no address of the family of local.address %v", p.conf.Endpoint.Host, p.conf.Address)
		} else {
			l.push(ike.PeerAddresses{Peer: a.peer, Addresses: slices.Clone(p.addresses)})
			if !p.up && !slices.Contains(p.addresses, p.remote) {
				l.locate(p, p.addresses[0])
			}
		}
	}
	if p.wanted {
		p.wanted = false
		l.initiate(p, a.err)
	}
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
// next of the peer's.
func (l *loop) initiate(p *peer, err error) {
	ev := ike.Initiate{Peer: p.conf.Name, Err: err}
	if err == nil {
		remote := p.addresses[p.attempt%len(p.addresses)]
		p.attempt++
		var local netip.Addr
		if local, ev.Err = l.localFor(p, remote); ev.Err == nil {
			ev.Local = netip.AddrPortFrom(local, l.tunnel.Port)
			ev.Remote = netip.AddrPortFrom(remote, p.conf.Endpoint.Port)
			l.moved(p, local, remote)
		}
	}
	l.push(ev)
}

// localFor is the address that we speak to a peer from.
func (l *loop) localFor(p *peer, remote netip.Addr) (netip.Addr, error) {
	return sourceFor(l.dp, p.conf.Address, remote)
}

// sourceFor asks the kernel which address it would send from, or whether it can
// from the one that is set. The socket bypasses the policies: a guard for the
// peer's own address would refuse to connect, and a trap take it for traffic.
// Without a data plane no policy is in the way.
func sourceFor(dp apply.Dataplane, set, remote netip.Addr) (netip.Addr, error) {
	domain := unix.AF_INET
	if remote.Is6() {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return netip.Addr{}, err
	}
	defer unix.Close(fd)
	if remote.Is6() {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return netip.Addr{}, err
		}
	}
	if dp != nil {
		if err := dp.PrepareSocket(fd, remote, false); err != nil {
			return netip.Addr{}, err
		}
	}
	if set.IsValid() {
		err := unix.Bind(fd, sockaddr(set, 0))
		if errors.Is(err, unix.EADDRNOTAVAIL) {
			return netip.Addr{}, fmt.Errorf("local.address %v is none of this host's", set)
		}
		if err != nil {
			return netip.Addr{}, fmt.Errorf("local.address %v: %w", set, err)
		}
	}
	if err := unix.Connect(fd, sockaddr(remote, 500)); err != nil { // sends nothing
		return netip.Addr{}, fmt.Errorf("no route to %v: %w", remote, err)
	}
	from, err := unix.Getsockname(fd)
	if err != nil {
		return netip.Addr{}, err
	}
	switch from := from.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(from.Addr), nil
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(from.Addr), nil
	}
	return netip.Addr{}, errors.New("the kernel named no address")
}

func sockaddr(a netip.Addr, port int) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Port: port, Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Port: port, Addr: a.As16()}
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
