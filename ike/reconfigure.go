package ike

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// A Setting is one of those that SAs with a peer are negotiated by: its name, and
// a digest of its value, which may be a short secret's: only the state, which has
// all keys anyway, holds it. The core does nothing but compare it.
type Setting struct {
	Name string
	Sum  uint64
}

// Format writes the name for every verb.
func (s Setting) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.Name) }

// Settings are those that an SA was, or is to be, negotiated by.
type Settings []Setting

// fits reports whether no setting that both have differs. One that only the other
// has is of another version of this program, and nothing is known of it.
func (s Settings) fits(other Settings) bool {
	for _, a := range s {
		for _, b := range other {
			if a.Name == b.Name && a.Sum != b.Sum {
				return false
			}
		}
	}
	return true
}

// reconfigure is Reconfigure: the peers are these from now on. One that is gone is
// left, one whose settings changed gets what fits them, all others go on.
func (e *Endpoint) reconfigure(peers []Peer) {
	before := e.peers
	e.cfg.Peers, e.peers = slices.Clone(peers), map[string]*Peer{}
	for i := range e.cfg.Peers {
		p := &e.cfg.Peers[i]
		e.peers[p.Name] = p
		e.enter(p.Name)
		old := before[p.Name]
		if old != nil && old.IKESettings.fits(p.IKESettings) && old.ChildSettings.fits(p.ChildSettings) {
			continue
		}
		// What kept the last attempts from succeeding may be mended.
		ps := e.state.Peers[p.Name]
		ps.Resolving, ps.RetryAt, ps.ChildRetryAt = time.Time{}, e.now, e.now
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if e.peers[name] == nil {
			e.peers[name] = before[name]
			e.leave(name)
		}
	}
	e.conform()
}

// enter makes room for a peer, unless it is there.
func (e *Endpoint) enter(name string) {
	delete(e.leaving, name)
	if ps := e.state.Peers[name]; ps != nil {
		ps.Closed = false
		return
	}
	e.state.Peers[name] = &peerState{}
	e.quotas[name] = newQuota()
}

// leave ends all that we have with a peer that is none of ours any more. It is
// forgotten when it has answered, or the time for that is over.
func (e *Endpoint) leave(name string) {
	e.leaving[name] = true
	e.waiting = slices.DeleteFunc(e.waiting, func(ev Initiate) bool { return ev.Peer == name })
	e.close(name)
}

// forgetLeft forgets the peers that were left and of whom nothing is there.
func (e *Endpoint) forgetLeft() {
	for name := range e.leaving {
		if len(e.state.ByPeer[name]) > 0 {
			continue
		}
		delete(e.leaving, name)
		delete(e.peers, name)
		delete(e.quotas, name)
		delete(e.state.Peers, name)
		delete(e.state.ByPeer, name)
	}
}

// conform replaces what was negotiated by other settings than the peers have now:
// a Child SA by a rekey, which loses no packet, an IKE SA by a new one after it.
func (e *Endpoint) conform() {
	for i := range e.cfg.Peers {
		p := &e.cfg.Peers[i]
		for _, sa := range e.ofPeer(p.Name) {
			if !sa.Settings.fits(p.IKESettings) {
				switch sa.State {
				case initSent, halfOpen:
					e.gone(sa)
				case established, contested:
					e.deleteIKE(sa, errReconfigured)
				case replaced, deleting: // it goes anyway
				}
				continue
			}
			for _, c := range sa.Children {
				if c.State == childLive && !c.Settings.fits(p.ChildSettings) {
					c.SoftAt = e.now
				}
			}
		}
	}
}
