package apply

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
)

// Journal is a Dataplane that remembers in a file what it puts into another
// one, so that Undo can take all of it away: in this process, or in another one
// after this one was killed at any point.
//
// What is about to be added is written before it is added. The file therefore
// may name what is not there, never the other way round. It holds no keys. Only
// one process at a time may have it open.
type Journal struct {
	Dataplane // what is not a change passes through

	mu    sync.Mutex
	log   *journalFile
	live  *records
	print func(string)
}

// OpenJournal opens or creates the journal at path, and continues what is in
// it. print, if not nil, gets each change to the host as its iproute2
// equivalent, after it was made, keys hidden.
func OpenJournal(path string, dp Dataplane, print func(string)) (*Journal, error) {
	if print == nil {
		print = func(string) {}
	}
	log, live, err := openJournalFile(path)
	if err != nil {
		return nil, err
	}
	return &Journal{Dataplane: dp, log: log, live: live, print: print}, nil
}

// SAs lists what Undo would remove: SAs and reservations.
func (j *Journal) SAs() []SAID {
	j.mu.Lock()
	defer j.mu.Unlock()
	var ids []SAID
	for _, r := range j.live.list() {
		if r.SA != nil {
			ids = append(ids, r.SA.SAID)
		}
	}
	return ids
}

// Policies lists the policies that Undo would remove.
func (j *Journal) Policies() []Policy {
	j.mu.Lock()
	defer j.mu.Unlock()
	var ps []Policy
	for _, r := range j.live.list() {
		if r.Policy != nil {
			ps = append(ps, *r.Policy)
		}
	}
	return ps
}

// AllocSPI reserves an SPI. The SPI is not known beforehand: what is written
// first is that one will be, so that Undo finds it by its addresses.
func (j *Journal) AllocSPI(reqID uint32, src, dst netip.Addr, mode Mode) (uint32, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	intent := record{Alloc: &allocation{reqID, src.Unmap(), dst.Unmap()}}
	if _, err := j.add(intent); err != nil {
		return 0, err
	}
	spi, err := j.Dataplane.AllocSPI(reqID, src, dst, mode)
	if err != nil {
		return 0, errors.Join(err, j.drop(intent))
	}
	j.print(AllocCommand(reqID, src, dst, mode))
	if _, err := j.add(record{SA: &association{SAID{dst.Unmap(), spi}, reqID}}); err != nil {
		return 0, err // Undo finds it by the intent
	}
	return spi, j.drop(intent)
}

// InstallSA installs an SA.
func (j *Journal) InstallSA(sa SA) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	err := j.change(record{SA: &association{sa.ID(), sa.ReqID}}, func() error { return j.Dataplane.InstallSA(sa) })
	if err == nil {
		j.print(sa.InstallCommand())
	}
	return err
}

// UpdateSA changes an SA; with another destination it is another one to remove.
func (j *Journal) UpdateSA(sa SA) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := record{SA: &association{sa.ID(), sa.ReqID}}
	if err := j.change(now, func() error { return j.Dataplane.UpdateSA(sa) }); err != nil {
		return err
	}
	j.print(sa.UpdateCommand())
	for key, r := range j.live.byKey {
		if r.SA != nil && r.SA.SPI == sa.SPI && r.SA.ReqID == sa.ReqID && key != now.key() {
			if err := j.drop(r.record); err != nil {
				return err
			}
		}
	}
	return nil
}

// RemoveSA removes an SA.
func (j *Journal) RemoveSA(id SAID) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	id.Dst = id.Dst.Unmap()
	return j.remove(record{SA: &association{SAID: id}})
}

// SetPolicy adds or changes a policy.
func (j *Journal) SetPolicy(p Policy) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	err := j.change(record{Policy: &p}, func() error { return j.Dataplane.SetPolicy(p) })
	if err == nil {
		for _, c := range p.SetCommands() {
			j.print(c)
		}
	}
	return err
}

// SwitchOutbound rewrites the outbound direction of a policy.
func (j *Journal) SwitchOutbound(p Policy) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	err := j.change(record{Policy: &p}, func() error { return j.Dataplane.SwitchOutbound(p) })
	if err == nil {
		j.print(p.SwitchCommand())
	}
	return err
}

// RemovePolicy removes a policy.
func (j *Journal) RemovePolicy(p Policy) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.remove(record{Policy: &p})
}

// Undo removes all that the journal names, the last first, then the file. What
// is gone already does not matter. What cannot be removed does not keep the rest
// from being removed; it stays in the journal, so Undo can be called again.
func (j *Journal) Undo() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	var failed error
	for _, r := range slices.Backward(j.live.list()) {
		if err := j.remove(r); err != nil && !errors.Is(err, ErrAbsent) {
			failed = errors.Join(failed, err)
		}
	}
	if failed != nil {
		return failed
	}
	return j.log.discard()
}

// Close closes the file, which stays, and the Dataplane.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return errors.Join(j.log.close(), j.Dataplane.Close())
}

// change writes the record, then does it. If it turns out that somebody else's
// is in the way, the record is taken back: Undo must not remove that.
func (j *Journal) change(r record, do func() error) error {
	isNew, err := j.add(r)
	if err != nil {
		return err
	}
	err = do()
	if isNew && errors.Is(err, ErrExists) {
		err = errors.Join(err, j.drop(r))
	}
	return err
}

// remove undoes one record, and forgets it if it is gone for sure.
func (j *Journal) remove(r record) error {
	var err error
	switch {
	case r.Alloc != nil:
		err = j.removeReservations(*r.Alloc)
	case r.SA != nil:
		if err = j.Dataplane.RemoveSA(r.SA.SAID); err == nil {
			j.print(r.SA.DeleteCommand())
		}
	case r.Policy != nil:
		if err = j.Dataplane.RemovePolicy(*r.Policy); err == nil {
			for _, c := range r.Policy.DeleteCommands() {
				j.print(c)
			}
		}
	}
	if err != nil && !errors.Is(err, ErrAbsent) {
		return err
	}
	if derr := j.drop(r); derr != nil {
		return derr
	}
	return err
}

// removeReservations removes what an AllocSPI that was cut short left.
func (j *Journal) removeReservations(a allocation) error {
	list, err := j.Dataplane.List([]uint32{a.ReqID})
	if err != nil {
		return fmt.Errorf("looking for a reserved SPI: %w", err)
	}
	var failed error
	for _, s := range list {
		if !s.Larval || s.Direction != In || s.Dst != a.Dst || s.Src != a.Src || j.live.has(s.SAID) {
			continue
		}
		err := j.Dataplane.RemoveSA(s.SAID)
		if err == nil {
			j.print(s.DeleteCommand())
		} else if !errors.Is(err, ErrAbsent) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// add writes a record, or renews one.
func (j *Journal) add(r record) (isNew bool, err error) {
	isNew = !j.live.has(r.key())
	if err := j.log.append(r, j.live); err != nil {
		return false, err
	}
	j.live.replay(r)
	return isNew, nil
}

// drop writes that what was recorded is gone.
func (j *Journal) drop(r record) error {
	if !j.live.has(r.key()) {
		return nil
	}
	r.Gone = true
	j.live.replay(r)
	return j.log.append(r, j.live)
}
