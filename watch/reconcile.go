package watch

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"ipsec-quick/apply"
	"ipsec-quick/ike"
)

// reqIDs are those of all peers, also of ones that the tunnel file has no more.
func (l *loop) reqIDs() []uint32 { return reqIDsOf(l.facts) }

func reqIDsOf(f *facts) []uint32 {
	ids := make([]uint32, 0, len(f.ReqIDs))
	for _, id := range f.ReqIDs {
		ids = append(ids, id)
	}
	return ids
}

// list is what the data plane has of ours.
func (l *loop) list() (map[ike.ChildID]apply.Installed, error) {
	found, err := l.dp.List(l.reqIDs())
	if err != nil {
		return nil, err
	}
	sas := make(map[ike.ChildID]apply.Installed, len(found))
	for _, s := range found {
		sas[ike.ChildID{Dst: s.Dst, SPI: s.SPI}] = s
	}
	return sas, nil
}

// children are the core's Child SAs.
func (l *loop) children() []ike.ChildStatus {
	var all []ike.ChildStatus
	for _, p := range l.core.Status() {
		all = append(all, p.Children...)
	}
	return all
}

// catchUp reconciles after events were lost. A limit by time whose event was
// lost just now is not told from one whose event is under way: that takes a
// second look.
func (l *loop) catchUp() {
	l.reconcile()
	l.reconcileAt = l.now().Add(lateExpire + time.Second)
}

// reconcile makes up for events that were lost: an SA that is not there has
// reached its hard limit, one that is over a soft limit is due.
func (l *loop) reconcile() {
	l.reconcileAt = l.now().Add(reconcileEvery)
	if l.closing != nil && l.closing.undone {
		return
	}
	sas, err := l.list()
	if err != nil {
		l.log.Error("cannot read the data plane's SAs", "err", err)
		return
	}
	stepped := map[string]bool{}
	for _, c := range l.children() {
		for _, id := range []ike.ChildID{c.Child.InID(), c.Child.OutID()} {
			sa, ok := sas[id]
			older := misdated(sa.Usage, c.Child.Created)
			switch {
			case !ok || sa.Larval:
				if !c.Retiring { // packets were led away from a retiring one before
					l.push(ike.Expire{Child: id, Hard: true})
				}
			case c.Retiring:
			case older.Abs() > stepTolerance:
				stepped[c.Child.Peer] = true
				l.prolong(&c.Child, older)
			case !c.Rekeying && overSoft(sa.Usage, time.Now()):
				l.push(ike.Expire{Child: id})
			}
		}
	}
	l.redate(stepped)
	l.forgetLapsed(sas)
	l.device.stale = true
	if dp, ok := l.dp.(refresher); ok {
		if err := dp.Refresh(); err != nil {
			l.log.Error("traffic may not find its way to ESP", "err", err)
		}
	}
}

// A refresher is a data plane that traffic is brought to by rules which others can
// take away.
type refresher interface{ Refresh() error }

// stepTolerance is more than a clock that nobody set makes of an SA's age: the
// data plane has whole seconds, and an SA is installed some time after it was
// agreed on.
const stepTolerance = 3 * time.Second

// misdated is by how much the wall clock was set since an SA was installed: the
// data plane takes it for so much older than it is.
func misdated(u apply.Usage, created time.Time) time.Duration {
	if u.Added.IsZero() {
		return 0
	}
	return wallTime(created).Sub(u.Added)
}

// prolong moves the limits by time of a Child SA that the data plane takes for
// older than it is, so that none is reached before there are new keys.
func (l *loop) prolong(c *ike.ChildSA, by time.Duration) {
	p := l.peers[c.Peer]
	if p == nil || by <= 0 {
		return
	}
	selectors, err := pairs(c.LocalTS, c.RemoteTS)
	if err != nil {
		return // it was installed, so they are fine
	}
	in, out := l.associations(c, p, selectors)
	for _, sa := range []*apply.SA{&in, &out} {
		for _, limit := range []*time.Duration{&sa.Soft.Time, &sa.Soft.Use, &sa.Hard.Time, &sa.Hard.Use} {
			if *limit > 0 {
				*limit += by.Round(time.Second)
			}
		}
		if err := l.journal.UpdateSA(*sa); err != nil && !errors.Is(err, apply.ErrAbsent) {
			l.log.Error("cannot move the limits of an SA", "peer", c.Peer, "err", err)
		}
	}
}

// redate gives the peers whose SAs are misdated new ones, which count from the
// new time. The data plane's arithmetic is the wall clock's: it would find the
// soft limit of a clock that was set back too late, and for one that was set
// forward the hard limit at the next look.
func (l *loop) redate(peers map[string]bool) {
	if len(peers) == 0 {
		return
	}
	names := slices.Sorted(maps.Keys(peers))
	l.log.Warn("the clock was set: the Child SAs get new keys, which count from the new time", "peers", names)
	for _, name := range names {
		l.tell(MonitorEvent{Event: EventClock, Peer: name})
		l.push(ike.RekeyChild{Peer: name})
	}
}

