package main

import (
	"github.com/urfave/cli/v2"

	"ipsec-quick/watch"
)

// watchCommand is the process that `up` leaves behind.
func watchCommand() *cli.Command {
	return command(cli.Command{
		Name:   "watch",
		Hidden: true,
		Action: func(c *cli.Context) error { return watch.Background(watch.BackgroundOptions{Name: c.Args().First()}) },
	})
}
