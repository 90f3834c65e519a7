package watch

import (
	"errors"
	"fmt"

	"ipsec-quick/apply"
	"ipsec-quick/ike"
)

// switchOutbound makes a Child SA the one that its selectors' packets leave
// through. The policies are made the first time; after that only the outbound
// direction is rewritten, so that inbound traffic never sees them change.
func (l *loop) switchOutbound(c *ike.ChildSA) {
	p := l.peers[c.Peer]
	if p == nil {
		return
	}
	selectors, err := pairs(c.LocalTS, c.RemoteTS)
	if err != nil {
		l.failed(fmt.Errorf("policies for %s: %w", c.Peer, err))
		return
	}
	for _, s := range selectors {
		policy := apply.Policy{
			Selector: s, Action: apply.Protect, Mode: mode(c.Transport),
			Local: c.Local.Addr(), Remote: c.Remote.Addr(), ReqID: p.reqID, SPI: c.SPIOut, IfID: p.ifID,
		}
		before, ok := l.protect[s]
		switch {
		case ok && before == policy:
		case ok && differInSPI(before, policy):
			if err := l.journal.SwitchOutbound(policy); err == nil {
				l.protect[s] = policy
			} else {
				// Somebody may have removed it: then it is made anew.
				l.log.Warn("cannot switch a policy, setting it anew", "peer", c.Peer, "selector", s, "err", err)
				l.setProtect(policy)
			}
		default:
			l.setProtect(policy)
		}
	}
}

func differInSPI(a, b apply.Policy) bool {
	a.SPI = b.SPI
	return a == b
}

func (l *loop) setProtect(policy apply.Policy) {
	if err := l.journal.SetPolicy(policy); err != nil {
		l.failed(fmt.Errorf("policy for %v: %w", policy.Selector, err))
		return
	}
	l.protect[policy.Selector] = policy
}

// failed notes that traffic which was negotiated is not carried: the guards drop
// it.
func (l *loop) failed(err error) {
	l.fault = err
	l.log.Error("the tunnel cannot carry what was negotiated", "err", err)
}

// removePolicies removes the policies of a Child SA that no other one uses. The
// guard behind them drops what they covered.
func (l *loop) removePolicies(c *ike.ChildSA) {
	selectors, err := pairs(c.LocalTS, c.RemoteTS)
	if err != nil {
		return // then none were set
	}
	for _, s := range selectors {
		policy, ok := l.protect[s]
		if !ok || policy.SPI != c.SPIOut && l.sends(policy.SPI, c) {
			continue
		}
		l.dropProtect(policy)
	}
}

// unsend removes the policies that still send on an outbound SA which is about to
// go: without it the kernel would reserve an SPI for each packet, where the
// guard just drops them.
func (l *loop) unsend(spi uint32) {
	for _, policy := range l.protect {
		if policy.SPI == spi {
			l.dropProtect(policy)
		}
	}
}

func (l *loop) dropProtect(policy apply.Policy) {
	delete(l.protect, policy.Selector)
	if err := l.journal.RemovePolicy(policy); err != nil && !errors.Is(err, apply.ErrAbsent) {
		l.log.Error("cannot remove a policy", "selector", policy.Selector, "err", err)
	}
}

// sends reports whether another Child SA than c has the outbound SPI.
func (l *loop) sends(spi uint32, c *ike.ChildSA) bool {
	for _, st := range l.core.Status() {
		for _, child := range st.Children {
			if child.Child.SPIOut == spi && (child.Child.SPIIn != c.SPIIn || child.Child.SPIOut != c.SPIOut) {
				return true
			}
		}
	}
	return false
}
