package watch

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
	"ipsec-quick/conf"
	"ipsec-quick/ike"
	"ipsec-quick/watch/hook"
)

// parts are what a loop is made of. Whoever makes a loop owns them until open
// has succeeded.
type parts struct {
	tunnel *conf.Tunnel
	dir    *dir
	facts  *facts
	dp     apply.Dataplane
	inward *inward // what it tells besides its events

	hooks *hooks // nil: the tunnel has none

	// inherited are the descriptors of a data plane of a program before us, runner
	// what ran its hooks.
	inherited []int
	runner    *hook.Runner

	sockets  *sockets
	listener *net.UnixListener
	handover *net.UnixConn
	resolver resolver // nil: the host's name servers
	obs      Observer
	log      *slog.Logger
	ending   bool // the loop is only to be closed: it begins nothing
}

// listen makes the two unix sockets of a tunnel.
func (p *parts) listen() error {
	var err error
	if p.listener, err = listenControl(p.dir.file(fileControl)); err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	if p.handover, err = listenHandover(p.dir.file(fileHandover)); err != nil {
		return fmt.Errorf("handover socket: %w", err)
	}
	return nil
}

// drop closes what is there.
func (p *parts) drop() {
	if p.sockets != nil {
		p.sockets.close()
	}
	if p.listener != nil {
		_ = p.listener.Close()
	}
	if p.handover != nil {
		_ = p.handover.Close()
	}
	if p.dp != nil {
		_ = p.dp.Close()
	}
	p.hooks.close()
	for _, fd := range p.inherited {
		_ = unix.Close(fd)
	}
	p.inherited = nil
}

// open makes a loop and starts it: the guards are in place, the core has begun.
// With leftovers a loop was here before, and its state is taken over; that is the
// same whether it died or was stopped a millisecond ago.
func open(p parts, leftovers bool) (*loop, error) {
	l := &loop{
		tunnel: p.tunnel, dir: p.dir, facts: p.facts, dp: p.dp, inward: p.inward, sockets: p.sockets, resolver: p.resolver,
		obs: p.obs, log: p.log, now: bootTime,
		in:      newInbox(),
		answers: make(chan answer), calls: make(chan func()),
		byReqID: map[uint32]*peer{},
		protect: map[apply.Selector]apply.Policy{}, unsaved: map[string]bool{}, monitors: map[*monitor]bool{},
		control: newControl(p.listener), ending: p.ending, hooks: p.hooks,
	}
	if l.hooks != nil {
		l.hooks.report = l.reportHook
	}
	if l.resolver == nil {
		l.resolver = l.resolvePastPolicies
	}
	p.inward.change = l.changed
	var err error
	if l.hand, err = newHandover(p.handover); err != nil {
		return nil, err
	}
	if inUserspace(p.dp) {
		if l.in.esp, err = newESPRouter(p.dp, p.dir); err != nil {
			return nil, err
		}
		p.inward.routes(l.in.esp)
	}
	if l.journal, err = apply.OpenJournal(p.dir.file(fileJournal), p.dp, changes(p.dp, l.changed)); err != nil {
		if l.in.esp != nil {
			l.in.esp.exch.close()
		}
		return nil, err
	}
	if l.clock, err = watchClock(); err != nil {
		l.log.Warn("steps of the clock are found within a minute only", "err", err)
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.device.link, l.ifID = p.openLink(l.changed), p.ifID()
	l.reconcileAt = l.now().Add(reconcileEvery)
	l.peers = l.peersOf(p.tunnel, nil)
	l.knowAddresses()
	if err := l.begin(leftovers); err != nil {
		return l, err
	}
	return l, nil
}

// begin takes over what was there, sets the guards and starts the core.
func (l *loop) begin(leftovers bool) error {
	err := l.dir.makeFolders()
	if err == nil {
		err = l.registered()
	}
	if err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	l.makeCore(leftovers)
	if leftovers {
		if err := l.recover(); err != nil {
			return err
		}
	} else if err := l.guardAll(); err != nil {
		return err
	}
	l.device.stale, l.device.next = true, l.now()
	if l.device.link != nil && !leftovers {
		if err := l.syncDevice(); err != nil {
			return err
		}
	}
	l.push(ike.Tick{})
	l.settle()
	if f := l.facts.DNS; f != nil && f.Set {
		l.syncDNS() // the manager may have been started anew
	}
	l.peersChanged() // while nobody was there, perhaps
	return l.fault
}

// makeCore restores the core or makes a new one. A state that cannot be read is
// no reason to leave the tunnel down: the peer learns by INITIAL_CONTACT.
func (l *loop) makeCore(leftovers bool) {
	cfg := coreConfig(l.tunnel, inUserspace(l.dp))
	if !leftovers {
		l.core = ike.New(cfg)
		return
	}
	core, err := restore(cfg, l.dir)
	if err != nil {
		l.log.Warn("starting over without what was negotiated before", "err", err)
	}
	l.core = core
}

// guardAll sets the guards of all peers, for the addresses that are known.
func (l *loop) guardAll() error {
	var peers []*peer
	for i := range l.tunnel.Peers {
		p := l.peers[l.tunnel.Peers[i].Name]
		if !p.local.IsValid() {
			p.local = p.conf.Address
		}
		if !p.remote.IsValid() && len(p.addresses) > 0 {
			if local, err := l.localFor(p, p.addresses[0]); err == nil {
				p.local, p.remote = local, p.addresses[0]
			}
		}
		peers = append(peers, p)
	}
	return l.setGuards(peers...)
}
