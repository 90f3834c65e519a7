package userspace

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"ipsec-quick/apply"
	"ipsec-quick/apply/userspace/esp"
)

// SPIs are taken from where those of the kernel's data plane are.
const (
	lowestSPI = 0xc0000000
	spiMask   = 0x0fffffff
)

// reservedFor is how long an SPI is kept for an SA that is being negotiated, in
// nanoseconds: longer than the longest exchange.
const reservedFor = int64(165 * time.Second)

// minESNWindow is the replay window of an inbound SA with extended sequence
// numbers that is to have none, as with the kernel's.
const minESNWindow = 32

func failed(verb string, id apply.SAID, err error) error {
	return fmt.Errorf("%s SA %08x to %v: %w", verb, id.SPI, id.Dst, err)
}

// newAssociation is the SA of a record.
func (p *Plane) newAssociation(s *slot[saRecord], larval bool) (*association, error) {
	sa := s.body.sa()
	a := &association{
		spi: sa.SPI, direction: sa.Direction, mode: sa.Mode, reqID: sa.ReqID, esn: sa.ESN, larval: larval,
		events: p.events, alarm: p.alarm, slot: s, unheld: make(chan struct{}, 1),
	}
	a.place.Store(&place{sa.Src, sa.Dst, sa.Encap})
	if larval {
		return a, nil
	}
	if sa.Selector != nil {
		m := newMatcher(*sa.Selector, sa.Direction)
		a.selector = &m
	}
	a.window = s.body.window()
	var err error
	a.transform, err = esp.New(sa.Encryption, sa.Integrity, sa.ESN)
	return a, err
}

// admit enters an SA into the tables. It stays there in spite of an error.
func (p *Plane) admit(a *association) error {
	p.sas[a.id()] = a
	if a.larval {
		return nil
	}
	err := p.carrier.attach(a)
	p.tables.Store(p.tables.Load().with(a))
	return err
}

// forget takes an SA out of the tables and wipes it.
func (p *Plane) forget(a *association) {
	p.tables.Store(p.tables.Load().without(a))
	a.wipe()
	if !a.larval {
		p.carrier.detach(a)
	}
	p.sad.recycle(a.slot)
	delete(p.sas, a.id())
	if err := p.carrier.fit(false); err != nil {
		p.o.Log.Warn("the MTU may be too small", "err", err)
	}
}

// installed finds what is under a name. An SA at its hard limit is gone.
func (p *Plane) installed(id apply.SAID) *association {
	if a := p.sas[id]; a != nil && !a.expired.Load() {
		return a
	}
	return nil
}

// AllocSPI is apply.Dataplane's.
func (p *Plane) AllocSPI(reqID uint32, src, dst netip.Addr, mode apply.Mode) (uint32, error) {
	sa := apply.SA{SPI: lowestSPI, Direction: apply.In, Src: src.Unmap(), Dst: dst.Unmap(), ReqID: reqID, Mode: mode}
	if err := sa.Check(); err != nil {
		return 0, err
	}
	err := p.change(func() error {
		sa.SPI = p.freeSPI()
		return p.record(&sa, slotLarval)
	})
	return sa.SPI, err
}

// freeSPI is a random one that no inbound SA has.
func (p *Plane) freeSPI() uint32 {
	for {
		var b [4]byte
		_, _ = rand.Read(b[:]) // it never fails
		spi := binary.BigEndian.Uint32(b[:])&spiMask | lowestSPI
		taken := false
		for id, a := range p.sas {
			taken = taken || id.SPI == spi && a.direction == apply.In
		}
		if !taken {
			return spi
		}
	}
}

// record writes an SA or a reservation down and enters it.
func (p *Plane) record(sa *apply.SA, state uint32) error {
	s, err := p.sad.take()
	if err != nil {
		return err
	}
	s.body.set(sa)
	s.body.added = now()
	at := s.body.deadline()
	if state == slotLarval {
		at = s.body.added + reservedFor
	}
	a, err := p.newAssociation(s, state == slotLarval)
	if err != nil {
		p.sad.recycle(s)
		return err
	}
	s.commit(state)
	if err := p.admit(a); err != nil {
		p.forget(a)
		return err
	}
	if at != 0 {
		p.alarm.set(at)
	}
	return nil
}

