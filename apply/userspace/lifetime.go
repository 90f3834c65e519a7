package userspace

import (
	"errors"
	"time"

	"ipsec-quick/apply"
)

// watchLifetimes sweeps whenever a limit by time is reached, until Close.
func (p *Plane) watchLifetimes() {
	defer close(p.ended)
	for p.alarm.wait() {
		p.sweep()
	}
}

// sweep reports the limits that have been reached, and removes what is at the
// hard one.
func (p *Plane) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.owner {
		return
	}
	at, next := now(), int64(0)
	for id, a := range p.sas {
		if a.larval {
			lapses := a.slot.body.added + reservedFor
			if lapses <= at {
				p.forget(a)
			} else {
				next = earlier(next, lapses)
			}
			continue
		}
		hard, again := a.due(at)
		if hard {
			p.forget(a)
			p.events.tell(apply.Expire{SAID: id, ReqID: a.reqID, Hard: true})
		}
		next = earlier(next, again)
	}
	if err := p.tidy(); err != nil {
		p.o.Log.Warn("a file stays", "err", err)
	}
	if next != 0 {
		p.alarm.set(next)
	}
}

// all lists what is installed and reserved, and wanted.
func (p *Plane) all(wanted func(apply.Installed) bool) ([]apply.Installed, error) {
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

// others is what the process has installed that has the plane.
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
