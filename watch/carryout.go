package watch

import (
	"errors"
	"fmt"

	"ipsec-quick/apply"
	"ipsec-quick/ike"
	"ipsec-quick/ike/wire"
)

// carryOut does what the core says.
func (l *loop) carryOut(a ike.Action) {
	switch a := a.(type) {
	case ike.Persist:
		l.unsaved[a.Peer] = true
		if err := l.save(); err != nil {
			l.log.Error("cannot write the state; nothing is sent until it can be", "err", err)
		}
	case ike.AllocSPI:
		l.allocSPI(a)
	case ike.InstallChild:
		l.push(ike.Installed{Ref: a.Ref, Err: l.install(&a.Child)})
		l.device.stale = true // its MTU
	case ike.SwitchOutbound:
		l.switchOutbound(&a.Child)
	case ike.UpdateChild:
		l.updateChild(&a.Old, &a.New)
		l.device.stale = true
	case ike.RemoveChild:
		l.removeChild(a)
		l.device.stale = true
	case ike.RemovePolicies:
		l.removePolicies(&a.Child)
	case ike.Send:
		l.send(a)
	case ike.Keepalive:
		// A lost one is made up for by the next.
		if err := l.sockets.send(a.Local, a.Remote, []byte{0xff}); err != nil {
			l.log.Debug("keepalive", "remote", a.Remote, "err", err)
		}
	case ike.Resolve:
		l.resolve(a.Peer)
	case ike.Unclaimed:
		l.offer(a.Claim)
	case ike.Established:
		if p := l.peers[a.Peer]; p != nil {
			p.up, p.lastErr, p.tried = true, nil, nil
			if f := l.facts.DNS; f != nil && !f.Set {
				l.syncDNS()
			}
			l.peerChanged(a.Peer)
		}
		l.obs.Established(a.Peer)
		l.stateChanged()
	case ike.Lost:
		if p := l.peers[a.Peer]; p != nil {
			p.up, p.lastErr = false, a.Err
			l.peerChanged(a.Peer)
		}
		a.Retry = wallTime(a.Retry)
		l.obs.Lost(a)
		l.stateChanged()
	case ike.Closed:
		if l.closing != nil {
			delete(l.closing.open, a.Peer)
		}
		if l.peers[a.Peer] == nil {
			l.forget(a.Peer)
		}
	case ike.Report:
		l.obs.Report(a)
	}
}

// enterESP makes packets for an inbound SA find us, if it was allocated.
func (l *loop) enterESP(id apply.SAID, err error) {
	if l.in.esp == nil || err != nil {
		return
	}
	if err := l.in.esp.enter(id); err != nil {
		l.log.Error("cannot register an SPI: packets for it may not reach us", "err", err)
	}
}

func (l *loop) stateChanged() {
	if l.onState != nil {
		l.onState()
	}
}

// allocSPI answers with an SPI.
func (l *loop) allocSPI(a ike.AllocSPI) {
	ev := ike.SPIAllocated{Ref: a.Ref}
	if p := l.peers[a.Peer]; p == nil {
		ev.Err = fmt.Errorf("there is no peer %q", a.Peer)
	} else {
		ev.SPI, ev.Err = l.journal.AllocSPI(p.reqID, a.Remote, a.Local, mode(a.Transport))
		l.enterESP(apply.SAID{Dst: a.Local, SPI: ev.SPI}, ev.Err)
	}
	l.push(ev)
}

// send sends an IKE message. What it depends on has to be on disk before: a
// restarted loop must not use a Message ID twice for different messages.
func (l *loop) send(a ike.Send) {
	if l.save() != nil {
		return // the core sends it again
	}
	l.reach(a.Remote.Addr())
	data := a.Data
	if a.NATT {
		data = append(append(make([]byte, 0, len(nonESP)+len(data)), nonESP...), data...)
	}
	if err := l.sockets.send(a.Local, a.Remote, data); err != nil {
		// As good as lost; the core sends it again.
		l.log.Debug("send", "local", a.Local, "remote", a.Remote, "err", err)
	}
}

