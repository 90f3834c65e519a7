package xfrm

import (
	"net/netip"

	"ipsec-quick/apply"
)

// family of an address as the kernel numbers it.
func family(a netip.Addr) uint16 {
	if a.Is4() {
		return familyIPv4
	}
	return familyIPv6
}

// guardUser goes into the selector of a guard as sel.user, which the kernel
// compares when it looks for the policy to replace or delete but not when it
// matches packets (selector_cmp and xfrm_selector_match). So a guard and a
// Protect with the same selector are two policies: removing the Protect
// uncovers the guard in the same instant, without anyone having to remember it.
const guardUser = 1

// selector is a struct xfrm_selector.
func (m *message) selector(s apply.Selector, d apply.Direction, user uint32) {
	src, dst, sport, dport := s.SrcDst(d)
	m.addr(dst.Addr())
	m.addr(src.Addr())
	m.be16(dport.Port)
	m.be16(dport.Mask)
	m.be16(sport.Port)
	m.be16(sport.Mask)
	m.u16(family(dst.Addr()))
	m.u8(uint8(dst.Bits()))
	m.u8(uint8(src.Bits()))
	m.u8(s.Protocol)
	m.pad(3)
	m.u32(0) // ifindex: any
	m.u32(user)
}

// selector reads a struct xfrm_selector of outbound traffic: source is local.
func (r *reader) selector() apply.Selector {
	s := r.sub(sizeSelector)
	daddr, saddr := s.addr16(), s.addr16()
	dport := apply.PortMask{Port: s.be16(), Mask: s.be16()}
	sport := apply.PortMask{Port: s.be16(), Mask: s.be16()}
	fam := s.u16()
	dbits, sbits := s.u8(), s.u8()
	return apply.Selector{
		Local:      prefix(fam, saddr, sbits),
		Remote:     prefix(fam, daddr, dbits),
		Protocol:   s.u8(),
		LocalPort:  sport,
		RemotePort: dport,
	}
}
