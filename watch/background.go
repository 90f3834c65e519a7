package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"

	"ipsec-quick/conf"
)

// BackgroundOptions are those of Background. Only the name has to be set.
type BackgroundOptions struct {
	Name      string
	Dir       string          // empty: RunDir
	Dataplane DataplaneOpener // nil: OpenDataplane
}

// IsBackground reports whether this process is the one that `up` leaves behind.
func IsBackground() bool {
	h, err := inherited()
	return err == nil && h != nil && h.Background
}

// Background is the process that `up` leaves behind: it waits until `up` is done
// with the loop, and goes on with it until `down`.
func Background(o BackgroundOptions) error {
	if o.Dir == "" {
		o.Dir = RunDir
	}
	if o.Dataplane == nil {
		o.Dataplane = OpenDataplane
	}
	h, err := inherited()
	if err == nil && h == nil {
		err = errors.New("this process was given no tunnel")
	}
	if err != nil {
		return err
	}
	// `up` or a shell may send these to everybody on the terminal; we have none.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()

	var parent *net.UnixConn // nil: a program before us was this process
	if h.Signal >= 0 {
		if parent, err = adopt[*net.UnixConn](&h.Signal, net.FileConn); err != nil {
			return err
		}
	}
	p, perr := inheritParts(&o, h)
	if parent != nil {
		if _, err := io.ReadFull(parent, make([]byte, 1)); err != nil {
			return nil // `up` failed, and has undone all
		}
	}
	l, err := takeOver(p, perr)
	if err != nil {
		p.log.Error("cannot go on with the tunnel, which stays: `up` revives it, `down` removes it", "err", err)
	}
	if parent != nil {
		if err := tellParent(parent, err); err != nil {
			p.log.Warn("whoever started this loop has gone", "err", err)
		}
	}
	if err != nil {
		return err
	}
	l.background = true
	l.hooks.spawn(thisProgram())
	l.confine()
	return l.serveOn(ctx)
}

// tellParent tells `up` whether we have taken over.
func tellParent(parent *net.UnixConn, err error) error {
	text := string(sayReady)
	if err != nil {
		text = fmt.Sprintf("%c%v\n", sayFailed, err)
	}
	_, werr := io.WriteString(parent, text)
	return errors.Join(werr, parent.Close())
}

// inheritParts prepares all that does not depend on what `up` is still doing.
func inheritParts(o *BackgroundOptions, h *inheritance) (*parts, error) {
	p, err := h.take(o.Dir, o.Name)
	p.log = backgroundLog(p.dir)
	p.obs = NewLogObserver(p.log)
	if err != nil {
		return &p, err
	}
	if p.tunnel, err = conf.Load(p.facts.Path); err == nil {
		err = p.facts.sameInterface(p.tunnel) // somebody may write it just now
	}
	if err != nil {
		return &p, err
	}
	if err = p.openDataplane(o.Dataplane); err != nil {
		return &p, err
	}
	// From now on its events are ours: none is lost when `up` closes its own.
	_, err = p.dp.List(reqIDsOf(p.facts))
	return &p, err
}

// takeOver goes on where `up` stopped.
func takeOver(p *parts, err error) (*loop, error) {
	if err != nil {
		return nil, err
	}
	if p.facts, err = p.dir.facts(); err != nil { // `up` has added to it
		return nil, err
	}
	p.hooks = newHooks(p)
	l, err := open(*p, true)
	if err != nil {
		return nil, err
	}
	return l, p.dir.writePID(false)
}

// serveOn runs the loop until it is taken down. A signal ends it as a crash
// would: the tunnel stays, because only `down` may let its traffic go in clear.
func (l *loop) serveOn(ctx context.Context) error {
	l.log.Info("the loop runs", "pid", os.Getpid())
	err := l.runOn(ctx)
	switch {
	case errors.Is(err, errClosed):
		l.log.Info("taken down")
		err = nil
	case errors.Is(err, context.Canceled):
		notify("STOPPING=1")
		l.log.Warn("the loop ends by a signal; the tunnel stays: `up` revives it, `down` removes it")
		l.control.stopServing()
		err = l.stop()
	default:
		l.log.Error("the loop ends; the tunnel stays: `up` revives it, `down` removes it", "err", err)
	}
	l.release()
	return err
}