// lateExpire is how long after a soft limit by time its event may still come.
const lateExpire = 2 * time.Second

// overSoft reports whether an SA has passed one of its soft limits, and it has
// been long enough for an event to come; now is by the wall clock.
func overSoft(u apply.Usage, now time.Time) bool {
	passed := func(since time.Time, limit time.Duration) bool {
		return limit > 0 && !since.IsZero() && now.Sub(since) > limit+lateExpire
	}
	return u.Soft.Bytes > 0 && u.Bytes >= u.Soft.Bytes ||
		u.Soft.Packets > 0 && u.Packets >= u.Soft.Packets ||
		passed(u.Added, u.Soft.Time) || passed(u.Used, u.Soft.Use)
}

// forgetLapsed takes SPIs out of the journal that were reserved, never used, and
// are free again.
func (l *loop) forgetLapsed(sas map[ike.ChildID]apply.Installed) {
	known := map[ike.ChildID]bool{}
	for _, c := range l.children() {
		known[c.Child.InID()], known[c.Child.OutID()] = true, true
	}
	for _, id := range l.journal.SAs() {
		child := ike.ChildID{Dst: id.Dst, SPI: id.SPI}
		if _, there := sas[child]; there || known[child] {
			continue
		}
		if err := l.removeSA(child); err != nil {
			l.log.Debug("journal", "err", err)
		}
	}
}

// recover brings the core, the data plane and the tunnel file together again.
// SAs of peers whose state was lost are orphans.
func (l *loop) recover() error {
	sas, err := l.list()
	if err != nil {
		return err
	}
	if l.in.esp != nil {
		if err := l.in.esp.recover(slices.Collect(maps.Values(sas))); err != nil {
			return fmt.Errorf("run directory: %w", err)
		}
	}
	present := map[ike.ChildID]bool{}
	for id, sa := range sas {
		if !sa.Larval {
			present[id] = true
		}
	}
	for _, st := range l.core.Status() {
		if p := l.peers[st.Name]; p != nil && st.Local.IsValid() && st.Remote.IsValid() {
			p.local, p.remote = st.Local.Addr(), st.Remote.Addr()
			p.up = isUp(st)
		}
	}
	l.adoptPolicies()
	if err := l.guardAll(); err != nil {
		return err
	}
	l.dropStrays()
	l.push(ike.Recovered{Present: present})
	l.settle()
	l.removeOrphans(sas)
	for _, p := range l.peers {
		p.up = false
	}
	for _, st := range l.core.Status() {
		if p := l.peers[st.Name]; p != nil {
			p.up = isUp(st)
		}
	}
	l.catchUp() // nobody read the events
	return nil
}

// isUp reports whether a peer is established and has a Child SA.
func isUp(st ike.PeerStatus) bool {
	return (st.State == "established" || st.State == "rekeying") && len(st.Children) > 0
}

// adoptPolicies takes over the policies of a loop before us. Guards that fit no
// peer's known addresses go to one whose address is not known: they stay until
// it is. If there is none, they are strays.
func (l *loop) adoptPolicies() {
	owners := map[apply.Selector]*peer{}
	var unknown *peer
	for _, p := range l.peers {
		want, err := guards(p)
		if err != nil {
			continue
		}
		for _, g := range want {
			owners[g.Selector] = p
		}
		if !p.remote.IsValid() {
			unknown = p
		}
	}
	for _, policy := range l.journal.Policies() {
		if !policy.Guard {
			l.protect[policy.Selector] = policy
			continue
		}
		owner := owners[policy.Selector]
		if owner == nil {
			owner = unknown
		}
		if owner != nil {
			owner.guards = append(owner.guards, policy)
		}
	}
}

// removeOrphans removes SAs that no Child SA knows of, and policies that send on
// an SA which is not there.
func (l *loop) removeOrphans(sas map[ike.ChildID]apply.Installed) {
	known, sending := map[ike.ChildID]bool{}, map[uint32]bool{}
	for _, c := range l.children() {
		known[c.Child.InID()], known[c.Child.OutID()] = true, true
		sending[c.Child.SPIOut] = true
	}
	for _, policy := range l.protect {
		if !sending[policy.SPI] {
			l.dropProtect(policy)
		}
	}
	for id, sa := range sas {
		if known[id] || sa.Larval {
			continue
		}
		err := l.removeSA(id)
		if err != nil && !errors.Is(err, apply.ErrAbsent) {
			l.log.Error("cannot remove an SA that nobody knows", "err", err)
		}
	}
}
