// Package fake is a data plane that only remembers, for tests: of the journal,
// of the watch loop, of what is installed at each step of a rekey. Events,
// errors and counters are injected.
package fake

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"ipsec-quick/apply"
)

// Dataplane is an apply.Dataplane. Its zero value is not usable: see New.
type Dataplane struct {
	mu         sync.Mutex
	name       string
	nextSPI    uint32
	sas        []entry
	policies   []apply.Policy
	failures   map[string]*failure
	log        []string
	violations []string
	sockets    []int
	esp        [][]byte
	unknown    uint64
	events     chan apply.Event
	closed     bool
}

// entry is an SA, or a reservation.
type entry struct {
	sa     apply.SA
	larval bool
	usage  apply.Usage
}

var _ apply.Dataplane = (*Dataplane)(nil)

// New makes an empty data plane. SPIs are allocated from 0xc0000001 upwards.
func New() *Dataplane {
	return &Dataplane{
		name:     "fake",
		nextSPI:  0xc0000001,
		failures: make(map[string]*failure),
		events:   make(chan apply.Event, 1024),
	}
}

// Name is "fake".
func (d *Dataplane) Name() string { return d.name }

// call logs an operation and returns the failure injected for it.
func (d *Dataplane) call(op, format string, args ...any) error {
	d.log = append(d.log, op+" "+fmt.Sprintf(format, args...))
	return d.failure(op)
}

// failure is the one that the call of a method, by its name, is to end with.
func (d *Dataplane) failure(op string) error {
	f := d.failures[op]
	if f == nil {
		return nil
	}
	if f.after > 0 {
		f.after--
		return nil
	}
	delete(d.failures, op)
	return f.err
}

func (d *Dataplane) find(id apply.SAID) int {
	return slices.IndexFunc(d.sas, func(e entry) bool { return e.sa.ID() == id })
}

func (d *Dataplane) violate(format string, args ...any) {
	d.violations = append(d.violations, fmt.Sprintf(format, args...))
}

// AllocSPI is apply.Dataplane's.
func (d *Dataplane) AllocSPI(reqID uint32, src, dst netip.Addr, mode apply.Mode) (uint32, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.call("AllocSPI", "reqid %d %v > %v %v", reqID, src, dst, mode); err != nil {
		return 0, err
	}
	spi := d.nextSPI
	d.nextSPI++
	d.sas = append(d.sas, entry{
		sa:     apply.SA{SPI: spi, Direction: apply.In, Src: src, Dst: dst, ReqID: reqID, Mode: mode},
		larval: true,
	})
	return spi, nil
}

// InstallSA is apply.Dataplane's. The keys are copied.
func (d *Dataplane) InstallSA(sa apply.SA) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.call("InstallSA", "%v %v", sa.Direction, name(sa.ID())); err != nil {
		return err
	}
	if err := sa.Check(); err != nil {
		return err
	}
	if err := sa.CheckAlgorithms(); err != nil {
		return err
	}
	sa.Encryption.Key = slices.Clone(sa.Encryption.Key)
	sa.Integrity.Key = slices.Clone(sa.Integrity.Key)
	e := entry{sa: sa, usage: apply.Usage{Soft: sa.Soft, Hard: sa.Hard}}
	i := d.find(sa.ID())
	switch {
	case i < 0:
		d.sas = append(d.sas, e)
	case d.sas[i].larval:
		d.sas[i] = e
	default:
		return fmt.Errorf("SA %s: %w", name(sa.ID()), apply.ErrExists)
	}
	return nil
}

// UpdateSA is apply.Dataplane's.
func (d *Dataplane) UpdateSA(sa apply.SA) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.call("UpdateSA", "%v %v", sa.Direction, name(sa.ID())); err != nil {
		return err
	}
	i := slices.IndexFunc(d.sas, func(e entry) bool {
		return !e.larval && e.sa.SPI == sa.SPI && e.sa.ReqID == sa.ReqID && e.sa.Direction == sa.Direction
	})
	if i < 0 {
		return fmt.Errorf("SA %s: %w", name(sa.ID()), apply.ErrAbsent)
	}
	e := &d.sas[i]
	e.sa.Src, e.sa.Dst, e.sa.Encap, e.sa.Soft, e.sa.Hard = sa.Src, sa.Dst, sa.Encap, sa.Soft, sa.Hard
	e.usage.Soft, e.usage.Hard = sa.Soft, sa.Hard
	return nil
}

// RemoveSA is apply.Dataplane's. Removing the SA that a policy sends on is a
// violation: the policy has to be removed or switched before.
func (d *Dataplane) RemoveSA(id apply.SAID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.call("RemoveSA", "%s", name(id)); err != nil {
		return err
	}
	if err := d.drop(id); err != nil {
		return err
	}
	for _, p := range d.policies {
		if p.Action == apply.Protect && p.SPI == id.SPI && p.Remote == id.Dst {
			d.violate("SA %s removed while %v sends on it", name(id), p.Selector)
		}
	}
	return nil
}