// install adds both SAs of a Child SA, the inbound one first.
func (l *loop) install(c *ike.ChildSA) error {
	p := l.peers[c.Peer]
	if p == nil {
		return fmt.Errorf("there is no peer %q", c.Peer)
	}
	selectors, err := pairs(c.LocalTS, c.RemoteTS)
	if err == nil && len(selectors) == 0 {
		err = errors.New("the traffic selectors agreed on cover no packet")
	}
	if err != nil {
		return errors.Join(err, l.removeSA(c.InID()))
	}
	in, out := l.associations(c, p, selectors)
	if err := l.journal.InstallSA(in); err != nil {
		return errors.Join(err, l.removeSA(c.InID()))
	}
	if err := l.journal.InstallSA(out); err != nil {
		return errors.Join(err, l.removeSA(c.InID()))
	}
	l.moved(p, c.Local.Addr(), c.Remote.Addr())
	return nil
}

// associations are the two SAs of a Child SA.
func (l *loop) associations(c *ike.ChildSA, p *peer, selectors []apply.Selector) (in, out apply.SA) {
	in = apply.SA{
		SPI: c.SPIIn, Direction: apply.In, Src: c.Remote.Addr(), Dst: c.Local.Addr(),
		ReqID: p.reqID, Mode: mode(c.Transport), ESN: c.Choice.ESN, ReplayWindow: p.conf.ESP.ReplayWindow, IfID: p.ifID,
		Soft: limits(c.Soft), Hard: limits(c.Hard),
	}
	in.Encryption, in.Integrity = algorithms(c, c.In)
	if c.Transport && len(selectors) == 1 {
		in.Selector = &selectors[0]
	}
	if c.Encap {
		in.Encap = &apply.Encap{SrcPort: c.Remote.Port(), DstPort: c.Local.Port()}
	}
	out = in
	out.SPI, out.Direction, out.Src, out.Dst = c.SPIOut, apply.Out, in.Dst, in.Src
	out.ReplayWindow, out.Mark = 0, apply.Mark
	out.Encryption, out.Integrity = algorithms(c, c.Out)
	if c.Encap {
		out.Encap = &apply.Encap{SrcPort: c.Local.Port(), DstPort: c.Remote.Port()}
	}
	// Both SAs are as old as each other: one of them reports that it is time.
	in.Soft.Time = 0
	return in, out
}

// algorithms are the names and keys of one direction.
func algorithms(c *ike.ChildSA, k ike.DirectionKeys) (encryption, integrity apply.Algorithm) {
	encryption = apply.Algorithm{Name: espNames[c.Choice.Encr.ID], Key: apply.Key(k.Encr)}
	if c.Choice.Integ != (wire.Transform{}) {
		integrity = apply.Algorithm{Name: integrityNames[c.Choice.Integ.ID], Key: apply.Key(k.Integ)}
	}
	return encryption, integrity
}

func mode(transport bool) apply.Mode {
	if transport {
		return apply.Transport
	}
	return apply.Tunnel
}

func limits(l ike.Limits) apply.Limits {
	return apply.Limits{Bytes: l.Bytes, Packets: l.Packets, Time: l.Time, Use: l.Use}
}

// removeSA removes an SA. One that is gone already does not matter: a hard
// expire takes it away, and a crash may have come between removing and saying so.
func (l *loop) removeSA(id ike.ChildID) error {
	sa := apply.SAID{Dst: id.Dst, SPI: id.SPI}
	if l.in.esp != nil {
		l.in.esp.leave(sa)
	}
	err := l.journal.RemoveSA(sa)
	if errors.Is(err, apply.ErrAbsent) {
		return nil
	}
	return err
}

func (l *loop) removeChild(a ike.RemoveChild) {
	l.unsend(a.Child.SPIOut)
	err := errors.Join(l.removeSA(a.Child.OutID()), l.removeSA(a.Child.InID()))
	if err != nil {
		l.log.Error("cannot remove an SA", "peer", a.Child.Peer, "err", err)
	}
}

// updateChild moves a Child SA to other outer addresses or ports.
func (l *loop) updateChild(old, c *ike.ChildSA) {
	p := l.peers[c.Peer]
	if p == nil {
		return
	}
	selectors, err := pairs(c.LocalTS, c.RemoteTS)
	if err == nil {
		in, out := l.associations(c, p, selectors)
		err = errors.Join(l.journal.UpdateSA(in), l.journal.UpdateSA(out))
	}
	if err != nil {
		l.log.Error("cannot move a Child SA", "peer", c.Peer, "from", old.Remote, "to", c.Remote, "err", err)
		return
	}
	l.moved(p, c.Local.Addr(), c.Remote.Addr())
	for _, s := range selectors {
		if policy, ok := l.protect[s]; ok && policy.SPI == c.SPIOut {
			policy.Local, policy.Remote = c.Local.Addr(), c.Remote.Addr()
			l.setProtect(policy)
		}
	}
}
