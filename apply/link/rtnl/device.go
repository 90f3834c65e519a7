package rtnl

import (
	"net"

	"github.com/vishvananda/netlink"
)

// SetUp makes a device one that routes can lead to, and returns whether it was
// down. The kernel is to send nothing of its own there, such as router
// solicitations.
func SetUp(d netlink.Link) (bool, error) {
	const none = 1 // IN6_ADDR_GEN_MODE_NONE
	a := d.Attrs()
	if a.Group != Group {
		if err := netlink.LinkSetGroup(d, Group); err != nil {
			return false, err
		}
	}
	if a.Flags&net.FlagUp != 0 {
		return false, nil
	}
	// A host without IPv6 has nothing to switch off.
	_ = netlink.LinkSetIP6AddrGenMode(d, none)
	err := netlink.LinkSetUp(d)
	return err == nil, err
}
