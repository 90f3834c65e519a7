package watch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
	"ipsec-quick/conf"
)

const (
	// frozenAfter is how long `down` waits for a loop to say anything: before that
	// it tells its peers, which takes seconds if they are a thousand.
	frozenAfter = closeTimeout + 5*time.Second
	// endTimeout is how long a process may take to end once it has answered, or
	// was killed.
	endTimeout = 5 * time.Second
	// handoverTimeout is how long a loop may be on its way from `up` to the
	// background, and its socket belong to nobody.
	handoverTimeout = 2 * time.Second
	// interruptTimeout is how long an interrupted `up` may take to undo what it did.
	interruptTimeout = 10 * time.Second
	// askPause is between two looks at it.
	askPause = 20 * time.Millisecond
)

// DownOptions are those of Down.
type DownOptions struct {
	Name   string
	Change func(command string) // gets each change to this host, and the commands of hooks; may be nil
	Output func(line string)    // gets what hooks print; may be nil
	Log    *slog.Logger

	Dir       string          // empty: RunDir
	Dataplane DataplaneOpener // nil: OpenDataplane
}

// Down takes a tunnel down and leaves nothing: it asks the loop, and does it
// itself where that is dead or frozen. The error is ErrNotUp if there is no such
// tunnel.
func Down(o DownOptions) error {
	if o.Dir == "" {
		o.Dir = RunDir
	}
	if o.Dataplane == nil {
		o.Dataplane = OpenDataplane
	}
	for _, f := range []*func(string){&o.Change, &o.Output} {
		if *f == nil {
			*f = func(string) {}
		}
	}
	d := newDir(o.Dir, o.Name)
	giveUp := time.Now().Add(handoverTimeout)
	was := false // it was up when we began: gone means that it is done
	interrupted := false
	for {
		process := openProcess(d)
		r, err := ask(d, &request{Verb: verbClose}, frozenAfter, o.heard)
		switch {
		case err == nil && r.Error != "":
			process.close()
			return errors.New(r.Error)
		case err == nil:
			defer process.close()
			return process.waitEnd()
		case errors.Is(err, ErrNotUp):
			process.close()
			if was {
				return nil
			}
			return err
		}
		was = true
		held, lerr := reenter(o.Dir, o.Name)
		if lerr == nil {
			process.close()
			return downDead(&o, held)
		}
		var running *Running
		if !errors.As(lerr, &running) {
			process.close()
			return lerr
		}
		frozen := errors.Is(err, os.ErrDeadlineExceeded)
		switch late := time.Now().After(giveUp); {
		case late && running.Starting && !interrupted:
			// An `up` that runs its first hooks serves nobody, and is not frozen.
			o.Log.Warn("it is being brought up; interrupting that", "pid", running.PID)
			if err := process.signal(d, unix.SIGTERM); err != nil {
				process.close()
				return err
			}
			interrupted, giveUp = true, time.Now().Add(interruptTimeout)
		case frozen || late:
			o.Log.Warn("the loop does not answer; ending it", "pid", running.PID, "err", err)
			if err := process.kill(d); err != nil {
				process.close()
				return err
			}
		}
		process.close()
		time.Sleep(askPause) // it is being handed to the background, or is ending
	}
}

// heard passes on what a loop does.
func (o *DownOptions) heard(r *response) {
	if r.Change != "" {
		o.Change(r.Change)
	}
	if r.Output != "" {
		o.Output(r.Output)
	}
}

// downDead takes down a tunnel whose loop has died. Where that is possible the
// loop is revived for it, so that the peers are told.
func downDead(o *DownOptions, d *dir) error {
	defer d.release()
	f, err := d.facts()
	if err != nil {
		// It died before it had done anything.
		o.Log.Debug("down", "err", err)
		return d.remove()
	}
	if gone, err := elsewhere(f); err != nil {
		return err
	} else if gone {
		return d.remove()
	}
	t, err := conf.Load(f.Path)
	if err != nil {
		o.Log.Warn("the tunnel file cannot be read any more, so the peers are not told", "err", err)
		t = &conf.Tunnel{Name: o.Name, Dataplane: conf.DataplaneAuto}
	}
	p := parts{tunnel: t, dir: d, facts: f, log: o.Log, ending: true, obs: &changeObserver{NewLogObserver(o.Log), o}}
	p.hooks = newHooks(&p)
	defer p.hooks.close()
	derr := p.openDataplane(o.Dataplane)
	if derr != nil {
		if nothingInstalled(d) {
			return p.leave(nil)
		}
		return derr
	}
	if err == nil {
		l, rerr := reviveToClose(p)
		if rerr == nil {
			l.close(nil, nil)
			rerr = l.run(context.Background(), forever)
			l.release()
			if errors.Is(rerr, errClosed) {
				return nil
			}
			return rerr
		}
		o.Log.Warn("the peers are not told", "err", rerr)
		if derr = p.openDataplane(o.Dataplane); derr != nil {
			return derr
		}
	}
	defer p.dp.Close()
	p.hooks.preDown()
	return p.leave(undoJournal(&p))
}