func (d *Dataplane) drop(id apply.SAID) error {
	i := d.find(id)
	if i < 0 {
		return fmt.Errorf("SA %s: %w", name(id), apply.ErrAbsent)
	}
	d.sas = slices.Delete(d.sas, i, i+1)
	return nil
}

// SetPolicy is apply.Dataplane's. A Protect whose outbound SA is not there is an
// error: packets would be dropped.
func (d *Dataplane) SetPolicy(p apply.Policy) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.call("SetPolicy", "%v %v", p.Action, p.Selector); err != nil {
		return err
	}
	if err := p.Check(); err != nil {
		return err
	}
	if err := d.checkOutbound(p); err != nil {
		return err
	}
	if i := d.findPolicy(p); i >= 0 {
		d.policies[i] = p
	} else {
		d.policies = append(d.policies, p)
	}
	return nil
}

// RemovePolicy is apply.Dataplane's.
func (d *Dataplane) RemovePolicy(p apply.Policy) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.call("RemovePolicy", "%v %v", p.Action, p.Selector); err != nil {
		return err
	}
	i := d.findPolicy(p)
	if i < 0 {
		return fmt.Errorf("policy %v: %w", p.Selector, apply.ErrAbsent)
	}
	d.policies = slices.Delete(d.policies, i, i+1)
	return nil
}

// SwitchOutbound is apply.Dataplane's.
func (d *Dataplane) SwitchOutbound(p apply.Policy) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.call("SwitchOutbound", "%v to %08x", p.Selector, p.SPI); err != nil {
		return err
	}
	i := d.findPolicy(p)
	if i < 0 || d.policies[i].Action != apply.Protect {
		return fmt.Errorf("policy %v: %w", p.Selector, apply.ErrAbsent)
	}
	if err := d.checkOutbound(p); err != nil {
		return err
	}
	d.policies[i].SPI = p.SPI
	return nil
}

func (d *Dataplane) findPolicy(p apply.Policy) int {
	return slices.IndexFunc(d.policies, func(q apply.Policy) bool {
		return q.Selector == p.Selector && q.Guard == p.Guard
	})
}

// checkOutbound wants the SA that a Protect policy sends on.
func (d *Dataplane) checkOutbound(p apply.Policy) error {
	if p.Action != apply.Protect {
		return nil
	}
	i := d.find(apply.SAID{Dst: p.Remote, SPI: p.SPI})
	if i < 0 || d.sas[i].larval || d.sas[i].sa.Direction != apply.Out || d.sas[i].sa.ReqID != p.ReqID {
		d.violate("policy %v wants the outbound SA %08x with ReqID %d, which is not installed", p.Selector, p.SPI, p.ReqID)
		return fmt.Errorf("policy %v: outbound SA %08x: %w", p.Selector, p.SPI, apply.ErrAbsent)
	}
	return nil
}

// Query is apply.Dataplane's.
func (d *Dataplane) Query(id apply.SAID) (apply.Usage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.failure("Query"); err != nil {
		return apply.Usage{}, err
	}
	i := d.find(id)
	if i < 0 {
		return apply.Usage{}, fmt.Errorf("SA %s: %w", name(id), apply.ErrAbsent)
	}
	return d.sas[i].usage, nil
}

// List is apply.Dataplane's.
func (d *Dataplane) List(reqIDs []uint32) ([]apply.Installed, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.failure("List"); err != nil {
		return nil, err
	}
	var list []apply.Installed
	for _, e := range d.sas {
		if slices.Contains(reqIDs, e.sa.ReqID) {
			list = append(list, apply.Installed{
				SAID: e.sa.ID(), Src: e.sa.Src, ReqID: e.sa.ReqID, Direction: e.sa.Direction,
				Mode: e.sa.Mode, Usage: e.usage, Larval: e.larval,
			})
		}
	}
	return list, nil
}

// PrepareSocket is apply.Dataplane's.
func (d *Dataplane) PrepareSocket(fd int, addr netip.Addr, encap bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.call("PrepareSocket", "%v encap %v", addr, encap); err != nil {
		return err
	}
	d.sockets = append(d.sockets, fd)
	return nil
}

// ReceiveESP is apply.Dataplane's. What is given is kept; an SPI that is not
// there is counted.
func (d *Dataplane) ReceiveESP(local, _ netip.AddrPort, data []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.esp = append(d.esp, slices.Clone(data))
	if len(data) < 4 || d.find(apply.SAID{Dst: local.Addr(), SPI: binary.BigEndian.Uint32(data)}) < 0 {
		d.unknown++
	}
}

// Unknown is apply.Dataplane's.
func (d *Dataplane) Unknown() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.unknown
}

// Events is apply.Dataplane's.
func (d *Dataplane) Events() <-chan apply.Event { return d.events }

// Close is apply.Dataplane's. What is installed can still be looked at.
func (d *Dataplane) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.closed = true
		close(d.events)
	}
	return nil
}

func name(id apply.SAID) string { return fmt.Sprintf("%08x to %v", id.SPI, id.Dst) }
