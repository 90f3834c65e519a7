package watch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"syscall"
	"time"

	"ipsec-quick/apply"
	"ipsec-quick/conf"
	"ipsec-quick/ike"
)

// A reload is what a loop does that begins anew, without its end: the tunnel file
// as it is now is compared with what there is. Whether the loop dies before, in the
// middle or after, the next one ends where this one would have.

// Reloaded is what a reload did.
type Reloaded struct {
	Peers    []PeerChange `json:"peers,omitempty"`    // none: the file says what it said
	Device   bool         `json:"device,omitempty"`   // addresses, MTU or routes of the interface are others
	Warnings []conf.Error `json:"warnings,omitempty"` // about the file
	commands []string     // the changes to this host
}

// Fixed: a key of the tunnel file cannot change while the tunnel is up.
type Fixed struct{ Key string }

// Error names the key and says what to do.
func (e *Fixed) Error() string {
	return e.Key + " has changed, and cannot while the tunnel is up: take it down, and bring it up again"
}

// fixed refuses a tunnel file that differs in what a loop cannot change.
func (l *loop) fixed(t *conf.Tunnel) error {
	switch {
	case t.Port != l.tunnel.Port:
		return &Fixed{"ike.port"}
	case t.NATPort != l.tunnel.NATPort:
		return &Fixed{"ike.nat_port"}
	case t.Dataplane != conf.DataplaneAuto && t.Dataplane != l.dp.Name():
		return &Fixed{"dataplane"}
	case !reflect.DeepEqual(t.Hooks, l.hooks.file()):
		return &Fixed{"[hooks]"}
	case inUserspace(l.dp) && t.Interface != nil && l.tunnel.Interface != nil && t.Interface.MTU != l.tunnel.Interface.MTU:
		return &Fixed{"interface.mtu"}
	}
	if err := l.facts.sameInterface(t); err != nil {
		return err
	}
	return l.sameDNS(t)
}

// reload moves the tunnel to what its file says now. It may be called by any
// goroutine but the loop's. The error is conf.Errors, a *Fixed or a *Conflict where
// nothing was changed for a reason that the file has.
func (l *loop) reload() (*Reloaded, error) {
	l.reloads.Lock()
	defer l.reloads.Unlock()
	if !l.call(func() { l.tellReloading() }) {
		return nil, ErrNoLoop
	}
	defer l.call(func() { l.tellReady() })
	t, err := loadAgain(l.facts.Path)
	if err != nil {
		return nil, err
	}
	var done *Reloaded
	if !l.call(func() { done, err = l.moveTo(t) }) {
		return nil, ErrNoLoop // whoever runs it then reads the file
	}
	return done, err
}

// loadAgain reads the file of a tunnel that is up.
func loadAgain(path string) (*conf.Tunnel, error) {
	t, err := conf.Load(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, conf.Errors{{File: path, Message: "the tunnel file is not there any more"}}
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w (the loop can read the folders only that the tunnel file named when it started)", err)
	}
	return t, err
}

// moveTo makes another version of the tunnel file hold.
func (l *loop) moveTo(t *conf.Tunnel) (*Reloaded, error) {
	switch {
	case !l.settled:
		return nil, errors.New("it is being brought up")
	case l.closing != nil:
		return nil, errors.New("it is being taken down")
	}
	if err := l.fixed(t); err != nil {
		return nil, err
	}
	done := &Reloaded{
		Peers: changesOf(l.tunnel, t), Device: !reflect.DeepEqual(l.tunnel.Interface, t.Interface), Warnings: t.Warnings,
	}
	l.commands = &done.commands
	defer func() { l.commands = nil }()
	before := l.tunnel
	if err := l.replacePeers(t); err != nil {
		return nil, err
	}
	if l.device.link != nil {
		if err := l.syncDevice(); err != nil { // it is tried again
			done.Device = false
			done.Warnings = append(done.Warnings, conf.Error{File: t.Path, Key: "interface", Message: err.Error()})
		}
	}
	l.reloadDNS(before)
	l.push(ike.Reconfigure{Peers: l.corePeers()})
	l.settle()
	l.dropStrays()
	l.peersChanged()
	for _, c := range done.Peers {
		l.log.Info("reload", "change", c.String())
	}
	l.stateChanged()
	return done, nil
}

// replacePeers takes over the peers of another version of the tunnel file, with
// their guards: new ones are there before anything goes. If they cannot be, all is
// as it was.
func (l *loop) replacePeers(t *conf.Tunnel) error {
	tunnel, peers, before := l.tunnel, l.peers, *l.facts
	l.facts.ReqIDs, l.facts.IDs = chooseReqIDs(t, before.ReqIDs, l.dir.others("")), ownIDs(t)
	l.tunnel, l.peers = t, l.peersOf(t, peers)
	err := l.dir.writeFacts(l.facts)
	if err == nil {
		err = l.guardAll()
	}
	if err != nil {
		l.tunnel, l.peers, *l.facts = tunnel, peers, before
		return errors.Join(err, l.restoreGuards(), l.dir.writeFacts(l.facts))
	}
	l.hooks.replaced(t)
	l.knowAddresses()
	return nil
}

