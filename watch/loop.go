package watch

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"ipsec-quick/apply"
	"ipsec-quick/conf"
	"ipsec-quick/ike"
	"ipsec-quick/ike/wire"
)

// endpoint is what the loop uses of ike.Endpoint.
type endpoint interface {
	Step(now time.Time, ev ike.Event) []ike.Action
	NextDeadline() time.Time
	Snapshot(peer string) ([]byte, error)
	Owns(spi wire.SPI) bool
	LocalSPIs() []wire.SPI
	Accepts(ike.Claim) bool
	Status() []ike.PeerStatus
	Stats() ike.Stats
}

// An Observer is told what a loop does, from the loop's goroutine.
type Observer interface {
	Report(ike.Report)     // an exchange
	Change(command string) // a change to this host as its iproute2 equivalent
	Established(peer string)
	Lost(ike.Lost)
	Hook(HookReport)
}

const (
	// reconcileEvery is how often the data plane's SAs are compared with ours
	// although no event said that events were lost.
	reconcileEvery = time.Minute
	// leastWait keeps a deadline that does not move from taking all of a CPU.
	leastWait = time.Millisecond
	// datagramQueue is how many datagrams may wait in this process; the kernel
	// queues more.
	datagramQueue = 64
	// strangerQueue is how many that are for no IKE SA of ours: what the loop gets
	// to in some hundredths of a second.
	strangerQueue = 1024
)

// loop is a tunnel at work. Its fields belong to the goroutine that calls run,
// but for those that are channels or never change.
type loop struct {
	ctx    context.Context // ends the loop's helpers
	cancel context.CancelFunc

	tunnel  *conf.Tunnel
	dir     *dir
	facts   *facts
	core    endpoint
	dp      apply.Dataplane
	journal *apply.Journal
	inward  *inward
	sockets *sockets
	hand    *handover
	control *control
	obs     Observer
	log     *slog.Logger
	now     func() time.Time // see clock.go
	clock   *clockSteps      // nil: there is no such thing here

	in       inbox
	resolver resolver
	answers  chan answer // from the resolver
	calls    chan func() // from other goroutines, to run in the loop's

	device  device
	ifID    uint32 // of the xfrm interface, if that is what it is
	peers   map[string]*peer
	byReqID map[uint32]*peer
	protect map[apply.Selector]apply.Policy // Protect policies that are installed
	queue   []ike.Event
	drops   handoverDrops
	offers  atomic.Int32 // claims that other tunnels are being asked about

	listening   bool
	background  bool            // no terminal's process
	managed     bool            // a service manager is told how it is
	settled     bool            // this process goes on with it
	restarting  chan<- error    // gets why another program could not take over; nil: none is to
	ending      bool            // it was opened only to be closed
	onState     func()          // called when a peer comes or goes; may be nil
	unsaved     map[string]bool // peers whose state file is older than the core
	fault       error           // the data plane cannot carry what was negotiated
	closing     *closing
	hooks       *hooks     // nil: the tunnel has none
	hookJobs    []*hookJob // the first one's command runs if one does
	hookRuns    bool
	jobEnd      chan error // of what is done in place of a hook
	hooksWait   bool       // no other one is begun
	rekeys      []*rekeyWait
	reloads     sync.Mutex // held by who reloads
	commands    *[]string  // of a reload: gets the changes to this host
	monitors    map[*monitor]bool
	reconcileAt time.Time
	code        programCode
	watchdog    *watchdog
}

// peer is what the loop knows of one peer besides the core.
type peer struct {
	conf      *conf.Peer
	reqID     uint32
	routed    bool         // the tunnel has an interface
	ifID      uint32       // of that, where its packets are told by it
	addresses []netip.Addr // of the endpoint; empty: not known
	tried     []netip.Addr // of those, since the peer was reached or all were tried
	looking   bool         // a lookup is under way
	wanted    bool         // the core waits for it
	refreshAt time.Time

	local, remote netip.Addr     // outer addresses; zero: not known
	guards        []apply.Policy // installed
	up            bool           // established
	lastErr       error
}

// named reports whether the endpoint has to be looked up.
func (p *peer) named() bool { return p.conf.Endpoint.Host != "" && !p.conf.Endpoint.Addr.IsValid() }

// errDataplaneGone: nothing would tell us of expires any more.
var errDataplaneGone = errors.New("the data plane's events ended")

// push queues an event for the core.
func (l *loop) push(ev ike.Event) { l.queue = append(l.queue, ev) }

// settle gives the core all queued events, and carries out what it says.
func (l *loop) settle() {
	for len(l.queue) > 0 {
		ev := l.queue[0]
		l.queue = l.queue[1:]
		l.trace("event", ev)
		l.tellEvent(ev)
		actions := l.core.Step(l.now(), ev)
		l.register() // before anything is sent that an answer could come to
		for _, a := range actions {
			l.trace("action", a)
			carried := l.carried(a)
			l.carryOut(a)
			l.tellAction(ev, a, carried)
		}
	}
	l.queue = nil
	l.fitDevice()
	l.answerRekeys()
}

// listen begins to read the sockets. Until then the kernel queues.
func (l *loop) listen() {
	l.inward.to(&l.in)
	l.sockets.readAll(&l.in)
	l.hand.start()
	l.control.serve(l)
	l.listening = true
}

