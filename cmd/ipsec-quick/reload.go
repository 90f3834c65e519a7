package main

import (
	"github.com/urfave/cli/v2"

	"ipsec-quick/watch"
)

func reloadCommand() *cli.Command {
	return command(cli.Command{
		Name:      "reload",
		Usage:     "read the tunnel file again, and change what it changes",
		ArgsUsage: "NAME",
		Flags:     []cli.Flag{&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print errors only"}},
		Action: func(c *cli.Context) error {
			name, _, err := tunnelArg(c)
			if err != nil {
				return err
			}
			done, err := watch.Reload("", name, func(command string) { say(c, "[#] %s", command) })
			if err != nil {
				return notUp(name, err)
			}
			warn(c, done.Warnings)
			for _, change := range done.Peers {
				say(c, "%v", change)
			}
			if done.Device {
				say(c, "the interface is as the tunnel file says now")
			}
			if len(done.Peers) == 0 && !done.Device {
				say(c, "%s: the tunnel file says what it said; nothing was changed", name)
			}
			return nil
		},
	})
}
