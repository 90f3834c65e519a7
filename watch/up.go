package watch

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"ipsec-quick/conf"
)

// Options are those of Up.
type Options struct {
	Tunnel     *conf.Tunnel
	Observer   Observer
	Log        *slog.Logger
	Timeout    time.Duration // for all start="now" peers to be established
	KeepTrying bool          // an unreachable or unwilling peer is no failure
	Foreground bool          // the loop stays in this process
	Confine    bool          // in the foreground: this process gives up, for good, what a loop does not need

	Dir       string          // empty: RunDir
	Dataplane DataplaneOpener // nil: OpenDataplane
	Program   string          // to run in the background as `watch NAME`; empty: this one

	resolver resolver // nil: the host's name servers
}

// Result is what Up did.
type Result struct {
	PID     int      // of the process that runs the loop
	Pending []string // peers that are not established; with KeepTrying alone
	Revived bool     // the tunnel was up, and its loop had died
}

// Up brings a tunnel up. If it fails everything is undone, unless the tunnel was
// up before. The error is a *Running if it is up already. In the foreground it
// returns when the tunnel was taken down.
func Up(ctx context.Context, o Options) (Result, error) {
	if o.Dir == "" {
		o.Dir = RunDir
	}
	if o.Dataplane == nil {
		o.Dataplane = OpenDataplane
	}
	u := &upRun{o: o}
	if o.Foreground {
		u.hangup = hangups()
		defer signal.Stop(u.hangup)
	}
	err := u.inherit()
	if err == nil {
		err = u.prepare(ctx)
	}
	switch {
	case err != nil:
	case u.again:
		u.lookForOthers()
		err = u.stay(ctx)
	default:
		err = u.negotiate(ctx)
	}
	return u.result, err
}

// upRun is one run of Up.
type upRun struct {
	o         Options
	parts     parts
	again     bool // in this process, by a program before us
	leftovers bool // a loop was here before
	revived   bool // and the tunnel was up
	loop      *loop
	spawned   chan spawned
	looked    chan struct{}  // closed: others on our ports were looked for
	held      *PortHeld      // and found
	hangup    chan os.Signal // in the foreground: asks for a reload
	result    Result
}

type spawned struct {
	process *background
	err     error
}

// prepare makes the loop, of the parts that are there and others. What it made
// is undone if it fails.
func (u *upRun) prepare(ctx context.Context) (err error) {
	t := u.o.Tunnel
	p := &u.parts
	p.tunnel, p.obs, p.log, p.resolver = t, u.o.Observer, u.o.Log, u.o.resolver
	if p.dir == nil {
		if p.dir, err = enter(u.o.Dir, t.Name); err != nil {
			return err
		}
	}
	defer func() {
		if err != nil {
			u.undo()
		}
	}()
	before, err := p.before()
	if err != nil {
		return err
	}
	_, unfinished := p.dir.pid() // by a process that was killed in `up`
	u.leftovers = before != nil
	u.revived = u.leftovers && !unfinished
	if err = p.dir.writePID(!u.revived); err != nil {
		return err
	}
	if p.facts, err = u.newFacts(before); err != nil {
		return err
	}
	p.hooks = newHooks(p)
	if err = p.hooks.preUp(ctx); err != nil {
		return err
	}
	if p.sockets == nil {
		if p.sockets, err = bindSockets(t.Port, t.NATPort); err != nil {
			return err
		}
		if err := p.listen(); err != nil {
			return err
		}
	}
	if err = p.openDataplane(u.o.Dataplane); err != nil {
		return err
	}
	p.facts.Dataplane, p.facts.Sockets = p.dp.Name(), p.sockets.inodes()
	if err := p.dir.writeFacts(p.facts); err != nil {
		return err
	}
	if !u.o.Foreground {
		u.spawn() // it opens the same data plane
	}
	if err := p.sockets.prepare(p.dp); err != nil {
		return err
	}
	u.loop, err = open(*p, u.leftovers)
	return err
}

// spawn starts the background process meanwhile.
func (u *upRun) spawn() {
	program := u.o.Program
	if program == "" {
		program = thisProgram()
	}
	p := u.parts
	u.spawned = make(chan spawned, 1)
	crash, err := crashOutput(p.dir) // not later: `down` may remove the folder meanwhile
	if err != nil {
		u.spawned <- spawned{nil, err}
		return
	}
	go func() {
		defer crash.Close()
		process, err := spawn(program, &p, crash)
		u.spawned <- spawned{process, err}
	}()
}

// abandon ends the background process before it begins.
func (u *upRun) abandon() {
	if u.spawned != nil {
		(<-u.spawned).process.abandon()
		u.spawned = nil
	}
}

// undo takes back a start that failed, with or without a loop. A tunnel that was
// up before stays as it was.
func (u *upRun) undo() {
	u.abandon()
	p := &u.parts
	defer p.dir.release()
	if u.loop != nil {
		defer u.loop.release()
	} else {
		defer p.drop()
	}
	if u.revived {
		_ = p.dir.writePID(false) // the process that is named in it is dead either way
		return
	}
	if u.loop == nil && p.dp == nil && !nothingInstalled(p.dir) {
		return
	}
	p.hooks.preDown()
	var err error
	switch {
	case u.loop != nil:
		err = u.loop.undo()
	case p.dp != nil:
		err = undoJournal(p)
	}
	if err = p.leave(err); err != nil {
		u.o.Log.Error("not all could be undone", "err", err)
	}
}

