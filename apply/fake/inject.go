package fake

import (
	"slices"

	"ipsec-quick/apply"
)

// Fail makes the next call of a method, by its name, return err.
func (d *Dataplane) Fail(method string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failures[method] = &failure{err: err}
}

// FailLater is Fail for the call after so many that succeed.
func (d *Dataplane) FailLater(method string, after int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failures[method] = &failure{after, err}
}

// failure is an error to come.
type failure struct {
	after int // calls
	err   error
}

// Inject sends an event.
func (d *Dataplane) Inject(ev apply.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.events <- ev
	}
}

// Expire does what the kernel does at a limit: it sends the event, and with hard
// the SA is gone. It reports whether there was such an SA.
func (d *Dataplane) Expire(id apply.SAID, hard bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := d.find(id)
	if i < 0 {
		return false
	}
	ev := apply.Expire{SAID: id, ReqID: d.sas[i].sa.ReqID, Hard: hard}
	if hard {
		d.sas = slices.Delete(d.sas, i, i+1)
	}
	if !d.closed {
		d.events <- ev
	}
	return true
}

// Lapse forgets all reservations, as the kernel does after some seconds.
func (d *Dataplane) Lapse() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sas = slices.DeleteFunc(d.sas, func(e entry) bool { return e.larval })
}

// SetUsage sets an SA's counters and times; its limits stay.
func (d *Dataplane) SetUsage(id apply.SAID, u apply.Usage) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := d.find(id); i >= 0 {
		u.Soft, u.Hard = d.sas[i].usage.Soft, d.sas[i].usage.Hard
		d.sas[i].usage = u
	}
}

// SAs are the installed ones, without reservations.
func (d *Dataplane) SAs() []apply.SA {
	d.mu.Lock()
	defer d.mu.Unlock()
	var sas []apply.SA
	for _, e := range d.sas {
		if !e.larval {
			sas = append(sas, e.sa)
		}
	}
	return sas
}

// Reservations are the SPIs that are allocated and not installed.
func (d *Dataplane) Reservations() []apply.SAID {
	d.mu.Lock()
	defer d.mu.Unlock()
	var ids []apply.SAID
	for _, e := range d.sas {
		if e.larval {
			ids = append(ids, e.sa.ID())
		}
	}
	return ids
}

// Policies are the installed ones.
func (d *Dataplane) Policies() []apply.Policy {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.policies)
}

// Log lists all calls that change something, in order.
func (d *Dataplane) Log() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.log)
}

// Violations lists what no correct user of a data plane does, although the
// kernel may permit it.
func (d *Dataplane) Violations() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.violations)
}

// Sockets are the descriptors that were prepared.
func (d *Dataplane) Sockets() []int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.sockets)
}

// ESP are the packets that were given to ReceiveESP.
func (d *Dataplane) ESP() [][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.esp)
}
