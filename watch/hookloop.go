package watch

import (
	"slices"

	"ipsec-quick/conf"
	"ipsec-quick/ike"
	"ipsec-quick/watch/hook"
)

// A hookJob is a hook that the loop runs, or will. The loop goes on meanwhile.
type hookJob struct {
	do   func() error // in place of a hook, in a goroutine of its own
	hook string       // empty: established or lost, what the peer is by then
	peer string       // empty: it is the tunnel's
	at   int          // the command that runs or is next
	end  int          // the one before which it ends
	done func(error)
}

// runHook queues what is left of a hook of the tunnel. done, which may be nil, gets
// the first failure.
func (l *loop) runHook(name string, done func(error)) {
	l.hookJobs = append(l.hookJobs, &hookJob{hook: name, at: l.hooks.begun(name), end: len(l.hooks.commands(name)), done: done})
}

// hookUp queues post_up, in a loop that nobody waits for.
func (l *loop) hookUp() {
	if err := l.hooks.cameUp(); err != nil {
		l.log.Error("pre_down may not run", "err", err)
	}
	l.runHook(conf.HookPostUp, nil)
}

// peerChanged queues the hook of a peer that came or went. A peer that is back
// before its turn has come gets none.
func (l *loop) peerChanged(name string) {
	if len(l.hooks.commands(conf.HookEstablished))+len(l.hooks.commands(conf.HookLost)) == 0 {
		return
	}
	waits := func(j *hookJob) bool { return j.peer == name && j.hook == "" }
	if !slices.ContainsFunc(l.hookJobs, waits) {
		l.hookJobs = append(l.hookJobs, &hookJob{peer: name})
	}
}

// peersChanged is peerChanged for all, and for those that were taken out of the
// tunnel file.
func (l *loop) peersChanged() {
	for i := range l.tunnel.Peers {
		l.peerChanged(l.tunnel.Peers[i].Name)
	}
	for _, name := range l.hooks.told() {
		l.peerChanged(name)
	}
}

// turnHooks begins the next command if none runs.
func (l *loop) turnHooks() {
	for !l.hookRuns && !l.hooksWait && len(l.hookJobs) > 0 {
		j := l.hookJobs[0]
		if j.do != nil {
			l.hookRuns, l.jobEnd = true, make(chan error, 1)
			go func(end chan<- error) { end <- j.do() }(l.jobEnd)
			return
		}
		if j.hook == "" && !l.choose(j) {
			l.hookJobs = l.hookJobs[1:]
			continue
		}
		if j.at >= j.end {
			l.endJob(j, nil)
			continue
		}
		l.hookRuns = true
		if err := l.hooks.begin(j.hook, j.at, l.hookPeer(j)); err != nil {
			l.hookEnded(err)
		}
	}
}

// choose decides which hook a peer gets; none if it is as it was. While a tunnel
// is taken down there is none, and in the end each is lost.
func (l *loop) choose(j *hookJob) bool {
	p := l.peers[j.peer]
	up := p != nil && p.up // nil: it is in the tunnel file no more
	if l.closing != nil && !l.closing.undone || up == slices.Contains(l.hooks.told(), j.peer) {
		return false
	}
	j.hook = conf.HookLost
	if up {
		j.hook = conf.HookEstablished
	}
	j.end = len(l.hooks.commands(j.hook))
	if err := l.hooks.tell(j.peer, up); err != nil {
		l.log.Error("a hook may run again", "hook", j.hook, "peer", j.peer, "err", err)
	}
	return true
}

// endJob takes the job that is first out of the queue.
func (l *loop) endJob(j *hookJob, err error) {
	l.hookJobs = l.hookJobs[1:]
	if j.done != nil {
		j.done(err)
	}
}

// hookEvents is what the running command does.
func (l *loop) hookEvents() <-chan hook.Event {
	if !l.hookRuns || l.hookJobs[0].do != nil {
		return nil
	}
	return l.hooks.runner.Events()
}

// hookHappened takes what the running command does.
func (l *loop) hookHappened(ev hook.Event, ok bool) {
	if done, err := l.hooks.event(ev, ok, l.hookJobs[0].hook); done {
		l.hookEnded(err)
	}
}

// jobEnded takes the end of what was done in place of a hook.
func (l *loop) jobEnded(err error) {
	l.hookRuns, l.jobEnd = false, nil
	l.endJob(l.hookJobs[0], err)
}

// hookEnded goes on behind a command. One of an up hook that fails is the last of
// them; with the others that is no reason.
func (l *loop) hookEnded(err error) {
	l.hookRuns = false
	j := l.hookJobs[0]
	j.at++
	if err == nil {
		return
	}
	err = l.hooks.failed(j.hook, j.at-1, err)
	if j.done != nil && (j.hook == conf.HookPostUp || j.hook == hookResolvconf) {
		l.endJob(j, err)
		return
	}
	l.log.Warn("a hook has failed", "err", err)
}

// abortHooks ends the command that runs, and forgets those that wait.
func (l *loop) abortHooks() {
	l.hooksWait = false
	if !l.hookRuns {
		l.hookJobs = nil
		return
	}
	j := l.hookJobs[0]
	l.hookJobs, j.end = []*hookJob{j}, j.at+1
	if j.do != nil {
		return // it ends by itself
	}
	if err := l.hooks.runner.Cancel(); err != nil {
		l.log.Error("a hook goes on", "err", err)
	}
}

// hookPeer is what a job's hook is told of its peer, or of the only one.
func (l *loop) hookPeer(j *hookJob) hookPeer {
	name := j.peer
	if name == "" && len(l.tunnel.Peers) == 1 {
		name = l.tunnel.Peers[0].Name
	}
	if name == "" {
		return hookPeer{}
	}
	p := l.peers[name]
	if p == nil {
		return hookPeer{name: name, reason: "it is in the tunnel file no more"}
	}
	who := peerOf(p.conf)
	if p.local.IsValid() && p.remote.IsValid() {
		who.local, who.remote = p.local, p.remote
	}
	if j.hook == conf.HookLost && p.lastErr != nil {
		who.reason = p.lastErr.Error()
	}
	at := slices.IndexFunc(l.core.Status(), func(s ike.PeerStatus) bool { return s.Name == p.conf.Name })
	if at < 0 {
		return who
	}
	status := l.core.Status()[at]
	who.state = status.State
	for _, c := range status.Children {
		if !c.Retiring {
			who.localTS, who.remoteTS = tsStrings(c.Child.LocalTS), tsStrings(c.Child.RemoteTS)
		}
	}
	return who
}

// reportHook passes on what a hook does, also to who takes the tunnel down.
func (l *loop) reportHook(r HookReport) {
	l.obs.Hook(r)
	if l.closing != nil {
		l.closing.tell(response{Change: r.Command, Output: r.Line})
	}
}