// peersOf are the peers of a tunnel file. What is known of them stays known unless
// they are to be reached elsewhere.
func (l *loop) peersOf(t *conf.Tunnel, before map[string]*peer) map[string]*peer {
	peers := map[string]*peer{}
	clear(l.byReqID)
	for i := range t.Peers {
		c := &t.Peers[i]
		q := &peer{}
		if old := before[c.Name]; old != nil {
			*q = *old
			if old.conf.Endpoint != c.Endpoint || old.conf.Address != c.Address {
				*q = peer{guards: old.guards, up: old.up}
			}
		}
		q.conf, q.reqID = c, l.facts.ReqIDs[c.Name]
		q.routed, q.ifID = l.device.link != nil, l.ifID
		if c.Endpoint.Addr.IsValid() {
			q.addresses = []netip.Addr{c.Endpoint.Addr}
		}
		if q.refreshAt.IsZero() {
			q.refreshAt = l.now()
		}
		peers[c.Name], l.byReqID[q.reqID] = q, q
	}
	return peers
}

// corePeers are the peers as the core wants them, with the addresses that are
// known.
func (l *loop) corePeers() []ike.Peer {
	peers := coreConfig(l.tunnel, inUserspace(l.dp)).Peers
	for i := range peers {
		peers[i].Addresses = slices.Clone(l.peers[peers[i].Name].addresses)
	}
	return peers
}

// restoreGuards goes back to the guards that the peers had before others were to
// take their place.
func (l *loop) restoreGuards() error {
	there := map[apply.Policy]bool{}
	for _, policy := range l.journal.Policies() {
		there[policy] = true
	}
	clear(l.byReqID)
	var failed error
	for _, p := range l.peers {
		l.byReqID[p.reqID] = p
		for _, g := range p.guards {
			if there[g] {
				continue
			}
			if err := l.journal.SetPolicy(g); err != nil {
				failed = errors.Join(failed, fmt.Errorf("%s: guard for %v: %w", p.conf.Name, g.Selector, err))
			}
		}
	}
	l.dropStrays()
	return failed
}

// forget removes what was kept of a peer that is in the tunnel file no more, and
// with whom there is nothing any more.
func (l *loop) forget(name string) {
	delete(l.unsaved, name)
	if err := os.Remove(l.dir.file(stateFile(name))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.log.Error("cannot remove the state of a peer that was removed", "peer", name, "err", err)
	}
	ids := maps.Clone(l.facts.ReqIDs)
	delete(ids, name)
	l.facts.ReqIDs = ids
	if err := l.dir.writeFacts(l.facts); err != nil {
		l.log.Error("run directory", "err", err)
	}
}

// serveReload reloads and reports each change that is made.
func (l *loop) serveReload(out *json.Encoder, answer func(response, error)) {
	done, err := l.reload()
	if errors.Is(err, ErrNoLoop) {
		return
	}
	var r response
	if done != nil {
		r.Reloaded = done
		for _, c := range done.commands {
			if out.Encode(response{Change: c}) != nil {
				return
			}
		}
	}
	var wrong conf.Errors
	if errors.As(err, &wrong) {
		r.Wrong = wrong
	}
	answer(r, err)
}

// hangups are the signals that ask a loop in the foreground to reload. They are
// caught from the begin, so that none ends the process.
func hangups() chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c
}

// reloadAt reloads at each hangup until the loop ends.
func (l *loop) reloadAt(hangup chan os.Signal) {
	go func() {
		defer signal.Stop(hangup)
		for {
			select {
			case <-hangup:
				if _, err := l.reload(); err != nil {
					l.log.Error("nothing was reloaded", "err", err)
				}
			case <-l.ctx.Done():
				return
			}
		}
	}()
}

// reloadTimeout is how long a reload may take: a file of a thousand peers.
const reloadTimeout = 10 * time.Second

// Reload makes a tunnel's loop read its tunnel file again, and move the tunnel to
// what it says. change gets each change to this host. The error is ErrNotUp or
// ErrNoLoop if there is no loop, conf.Errors if the file is wrong; then, as with
// any other error, nothing was changed.
func Reload(root, name string, change func(command string)) (*Reloaded, error) {
	if root == "" {
		root = RunDir
	}
	r, err := ask(newDir(root, name), &request{Verb: verbReload}, reloadTimeout, func(r *response) {
		if r.Change != "" {
			change(r.Change)
		}
	})
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &NoAnswer{After: reloadTimeout, Peers: []string{name}, Last: errors.New("the loop does not answer")}
	case err != nil:
		return nil, err
	case len(r.Wrong) > 0:
		return nil, r.Wrong
	case r.Error != "":
		return nil, errors.New(r.Error)
	}
	return r.Reloaded, nil
}
