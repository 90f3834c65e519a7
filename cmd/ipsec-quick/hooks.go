package main

import (
	"github.com/urfave/cli/v2"

	"ipsec-quick/watch/hook"
)

// hooksCommand is what a loop starts for itself.
func hooksCommand() *cli.Command {
	return command(cli.Command{
		Name:   "hooks",
		Usage:  "run the hooks of a tunnel's loop",
		Hidden: true,
		Action: func(*cli.Context) error { return hook.Main() },
	})
}
