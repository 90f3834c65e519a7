package watch

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
	"ipsec-quick/apply/link"
	"ipsec-quick/conf"
	"ipsec-quick/ike"
)

// device is the interface of a route-based tunnel, as the loop keeps it.
type device struct {
	link  *link.Link
	state link.State   // that it was given last
	past  []netip.Addr // peers' addresses that are reached past it
	stale bool         // something has changed that it depends on
	next  time.Time    // not looked at before
	short bool         // the path was said to be too short for IPv6
}

// fitPause is between two looks at an interface: a thousand peers may get new SAs
// one after the other.
const fitPause = time.Second

// openLink is the tunnel's interface; nil: it is policy-based. Which one it is, is
// settled as long as the tunnel is up, whatever the tunnel file says by now.
func (p *parts) openLink(change func(command string)) *link.Link {
	if p.facts == nil || p.facts.Interface == "" {
		return nil
	}
	return link.Open(link.Options{
		Name: p.facts.Interface, ID: p.facts.InterfaceID, XFRM: p.facts.Dataplane != conf.DataplaneUserspace,
		Ports: []uint16{p.facts.Port, p.facts.NATPort}, Change: change,
	})
}

// ifID is that of the xfrm interface which SAs and policies belong to; 0: none.
func (p *parts) ifID() uint32 {
	if p.facts.Interface == "" || inUserspace(p.dp) {
		return 0
	}
	return p.facts.InterfaceID
}

// sameInterface refuses a tunnel file with another interface than the tunnel that
// is up has: its SAs belong to that one.
func (f *facts) sameInterface(t *conf.Tunnel) error {
	switch {
	case (f.Interface != "") != (t.Interface != nil):
		return &Fixed{"[interface]"}
	case t.Interface != nil && t.Interface.Name != f.Interface:
		return &Fixed{"interface.name"}
	}
	return nil
}

// takeInterface chooses the interface of a tunnel that comes up. Another tunnel of
// this network namespace may not have one of the same name, which in user space is
// what a policy-based tunnel's TUN device has.
func (f *facts) takeInterface(t *conf.Tunnel, d *dir) error {
	name := t.Name
	if t.Interface != nil {
		name = t.Interface.Name
	}
	for other, o := range d.others(f.Netns) {
		if o.Interface == name || o.Interface == "" && other == name {
			return fmt.Errorf("the tunnel %s has the interface %s: set another name in [interface]", other, name)
		}
	}
	if t.Interface == nil {
		return nil
	}
	present, err := link.IDs()
	if err != nil {
		return err
	}
	f.Interface, f.InterfaceID = name, chooseInterfaceID(t.Name, d.others(""), present)
	return nil
}

