package watch

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os/signal"

	"ipsec-quick/conf"
)

// WatchOptions are those of Watch and Revive. Name and Log have to be set.
type WatchOptions struct {
	Name string
	Log  *slog.Logger

	// Confine makes this process give up, for good, what a loop does not need.
	Confine bool

	Dir       string          // empty: RunDir
	Dataplane DataplaneOpener // nil: OpenDataplane
	Program   string          // as in Options
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
	u := &upRun{o: Options{
		Tunnel: &conf.Tunnel{Name: o.Name}, Observer: NewLogObserver(o.Log), Log: o.Log,
		Foreground: true, Dir: o.Dir, Dataplane: o.Dataplane,
	}}
	hangup := hangups()
	defer signal.Stop(hangup)
	err := u.inherit()
	if err == nil && !u.again {
		u.parts.dir, err = reenter(o.Dir, o.Name)
	}
	if err != nil {
		return err
	}
	if u.o.Tunnel, err = standing(u.parts.dir); err != nil {
		u.parts.drop()
		u.parts.dir.release()
		return err
	}
	if err := u.prepare(ctx); err != nil {
		return err
	}
	defer u.parts.dir.release()
	u.loop.hookUp()
	if o.Confine {
		u.loop.hooks.spawn(thisProgram())
		u.loop.confine()
	}
	u.loop.tellManager()
	u.loop.reloadAt(hangup)
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

// Revive starts the loop of a tunnel whose loop has died in the background, and
// waits for no peer. The errors are those of Watch.
func Revive(ctx context.Context, o WatchOptions) (Result, error) {
	if o.Dir == "" {
		o.Dir = RunDir
	}
	d := newDir(o.Dir, o.Name)
	t, err := standing(d)
	if err != nil {
		return Result{}, err
	}
	return Up(ctx, Options{
		Tunnel: t, Observer: NewLogObserver(o.Log), Log: o.Log, KeepTrying: true,
		Dir: o.Dir, Dataplane: o.Dataplane, Program: o.Program,
	})
}
