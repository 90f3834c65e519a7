package watch

import (
	"errors"
	"fmt"
	"os"
	"time"

	"ipsec-quick/apply/userspace"
	"ipsec-quick/conf"
)

// askTimeout is how long the commands wait for a loop to say something.
const askTimeout = 2 * time.Second

// Tunnels are the names of all tunnels that are up, in the order of the alphabet.
func Tunnels(root string) ([]string, error) {
	if root == "" {
		root = RunDir
	}
	return tunnels(root)
}

// States of a tunnel that is up.
const (
	StateUp       = "up"
	StateStarting = "starting" // `up` is at it
	StateDead     = "dead"     // its loop has died
)

// Live is a tunnel that is up.
type Live struct {
	Name, State string
	Path        string // of its file; empty: not known yet
}

// List is Tunnels, with what each is at.
func List(root string) ([]Live, error) {
	if root == "" {
		root = RunDir
	}
	names, err := tunnels(root)
	if err != nil {
		return nil, err
	}
	var list []Live
	for _, name := range names {
		d := newDir(root, name)
		one := Live{Name: name, State: StateUp}
		_, starting := d.pid()
		conn, err := dial(d, askTimeout)
		switch {
		case errors.Is(err, ErrNotUp):
			continue // it went down meanwhile
		case errors.Is(err, ErrNoLoop):
			one.State = StateDead
		case err != nil:
			return nil, fmt.Errorf("%s: %w", name, err)
		case starting:
			one.State = StateStarting
		}
		if err == nil {
			_ = conn.Close()
		}
		if f, err := d.facts(); err == nil {
			one.Path = f.Path
		}
		list = append(list, one)
	}
	return list, nil
}

// Ask is the status of one tunnel by its loop alone. The error is ErrNotUp or
// ErrNoLoop if there is none, and os.ErrDeadlineExceeded if it does not answer.
func Ask(root, name string) (*Status, error) {
	if root == "" {
		root = RunDir
	}
	r, err := askAgain(newDir(root, name), &request{Verb: verbStatus}, askTimeout)
	if err != nil {
		return nil, err
	}
	if r.Status == nil {
		return nil, errors.New("the loop gives no status: " + r.Error)
	}
	return r.Status, nil
}

// Get is the status of one tunnel: from its loop or, where that is dead or does
// not answer, from the state that it left. The error is ErrNotUp if there is no
// such tunnel.
func Get(root, name string, open DataplaneOpener) (*Status, error) {
	if root == "" {
		root = RunDir
	}
	d := newDir(root, name)
	s, err := Ask(root, name)
	switch {
	case err == nil:
		return s, nil
	case errors.Is(err, ErrNoLoop):
		return lastKnown(d, 0, open)
	case errors.Is(err, os.ErrDeadlineExceeded):
		pid, _ := d.pid()
		return lastKnown(d, pid, open)
	}
	return nil, err
}

// lastKnown is the status by the state file.
func lastKnown(d *dir, pid int, open DataplaneOpener) (*Status, error) {
	f, err := d.facts()
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNotUp
	}
	if err != nil {
		return nil, err
	}
	bare := &Status{Tunnel: d.name, Dataplane: f.Dataplane, Interface: f.Interface, WatchPID: pid, Peers: []PeerStatus{}}
	t, err := conf.Load(f.Path)
	if err != nil {
		return bare, nil // the file is not what it was; the rest is still true
	}
	core, err := restore(coreConfig(t, false), d)
	if err != nil {
		return bare, nil // another version of this program left it
	}
	if open == nil {
		open = OpenDataplane
	}
	var sas counters // without them nothing is counted
	if f.Dataplane == conf.DataplaneUserspace {
		sas = userspace.Reader{Dir: d.path} // to open it would be to go on with the tunnel
	} else if dp, err := open(DataplaneOptions{Tunnel: t, Kind: f.Dataplane, Dir: d.path}); err == nil {
		defer dp.Close()
		sas = dp
	}
	s := describe(t, core, sas, bootTime())
	s.Dataplane, s.Interface, s.WatchPID = f.Dataplane, f.Interface, pid
	return s, nil
}

// Rekey gives a tunnel's Child SAs new keys, or its IKE SAs, with one peer or
// with all, and waits for it.
func Rekey(root, name, peer string, ikeSA bool) error {
	if root == "" {
		root = RunDir
	}
	r, err := askAgain(newDir(root, name), &request{Verb: verbRekey, Peer: peer, IKE: ikeSA}, rekeyTimeout+askTimeout)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &NoAnswer{After: rekeyTimeout, Peers: []string{name}, Last: errors.New("the loop does not answer")}
	case err != nil:
		return err
	case r.TimedOut:
		return fmt.Errorf("%w: %s", ErrNoAnswer, r.Error)
	case r.Error != "":
		return errors.New(r.Error)
	}
	return nil
}

// askAgain asks until it is answered, while the loop is on its way from `up` to
// the background.
func askAgain(d *dir, req *request, timeout time.Duration) (*response, error) {
	for giveUp := time.Now().Add(handoverTimeout); ; {
		r, err := ask(d, req, timeout, nil)
		_, starting := d.pid()
		if !errors.Is(err, ErrNoLoop) || !starting || time.Now().After(giveUp) {
			return r, err
		}
		time.Sleep(askPause)
	}
}
