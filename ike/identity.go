package ike

import (
	"fmt"
	"net/netip"
	"strconv"

	"ipsec-quick/ike/wire"
)

// addressID is the identity of a host that has no name but its address.
func addressID(a netip.Addr) wire.ID {
	kind := wire.IDIPv6Addr
	if a.Is4() {
		kind = wire.IDIPv4Addr
	}
	return wire.ID{Kind: kind, Data: a.AsSlice()}
}

// idText shows an identity that a peer sent: quoted, so that no terminal takes
// it for more than text.
func idText(id wire.ID) string {
	switch id.Kind {
	case wire.IDIPv4Addr, wire.IDIPv6Addr:
		if a, ok := netip.AddrFromSlice(id.Data); ok {
			return a.String()
		}
	case wire.IDFQDN, wire.IDRFC822Addr:
		return strconv.Quote(string(id.Data))
	default:
		// Names of other kinds are shown as octets.
	}
	return fmt.Sprintf("%s %x", id.Kind, id.Data)
}
