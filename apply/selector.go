package apply

import (
	"fmt"
	"math/bits"
	"net/netip"
)

// Selector says which traffic, as the kernel can say it (struct xfrm_selector,
// include/uapi/linux/xfrm.h; RFC 4301, Section 4.4.1.1).
type Selector struct {
	Local, Remote         netip.Prefix
	Protocol              uint8 // 0: any
	LocalPort, RemotePort PortMask
}

// PortMask matches the ports p with p&Mask == Port. The zero value matches
// all. ICMP has its type in LocalPort and its code in RemotePort, outbound and
// inbound alike (see SrcDst): that is where the kernel looks for them.
type PortMask struct{ Port, Mask uint16 }

// IsAny reports whether the mask matches every port.
func (p PortMask) IsAny() bool { return p.Mask == 0 }

// String is "any", "80" or "1024/0xfc00".
func (p PortMask) String() string {
	switch p.Mask {
	case 0:
		return "any"
	case 0xffff:
		return fmt.Sprint(p.Port)
	}
	return fmt.Sprintf("%d/%#04x", p.Port, p.Mask)
}

// hasTypeCode tells the protocols whose "ports" are a message's type and code,
// which do not swap with the direction (RFC 4301, Section 4.4.1.1: ICMP, and
// the mobility header's type).
func hasTypeCode(protocol uint8) bool {
	const icmp, icmpv6, mobility = 1, 58, 135
	return protocol == icmp || protocol == icmpv6 || protocol == mobility
}

// SrcDst is the selector as source and destination for one direction.
func (s Selector) SrcDst(d Direction) (src, dst netip.Prefix, sport, dport PortMask) {
	if d == Out {
		return s.Local, s.Remote, s.LocalPort, s.RemotePort
	}
	if hasTypeCode(s.Protocol) {
		return s.Remote, s.Local, s.LocalPort, s.RemotePort
	}
	return s.Remote, s.Local, s.RemotePort, s.LocalPort
}

// String is "10.1.0.0/24 === 10.2.0.0/24" with [protocol/port] where narrower.
func (s Selector) String() string {
	side := func(p netip.Prefix, port PortMask) string {
		if s.Protocol == 0 && port.IsAny() {
			return p.String()
		}
		return fmt.Sprintf("%s[%d/%s]", p, s.Protocol, port)
	}
	return side(s.Local, s.LocalPort) + " === " + side(s.Remote, s.RemotePort)
}

// Check refuses what no policy can hold.
func (s Selector) Check() error {
	switch {
	case !s.Local.IsValid() || !s.Remote.IsValid():
		return fmt.Errorf("selector without prefix: local %v, remote %v", s.Local, s.Remote)
	case s.Local.Addr().Is4() != s.Remote.Addr().Is4():
		return fmt.Errorf("selector mixes address families: %v", s)
	case s.Protocol == 0 && !(s.LocalPort.IsAny() && s.RemotePort.IsAny()):
		return fmt.Errorf("selector with ports but no protocol: %v", s)
	}
	return nil
}

// PrefixesOf splits an address range, as IKE's traffic selectors have it
// (RFC 7296, Section 3.13.1), into the fewest prefixes. It returns nil for a
// range that is empty or mixes address families.
func PrefixesOf(from, to netip.Addr) []netip.Prefix {
	from, to = from.Unmap().WithZone(""), to.Unmap().WithZone("")
	if !from.IsValid() || from.BitLen() != to.BitLen() || to.Less(from) {
		return nil
	}
	var ps []netip.Prefix
	for {
		p := largestPrefix(from, to)
		ps = append(ps, p)
		last := lastOf(p)
		if last == to {
			return ps
		}
		from = last.Next()
	}
}

// largestPrefix starts at from and does not reach beyond to.
func largestPrefix(from, to netip.Addr) netip.Prefix {
	best := netip.PrefixFrom(from, from.BitLen())
	for n := from.BitLen() - 1; n >= 0; n-- {
		p := netip.PrefixFrom(from, n)
		if p.Masked().Addr() != from || to.Less(lastOf(p)) {
			break
		}
		best = p
	}
	return best
}

// lastOf is the highest address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		if host := (i+1)*8 - p.Bits(); host >= 8 {
			b[i] = 0xff
		} else if host > 0 {
			b[i] |= 1<<host - 1
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// PortMasks splits a port range into the fewest masks. It returns nil for an
// empty range, so also for OPAQUE (65535 to 0; RFC 7296, Section 3.13.1).
func PortMasks(from, to uint16) []PortMask {
	var ms []PortMask
	for p, end := uint32(from), uint32(to); p <= end; {
		size := uint32(1) << 16 // p == 0: any alignment
		if p != 0 {
			size = 1 << bits.TrailingZeros32(p)
		}
		for p+size-1 > end {
			size >>= 1
		}
		ms = append(ms, PortMask{Port: uint16(p), Mask: uint16(0x10000 - size)})
		p += size
	}
	return ms
}
