package watch

import (
	"fmt"
	"time"

	"ipsec-quick/apply"
	"ipsec-quick/ike"
)

// tellEvent tells the monitors of an event that the core is given.
func (l *loop) tellEvent(ev ike.Event) {
	if !l.monitored() {
		return
	}
	switch ev := ev.(type) {
	case ike.Expire:
		out, known := l.aboutSA(EventSoft, ev.Child)
		switch u, err := l.dp.Query(apply.SAID(ev.Child)); {
		case !known:
			return // it was removed, or told of before
		case ev.Hard:
			out.Event = EventHard
		case err == nil:
			out.Limit, out.Used, out.Soft = softLimit(u, time.Now())
		}
		l.tell(out)
	case ike.Acquire:
		l.tell(MonitorEvent{Event: EventAcquire, Peer: ev.Peer})
	case ike.Mapping:
		out, _ := l.aboutSA(EventMapping, ev.Child)
		out.Text = ev.Remote.String()
		l.tell(out)
	default: // what follows from it is told
	}
}

// aboutSA is an event about one of the SAs of a Child SA.
func (l *loop) aboutSA(kind EventKind, id ike.ChildID) (out MonitorEvent, known bool) {
	out = MonitorEvent{Event: kind, SPI: spiString(id.SPI)}
	for _, c := range l.children() {
		if c.Child.InID() == id || c.Child.OutID() == id {
			out.Peer, out.SPIIn, out.SPIOut, known = c.Child.Peer, spiString(c.Child.SPIIn), spiString(c.Child.SPIOut), true
		}
	}
	return out, known
}

// softLimit is the soft limit that an SA has reached, of several the first; now
// is by the wall clock. The data plane counts in whole seconds.
func softLimit(u apply.Usage, now time.Time) (limit string, used, soft uint64) {
	seconds := func(since time.Time) uint64 {
		if since.IsZero() {
			return 0
		}
		return uint64(max(0, now.Unix()-since.Unix()))
	}
	for _, one := range []struct {
		name       string
		used, soft uint64
	}{
		{"time", seconds(u.Added), uint64(u.Soft.Time / time.Second)},
		{"use", seconds(u.Used), uint64(u.Soft.Use / time.Second)},
		{"bytes", u.Bytes, u.Soft.Bytes},
		{"packets", u.Packets, u.Soft.Packets},
	} {
		if one.soft > 0 && one.used >= one.soft {
			return one.name, one.used, one.soft
		}
	}
	return "", 0, 0
}

// carried is what a Child SA that is about to be removed has carried, if somebody
// wants to know.
func (l *loop) carried(a ike.Action) *Carried {
	remove, ok := a.(ike.RemoveChild)
	if !ok || !l.monitored() {
		return nil
	}
	c := &remove.Child
	in, ierr := l.dp.Query(apply.SAID(c.InID()))
	out, oerr := l.dp.Query(apply.SAID(c.OutID()))
	if ierr != nil && oerr != nil {
		return nil
	}
	return &Carried{PacketsIn: in.Packets, PacketsOut: out.Packets, BytesIn: in.Bytes, BytesOut: out.Bytes}
}

// tellAction tells the monitors of an action that was carried out because of an
// event.
func (l *loop) tellAction(because ike.Event, a ike.Action, carried *Carried) {
	if !l.monitored() {
		return
	}
	about := func(kind EventKind, c *ike.ChildSA) MonitorEvent {
		return MonitorEvent{Event: kind, Peer: c.Peer, SPIIn: spiString(c.SPIIn), SPIOut: spiString(c.SPIOut)}
	}
	switch a := a.(type) {
	case ike.InstallChild:
		if _, err := l.dp.Query(apply.SAID(a.Child.OutID())); err == nil { // if not, the core says why
			l.tell(about(EventInstalled, &a.Child))
		}
	case ike.SwitchOutbound:
		l.tell(about(EventSwitched, &a.Child))
	case ike.UpdateChild:
		ev := about(EventMoved, &a.New)
		ev.Text = fmt.Sprintf("%v to %v", a.New.Local, a.New.Remote)
		l.tell(ev)
	case ike.RemoveChild:
		ev := about(EventRemoved, &a.Child)
		ev.Carried = carried
		l.tell(ev)
	case ike.Established:
		l.tell(MonitorEvent{Event: EventEstablished, Peer: a.Peer})
	case ike.Lost:
		l.tell(MonitorEvent{Event: EventLost, Peer: a.Peer, Error: errorText(a.Err)})
	case ike.Report:
		ev := MonitorEvent{Event: EventReport, Peer: a.Peer, Text: a.Text, Error: errorText(a.Err)}
		if a.Exchange != 0 {
			ev.Event, ev.Exchange = EventMessage, a.Exchange.String()
		} else if _, limit := because.(ike.Expire); limit && a.Err == nil {
			return // it was told with the event
		}
		l.tell(ev)
	default: // of no concern to a person
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
