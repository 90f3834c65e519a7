package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"ipsec-quick/watch"
)

func monitorCommand() *cli.Command {
	return command(cli.Command{
		Name:      "monitor",
		Usage:     "show what happens to a tunnel, live: limits, messages, SAs",
		ArgsUsage: "NAME",
		Flags:     []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "as a JSON object a line"}},
		Action: func(c *cli.Context) error {
			name, _, err := tunnelArg(c)
			if err != nil {
				return err
			}
			out := json.NewEncoder(c.App.Writer)
			out.SetEscapeHTML(false)
			ctx, cancel := untilSignal()
			defer cancel()
			err = watch.Monitor(ctx, "", name, func(ev *watch.MonitorEvent) error {
				if c.Bool("json") {
					return out.Encode(ev)
				}
				_, err := fmt.Fprintln(c.App.Writer, eventLine(ev))
				return err
			})
			if err == nil || errors.Is(err, syscall.EPIPE) { // whoever read it has seen enough
				return nil
			}
			return notUp(name, err)
		},
	})
}

// eventLine is an event for people: when, with whom, what.
func eventLine(ev *watch.MonitorEvent) string {
	at := ev.Time
	if t, err := time.Parse(time.RFC3339, ev.Time); err == nil {
		at = t.Local().Format("15:04:05.000")
	}
	with := ev.Peer
	if with == "" {
		with = ev.Tunnel
	}
	line := fmt.Sprintf("%s %s  %s", at, with, eventText(ev))
	if ev.Error != "" {
		line += ": " + ev.Error
	}
	return line
}

func eventText(ev *watch.MonitorEvent) string {
	pair := fmt.Sprintf("%s in, %s out", ev.SPIIn, ev.SPIOut)
	switch ev.Event {
	case watch.EventWatching:
		return ev.Text + ", watches the tunnel"
	case watch.EventInterrupted:
		return "events are missing"
	case watch.EventDown:
		return "taken down"
	case watch.EventSoft:
		return "soft limit of " + ev.SPI + " reached" + reached(ev)
	case watch.EventHard:
		return "hard limit of " + ev.SPI + " reached: it is gone"
	case watch.EventAcquire:
		return "a packet wants a Child SA"
	case watch.EventMapping:
		return "packets for " + ev.SPI + " come from " + ev.Text
	case watch.EventOverrun:
		return "the kernel's events came faster than they were read: comparing its SAs with ours"
	case watch.EventClock:
		return "the clock was set: new keys, which count from the new time"
	case watch.EventInstalled:
		return "new SAs " + pair
	case watch.EventSwitched:
		return "packets leave through " + ev.SPIOut
	case watch.EventMoved:
		return "SAs " + pair + " are between " + ev.Text + " now"
	case watch.EventRemoved:
		text := "old SAs " + pair + " removed"
		if n := ev.Carried; n != nil {
			text += fmt.Sprintf("; received %d %s, %s; sent %d %s, %s", n.PacketsIn, plural(int(n.PacketsIn), "packet"), size(n.BytesIn),
				n.PacketsOut, plural(int(n.PacketsOut), "packet"), size(n.BytesOut))
		}
		return text
	case watch.EventEstablished, watch.EventLost:
		return string(ev.Event)
	case watch.EventMessage, watch.EventReport:
	}
	if ev.Exchange != "" {
		return ev.Exchange + " " + ev.Text
	}
	return ev.Text
}

// reached is how far an SA is beyond its soft limit.
func reached(ev *watch.MonitorEvent) string {
	switch ev.Limit {
	case "":
		return ""
	case "time", "use":
		return fmt.Sprintf(": %s %d s of %d s", ev.Limit, ev.Used, ev.Soft)
	}
	return fmt.Sprintf(": %s %d of %d", ev.Limit, ev.Used, ev.Soft)
}
