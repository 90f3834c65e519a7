package main

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/urfave/cli/v2"

	"ipsec-quick/watch"
)

func restartCommand() *cli.Command {
	return command(cli.Command{
		Name:      "restart",
		Usage:     "let the loop go on as the program that is installed now",
		ArgsUsage: "NAME",
		Action: func(c *cli.Context) error {
			name, _, err := tunnelArg(c)
			if err != nil {
				return err
			}
			s, err := watch.Restart("", name)
			switch {
			case err == nil:
				say(c, "%s: process %d goes on with it, version %s", name, s.WatchPID, s.Version)
				return nil
			case errors.Is(err, watch.ErrNoLoop):
				fmt.Fprintf(c.App.ErrWriter, "%s: %v\n", name, err)
				return revive(c, name)
			}
			return notUp(name, err)
		},
	})
}

// revive starts a dead loop in the background.
func revive(c *cli.Context, name string) error {
	ctx, cancel := untilSignal()
	defer cancel()
	result, err := watch.Revive(ctx, watch.WatchOptions{Name: name, Log: logger(c, name, slog.LevelWarn)})
	if err != nil {
		return notUp(name, err)
	}
	say(c, "%s: its loop had died; process %d goes on with it, version %s", name, result.PID, watch.Version())
	return nil
}

// notUp says what to do about a tunnel that should be up and is not.
func notUp(name string, err error) error {
	if errors.Is(err, watch.ErrNotUp) {
		return fmt.Errorf("%s %w: bring it up with `ipsec-quick up %s`", name, err, name)
	}
	return fmt.Errorf("%s: %w", name, err)
}
