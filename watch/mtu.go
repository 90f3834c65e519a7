package watch

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
	"ipsec-quick/ike"
)

// mtu is what the interface is to have: what the tunnel file says, or the longest
// packet that all SAs have room for on the path to their peer. In user space the
// data plane finds that out; it is 0 then.
func (l *loop) mtu() int {
	switch {
	case inUserspace(l.dp):
		return 0
	case l.tunnel.Interface.MTU != 0:
		return l.tunnel.Interface.MTU
	}
	mtu := 0
	for _, c := range l.children() {
		if c.Retiring {
			continue
		}
		path, err := pathMTU(&c.Child)
		if err != nil {
			l.log.Debug("path MTU", "peer", c.Child.Peer, "err", err)
			continue
		}
		if one := outbound(&c.Child).MTU(path); mtu == 0 || one < mtu {
			mtu = one
		}
	}
	if mtu == 0 { // there is no SA
		mtu = max(l.device.state.MTU, apply.LeastMTU6)
	}
	return l.leastMTU(mtu)
}

// leastMTU is the MTU, or what IPv6 needs where that is more: then the kernel sends
// ESP in fragments.
func (l *loop) leastMTU(mtu int) int {
	short := l.carriesIPv6() && mtu < apply.LeastMTU6
	if short && !l.device.short {
		l.log.Warn("the path is too short for packets of 1280 octets, which IPv6 needs: ESP is sent in fragments", "mtu", mtu)
	}
	l.device.short = short
	if short {
		return apply.LeastMTU6
	}
	return max(mtu, leastMTU4)
}

func (l *loop) carriesIPv6() bool {
	for _, p := range l.peers {
		if slices.ContainsFunc(p.guards, func(g apply.Policy) bool { return g.Selector.Remote.Addr().Is6() }) {
			return true
		}
	}
	return slices.ContainsFunc(l.tunnel.Interface.Addresses, func(a netip.Prefix) bool { return a.Addr().Is6() })
}

// leastMTU4 is what each host reassembles (RFC 1122, Section 3.3.2).
const leastMTU4 = 576

// outbound is what of the outbound SA of a Child SA makes a difference to lengths.
func outbound(c *ike.ChildSA) apply.SA {
	sa := apply.SA{Dst: c.Remote.Addr()}
	sa.Encryption, sa.Integrity = algorithms(c, ike.DirectionKeys{})
	if c.Encap {
		sa.Encap = new(apply.Encap)
	}
	return sa
}

// pathMTU is what the kernel knows of the path to a Child SA's peer.
func pathMTU(c *ike.ChildSA) (int, error) {
	ask := &netlink.RouteGetOptions{Mark: apply.Mark, SrcAddr: c.Local.Addr().AsSlice()}
	remote := c.Remote.Addr()
	found, err := netlink.RouteGetWithOptions(remote.AsSlice(), ask)
	if err == nil && len(found) == 0 {
		err = unix.ENETUNREACH
	}
	if err != nil {
		return 0, fmt.Errorf("no route to %v: %w", remote, err)
	}
	r := found[0] // the kernel answers with one
	mtu := r.MTU  // of the path, or set by the route
	if mtu == 0 {
		d, err := netlink.LinkByIndex(r.LinkIndex)
		if err != nil {
			return 0, err
		}
		mtu = d.Attrs().MTU
	}
	if c.Encap || remote.Is4() {
		return mtu, nil
	}
	// An ICMP error about ESP over IPv6 has no mark, and what it says is about the
	// route that packets without take: with a default route, that to the interface.
	ask.Mark = 0
	if others, err := netlink.RouteGetWithOptions(remote.AsSlice(), ask); err == nil && len(others) > 0 && others[0].MTU > 0 {
		mtu = min(mtu, others[0].MTU)
	}
	return mtu, nil
}