// negotiate runs the loop until the tunnel is up, and then leaves it to the
// background.
func (u *upRun) negotiate(ctx context.Context) error {
	l := u.loop
	u.lookForOthers()
	if u.o.Foreground && u.o.KeepTrying {
		// Nobody is waited for: a service manager is told as soon as the guards stand.
		if <-u.looked; u.held != nil {
			u.fail()
			return u.held
		}
		if err := u.postUp(ctx); err != nil {
			return err
		}
		return u.stay(ctx)
	}
	err := u.wait(ctx)
	keeps := u.revived || u.o.KeepTrying && l.fault == nil
	var late *NoAnswer
	var failed *Failed
	switch {
	case err == nil:
	case errors.Is(err, errClosed):
		return u.closed()
	case keeps && (errors.As(err, &late) || errors.As(err, &failed)):
		u.result.Pending = l.pending()
		if u.o.KeepTrying {
			err = nil
		}
	default:
		u.fail()
		return err
	}
	if herr := u.postUp(ctx); herr != nil {
		return herr
	}
	u.result.Revived = u.revived
	if u.o.Foreground {
		return u.stay(ctx)
	}
	if herr := u.handDown(); herr != nil {
		return herr
	}
	return err
}

// closed ends with a tunnel that `down` has taken down.
func (u *upRun) closed() error {
	u.abandon()
	u.loop.release()
	u.parts.dir.release()
	return errors.New("it was taken down meanwhile")
}

// postUp runs that hook while the loop goes on, and lets no other one begin behind
// it in this process. If it fails the tunnel is taken down.
func (u *upRun) postUp(ctx context.Context) error {
	l := u.loop
	err := l.hooks.cameUp()
	if err == nil {
		over := false
		l.runHook(conf.HookPostUp, func(failed error) { l.hooksWait, over, err = l.closing == nil, true, failed })
		err = l.run(ctx, func() (bool, error) { return over || l.fault != nil, errors.Join(err, l.fault) })
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errClosed):
		return u.closed()
	case errors.Is(err, context.Canceled):
		err = ErrInterrupted
	}
	u.fail()
	return err
}

// wait runs the loop until all start="now" peers are established, one cannot
// be, the time is over or a signal comes.
func (u *upRun) wait(ctx context.Context) error {
	l := u.loop
	limited, cancel := context.WithTimeout(ctx, u.o.Timeout)
	defer cancel()
	err := l.run(limited, func() (bool, error) {
		pending := l.pending()
		if l.fault != nil {
			return true, l.fault
		}
		for _, name := range pending {
			if e := l.peers[name].lastErr; e != nil && decisive(e) && !u.o.KeepTrying && !u.revived {
				return true, &Failed{Peer: name, Err: e}
			}
		}
		return len(pending) == 0, nil
	})
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		late := &NoAnswer{After: u.o.Timeout, Peers: l.pending(), Revived: u.revived}
		for _, name := range late.Peers {
			late.Last = l.peers[name].lastErr
		}
		return late
	case errors.Is(err, context.Canceled):
		return ErrInterrupted
	}
	return err
}

// fail ends an attempt: the peers that were established are told, everything is
// undone. A tunnel that was up before stays up, without a loop.
func (u *upRun) fail() {
	u.abandon()
	l := u.loop
	defer u.parts.dir.release()
	defer l.release()
	if u.revived {
		l.control.stopServing()
		if err := l.stop(); err != nil {
			u.o.Log.Error("the state may be old", "err", err)
		}
		return
	}
	l.abortHooks()
	l.close(nil, nil)
	if err := l.run(context.Background(), forever); !errors.Is(err, errClosed) {
		u.o.Log.Error("undo", "err", err)
	}
}

// stay keeps the loop in this process until `down` or a signal, which both take
// the tunnel down.
func (u *upRun) stay(ctx context.Context) error {
	l := u.loop
	u.result.PID = os.Getpid()
	defer u.parts.dir.release()
	if err := u.parts.dir.writePID(false); err != nil {
		u.o.Log.Error("pid file", "err", err)
	}
	l.obs = NewLogObserver(u.o.Log)
	if u.o.Confine {
		<-u.looked // that needs to see other processes' files
		l.hooks.spawn(thisProgram())
		l.confine()
	}
	l.hooksWait = false
	l.tellManager()
	l.reloadAt(u.hangup)
	err := l.runOn(ctx)
	if errors.Is(err, context.Canceled) {
		notify("STOPPING=1")
		l.close(nil, nil)
		err = l.run(context.Background(), forever)
	}
	l.release()
	if errors.Is(err, errClosed) {
		return nil
	}
	return err
}

// handDown stops the loop here and lets the background process recover it. No
// datagram is lost over it: the sockets are the same.
func (u *upRun) handDown() error {
	l := u.loop
	s := <-u.spawned
	u.spawned = nil
	if s.err != nil {
		u.fail()
		return s.err
	}
	l.control.stopServing()
	err := l.stop()
	l.release()
	defer u.parts.dir.release()
	if err == nil {
		err = s.process.takeOver()
	}
	if err == nil {
		u.result.PID = s.process.pid
		return nil
	}
	s.process.abandon()
	if u.revived {
		return err
	}
	p := &u.parts
	derr := p.openDataplane(u.o.Dataplane)
	if derr == nil {
		p.hooks.preDown()
		derr = p.leave(errors.Join(undoJournal(p), p.dp.Close()))
		p.hooks.close()
	}
	return errors.Join(err, derr)
}