// InstallSA is apply.Dataplane's.
func (p *Plane) InstallSA(sa apply.SA) error {
	sa.Src, sa.Dst = sa.Src.Unmap(), sa.Dst.Unmap()
	if err := sa.Check(); err != nil {
		return err
	}
	if err := sa.CheckAlgorithms(); err != nil {
		return err
	}
	if sa.Direction == apply.In && sa.ESN && sa.ReplayWindow == 0 {
		sa.ReplayWindow = minESNWindow
	}
	return p.change(func() error {
		if old := p.sas[sa.ID()]; old != nil {
			if !old.larval && !old.expired.Load() {
				return failed("install", sa.ID(), apply.ErrExists)
			}
			p.forget(old)
		}
		return p.record(&sa, slotInstalled)
	})
}

// UpdateSA is apply.Dataplane's. No packet is lost over it.
func (p *Plane) UpdateSA(sa apply.SA) error {
	sa.Src, sa.Dst = sa.Src.Unmap(), sa.Dst.Unmap()
	if err := sa.Check(); err != nil {
		return err
	}
	return p.change(func() error {
		a := p.named(&sa)
		if a == nil {
			return failed("update", sa.ID(), apply.ErrAbsent)
		}
		if other := p.installed(sa.ID()); other != nil && other != a {
			return failed("update", sa.ID(), apply.ErrExists)
		}
		return p.update(a, &sa)
	})
}

// named finds an SA by what an update does not change.
func (p *Plane) named(sa *apply.SA) *association {
	for _, a := range p.sas {
		if a.spi == sa.SPI && a.reqID == sa.ReqID && a.direction == sa.Direction && !a.larval && !a.expired.Load() {
			return a
		}
	}
	return nil
}

// update writes the SA anew, between two batches.
func (p *Plane) update(a *association, sa *apply.SA) error {
	s, err := p.sad.take()
	if err != nil {
		return err
	}
	delete(p.sas, a.id())
	a.mu.Lock()
	old := a.slot
	s.body = old.body
	s.body.move(sa)
	s.body.warned = 0
	s.commit(slotInstalled)
	a.slot, a.window = s, s.body.window()
	a.place.Store(&place{sa.Src, sa.Dst, sa.Encap})
	a.mappedTo = netip.AddrPort{}
	a.mu.Unlock()
	p.sad.recycle(old)
	if other := p.sas[a.id()]; other != nil {
		p.forget(other) // it is at its hard limit
	}
	p.sas[a.id()] = a
	err = p.carrier.attach(a)
	p.tables.Store(p.tables.Load().without(a).with(a))
	a.recheck()
	return err
}

// recheck looks at the limits, which are new.
func (a *association) recheck() {
	a.mu.Lock()
	r := &a.slot.body
	if r.used != 0 && r.hard.reached(r.bytes, r.packets) {
		a.expired.Store(true)
	} else if r.used != 0 {
		a.warn(r, r.bytes, r.packets)
	}
	a.mu.Unlock()
	a.alarm.set(atOnce)
}

// RemoveSA is apply.Dataplane's. Its keys are wiped when it returns.
func (p *Plane) RemoveSA(id apply.SAID) error {
	id.Dst = id.Dst.Unmap()
	return p.change(func() error {
		a := p.installed(id)
		if a == nil {
			return failed("remove", id, apply.ErrAbsent)
		}
		p.forget(a)
		return p.tidy()
	})
}

// tidy removes the files when nothing is installed any more.
func (p *Plane) tidy() error {
	if len(p.sas) > 0 || len(p.tables.Load().entries) > 0 {
		return nil
	}
	if err := p.sad.discard(); err != nil {
		return err
	}
	return p.spd.discard()
}
