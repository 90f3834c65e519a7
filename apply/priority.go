package apply

// Priorities, as the kernel counts them: the lowest number is looked at first.
const (
	priorityBypass = 0x10000 // Bypass: before everything else
	priorityOthers = 0x20000
)

// Priority of the policy in the kernel, the same in all its directions.
//
// RFC 4301, Section 4.4.1, wants an ordered SPD. The order is by selector, the
// narrower first: prefix lengths, then protocol, then ports; among equals a
// Protect comes before its Guard. A selector that lies within another one is
// never behind it. So what a peer narrowed comes before the guard of the pair,
// and the guard of a narrow pair that is down is not overridden by a wide pair
// that is up, which would carry that traffic to the wrong peer.
func (p Policy) Priority() uint32 {
	s := p.Selector
	width := uint32(2*s.Local.Addr().BitLen() - s.Local.Bits() - s.Remote.Bits()) // 0..256
	width *= 2
	if s.Protocol == 0 {
		width++
	}
	width = width*33 + wildBits(s.LocalPort) + wildBits(s.RemotePort) // 0..32
	width *= 2
	if p.Guard {
		width++
	}
	if p.Action == Bypass {
		return priorityBypass + width
	}
	return priorityOthers + width
}

// wildBits counts the port bits that do not matter.
func wildBits(p PortMask) uint32 {
	n := uint32(0)
	for m := ^p.Mask; m != 0; m &= m - 1 {
		n++
	}
	return n
}

// Check refuses what no data plane can install.
func (p Policy) Check() error {
	if err := p.Selector.Check(); err != nil {
		return err
	}
	return p.checkTemplate()
}
