package apply

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// The commands of ip-xfrm(8) that do what the kernel data plane does. They can
// be pasted into a shell once the keys are filled in. That a policy is a guard
// (see Policy.Guard) and port masks are what ip cannot say: they are in a comment
// at the end of the line.

// AllocCommand reserves an SPI.
func AllocCommand(reqID uint32, src, dst netip.Addr, mode Mode) string {
	return fmt.Sprintf("ip xfrm state allocspi src %v dst %v proto esp reqid %d mode %v min 0xc0000000 max 0xcfffffff",
		src, dst, reqID, mode)
}

// InstallCommand adds an SA. An inbound one takes the place of its reservation.
func (s SA) InstallCommand() string {
	if s.Direction == In {
		return s.command("update")
	}
	return s.command("add")
}

// UpdateCommand changes an SA.
func (s SA) UpdateCommand() string { return s.command("update") }

// DeleteCommand removes an SA.
func (id SAID) DeleteCommand() string {
	return fmt.Sprintf("ip xfrm state delete dst %v proto esp spi %#08x", id.Dst, id.SPI)
}

func (s SA) command(verb string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "ip xfrm state %s src %v dst %v proto esp spi %#08x reqid %d mode %v",
		verb, s.Src, s.Dst, s.SPI, s.ReqID, s.Mode)
	encryption, integrity := kernelAlgorithms[s.Encryption.Name], kernelAlgorithms[s.Integrity.Name]
	if encryption.AEAD {
		fmt.Fprintf(&b, " aead '%s' %s %d", encryption.Name, hidden, encryption.ICVBits)
	} else {
		fmt.Fprintf(&b, " enc '%s' %s auth-trunc '%s' %s %d", encryption.Name, hidden,
			integrity.Name, hidden, integrity.ICVBits)
	}
	window := s.ReplayWindow
	switch {
	case s.Direction == Out && s.ESN:
		window = 1 // ip sends no direction, and the kernel then wants a window
	case s.Direction == Out:
		window = 0
	case s.ESN && window == 0:
		window = 32
	}
	if window > 0 {
		fmt.Fprintf(&b, " replay-window %d", window)
	}
	var flags []string
	if s.Mode == Tunnel {
		flags = append(flags, "af-unspec")
	}
	if s.Direction == In {
		flags = append(flags, "icmp")
	}
	if s.ESN {
		flags = append(flags, "esn")
	}
	if len(flags) > 0 {
		fmt.Fprintf(&b, " flag %s", strings.Join(flags, " "))
	}
	if s.Encap != nil {
		any := netip.IPv4Unspecified()
		if s.Dst.Is6() {
			any = netip.IPv6Unspecified()
		}
		fmt.Fprintf(&b, " encap espinudp %d %d %v", s.Encap.SrcPort, s.Encap.DstPort, any)
	}
	if s.IfID != 0 {
		fmt.Fprintf(&b, " if_id %#x", s.IfID)
	}
	if s.Mark != 0 {
		fmt.Fprintf(&b, " output-mark %#x", s.Mark)
	}
	comment := ""
	if s.Mode == Transport && s.Selector != nil {
		var sel string
		sel, comment = s.Selector.command(s.Direction)
		fmt.Fprintf(&b, " sel %s", sel)
	}
	b.WriteString(limitCommand(s.Soft, s.Hard))
	b.WriteString(comment)
	return b.String()
}

// limitCommand is the LIMIT-LIST.
func limitCommand(soft, hard Limits) string {
	var b strings.Builder
	one := func(name string, n uint64) {
		if n > 0 {
			fmt.Fprintf(&b, " limit %s %d", name, n)
		}
	}
	one("time-soft", SoftSeconds(soft.Time))
	one("time-hard", HardSeconds(hard.Time))
	one("time-use-soft", SoftSeconds(soft.Use))
	one("time-use-hard", HardSeconds(hard.Use))
	one("byte-soft", soft.Bytes)
	one("byte-hard", hard.Bytes)
	one("packet-soft", soft.Packets)
	one("packet-hard", hard.Packets)
	return b.String()
}

