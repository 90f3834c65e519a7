package userspace

import (
	"errors"
	"fmt"

	"ipsec-quick/apply"
)

// SetPolicy is apply.Dataplane's.
func (p *Plane) SetPolicy(policy apply.Policy) error {
	if err := policy.Check(); err != nil {
		return err
	}
	policy.Local, policy.Remote = policy.Local.Unmap(), policy.Remote.Unmap()
	return p.change(func() error {
		before := p.tables.Load()
		was := before.entry(policy)
		if err := p.putPolicy(policy); err != nil {
			return err
		}
		var err error
		if len(before.entries) == 0 {
			err = p.carrier.start()
		}
		if err == nil {
			err = p.o.Steering.Sync(p.tables.Load().policies())
		}
		if err != nil && was == nil {
			err = errors.Join(err, p.dropPolicy(policy))
		}
		return err
	})
}

// putPolicy writes a policy down and enters it, in the place of the one before.
func (p *Plane) putPolicy(policy apply.Policy) error {
	s, err := p.spd.take()
	if err != nil {
		return err
	}
	s.body.set(policy)
	s.commit(slotInstalled)
	p.enter(policy, s)
	return nil
}

// enter enters a policy into the tables.
func (p *Plane) enter(policy apply.Policy, s *slot[policyRecord]) {
	t := p.tables.Load()
	e := newEntry(policy, s)
	old := t.entry(policy)
	if old != nil {
		e.acquired = old.acquired
	}
	for _, a := range p.sas {
		if e.sendsOn(a) {
			e.sa = a
		}
	}
	p.tables.Store(t.withEntry(e))
	if old != nil {
		p.spd.recycle(old.slot)
	}
}

// RemovePolicy is apply.Dataplane's.
func (p *Plane) RemovePolicy(policy apply.Policy) error {
	return p.change(func() error { return p.dropPolicy(policy) })
}

// dropPolicy takes a policy out, last of all its record: what a kill interrupts
// can be done again.
func (p *Plane) dropPolicy(policy apply.Policy) error {
	t := p.tables.Load()
	e := t.entry(policy)
	if e == nil {
		return fmt.Errorf("remove policy %v: %w", policy.Selector, apply.ErrAbsent)
	}
	rest := t.withoutEntry(policy)
	if err := p.o.Steering.Sync(rest.policies()); err != nil {
		return err
	}
	if len(rest.entries) == 0 {
		if err := p.carrier.stop(); err != nil {
			return err
		}
	}
	p.tables.Store(rest)
	p.spd.recycle(e.slot)
	return p.tidy()
}

// SwitchOutbound is apply.Dataplane's.
func (p *Plane) SwitchOutbound(policy apply.Policy) error {
	if err := policy.Check(); err != nil {
		return err
	}
	if policy.Action != apply.Protect {
		return fmt.Errorf("policy %v is no protect policy", policy.Selector)
	}
	policy.Local, policy.Remote = policy.Local.Unmap(), policy.Remote.Unmap()
	return p.change(func() error {
		e := p.tables.Load().entry(policy)
		if e == nil || e.policy.Action != apply.Protect {
			return fmt.Errorf("switch policy %v: %w", policy.Selector, apply.ErrAbsent)
		}
		return p.putPolicy(policy)
	})
}

// Refresh puts back what others took away of what brings traffic here, and tries
// again to reach the peers of SAs that had no way to them when they were taken up.
// It finds out whether the paths have become wider or narrower. It is to be called
// now and then.
func (p *Plane) Refresh() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.owner || p.closed {
		return nil
	}
	var failed error
	for id, a := range p.sas {
		if a.larval || a.expired.Load() {
			continue
		}
		if err := p.carrier.attach(a); err != nil {
			failed = errors.Join(failed, fmt.Errorf("SA %08x has no way to its peer: %w", id.SPI, err))
		}
	}
	return errors.Join(failed, p.carrier.fit(true), p.o.Steering.Refresh())
}
