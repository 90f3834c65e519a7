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
func IsBackground() bool { return os.Getenv(inheritVariable) != "" }

// Background is the process that `up` leaves behind: it waits until `up` is done
// with the loop, and goes on with it until `down`.
func Background(o BackgroundOptions) error {
	if o.Dir == "" {
		o.Dir = RunDir
	}
	if o.Dataplane == nil {
		o.Dataplane = OpenDataplane
	}
	// `up` or a shell may send these to everybody on the terminal; we have none.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()

	conn, err := connOf(fdSignal)
	if err != nil {
		return err
	}
	p, perr := inheritParts(&o)
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		return nil // `up` failed, and has undone all
	}
	l, err := takeOver(p, perr)
	if err != nil {
		_, _ = fmt.Fprintf(conn, "%c%v\n", sayFailed, err)
		_ = conn.Close()
		return err
	}
	if _, err := conn.Write([]byte{sayReady}); err != nil {
		l.log.Warn("whoever started this loop has gone", "err", err)
	}
	_ = conn.Close()
	l.confine()
	return l.serveOn(ctx)
}

// inheritParts prepares all that does not depend on what `up` is still doing.
func inheritParts(o *BackgroundOptions) (*parts, error) {
	d := inherited(o.Dir, o.Name, os.NewFile(fdLock, fileLock))
	p := &parts{dir: d, log: backgroundLog(d)}
	p.obs = NewLogObserver(p.log)
	var err error
	if p.facts, err = d.facts(); err != nil {
		return p, err
	}
	if p.sockets, err = inheritedSockets(p.facts.Port, p.facts.NATPort); err != nil {
		return p, err
	}
	control := os.NewFile(fdControl, fileControl)
	listener, err := net.FileListener(control)
	_ = control.Close()
	if err != nil {
		return p, fmt.Errorf("inherited control socket: %w", err)
	}
	var ok bool
	if p.listener, ok = listener.(*net.UnixListener); !ok {
		return p, errors.New("inherited control socket is no unix socket")
	}
	p.listener.SetUnlinkOnClose(false)
	if p.handover, err = connOf(fdHandover); err != nil {
		return p, fmt.Errorf("inherited handover socket: %w", err)
	}
	if p.tunnel, err = conf.Load(p.facts.Path); err != nil {
		return p, err
	}
	if p.dp, err = o.Dataplane(p.tunnel); err != nil {
		return p, err
	}
	// From now on its events are ours: none is lost when `up` closes its own.
	_, err = p.dp.List(reqIDsOf(p.facts))
	return p, err
}

// takeOver goes on where `up` stopped.
func takeOver(p *parts, err error) (*loop, error) {
	if err != nil {
		return nil, err
	}
	if p.facts, err = p.dir.facts(); err != nil { // `up` has added to it
		return nil, err
	}
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
	err := l.run(ctx, forever)
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
