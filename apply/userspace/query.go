package userspace

import (
	"errors"
	"path/filepath"
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
		return Reader{p.o.Dir}.Query(id)
	} else if err != nil {
		return apply.Usage{}, err
	}
	a := p.installed(id)
	if a == nil {
		return apply.Usage{}, failed("read", id, apply.ErrAbsent)
	}
	return a.usage(now(), time.Now().Round(0)), nil
}

// List is apply.Dataplane's. All events of the tunnel are reported in any case.
func (p *Plane) List(reqIDs []uint32) ([]apply.Installed, error) {
	wanted := func(s apply.Installed) bool { return slices.Contains(reqIDs, s.ReqID) }
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.own(); errors.Is(err, errStandby) {
		return Reader{p.o.Dir}.list(wanted)
	} else if err != nil {
		return nil, err
	}
	var list []apply.Installed
	at, wall := now(), time.Now().Round(0)
	for _, a := range p.sas {
		if s := a.slot.body.installed(a.larval, a.usage(at, wall)); !a.expired.Load() && wanted(s) {
			list = append(list, s)
		}
	}
	return list, nil
}

// A Reader reads what is installed, whoever has the plane, and changes nothing.
type Reader struct {
	Dir string // the tunnel's run directory
}

// Name is "userspace".
func (Reader) Name() string { return name }

// Query is as apply.Dataplane's.
func (r Reader) Query(id apply.SAID) (apply.Usage, error) {
	list, err := r.list(func(s apply.Installed) bool { return s.SAID == id })
	if err == nil && len(list) == 0 {
		err = failed("read", id, apply.ErrAbsent)
	}
	if err != nil {
		return apply.Usage{}, err
	}
	return list[0].Usage, nil
}

// list is what is installed and wanted.
func (r Reader) list(wanted func(apply.Installed) bool) ([]apply.Installed, error) {
	sad := newTable[saRecord](filepath.Join(r.Dir, fileSAD))
	slots, err := sad.peek()
	if err != nil {
		return nil, err
	}
	var list []apply.Installed
	at, wall := now(), time.Now().Round(0)
	for _, s := range slots {
		larval := s.state.Load() != slotInstalled
		if i := s.body.installed(larval, s.body.usage(at, wall)); s.body.check(larval, at) == nil && wanted(i) {
			list = append(list, i)
		}
		s.body = saRecord{} // its keys
	}
	return list, nil
}
