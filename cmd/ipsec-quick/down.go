package main

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/urfave/cli/v2"

	"ipsec-quick/watch"
)

func downCommand() *cli.Command {
	return command(cli.Command{
		Name:      "down",
		Usage:     "take a tunnel down, and leave nothing of it",
		ArgsUsage: "NAME|FILE",
		Flags:     []cli.Flag{&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print errors only"}},
		Action: func(c *cli.Context) error {
			name, _, err := tunnelArg(c)
			if err != nil {
				return err
			}
			err = watch.Down(watch.DownOptions{
				Name:   name,
				Change: func(command string) { say(c, "[#] %s", command) },
				Output: func(line string) { say(c, "%s", line) },
				Log:    logger(c, name, slog.LevelWarn),
			})
			if errors.Is(err, watch.ErrNotUp) {
				say(c, "%s is not up; nothing was changed", name)
				return nil
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		},
	})
}