// run serves until over says so, the context ends, or a command closes the
// tunnel (errClosed).
func (l *loop) run(ctx context.Context, over func() (bool, error)) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		l.settle()
		if l.turnHooks(); len(l.queue) > 0 {
			continue
		}
		if l.closing != nil {
			if done, err := l.closeStep(); done {
				return err
			}
		} else if stop, err := over(); stop {
			return err
		}
		if !l.listening {
			// Not before it is sure that this process goes on: what it had read
			// and begun to answer would be lost to the next.
			l.listen()
		}
		strangers := l.in.strangers
		if len(l.in.known) > 0 {
			strangers = nil // not their turn
		}
		timer.Reset(l.wait())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case d := <-l.in.known:
			l.route(d, true)
		case d := <-strangers:
			l.route(d, true)
		case d := <-l.hand.in:
			l.route(d, false)
		case ev, ok := <-l.dp.Events():
			if !ok {
				return errDataplaneGone
			}
			l.happened(ev)
		case <-l.clock.steps():
			l.reconcile()
		case a := <-l.answers:
			l.answered(a)
		case ev, ok := <-l.hookEvents():
			l.hookHappened(ev, ok)
		case err := <-l.jobEnd:
			l.jobEnded(err)
		case call := <-l.calls:
			call()
		case <-timer.C:
			l.tick()
		}
	}
}

// forever is the end condition of a loop that has none.
func forever() (bool, error) { return false, nil }

// wait is how long there is nothing to do unless something happens.
func (l *loop) wait() time.Duration {
	now := l.now()
	wake := l.reconcileAt
	for _, t := range []time.Time{l.core.NextDeadline(), l.nextRefresh(), l.rekeyDeadline(), l.closeDeadline(), l.fitDeadline(), l.watchdog.next()} {
		if !t.IsZero() && t.Before(wake) {
			wake = t
		}
	}
	return max(wake.Sub(now), leastWait)
}

// tick does what is due.
func (l *loop) tick() {
	now := l.now()
	if d := l.core.NextDeadline(); !d.IsZero() && !d.After(now) {
		l.push(ike.Tick{})
	}
	if !l.reconcileAt.After(now) {
		l.reconcile()
		go l.code.giveBack() // what the last minute took, if it was busy
	}
	l.refresh(now)
	if l.closing != nil {
		l.closing.tell(response{}) // `down` takes silence for a loop that is frozen
	}
	l.watchdog.kick(now)
}

// call runs f in the loop's goroutine and waits for it. It returns false if the
// loop has ended.
func (l *loop) call(f func()) bool {
	done := make(chan struct{})
	select {
	case l.calls <- func() { f(); close(done) }:
	case <-l.ctx.Done():
		return false
	}
	select {
	case <-done:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// happened turns the data plane's events into the core's.
func (l *loop) happened(ev apply.Event) {
	switch ev := ev.(type) {
	case apply.Expire:
		l.push(ike.Expire{Child: ike.ChildID{Dst: ev.Dst, SPI: ev.SPI}, Hard: ev.Hard})
	case apply.Acquire:
		if p := l.byReqID[ev.ReqID]; p != nil {
			l.push(ike.Acquire{Peer: p.conf.Name})
		}
	case apply.Mapping:
		l.push(ike.Mapping{Child: ike.ChildID{Dst: ev.Dst, SPI: ev.SPI}, Remote: ev.New})
	case apply.Overrun:
		l.log.Warn("the data plane's events came faster than they were read; comparing")
		l.tell(MonitorEvent{Event: EventOverrun})
		l.catchUp()
	}
}

// pending are the peers that `up` waits for.
func (l *loop) pending() []string {
	var names []string
	for i := range l.tunnel.Peers {
		p := l.peers[l.tunnel.Peers[i].Name]
		if p.conf.Start == conf.StartNow && !p.up {
			names = append(names, p.conf.Name)
		}
	}
	return names
}

// stop ends the loop as if it had died, but for datagrams that were read: the
// core gets them still. What the core knows is in the state file then.
func (l *loop) stop() error {
	l.inward.to(nil)
	l.sockets.stopReading()
	l.hand.stopReading()
	readers := make(chan struct{})
	go func() {
		l.in.done.Wait()
		l.hand.done.Wait()
		close(readers)
	}()
	for {
		select {
		case d := <-l.in.known:
			l.route(d, true)
		case d := <-l.in.strangers:
			l.route(d, true)
		case d := <-l.hand.in:
			l.route(d, false)
		case <-readers:
			for len(l.in.known) > 0 {
				l.route(<-l.in.known, true)
			}
			for len(l.in.strangers) > 0 {
				l.route(<-l.in.strangers, true)
			}
			for len(l.hand.in) > 0 {
				l.route(<-l.hand.in, false)
			}
			l.settle()
			for name := range l.peers {
				l.unsaved[name] = true
			}
			return l.save()
		}
		l.settle()
	}
}

// release frees what this process holds and leaves the tunnel as it is.
func (l *loop) release() {
	l.cancel()
	l.dismissAll(errEnded)
	close(l.in.stop)
	l.control.finish()
	l.hooks.close()
	l.hand.close()
	if l.in.esp != nil {
		l.in.esp.exch.close()
	}
	l.sockets.close()
	l.clock.close()
	l.in.done.Wait()
	l.hand.done.Wait()
	_ = l.journal.Close() // nothing in it is buffered
}
