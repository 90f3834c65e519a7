package userspace

import (
	"errors"
	"slices"
	"time"

	"ipsec-quick/apply"
)

// Query is apply.Dataplane's.
func (p *Plane) Query(id apply.SAID) (apply.Usage, error) {
	id.Dst = id.Dst.Unmap()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.own(); errors.Is(err, errStandby) {
		list, err := p.others(func(s apply.Installed) bool { return s.SAID == id })
		if err == nil && len(list) == 0 {
			err = failed("read", id, apply.ErrAbsent)
		}
		if err != nil {
			return apply.Usage{}, err
		}
		return list[0].Usage, nil
	} else if err != nil {
		return apply.Usage{}, err
	}
	a := p.installed(id)
	if a == nil {
		return apply.Usage{}, failed("read", id, apply.ErrAbsent)
	}
	return a.slot.body.usage(now(), time.Now().Round(0)), nil
}

// List is apply.Dataplane's. All events of the tunnel are reported in any case.
func (p *Plane) List(reqIDs []uint32) ([]apply.Installed, error) {
	wanted := func(s apply.Installed) bool { return slices.Contains(reqIDs, s.ReqID) }
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.own(); errors.Is(err, errStandby) {
		return p.others(wanted)
	} else if err != nil {
		return nil, err
	}
	var list []apply.Installed
	at, wall := now(), time.Now().Round(0)
	for _, a := range p.sas {
		if s := a.slot.body.installed(a.larval, at, wall); !a.expired.Load() && wanted(s) {
			list = append(list, s)
		}
	}
	return list, nil
}

// others is what the process that has the plane has installed.
func (p *Plane) others(wanted func(apply.Installed) bool) ([]apply.Installed, error) {
	slots, err := p.sad.peek()
	if err != nil {
		return nil, err
	}
	var list []apply.Installed
	at, wall := now(), time.Now().Round(0)
	for _, s := range slots {
		larval := s.state.Load() != slotInstalled
		if i := s.body.installed(larval, at, wall); s.body.check(larval, at) == nil && wanted(i) {
			list = append(list, i)
		}
		s.body = saRecord{} // its keys
	}
	return list, nil
}
