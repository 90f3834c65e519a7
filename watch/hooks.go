package watch

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"ipsec-quick/conf"
	"ipsec-quick/watch/hook"
)

// A HookReport tells of a hook: that a command begins, or a line that it printed.
type HookReport struct {
	Hook    string
	Peer    string // of established and lost
	Command string
	Line    string // with an empty Command
}

// HookFailed: a command of a hook has failed.
type HookFailed struct {
	Hook, Command string
	Err           error // its exit status, or why it was killed
}

// Error names the command, cut short, and how it ended.
func (e *HookFailed) Error() string {
	const most = 200
	command := e.Command
	if len(command) > most {
		command = strings.ToValidUTF8(command[:most], "") + " ..."
	}
	return fmt.Sprintf("hook %s: `%s`: %v", e.Hook, command, e.Err)
}

// Unwrap is how it ended.
func (e *HookFailed) Unwrap() error { return e.Err }

// hooks runs those of one tunnel. A nil one has none.
type hooks struct {
	tunnel *conf.Tunnel
	dir    *dir
	facts  *facts
	log    *slog.Logger
	report func(HookReport)
	runner *hook.Runner // nil: none was needed so far
}

// newHooks are those that the facts have.
func newHooks(p *parts) *hooks {
	if p.facts.Hooks == nil {
		return nil
	}
	return &hooks{tunnel: p.tunnel, dir: p.dir, facts: p.facts, log: p.log, report: p.obs.Hook, runner: p.runner}
}

// file is what of the tunnel file they are.
func (h *hooks) file() *conf.Hooks {
	if h == nil || len(h.facts.Hooks.Commands) == 0 {
		return nil
	}
	return &h.facts.Hooks.Hooks
}

// all are they, and what else is run in their way.
func (h *hooks) all() *conf.Hooks {
	all := &conf.Hooks{Timeout: h.facts.Hooks.Timeout, Commands: map[string][]string{}}
	maps.Copy(all.Commands, h.facts.Hooks.Commands)
	if lines := resolvconfLines(h.facts, h.tunnel); lines != nil {
		all.Commands[hookResolvconf] = lines
	}
	return all
}

// replaced: this is the tunnel file now.
func (h *hooks) replaced(t *conf.Tunnel) {
	if h != nil {
		h.tunnel = t
	}
}

// commands are those of a hook.
func (h *hooks) commands(name string) []string {
	if h == nil {
		return nil
	}
	if name == hookResolvconf {
		return resolvconfLines(h.facts, h.tunnel)
	}
	return h.facts.Hooks.Commands[name]
}

// begun is how many of a hook's commands are not to be run any more.
func (h *hooks) begun(name string) int {
	if h == nil {
		return 0
	}
	return h.facts.Hooks.Begun[name]
}

// ofPeers: these run again each time.
func ofPeers(name string) bool { return name == conf.HookEstablished || name == conf.HookLost }

// begin has a command run. Before that it is entered that it was: it is not run
// twice, whatever happens to it or us.
func (h *hooks) begin(name string, at int, who hookPeer) error {
	if !ofPeers(name) && name != hookResolvconf {
		h.facts.Hooks.Begun[name] = at + 1
		if err := h.dir.writeFacts(h.facts); err != nil {
			return err
		}
	}
	if h.runner == nil {
		var err error
		if h.runner, err = hook.Start(h.all()); err != nil {
			return err
		}
	}
	r := HookReport{Hook: name, Command: h.commands(name)[at]}
	if ofPeers(name) {
		r.Peer = who.name
	}
	h.report(r)
	return h.runner.Begin(name, at, h.environment(name, who))
}

// event passes on what a command does, and reports whether it has ended.
func (h *hooks) event(ev hook.Event, ok bool, name string) (done bool, err error) {
	switch {
	case !ok:
		return true, hook.ErrGone
	case ev.Done:
		return true, ev.Err
	}
	h.report(HookReport{Hook: name, Line: ev.Line})
	return false, nil
}

// failed is the error of a command.
func (h *hooks) failed(name string, at int, err error) error {
	return &HookFailed{Hook: name, Command: h.commands(name)[at], Err: err}
}

// run runs the commands of a hook that have not begun, and waits for them. It
// stops at one that fails.
func (h *hooks) run(ctx context.Context, name string, from int, who hookPeer) error {
	for at := from; at < len(h.commands(name)); at++ {
		if ctx.Err() != nil {
			return ErrInterrupted
		}
		if err := h.runOne(ctx, name, at, who); err != nil {
			return h.failed(name, at, err)
		}
	}
	return nil
}

func (h *hooks) runOne(ctx context.Context, name string, at int, who hookPeer) error {
	if err := h.begin(name, at, who); err != nil {
		return err
	}
	interrupted := ctx.Done()
	for {
		select {
		case ev, ok := <-h.runner.Events():
			if done, err := h.event(ev, ok, name); done {
				return err
			}
		case <-interrupted:
			interrupted = nil
			if err := h.runner.Cancel(); err != nil {
				return err
			}
		}
	}
}

// runAll is run for hooks of a tunnel that goes down, whatever they say.
func (h *hooks) runAll(name string, who hookPeer) {
	for at := h.begun(name); at < len(h.commands(name)); at++ {
		if err := h.runOne(context.Background(), name, at, who); err != nil {
			h.log.Warn("a hook has failed; the tunnel goes down nevertheless", "err", h.failed(name, at, err))
		}
	}
}