// SoftSeconds is a soft limit in the kernel's seconds: rounded down, so that
// rounding brings it no closer to the hard one, but never to no limit at all.
func SoftSeconds(d time.Duration) uint64 {
	if d <= 0 {
		return 0
	}
	return max(1, uint64(d/time.Second))
}

// HardSeconds is a hard limit in the kernel's seconds: rounded up.
func HardSeconds(d time.Duration) uint64 {
	if d <= 0 {
		return 0
	}
	return uint64((d-1)/time.Second) + 1
}

// command is the SELECTOR for one direction, and a comment on what it lacks.
func (s Selector) command(d Direction) (text, comment string) {
	src, dst, sport, dport := s.SrcDst(d)
	text = fmt.Sprintf("src %v dst %v", src, dst)
	if s.Protocol == 0 {
		return text, ""
	}
	text += fmt.Sprintf(" proto %d", s.Protocol) // a name would need /etc/protocols
	sname, dname := "sport", "dport"
	if hasTypeCode(s.Protocol) {
		sname, dname = "type", "code"
	}
	for _, port := range []struct {
		name string
		PortMask
	}{{sname, sport}, {dname, dport}} {
		switch port.Mask {
		case 0:
		case 0xffff:
			text += fmt.Sprintf(" %s %d", port.name, port.Port)
		default:
			comment += fmt.Sprintf(" # and %s %v", port.name, port.PortMask)
		}
	}
	return text, comment
}

// SetCommands add or change a policy, in the order in which it is done.
func (p Policy) SetCommands() []string {
	var cs []string
	for _, dir := range p.directions() {
		cs = append(cs, p.setCommand(dir))
	}
	return cs
}

// SwitchCommand changes the outbound direction alone.
func (p Policy) SwitchCommand() string { return p.setCommand("out") }

// DeleteCommands remove a policy, in the order in which it is done.
func (p Policy) DeleteCommands() []string {
	var cs []string
	dirs := p.directions()
	for i := len(dirs) - 1; i >= 0; i-- {
		sel, comment := p.Selector.command(direction(dirs[i]))
		cs = append(cs, fmt.Sprintf("ip xfrm policy delete %s dir %s%s%s", sel, dirs[i], p.ifID(), comment+p.guard()))
	}
	return cs
}

// directions in which the kernel has the policy.
func (p Policy) directions() []string {
	if p.Mode == Transport {
		return []string{"in", "out"}
	}
	return []string{"in", "fwd", "out"}
}

func direction(dir string) Direction {
	if dir == "out" {
		return Out
	}
	return In
}

func (p Policy) setCommand(dir string) string {
	sel, comment := p.Selector.command(direction(dir))
	s := fmt.Sprintf("ip xfrm policy update %s dir %s", sel, dir)
	if p.Action == Block || p.Action == Trap && dir != "out" {
		s += " action block"
	}
	s += fmt.Sprintf(" priority %d%s", p.Priority(), p.ifID())
	switch {
	case p.Action == Protect && dir == "out":
		s += fmt.Sprintf(" tmpl src %v dst %v proto esp spi %#08x reqid %d mode %v", p.Local, p.Remote, p.SPI, p.ReqID, p.Mode)
	case p.Action == Protect:
		s += fmt.Sprintf(" tmpl src %v dst %v proto esp reqid %d mode %v", p.Remote, p.Local, p.ReqID, p.Mode)
	case p.Action == Trap && dir == "out":
		s += fmt.Sprintf(" tmpl src %v dst %v proto esp reqid %d mode %v", p.Local, p.Remote, p.ReqID|TrapBit, p.Mode)
	}
	return s + comment + p.guard()
}

func (p Policy) guard() string {
	if p.Guard {
		return " # guard"
	}
	return ""
}

func (p Policy) ifID() string {
	if p.IfID == 0 {
		return ""
	}
	return fmt.Sprintf(" if_id %#x", p.IfID)
}
