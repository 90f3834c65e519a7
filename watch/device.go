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

// unsteered is the userspace.Steering of a tunnel whose traffic routes bring to its
// device.
type unsteered struct{}

// Sync does nothing.
func (unsteered) Sync([]apply.Policy) error { return nil }

// Refresh does nothing.
func (unsteered) Refresh() error { return nil }
