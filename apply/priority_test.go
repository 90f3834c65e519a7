package apply

import (
	"net/netip"
	"slices"
	"testing"
)

func policy(action Action, guard bool, local, remote string, protocol uint8, ports ...PortMask) Policy {
	p := Policy{Action: action, Guard: guard, Selector: Selector{
		Local: netip.MustParsePrefix(local), Remote: netip.MustParsePrefix(remote), Protocol: protocol}}
	if len(ports) > 0 {
		p.Selector.RemotePort = ports[0]
	}
	return p
}

// What stands earlier is looked at earlier.
func TestPriorityOrder(t *testing.T) {
	https := PortMask{443, 0xffff}
	high := PortMask{0x8000, 0x8000}
	ordered := []Policy{
		policy(Bypass, false, "fe80::/10", "::/0", 58, PortMask{}),
		policy(Protect, false, "2001:db8::1/128", "2001:db8::2/128", 6, https),
		policy(Protect, false, "10.1.0.1/32", "10.2.0.1/32", 6, https),
		policy(Block, true, "10.1.0.1/32", "10.2.0.1/32", 6, https),
		policy(Protect, false, "10.1.0.1/32", "10.2.0.1/32", 6, high),
		policy(Protect, false, "10.1.0.1/32", "10.2.0.1/32", 6),
		policy(Protect, false, "10.1.0.1/32", "10.2.0.1/32", 0),
		policy(Trap, true, "10.1.0.1/32", "10.2.0.1/32", 0),
		policy(Protect, false, "10.1.0.0/24", "10.2.0.0/16", 0),
		policy(Protect, false, "10.1.0.0/16", "10.2.0.0/16", 6, https),
		policy(Protect, false, "10.1.0.0/16", "10.2.0.0/16", 0),
		policy(Block, true, "10.1.0.0/16", "10.2.0.0/16", 0),
		policy(Protect, false, "0.0.0.0/0", "10.2.0.0/16", 0),
		policy(Protect, false, "0.0.0.0/0", "0.0.0.0/0", 0),
		policy(Block, true, "0.0.0.0/0", "0.0.0.0/0", 0),
	}
	if !slices.IsSortedFunc(ordered, func(a, b Policy) int { return int(a.Priority()) - int(b.Priority()) }) {
		for _, p := range ordered {
			t.Errorf("%6d %v guard %v %v", p.Priority(), p.Action, p.Guard, p.Selector)
		}
	}
	if p := policy(Block, true, "::/0", "::/0", 0).Priority(); p >= 1<<32-1 || p < priorityOthers {
		t.Errorf("the widest: %d", p)
	}
	if b := policy(Bypass, true, "::/0", "::/0", 0).Priority(); b >= priorityOthers {
		t.Errorf("the widest bypass: %d", b)
	}
}