// leave ends with a tunnel of which nothing is left but its interface and its
// directory, unless err says that there is more.
func (p *parts) leave(err error) error {
	if err != nil {
		return err
	}
	p.revertDNS()
	if d := p.openLink(p.obs.Change); d != nil {
		if err := d.Remove(); err != nil {
			return incomplete(err)
		}
	}
	p.hooks.postDown()
	return p.dir.remove()
}

// nothingInstalled: the loop had not begun to change this host, so no data plane
// is needed to undo it.
func nothingInstalled(d *dir) bool {
	info, err := os.Stat(d.file(fileJournal))
	return errors.Is(err, os.ErrNotExist) || err == nil && info.Size() == 0
}

// reviveToClose opens the loop of a dead one; the data plane is closed if that
// fails.
func reviveToClose(p parts) (*loop, error) {
	var err error
	if p.sockets, err = bindSockets(p.tunnel.Port, p.tunnel.NATPort); err == nil {
		if err = p.sockets.prepare(p.dp); err == nil {
			err = p.listen()
		}
	}
	if err != nil {
		p.drop()
		return nil, err
	}
	l, err := open(p, true)
	switch {
	case err != nil && l != nil:
		l.release()
	case err != nil:
		p.drop()
	}
	return l, err
}

// changeObserver passes changes on and logs the rest.
type changeObserver struct {
	Observer
	o *DownOptions
}

// Change passes a change on.
func (c *changeObserver) Change(command string) { c.o.Change(command) }

// Hook passes on what a hook does.
func (c *changeObserver) Hook(r HookReport) { c.o.heard(&response{Change: r.Command, Output: r.Line}) }

// undoJournal removes what the journal names.
func undoJournal(p *parts) error {
	journal, err := apply.OpenJournal(p.dir.file(fileJournal), p.dp, changes(p.dp, p.obs.Change))
	if err != nil {
		return err
	}
	if err = journal.Undo(); err == nil && p.facts != nil {
		err = removeLeft(p.dp, reqIDsOf(p.facts))
	}
	if err != nil {
		return incomplete(err)
	}
	return nil
}

func incomplete(err error) error {
	return fmt.Errorf("not all could be removed, `down` may be repeated: %w", err)
}

// process is the one that has a tunnel's lock, by a descriptor that stays its
// own even if its number is given to another.
type process struct{ pid, fd int }

// openProcess finds it; its fd is -1 if it has ended.
func openProcess(d *dir) process {
	pid, _ := d.pid()
	if pid <= 0 {
		return process{0, -1}
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		fd = -1
	}
	return process{pid, fd}
}

func (p process) close() {
	if p.fd >= 0 {
		_ = unix.Close(p.fd)
	}
}

// waitEnd waits until the process has ended. One of ours (`up` in this process,
// as tests do) does not end.
func (p process) waitEnd() error {
	if p.fd < 0 || p.pid == os.Getpid() {
		return nil
	}
	end := time.Now().Add(endTimeout)
	for {
		left := time.Until(end)
		if left <= 0 {
			return fmt.Errorf("process %d does not end", p.pid)
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("poll", err)
		}
		if n > 0 {
			return nil
		}
	}
}

// kill ends the process by force.
func (p process) kill(d *dir) error {
	if err := p.signal(d, unix.SIGKILL); err != nil {
		return err
	}
	return p.waitEnd()
}

// signal sends the process a signal, once it is sure that it is the loop.
func (p process) signal(d *dir, s unix.Signal) error {
	if p.fd < 0 {
		return nil // it has ended
	}
	held, err := hasOpen(p.pid, d.file(fileLock))
	if err != nil {
		return fmt.Errorf("whether process %d has the lock %s cannot be seen: %w", p.pid, d.file(fileLock), err)
	}
	if p.pid == os.Getpid() || !held {
		return fmt.Errorf("process %d has not the lock %s; end whoever has (`lslocks`)", p.pid, d.file(fileLock))
	}
	if err := unix.PidfdSendSignal(p.fd, s, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return os.NewSyscallError("kill", err)
	}
	return nil
}

// hasOpen reports whether a process has a file open. To see that of another
// process takes CAP_SYS_PTRACE: ours are not dumpable.
func hasOpen(pid int, path string) (bool, error) {
	want, err := os.Stat(path)
	if err != nil {
		return false, nil
	}
	folder := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(folder)
	for _, e := range entries {
		got, serr := os.Stat(filepath.Join(folder, e.Name()))
		if serr == nil && os.SameFile(want, got) {
			return true, nil
		}
		if errors.Is(serr, fs.ErrPermission) {
			err = serr
		}
	}
	if errors.Is(err, fs.ErrPermission) {
		return false, fmt.Errorf("%w (CAP_SYS_PTRACE is needed)", err)
	}
	return false, nil
}
