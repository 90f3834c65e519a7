package main

import (
	"errors"
	"log/slog"

	"github.com/urfave/cli/v2"

	"ipsec-quick/watch"
)

func watchCommand() *cli.Command {
	return command(cli.Command{
		Name:      "watch",
		Usage:     "go on, in this process, with a tunnel whose loop has died",
		ArgsUsage: "NAME",
		Action: func(c *cli.Context) error {
			name, _, err := tunnelArg(c)
			if err != nil {
				return err
			}
			if watch.IsBackground() {
				return watch.Background(watch.BackgroundOptions{Name: name})
			}
			ctx, cancel := untilEnd()
			defer cancel()
			err = watch.Watch(ctx, watch.WatchOptions{Name: name, Log: logger(c, name, slog.LevelInfo), Confine: true})
			var running *watch.Running
			switch {
			case errors.As(err, &running):
				return alreadyUp(c, running, running.Path)
			case err != nil:
				return notUp(name, err)
			}
			return nil
		},
	})
}