// preUp runs before anything is changed.
func (h *hooks) preUp(ctx context.Context) error {
	return h.run(ctx, conf.HookPreUp, h.begun(conf.HookPreUp), h.onlyPeer())
}

// isUp reports whether pre_down has to run before the tunnel goes down.
func (h *hooks) isUp() bool { return h != nil && h.facts.Hooks.Up }

// preDown runs, without a loop, before a tunnel is taken down that has come up.
func (h *hooks) preDown() {
	if h.isUp() {
		h.runAll(conf.HookPreDown, h.onlyPeer())
	}
}

// postDown runs, without a loop, when all is undone.
func (h *hooks) postDown() {
	if h == nil {
		return
	}
	for _, name := range h.told() {
		if err := h.tell(name, false); err != nil {
			h.log.Error("cannot enter that a peer is lost", "peer", name, "err", err)
		}
		h.runAll(conf.HookLost, h.lostPeer(name))
	}
	h.runAll(conf.HookPostDown, h.onlyPeer())
}

// told are the peers whose last hook was established.
func (h *hooks) told() []string {
	if h == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(h.facts.Hooks.Told))
}

// tell enters which of its two hooks a peer gets.
func (h *hooks) tell(peer string, established bool) error {
	if established {
		h.facts.Hooks.Told[peer] = true
	} else {
		delete(h.facts.Hooks.Told, peer)
	}
	return h.dir.writeFacts(h.facts)
}

// cameUp enters that pre_down has to run before the tunnel goes down.
func (h *hooks) cameUp() error {
	if h == nil || h.facts.Hooks.Up {
		return nil
	}
	h.facts.Hooks.Up = true
	return h.dir.writeFacts(h.facts)
}

// spawn leaves the hooks that a loop has to run to a process of its own: the loop
// gives up the rights that they need. No command may be running.
func (h *hooks) spawn(program string) {
	later := []string{conf.HookEstablished, conf.HookLost, conf.HookPreDown, conf.HookPostDown, hookResolvconf}
	if !slices.ContainsFunc(later, func(name string) bool { return len(h.commands(name)) > 0 }) || h.runner != nil && h.runner.Apart() {
		return
	}
	r, err := hook.Spawn(program, h.dir.name, h.all())
	if err != nil {
		h.log.Error("hooks are run without the rights that the loop gives up", "err", err)
		return
	}
	h.close()
	h.runner = r
}

// bequeath leaves the process that runs the hooks to the next program.
func (h *hooks) bequeath(to *inheritance) error {
	if h == nil || h.runner == nil || !h.runner.Apart() {
		return nil
	}
	fd, pid, err := h.runner.Bequeath()
	if err != nil {
		return err
	}
	to.Hooks, to.HooksPID = []int{fd}, pid
	return nil
}

// close ends what runs the commands, and the one that runs.
func (h *hooks) close() {
	if h != nil && h.runner != nil {
		h.runner.Close()
		h.runner = nil
	}
}

// hookPeer is what a hook is told of a peer.
type hookPeer struct {
	name, state       string
	local, remote     netip.Addr // outer addresses; zero: not known
	localTS, remoteTS []string
	reason            string // of a loss
}

// onlyPeer is the peer of a tunnel that has one, by the tunnel file.
func (h *hooks) onlyPeer() hookPeer {
	if h == nil || len(h.tunnel.Peers) != 1 {
		return hookPeer{}
	}
	return peerOf(&h.tunnel.Peers[0])
}

// lostPeer is one that goes down with the tunnel.
func (h *hooks) lostPeer(name string) hookPeer {
	who := hookPeer{name: name, state: "idle"}
	for i := range h.tunnel.Peers {
		if h.tunnel.Peers[i].Name == name {
			who = peerOf(&h.tunnel.Peers[i])
		}
	}
	who.reason = errClosed.Error()
	return who
}

// peerOf is a peer by the tunnel file.
func peerOf(c *conf.Peer) hookPeer {
	who := hookPeer{name: c.Name, state: "idle", local: c.Address, remote: c.Endpoint.Addr}
	for _, s := range c.LocalTS {
		who.localTS = append(who.localTS, s.String())
	}
	for _, s := range c.RemoteTS {
		who.remoteTS = append(who.remoteTS, s.String())
	}
	return who
}

// environment are the variables of a hook, without their prefix. What is not
// known is empty.
func (h *hooks) environment(name string, who hookPeer) map[string]string {
	env := map[string]string{
		"TUNNEL": h.tunnel.Name, "HOOK": name, "INTERFACE": h.device(),
		"PEER": who.name, "STATE": who.state, "REASON": who.reason,
		"LOCAL": addrString(who.local), "REMOTE": addrString(who.remote),
		"LOCAL_TS": strings.Join(who.localTS, " "), "REMOTE_TS": strings.Join(who.remoteTS, " "),
	}
	return env
}

// device is the tunnel's, if it has one.
func (h *hooks) device() string {
	switch {
	case h.tunnel.Interface != nil:
		return cmp.Or(h.tunnel.Interface.Name, h.tunnel.Name)
	case h.facts.Dataplane == conf.DataplaneUserspace:
		return h.tunnel.Name
	}
	return ""
}

func addrString(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
