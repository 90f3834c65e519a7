package xfrm

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
)

func (e policyEntry) name(verb string) string {
	dir := [...]string{policyIn: "in", policyOut: "out", policyFwd: "fwd"}[e.dir]
	return fmt.Sprintf("%s %v policy %v, %s", verb, e.Action, e.Selector, dir)
}

// checked is the policy in the form the codecs want.
func checked(p apply.Policy) (apply.Policy, error) {
	if err := p.Check(); err != nil {
		return p, err
	}
	p.Local, p.Remote = p.Local.Unmap(), p.Remote.Unmap()
	return p, nil
}

// SetPolicy is apply.Dataplane's. A policy with the same selector that is not of
// this tunnel is left alone; then the error wraps apply.ErrExists. If one
// direction fails, those that were added before it are removed again.
func (k *Kernel) SetPolicy(p apply.Policy) error {
	p, err := checked(p)
	if err != nil {
		return err
	}
	if p.ReqID != 0 {
		k.own(p.ReqID)
	}
	var added []policyEntry
	for _, e := range entries(p) {
		isNew, err := k.putPolicy(e)
		if err != nil {
			for _, a := range slices.Backward(added) {
				err = errors.Join(err, k.delPolicy(a))
			}
			return err
		}
		if isNew {
			added = append(added, e)
		}
	}
	return nil
}

// putPolicy adds one direction, or updates it if it is ours.
func (k *Kernel) putPolicy(e policyEntry) (added bool, err error) {
	err = k.conn.request(e.name("add"), msgNewPolicy, unix.NLM_F_ACK, newPolicy(e), nil)
	if !isErrno(err, unix.EEXIST) {
		return err == nil, permission(err)
	}
	if !k.isOurs(e) {
		return false, fmt.Errorf("another tunnel or IKE daemon has a policy for this traffic "+
			"(see `ip xfrm policy`): %w", err)
	}
	return false, k.updatePolicy(e)
}

func (k *Kernel) updatePolicy(e policyEntry) error {
	return permission(k.conn.request(e.name("update"), msgUpdPolicy, unix.NLM_F_ACK, newPolicy(e), nil))
}

func (k *Kernel) delPolicy(e policyEntry) error {
	return permission(k.conn.request(e.name("remove"), msgDelPolicy, unix.NLM_F_ACK, policyID(e), nil))
}

// isOurs compares what is installed under the entry's selector with it. Our
// priorities are a function of the selector, in a range of our own; a policy
// with our ReqID is ours too (its priority was computed by another version).
func (k *Kernel) isOurs(e policyEntry) bool {
	var found foundPolicy
	err := k.conn.request(e.name("read"), msgGetPolicy, unix.NLM_F_ACK, policyID(e),
		func(_ uint16, body []byte) (err error) {
			found, err = readPolicy(body)
			return err
		})
	if err != nil {
		return false
	}
	if found.reqID != 0 && e.ReqID != 0 {
		return found.reqID&^apply.TrapBit == e.ReqID
	}
	return found.priority == e.Priority()
}

// RemovePolicy is apply.Dataplane's.
func (k *Kernel) RemovePolicy(p apply.Policy) error {
	p, err := checked(p)
	if err != nil {
		return err
	}
	var failed, absent error
	removed := false
	for _, e := range slices.Backward(entries(p)) {
		switch err := k.delPolicy(e); {
		case err == nil:
			removed = true
		case errors.Is(err, apply.ErrAbsent):
			absent = err
		default:
			failed = errors.Join(failed, err)
		}
	}
	if failed == nil && !removed {
		failed = absent
	}
	if p.Action == apply.Protect || p.Action == apply.Trap {
		if err := k.sweep(p); err != nil && (failed == nil || errors.Is(failed, apply.ErrAbsent)) {
			failed = err
		}
	}
	return failed
}

// SwitchOutbound is apply.Dataplane's. An updated policy starts with an empty
// cache of SAs, so the next packet looks its SA up.
func (k *Kernel) SwitchOutbound(p apply.Policy) error {
	p, err := checked(p)
	if err != nil {
		return err
	}
	if p.Action != apply.Protect {
		return fmt.Errorf("policy %v is no protect policy", p.Selector)
	}
	k.own(p.ReqID)
	return k.updatePolicy(policyEntry{p, policyOut})
}

// sweep removes the larval SA that an outbound packet made when it met the
// policy and no SA. It would go by itself after net.core.xfrm_acq_expires, but
// `down` is to leave nothing.
func (k *Kernel) sweep(p apply.Policy) error {
	t := policyEntry{p, policyOut}.template()
	var left []state
	if err := k.dump(func(s state) {
		if s.larval && s.reqID == t.reqID && s.id.Dst == t.dst && s.src == t.src {
			left = append(left, s)
		}
	}); err != nil {
		return err
	}
	var failed error
	for _, s := range left {
		if s.id.SPI == 0 {
			// It cannot be named. Allocating an SPI for the same template gives
			// it one: xfrm_find_acq finds it first.
			spi, err := k.allocSPI(apply.SA{Direction: apply.Out, Src: s.src, Dst: s.id.Dst, ReqID: s.reqID, Mode: s.mode, IfID: p.IfID})
			if err != nil {
				failed = errors.Join(failed, err)
				continue
			}
			s.id.SPI = spi
		}
		if err := k.RemoveSA(s.id); err != nil && !errors.Is(err, apply.ErrAbsent) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}
