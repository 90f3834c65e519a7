package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ipsec-quick/apply/link/rtnl"
)

// errForeign: the name is taken.
var errForeign = errors.New("there is another interface of this name: rename that, or set name in [interface]")

// syncDevice brings the device and its MTU into line and adds addresses, and returns
// its index; 0: it is not there.
func (l *Link) syncDevice(s State) (index int, err error) {
	d, err := find(l.o.Name)
	if err == nil && d == nil && l.o.XFRM {
		if err = l.addDevice(); err == nil {
			d, err = find(l.o.Name)
		}
	}
	if err != nil {
		return 0, err
	}
	if d == nil {
		return 0, errors.New("the device is gone; nothing is carried until the tunnel's loop is restarted")
	}
	if !l.o.owns(d) {
		return 0, errForeign
	}
	up, err := rtnl.SetUp(d)
	if up {
		l.o.Change(l.o.upCommand())
	}
	return d.Attrs().Index, errors.Join(err, l.setMTU(d, s.MTU), l.addAddresses(d, s.Addresses))
}

// find returns nil if there is no device of the name.
func find(name string) (netlink.Link, error) {
	d, err := netlink.LinkByName(name)
	var absent netlink.LinkNotFoundError
	if errors.As(err, &absent) {
		return nil, nil
	}
	return d, err
}

// owns reports whether a device of our name is ours.
func (o *Options) owns(d netlink.Link) bool {
	if !o.XFRM {
		_, ok := d.(*netlink.Tuntap)
		return ok
	}
	x, ok := d.(*netlink.Xfrmi)
	return ok && x.Ifid == o.ID
}

func (l *Link) addDevice() error {
	err := netlink.LinkAdd(&netlink.Xfrmi{LinkAttrs: netlink.LinkAttrs{Name: l.o.Name}, Ifid: l.o.ID})
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("this kernel has no xfrm interfaces (CONFIG_XFRM_INTERFACE): `modprobe xfrm_interface`, "+
			"or set dataplane = \"userspace\": %w", err)
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("another xfrm interface has if_id %#x: %w", l.o.ID, err)
	case err != nil:
		return err
	}
	l.o.Change(l.o.addCommand())
	return nil
}

func (o *Options) addCommand() string {
	return fmt.Sprintf("ip link add %s type xfrm if_id %#x", o.Name, o.ID)
}

func (o *Options) upCommand() string {
	return fmt.Sprintf("ip link set %s group %d addrgenmode none up", o.Name, rtnl.Group)
}

func (l *Link) setMTU(d netlink.Link, mtu int) error {
	if mtu == 0 || d.Attrs().MTU == mtu {
		return nil
	}
	if err := netlink.LinkSetMTU(d, mtu); err != nil {
		return fmt.Errorf("MTU %d: %w", mtu, err)
	}
	l.o.Change(l.o.mtuCommand(mtu))
	return nil
}

func (o *Options) mtuCommand(mtu int) string {
	return fmt.Sprintf("ip link set %s mtu %d", o.Name, mtu)
}

// addresses are those that a device has.
func addresses(d netlink.Link) (map[netip.Prefix]bool, error) {
	list, err := rtnl.Stable(func() ([]netlink.Addr, error) { return netlink.AddrList(d, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	have := map[netip.Prefix]bool{}
	for _, a := range list {
		have[rtnl.PrefixOf(a.IPNet)] = true
	}
	return have, nil
}

// addAddresses adds what is missing.
func (l *Link) addAddresses(d netlink.Link, want []netip.Prefix) error {
	have, err := addresses(d)
	if err != nil {
		return err
	}
	for _, p := range want {
		if have[p] {
			continue
		}
		if err := netlink.AddrAdd(d, address(p)); err != nil {
			return fmt.Errorf("address %v: %w", p, err)
		}
		have[p] = true // it may be there twice
		l.o.Change(l.o.addressCommand("add", p))
	}
	return nil
}

// dropAddresses removes what was wanted before. Addresses that others have added
// stay.
func (l *Link) dropAddresses(want []netip.Prefix) error {
	if !slices.ContainsFunc(l.last.Addresses, func(p netip.Prefix) bool { return !slices.Contains(want, p) }) {
		return nil
	}
	d, err := find(l.o.Name)
	if err != nil || d == nil {
		return err
	}
	have, err := addresses(d)
	if err != nil {
		return err
	}
	for _, p := range l.last.Addresses {
		if !have[p] || slices.Contains(want, p) {
			continue
		}
		if err := netlink.AddrDel(d, address(p)); err != nil {
			return fmt.Errorf("address %v: %w", p, err)
		}
		l.o.Change(l.o.addressCommand("del", p))
	}
	return nil
}

func (o *Options) addressCommand(verb string, p netip.Prefix) string {
	flags := ""
	if verb == "add" && p.Addr().Is6() {
		flags = " nodad"
	}
	return fmt.Sprintf("ip addr %s %v dev %s%s", verb, p, o.Name, flags)
}

// address has no broadcast address and is not looked for at others: nobody else is
// on this link. A route's source can be it at once.
func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{
		IPNet:     &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
		Broadcast: net.IPv4zero,
	}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

// removeDevice removes the xfrm interface. A TUN device goes with its data plane:
// of one that is still there the index is returned, for its routes.
func (l *Link) removeDevice() (index int, err error) {
	d, err := find(l.o.Name)
	if err != nil || d == nil || !l.o.owns(d) {
		return 0, err
	}
	if !l.o.XFRM {
		return d.Attrs().Index, nil
	}
	if err := netlink.LinkDel(d); err != nil {
		return 0, err
	}
	l.o.Change("ip link delete " + l.o.Name)
	return 0, nil
}

// Plan is what Sync would do on a host that has nothing of the tunnel.
func Plan(o Options, s State) ([]string, error) {
	var commands []string
	if o.XFRM {
		commands = append(commands, o.addCommand(), o.upCommand())
	}
	if s.MTU > 0 {
		commands = append(commands, o.mtuCommand(s.MTU))
	}
	for _, p := range s.Addresses {
		commands = append(commands, o.addressCommand("add", p))
	}
	const some = 1 // index of a device that is not there yet
	r, err := o.plan(some, &s)
	for _, e := range r.routes {
		commands = append(commands, e.Command("add", o.Name))
	}
	for _, e := range r.rules {
		commands = append(commands, e.Command("add"))
	}
	return commands, err
}

// IDs are the if_ids of all xfrm interfaces of this network namespace, by name.
func IDs() (map[string]uint32, error) {
	list, err := rtnl.Stable(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	ids := map[string]uint32{}
	for _, d := range list {
		if x, ok := d.(*netlink.Xfrmi); ok {
			ids[x.Name] = x.Ifid
		}
	}
	return ids, nil
}
