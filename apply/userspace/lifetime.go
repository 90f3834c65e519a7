package userspace

import "ipsec-quick/apply"

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
