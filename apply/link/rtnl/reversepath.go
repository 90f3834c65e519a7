package rtnl

import (
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// StrictReversePath reports whether the kernel drops IPv4 packets that come by
// another device than the answer would leave by (net.ipv4.conf.*.rp_filter, of
// which the larger one of "all" and the device counts). It asks by netlink: a
// loop that is confined has no /proc.
func StrictReversePath() (bool, error) {
	const strict, attrRPFilter, headerLen = 1, 3, 4 // NETCONFA_RP_FILTER; struct netconfmsg, padded
	request := nl.NewNetlinkRequest(unix.RTM_GETNETCONF, unix.NLM_F_DUMP)
	request.AddRawData([]byte{unix.AF_INET, 0, 0, 0})
	replies, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNETCONF)
	if err != nil {
		return false, fmt.Errorf("read rp_filter: %w", err)
	}
	for _, b := range replies {
		if len(b) < headerLen {
			continue
		}
		attrs, err := nl.ParseRouteAttr(b[headerLen:])
		if err != nil {
			return false, fmt.Errorf("read rp_filter: %w", err)
		}
		for _, a := range attrs {
			if a.Attr.Type == attrRPFilter && len(a.Value) >= 4 && binary.NativeEndian.Uint32(a.Value) == strict {
				return true, nil
			}
		}
	}
	return false, nil
}
