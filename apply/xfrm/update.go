package xfrm

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
)

// UpdateSA is apply.Dataplane's. Ports and limits are changed in place (UPDSA).
// The kernel cannot change an SA's addresses, or start or end encapsulation; for
// those the SA is read, removed, and added again with its counters and replay
// state. That takes well under a millisecond, in which packets are dropped.
func (k *Kernel) UpdateSA(sa apply.SA) error {
	sa.Src, sa.Dst = sa.Src.Unmap(), sa.Dst.Unmap()
	if err := sa.Check(); err != nil {
		return err
	}
	if len(sa.Encryption.Key) > 0 {
		if err := sa.CheckAlgorithms(); err != nil {
			return err
		}
	}
	old, err := k.find(sa)
	if err != nil {
		return err
	}
	k.own(sa.ReqID)
	moved := old.id != sa.ID() || old.src != sa.Src || (old.encap == nil) != (sa.Encap == nil)
	if moved {
		return k.move(old.id, sa)
	}
	current, err := k.get(old.id, true)
	defer current.secret.wipe()
	if err != nil {
		return err
	}
	m, err := k.replacement(sa, current)
	if err != nil {
		return err
	}
	m.replay(current.fixed(sa), k.quirks) // ESN wants it, though it does not count
	return explain(k.conn.request(opName("update", sa.ID()), msgUpdSA, unix.NLM_F_ACK, m, nil), sa)
}

// find looks an SA up by what an update does not change.
func (k *Kernel) find(sa apply.SA) (state, error) {
	if s, err := k.get(sa.ID(), false); err == nil && !s.larval && s.reqID == sa.ReqID {
		return s, nil
	}
	var found []state
	if err := k.dump(func(s state) {
		if s.id.SPI == sa.SPI && s.reqID == sa.ReqID && s.direction() == sa.Direction && !s.larval {
			found = append(found, s)
		}
	}); err != nil {
		return state{}, err
	}
	switch len(found) {
	case 0:
		return state{}, fmt.Errorf("%s: %w", opName("update", sa.ID()), apply.ErrAbsent)
	case 1:
		return found[0], nil
	}
	return state{}, fmt.Errorf("%s: there are %d SAs with this SPI and ReqID", opName("update", sa.ID()), len(found))
}

// move replaces an SA by one with other addresses.
func (k *Kernel) move(from apply.SAID, sa apply.SA) error {
	old, err := k.get(from, true)
	defer old.secret.wipe()
	if err != nil {
		return err
	}
	if sa.Direction == apply.Out {
		old.secret.replay.skipAhead()
	}
	m, err := k.moved(sa, old)
	if err != nil {
		return err
	}
	if err := k.RemoveSA(from); err != nil {
		m.wipe()
		return err
	}
	err = explain(k.conn.request(opName("move", sa.ID()), msgNewSA, unix.NLM_F_ACK, m, nil), sa)
	if err == nil {
		return nil
	}
	sa.Src, sa.Dst, sa.Encap = old.src, old.id.Dst, old.encap
	if m, merr := k.moved(sa, old); merr == nil {
		err = errors.Join(err, k.conn.request(opName("put back", from), msgNewSA, unix.NLM_F_ACK, m, nil))
	}
	return err
}

// replacement is the body of an SA in the place of another: what an update
// cannot change is taken from that one.
func (k *Kernel) replacement(sa apply.SA, old state) (*message, error) {
	m := newMessage()
	m.saInfo(old.fixed(sa))
	if len(sa.Encryption.Key) > 0 {
		if err := m.algorithms(sa); err != nil {
			m.wipe()
			return nil, err
		}
	} else {
		for _, a := range old.secret.algorithms {
			if a.redacted() {
				m.wipe()
				return nil, errors.New("this kernel does not show keys (lockdown): an update needs them")
			}
			m.attrBytes(a.kind, a.value)
		}
	}
	m.options(sa, k.quirks)
	return m, nil
}

// moved adds to that what makes the SA go on where the old one was.
func (k *Kernel) moved(sa apply.SA, old state) (*message, error) {
	m, err := k.replacement(sa, old)
	if err != nil {
		return nil, err
	}
	m.attrBytes(attrLtimeVal, old.secret.current)
	if r := old.secret.replay; r.value != nil {
		m.attrBytes(r.kind, r.value)
	}
	return m, nil
}

// fixed is sa with what an installed SA keeps.
func (s state) fixed(sa apply.SA) apply.SA {
	sa.Mode, sa.ESN, sa.ReplayWindow = s.mode, s.flags&stateESN != 0, s.window
	return sa
}
