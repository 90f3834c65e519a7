package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"ipsec-quick/watch"
)

// usualPause and leastPause are how often `status --watch` looks.
const (
	usualPause = 2 * time.Second
	leastPause = 100 * time.Millisecond
)

func statusCommand() *cli.Command {
	return command(cli.Command{
		Name:      "status",
		Usage:     "show a tunnel, or all that are up",
		ArgsUsage: "[NAME]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "as a JSON array of tunnels"},
			&cli.GenericFlag{Name: "watch", Value: &pause{}, Usage: "again and again, every `INTERVAL`: --watch=5s; 2s if it is left out"},
		},
		Action: status,
	})
}

// pause is the value of --watch: a flag with an interval or without.
type pause struct{ time.Duration }

// IsBoolFlag lets the flag stand alone.
func (p *pause) IsBoolFlag() bool { return true }

// Set takes an interval, or "true" when there is none.
func (p *pause) Set(s string) (err error) {
	if s == "true" {
		p.Duration = usualPause
		return nil
	}
	if p.Duration, err = time.ParseDuration(s); err == nil && p.Duration < leastPause {
		err = fmt.Errorf("%s is less than %v", s, leastPause)
	}
	return err
}

// String is empty for none.
func (p *pause) String() string {
	if p.Duration == 0 {
		return ""
	}
	return p.Duration.String()
}

func status(c *cli.Context) error {
	name := ""
	if c.NArg() > 0 {
		var err error
		if name, _, err = tunnelArg(c); err != nil {
			return err
		}
	}
	if p := c.Generic("watch").(*pause).Duration; p != 0 {
		return watchStatus(c, name, p)
	}
	all, err := statuses(name)
	if err != nil {
		return err
	}
	printStatus(c, screenOf(c.App.Writer), all)
	if len(all) == 0 && !c.Bool("json") {
		fmt.Fprintln(c.App.ErrWriter, noneUp)
	}
	return nil
}

const noneUp = "no tunnel is up"

// statuses are those of one tunnel, or of all that are up.
func statuses(name string) ([]*watch.Status, error) {
	names := []string{name}
	if name == "" {
		var err error
		if names, err = watch.Tunnels(""); err != nil {
			return nil, err
		}
	}
	all := []*watch.Status{}
	for _, n := range names {
		s, err := watch.Get("", n, nil)
		if errors.Is(err, watch.ErrNotUp) && name == "" {
			continue // it went down meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", n, err)
		}
		all = append(all, s)
	}
	return all, nil
}

func printStatus(c *cli.Context, s screen, all []*watch.Status) {
	if c.Bool("json") {
		printJSON(s, all)
		return
	}
	for i, t := range all {
		if i > 0 {
			fmt.Fprintln(s)
		}
		showTunnel(s, t)
	}
}

// printJSON prints a value in a line.
func printJSON(w io.Writer, v any) {
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	_ = out.Encode(v) // it can be encoded; and whoever reads it may go away
}

// watchStatus prints the status again and again: on a terminal in place, else
// block after block. A tunnel that is not up may come.
func watchStatus(c *cli.Context, name string, every time.Duration) error {
	ctx, cancel := untilSignal()
	defer cancel()
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	redraws := screenOf(c.App.Writer).terminal && !c.Bool("json")
	if redraws {
		fmt.Fprint(c.App.Writer, enterScreen)
		defer fmt.Fprint(c.App.Writer, leaveScreen)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		all, err := statuses(name)
		if err != nil && !errors.Is(err, watch.ErrNotUp) {
			return err
		}
		var text bytes.Buffer
		s := screenOf(c.App.Writer) // it may have another size by now
		s.Writer = &text
		if !c.Bool("json") {
			fmt.Fprintf(s, "%s, every %v\n\n", time.Now().Format(time.DateTime), every)
		}
		printStatus(c, s, all)
		switch {
		case c.Bool("json"):
		case err != nil:
			fmt.Fprintln(s, err)
		case len(all) == 0:
			fmt.Fprintln(s, noneUp)
		}
		if redraws {
			_, err = io.WriteString(c.App.Writer, frame(text.String(), s.height))
		} else {
			if !c.Bool("json") {
				fmt.Fprintln(s)
			}
			_, err = c.App.Writer.Write(text.Bytes())
		}
		if errors.Is(err, syscall.EPIPE) { // whoever read it has seen enough
			return nil
		}
		if err != nil {
			return err
		}
		if !waitFor(ctx, tick.C, resized) {
			return nil
		}
	}
}

// waitFor waits until it is time to look again.
func waitFor(ctx context.Context, tick <-chan time.Time, resized <-chan os.Signal) bool {
	select {
	case <-ctx.Done():
		return false
	case <-tick:
	case <-resized:
	}
	return true
}

// frame is the text over what a terminal shows, as much of it as fits.
func frame(text string, height int) string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if height > 1 && len(lines) > height {
		left := len(lines) - (height - 1)
		lines = append(lines[:height-1], fmt.Sprintf("(%d more lines)", left))
	}
	return home + strings.Join(lines, eraseLine+"\r\n") + eraseLine + eraseBelow
}
