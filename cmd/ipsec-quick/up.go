package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"ipsec-quick/ike"
	"ipsec-quick/watch"
)

// defaultTimeout is how long `up` waits for the peers.
const defaultTimeout = 30 * time.Second

func upCommand() *cli.Command {
	return command(cli.Command{
		Name:      "up",
		Usage:     "bring a tunnel up, and leave a loop that keeps it up",
		ArgsUsage: "NAME|FILE",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "foreground", Usage: "keep the loop in this process, for systemd (sd_notify, watchdog)"},
			&cli.DurationFlag{Name: "timeout", Value: defaultTimeout, Usage: "how long to wait for the peers"},
			&cli.BoolFlag{Name: "keep-trying", Usage: "stay up although a peer does not answer or refuses"},
			&cli.BoolFlag{Name: "dry-run", Usage: "print what would be done, and do nothing"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print errors only"},
		},
		Action: up,
	})
}

func up(c *cli.Context) error {
	name, path, err := tunnelArg(c)
	if err != nil {
		return err
	}
	if c.Duration("timeout") <= 0 {
		return usage("--timeout is a positive time such as 30s")
	}
	t, err := load(c, path)
	if err != nil {
		return err
	}
	if c.Bool("dry-run") {
		lines, err := watch.Plan(t)
		for _, line := range lines {
			if !strings.HasPrefix(line, "#") {
				line = "[#] " + line
			}
			fmt.Fprintln(c.App.Writer, line)
		}
		return err
	}
	level := slog.LevelWarn
	if c.Bool("foreground") {
		level = slog.LevelInfo
	}
	until := untilSignal
	if c.Bool("foreground") {
		until = untilEnd
	}
	ctx, cancel := until()
	defer cancel()
	result, err := watch.Up(ctx, watch.Options{
		Tunnel:     t,
		Observer:   &terminal{out: c.App.ErrWriter, quiet: c.Bool("quiet")},
		Log:        logger(c, name, level),
		Timeout:    c.Duration("timeout"),
		KeepTrying: c.Bool("keep-trying"),
		Foreground: c.Bool("foreground"),
		Confine:    true,
	})
	var running *watch.Running
	switch {
	case errors.As(err, &running) && c.Bool("foreground"):
		return fmt.Errorf("%w: it is not this process's to keep up; take it down first", running)
	case errors.As(err, &running):
		return alreadyUp(c, running, path)
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	case c.Bool("foreground"):
	case len(result.Pending) > 0:
		say(c, "%s: not established yet: %s; the loop (process %d) keeps trying", name, strings.Join(result.Pending, ", "), result.PID)
	case result.Revived:
		say(c, "%s: its loop had died; process %d goes on with it", name, result.PID)
	}
	return nil
}

// alreadyUp: there is nothing to do, unless another file has the same name.
func alreadyUp(c *cli.Context, running *watch.Running, path string) error {
	if full, err := filepath.Abs(path); err == nil && running.Path != "" && running.Path != full {
		return fmt.Errorf("a tunnel of the name %s is up, from another file, %s: take it down first, or rename one of them", running.Name, running.Path)
	}
	if running.Starting {
		return running
	}
	say(c, "%v; nothing was changed", running)
	return nil
}

// say prints a remark for people.
func say(c *cli.Context, format string, args ...any) {
	if !c.Bool("quiet") {
		fmt.Fprintf(c.App.ErrWriter, format+"\n", args...)
	}
}

// untilSignal ends at the signals that ask a process to end.
func untilSignal() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
}

// untilEnd is untilSignal for a loop in the foreground, which SIGHUP asks for a
// reload.
func untilEnd() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
}

// logger is for what is no part of a command's usual output: the journal if that
// is where stderr goes, else text. The environment may ask for another level than
// the usual one.
func logger(c *cli.Context, tunnel string, level slog.Level) *slog.Logger {
	if os.Getenv(watch.LogVariable) != "" {
		level = watch.LogLevel()
	}
	if log := watch.StderrLog(level); log != nil && c.App.ErrWriter == os.Stderr {
		return log.With("tunnel", tunnel)
	}
	return slog.New(slog.NewTextHandler(c.App.ErrWriter, &slog.HandlerOptions{Level: level})).With("tunnel", tunnel)
}

// terminal prints a line for each exchange, and each change to this host, in
// wg-quick's manner.
type terminal struct {
	out   io.Writer
	quiet bool
}

// Report prints an exchange.
func (t *terminal) Report(r ike.Report) {
	if t.quiet {
		return
	}
	line := r.Text
	if r.Exchange != 0 {
		line = r.Exchange.String() + " " + line
	}
	if r.Peer != "" {
		line = r.Peer + ": " + line
	}
	if r.Err != nil {
		line += ": " + r.Err.Error()
	}
	fmt.Fprintln(t.out, line)
}

// Change prints a change to this host.
func (t *terminal) Change(command string) {
	if !t.quiet {
		fmt.Fprintln(t.out, "[#] "+command)
	}
}

// Hook prints a command as it begins, and what it prints.
func (t *terminal) Hook(r watch.HookReport) {
	switch {
	case t.quiet:
	case r.Command != "":
		t.Change(r.Command)
	default:
		fmt.Fprintln(t.out, r.Line)
	}
}

// Established prints that a peer is.
func (t *terminal) Established(peer string) {
	if !t.quiet {
		fmt.Fprintln(t.out, peer+": established")
	}
}

// Lost prints why an attempt failed; the last one's reason is the error of `up`.
func (t *terminal) Lost(a ike.Lost) {
	if t.quiet || a.Retry.IsZero() {
		return
	}
	fmt.Fprintf(t.out, "%s: %v; the next attempt is in %v\n", a.Peer, a.Err, max(0, time.Until(a.Retry)).Round(time.Second))
}
