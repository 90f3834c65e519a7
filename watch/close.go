package watch

import (
	"errors"
	"time"

	"ipsec-quick/apply"
	"ipsec-quick/conf"
	"ipsec-quick/ike"
)

// closeTimeout is how long a tunnel that is taken down waits for its peers to
// answer the DELETE.
const closeTimeout = time.Second

// errClosed: the tunnel was taken down, by `down` or a signal.
var errClosed = errors.New("taken down")

// closing is a tunnel that is being taken down.
type closing struct {
	open     map[string]bool // peers that have not answered; nil: they are not told yet
	deadline time.Time
	undone   bool // all is, and post_down runs
	over     bool // it has
	clients  []func(response)
	done     []func(error)
}

// tell passes something on to who waits for the tunnel to go down.
func (c *closing) tell(r response) {
	for _, f := range c.clients {
		f(r)
	}
}

// close begins to take the tunnel down: the peers are told, then everything is
// undone. client gets what is done to this host meanwhile, done the end of it.
// Closing twice is closing once.
func (l *loop) close(client func(response), done func(error)) {
	if l.closing == nil {
		l.closing = &closing{}
		if l.hooks.isUp() {
			l.runHook(conf.HookPreDown, func(error) { l.revertDNS(l.tellPeers) })
		} else {
			l.revertDNS(l.tellPeers)
		}
	}
	if client != nil {
		l.closing.clients = append(l.closing.clients, client)
	}
	if done != nil {
		l.closing.done = append(l.closing.done, done)
	}
}

// tellPeers begins the end with them.
func (l *loop) tellPeers() {
	c := l.closing
	c.open, c.deadline = map[string]bool{}, l.now().Add(closeTimeout)
	for name := range l.peers {
		c.open[name] = true
	}
	l.push(ike.Close{})
}

// aliveEvery is how often who waits for a tunnel to go down hears of us.
const aliveEvery = time.Second

// closeDeadline is when closing has something to do.
func (l *loop) closeDeadline() time.Time {
	switch {
	case l.closing == nil:
		return time.Time{}
	case l.hookRuns:
		return l.now().Add(aliveEvery)
	}
	return l.closing.deadline
}

// closeStep finishes when every peer has answered, or the time is over.
func (l *loop) closeStep() (finished bool, err error) {
	c := l.closing
	if c.open == nil || len(c.open) > 0 && l.now().Before(c.deadline) {
		return false, nil
	}
	if !c.undone {
		if err = l.undo(); err == nil {
			c.undone = true
			l.hooksAfter()
		}
	}
	if c.undone {
		if l.turnHooks(); !c.over {
			return false, nil
		}
		err = l.dir.remove()
	}
	if err == nil {
		l.dismissAll(nil)
	}
	for _, done := range c.done {
		done(err)
	}
	if err != nil {
		return true, err
	}
	return true, errClosed
}

// hooksAfter queues the hooks of a tunnel of which nothing is left.
func (l *loop) hooksAfter() {
	for _, name := range l.hooks.told() {
		if p := l.peers[name]; p != nil {
			p.up, p.lastErr = false, errClosed
		}
		l.peerChanged(name)
	}
	l.runHook(conf.HookPostDown, func(error) { l.closing.over = true })
}

// undo removes every trace but the directory. What cannot be removed stays in the
// journal, so that it can be tried again.
func (l *loop) undo() error {
	err := l.journal.Undo()
	if err == nil {
		err = removeLeft(l.dp, l.reqIDs())
	}
	if err == nil && l.device.link != nil {
		err = l.device.link.Remove()
	}
	if err != nil {
		return incomplete(err)
	}
	return nil
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
		l.closing.tell(response{Change: command})
	}
}
