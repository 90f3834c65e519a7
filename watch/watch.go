package watch

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"

	"ipsec-quick/conf"
)

// WatchOptions are those of Watch. Name and Log have to be set.
type WatchOptions struct {
	Name string
	Log  *slog.Logger

	// Confine makes this process give up, for good, what a loop does not need.
	Confine bool

	Dir       string          // empty: RunDir
	Dataplane DataplaneOpener // nil: OpenDataplane
}

// Watch goes on, in this process, with a tunnel whose loop has died, and returns
// when the tunnel was taken down or the context ends. In the latter case the
// tunnel stays, as after a crash. The error is ErrNotUp if there is no such
// tunnel, and a *Running if its loop lives.
func Watch(ctx context.Context, o WatchOptions) error {
	if o.Dir == "" {
		o.Dir = RunDir
	}
	if o.Dataplane == nil {
		o.Dataplane = OpenDataplane
	}
	d, err := reenter(o.Dir, o.Name)
	if err != nil {
		return err
	}
	t, err := standing(d)
	if err != nil {
		d.release()
		return err
	}
	u := &upRun{
		o: Options{
			Tunnel: t, Observer: NewLogObserver(o.Log.With("tunnel", o.Name)), Log: o.Log, Foreground: true,
			Dir: o.Dir, Dataplane: o.Dataplane,
		},
		parts: parts{dir: d},
	}
	if err := u.prepare(); err != nil {
		return err
	}
	defer d.release()
	if o.Confine {
		u.loop.confine()
	}
	u.loop.tellManager()
	return u.loop.serveOn(ctx)
}

// standing is the tunnel file of a tunnel that was up when its loop died.
func standing(d *dir) (*conf.Tunnel, error) {
	f, err := d.facts()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotUp
	}
	if err != nil {
		return nil, err
	}
	gone, err := elsewhere(f)
	if err != nil {
		return nil, err
	}
	if _, unfinished := d.pid(); gone || unfinished {
		return nil, ErrNotUp // what is left of it is for `up` and `down`
	}
	return conf.Load(f.Path)
}