// chooseInterfaceID gives a tunnel the number of its interface: a hash of its name,
// so that it is the same the next time; where that is taken on this host, the next
// one.
func chooseInterfaceID(name string, others map[string]*facts, present map[string]uint32) uint32 {
	taken := map[uint32]bool{}
	for _, f := range others {
		taken[f.InterfaceID] = true
	}
	for _, id := range present {
		taken[id] = true
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	for id := h.Sum32(); ; id++ {
		if id = link.FirstID + id%(link.LastID-link.FirstID+1); !taken[id] {
			return id
		}
	}
}

// fitDevice brings the interface into line if something has changed. An error is
// logged, and it is tried again with the next look at the data plane: until then
// what the tunnel covers is dropped.
func (l *loop) fitDevice() {
	if due := l.fitDeadline(); due.IsZero() || due.After(l.now()) {
		return
	}
	if err := l.syncDevice(); err != nil {
		l.log.Error("the tunnel's interface is not as it should be", "err", err)
	}
}

// fitDeadline is when the interface is to be looked at.
func (l *loop) fitDeadline() time.Time {
	if l.device.link == nil || !l.device.stale || l.ending || l.closing != nil {
		return time.Time{}
	}
	return l.device.next
}

// syncDevice brings the interface into line with the tunnel file, the peers and
// their SAs.
func (l *loop) syncDevice() error {
	l.device.stale, l.device.next = false, l.now().Add(fitPause)
	s, err := interfaceState(l.tunnel.Interface, l.inOrder())
	if err != nil {
		return err
	}
	s.MTU = l.mtu()
	s.Endpoints = append(s.Endpoints, l.device.past...)
	l.device.state = s
	return l.device.link.Sync(s)
}

// inOrder are the peers in the order of the tunnel file.
func (l *loop) inOrder() []*peer {
	var all []*peer
	for i := range l.tunnel.Peers {
		all = append(all, l.peers[l.tunnel.Peers[i].Name])
	}
	return all
}

// interfaceState is what an interface needs for peers, but for its MTU.
func interfaceState(i *conf.Interface, peers []*peer) (link.State, error) {
	s := link.State{Addresses: i.Addresses}
	var selectors []apply.Selector
	for _, p := range peers {
		// Those that are too many had no guards either.
		list, _ := pairs(resolved(p.conf.LocalTS, p.local), resolved(p.conf.RemoteTS, p.remote))
		selectors = append(selectors, list...)
		s.Endpoints = append(s.Endpoints, p.addresses...)
		if p.remote.IsValid() {
			s.Endpoints = append(s.Endpoints, p.remote)
		}
	}
	if i.Table == conf.TableOff {
		return s, nil
	}
	own, err := ownAddresses()
	s.Table, s.Routes = i.Table, routes(selectors, i.Addresses, own)
	return s, err
}

// reach sees to it that the way to a peer's address does not lead into its own
// tunnel.
func (l *loop) reach(remote netip.Addr) {
	s := &l.device.state
	if !slices.ContainsFunc(s.Routes, func(r link.Route) bool { return r.To.Contains(remote) && !s.Captive(r.To) }) {
		return
	}
	l.device.past = append(l.device.past, remote)
	l.device.stale, l.device.next = true, l.now()
	l.fitDevice()
}

// routes are those to what selectors have on the other side. What this host sends
// there has an address that the selectors have on this one: of the interface's own
// ones, or of another of the host's.
func routes(selectors []apply.Selector, addresses []netip.Prefix, own []netip.Addr) []link.Route {
	var all []link.Route
	for _, s := range selectors {
		i := slices.IndexFunc(all, func(r link.Route) bool { return r.To == s.Remote })
		if i < 0 {
			i, all = len(all), append(all, link.Route{To: s.Remote})
		}
		if !all[i].Src.IsValid() {
			all[i].Src = source(s.Local, addresses, own)
		}
	}
	return all
}

// source is an address within a prefix; not valid: the kernel may choose.
func source(local netip.Prefix, addresses []netip.Prefix, own []netip.Addr) netip.Addr {
	for _, a := range addresses {
		if local.Contains(a.Addr()) {
			return a.Addr()
		}
	}
	if local.Bits() == 0 {
		return netip.Addr{}
	}
	for _, a := range own {
		if local.Contains(a) {
			return a
		}
	}
	return netip.Addr{}
}

// ownAddresses are all of this host's.
func ownAddresses() ([]netip.Addr, error) {
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var own []netip.Addr
	for _, a := range list {
		const passing = unix.IFA_F_TENTATIVE | unix.IFA_F_TEMPORARY
		if addr, ok := netip.AddrFromSlice(a.IP); ok && a.Scope < unix.RT_SCOPE_LINK && a.Flags&passing == 0 {
			own = append(own, addr.Unmap())
		}
	}
	return own, nil
}

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

// unsteered is the userspace.Steering of a tunnel whose traffic routes bring to its
// device.
type unsteered struct{}

// Sync does nothing.
func (unsteered) Sync([]apply.Policy) error { return nil }

// Refresh does nothing.
func (unsteered) Refresh() error { return nil }
