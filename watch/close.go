package watch

import (
	"errors"
	"fmt"
	"time"

	"ipsec-quick/apply"
	"ipsec-quick/ike"
)

// closeTimeout is how long a tunnel that is taken down waits for its peers to
// answer the DELETE.
const closeTimeout = time.Second

// errClosed: the tunnel was taken down, by `down` or a signal.
var errClosed = errors.New("taken down")

// closing is a tunnel that is being taken down.
type closing struct {
	open     map[string]bool // peers that have not answered
	deadline time.Time
	change   []func(string)
	done     []func(error)
}

// close begins to take the tunnel down: the peers are told, then everything is
// undone. change gets each change to this host, done the end of it. Closing
// twice is closing once.
func (l *loop) close(change func(string), done func(error)) {
	if l.closing == nil {
		l.closing = &closing{open: map[string]bool{}, deadline: l.now().Add(closeTimeout)}
		for name := range l.peers {
			l.closing.open[name] = true
		}
		l.push(ike.Close{})
	}
	if change != nil {
		l.closing.change = append(l.closing.change, change)
	}
	if done != nil {
		l.closing.done = append(l.closing.done, done)
	}
}

func (l *loop) closeDeadline() time.Time {
	if l.closing == nil {
		return time.Time{}
	}
	return l.closing.deadline
}

// closeStep finishes when every peer has answered, or the time is over.
func (l *loop) closeStep() (finished bool, err error) {
	if len(l.closing.open) > 0 && l.now().Before(l.closing.deadline) {
		return false, nil
	}
	err = l.teardown()
	if err == nil {
		l.dismissAll(nil)
	}
	for _, done := range l.closing.done {
		done(err)
	}
	if err != nil {
		return true, err
	}
	return true, errClosed
}

// teardown removes every trace. What cannot be removed stays in the journal, and
// the directory with it, so that it can be tried again.
func (l *loop) teardown() error {
	err := l.journal.Undo()
	if err == nil {
		err = removeLeft(l.dp, l.reqIDs())
	}
	if err != nil {
		return fmt.Errorf("not all could be removed, `down` may be repeated: %w", err)
	}
	return l.dir.remove()
}

// removeLeft removes SAs with our ReqIDs that are in no journal: a packet that
// met a trap makes the kernel reserve one.
func removeLeft(dp apply.Dataplane, reqIDs []uint32) error {
	if len(reqIDs) == 0 {
		return nil
	}
	left, err := dp.List(reqIDs)
	if err != nil {
		return err
	}
	for _, sa := range left {
		if sa.SPI == 0 {
			continue // it cannot be named, and lapses within seconds
		}
		if rerr := dp.RemoveSA(sa.SAID); rerr != nil && !errors.Is(rerr, apply.ErrAbsent) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}

// changed passes a change to this host on.
func (l *loop) changed(command string) {
	l.obs.Change(command)
	if l.commands != nil {
		*l.commands = append(*l.commands, command)
	}
	if l.closing != nil {
		for _, f := range l.closing.change {
			f(command)
		}
	}
}
