package watch

import (
	"errors"
	"fmt"
	"time"

	"ipsec-quick/ike"
)

// rekeyTimeout is how long the rekey command waits. The core goes on trying.
const rekeyTimeout = 10 * time.Second

// rekeyWait is a rekey command that waits for its end.
type rekeyWait struct {
	ike      bool
	before   map[string]ike.PeerStatus // of the peers that are not done
	deadline time.Time
	done     chan<- error
}

// rekey asks for new keys with one peer, or with all that are established.
func (l *loop) rekey(name string, ikeSA bool, done chan<- error) {
	if name != "" && l.peers[name] == nil {
		done <- fmt.Errorf("there is no peer %q", name)
		return
	}
	w := &rekeyWait{ike: ikeSA, before: map[string]ike.PeerStatus{}, deadline: l.now().Add(rekeyTimeout), done: done}
	for _, st := range l.core.Status() {
		if name != "" && st.Name != name || !isUp(st) {
			continue
		}
		w.before[st.Name] = st
		if ikeSA {
			l.push(ike.RekeyIKE{Peer: st.Name})
		} else {
			l.push(ike.RekeyChild{Peer: st.Name})
		}
	}
	if len(w.before) == 0 {
		done <- errors.New("nothing is established that could get new keys")
		return
	}
	l.rekeys = append(l.rekeys, w)
}

// answerRekeys tells those who wait.
func (l *loop) answerRekeys() {
	if len(l.rekeys) == 0 {
		return
	}
	status := map[string]ike.PeerStatus{}
	for _, st := range l.core.Status() {
		status[st.Name] = st
	}
	var waiting []*rekeyWait
	for _, w := range l.rekeys {
		if err, over := w.check(status, l.now()); over {
			w.done <- err
		} else {
			waiting = append(waiting, w)
		}
	}
	l.rekeys = waiting
}

// check sees which peers are done.
func (w *rekeyWait) check(status map[string]ike.PeerStatus, now time.Time) (err error, over bool) {
	late := &NoAnswer{After: rekeyTimeout}
	for name, before := range w.before {
		st := status[name]
		count, was := st.Rekeys.Child, before.Rekeys.Child
		if w.ike {
			count, was = st.Rekeys.IKE, before.Rekeys.IKE
		}
		switch {
		case count > was:
			delete(w.before, name)
		case st.Rekeys.Failed > before.Rekeys.Failed && st.LastError != before.LastError:
			// Without a new reason it was only put off, and is tried again.
			return fmt.Errorf("%s: the rekey failed: %s", name, st.LastError), true
		case !isUp(st):
			return fmt.Errorf("%s was lost meanwhile: %s", name, st.LastError), true
		default:
			late.Peers = append(late.Peers, name)
		}
	}
	if len(w.before) > 0 && !now.Before(w.deadline) {
		return late, true
	}
	return nil, len(w.before) == 0
}

func (l *loop) rekeyDeadline() (next time.Time) {
	for _, w := range l.rekeys {
		if next.IsZero() || w.deadline.Before(next) {
			next = w.deadline
		}
	}
	return next
}
