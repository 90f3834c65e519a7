package watch

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// MonitorEvent is something that happened to a tunnel, as `monitor --json` prints
// it. Fields that do not apply are left out.
type MonitorEvent struct {
	Time     string    `json:"time"` // RFC 3339, with milliseconds
	Tunnel   string    `json:"tunnel"`
	Peer     string    `json:"peer,omitempty"`
	Event    EventKind `json:"event"`
	SPI      string    `json:"spi,omitempty"`    // the SA that it happened to
	SPIIn    string    `json:"spi_in,omitempty"` // both of the Child SA
	SPIOut   string    `json:"spi_out,omitempty"`
	Limit    string    `json:"limit,omitempty"` // time, use, bytes or packets
	Used     uint64    `json:"used,omitempty"`  // of that limit, in seconds for the first two
	Soft     uint64    `json:"soft,omitempty"`  // that limit
	Exchange string    `json:"exchange,omitempty"`
	Text     string    `json:"text,omitempty"`
	Error    string    `json:"error,omitempty"`
	*Carried
}

// Carried is what the SAs of a Child SA carried.
type Carried struct {
	PacketsIn  uint64 `json:"packets_in"`
	PacketsOut uint64 `json:"packets_out"`
	BytesIn    uint64 `json:"bytes_in"`
	BytesOut   uint64 `json:"bytes_out"`
}

// EventKind says what happened.
type EventKind string

// Kinds of events.
const (
	EventWatching    EventKind = "watching"    // the loop, from now on
	EventInterrupted EventKind = "interrupted" // events are missing, Error says why
	EventDown        EventKind = "down"        // the tunnel was taken down
	EventSoft        EventKind = "soft"        // a soft limit
	EventHard        EventKind = "hard"        // a hard limit: the SA is gone
	EventAcquire     EventKind = "acquire"     // a packet wants a Child SA
	EventMapping     EventKind = "mapping"     // a NAT gave the peer another address
	EventOverrun     EventKind = "overrun"     // the data plane's events were lost, and the SAs compared
	EventClock       EventKind = "clock"       // the wall clock was set
	EventMessage     EventKind = "message"     // of IKE, out or in
	EventReport      EventKind = "report"      // another thing that IKE tells
	EventInstalled   EventKind = "installed"   // the SAs of a new Child SA
	EventSwitched    EventKind = "switched"    // packets leave through the Child SA
	EventMoved       EventKind = "moved"       // a Child SA has other outer addresses
	EventRemoved     EventKind = "removed"     // the SAs of a Child SA
	EventEstablished EventKind = "established"
	EventLost        EventKind = "lost"
)

const (
	// monitorQueue is how many events may wait for one monitor.
	monitorQueue = 256
	// maxMonitors leaves connections for commands.
	maxMonitors = 16
)

// errLagging ends a monitor that does not read.
var errLagging = errors.New("this monitor did not keep up")

// errEnded ends the monitors of a loop whose tunnel stays.
var errEnded = errors.New("the loop has ended")

// monitor is a client that is told what happens. The loop closes events.
type monitor struct {
	events chan MonitorEvent
	end    error // why events was closed; nil: the tunnel is down
}

// monitored reports whether somebody wants to know.
func (l *loop) monitored() bool { return len(l.monitors) > 0 }

// tell tells all monitors. It waits for none.
func (l *loop) tell(ev MonitorEvent) {
	ev.Time, ev.Tunnel = eventTime(), l.tunnel.Name
	for m := range l.monitors {
		select {
		case m.events <- ev:
		default:
			l.log.Warn("a monitor does not keep up and is left behind")
			l.dismiss(m, errLagging)
		}
	}
}

func eventTime() string { return time.Now().Format("2006-01-02T15:04:05.000Z07:00") }

func (l *loop) dismiss(m *monitor, why error) {
	m.end = why
	close(m.events)
	delete(l.monitors, m)
}

// dismissAll ends all monitors.
func (l *loop) dismissAll(why error) {
	for m := range l.monitors {
		l.dismiss(m, why)
	}
}

// serveMonitor passes events on until the tunnel is down, or one side ends.
func (l *loop) serveMonitor(conn net.Conn, out *json.Encoder, answer func(response, error)) {
	m := &monitor{events: make(chan MonitorEvent, monitorQueue)}
	full := false
	if !l.call(func() {
		if full = len(l.monitors) >= maxMonitors; !full {
			l.monitors[m] = true
		}
	}) {
		return
	}
	if full {
		answer(response{}, errors.New("there are too many monitors"))
		return
	}
	defer l.call(func() { delete(l.monitors, m) })
	gone := make(chan struct{})
	_ = conn.SetReadDeadline(time.Time{})
	go func() {
		_, _ = conn.Read(make([]byte, 1)) // a client has nothing more to say
		close(gone)
	}()
	pass := func(ev MonitorEvent) bool {
		_ = conn.SetWriteDeadline(time.Now().Add(requestTimeout))
		return out.Encode(response{Event: &ev}) == nil
	}
	if !pass(MonitorEvent{
		Time: eventTime(), Tunnel: l.tunnel.Name, Event: EventWatching,
		Text: fmt.Sprintf("process %d, version %s", os.Getpid(), Version()),
	}) {
		return
	}
	for {
		select {
		case ev, open := <-m.events:
			switch {
			case open && pass(ev):
			case open:
				return
			case m.end == nil || errors.Is(m.end, errLagging):
				answer(response{}, m.end)
				return
			default:
				return // the client asks whoever runs the loop then
			}
		case <-gone:
			return
		}
	}
}
