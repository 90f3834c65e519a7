package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"ipsec-quick/watch"
)

func rekeyCommand() *cli.Command {
	return command(cli.Command{
		Name:      "rekey",
		Usage:     "give the Child SAs new keys now",
		ArgsUsage: "NAME",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "peer", Usage: "only those with this `PEER`"},
			&cli.BoolFlag{Name: "ike", Usage: "the IKE SA instead"},
		},
		Action: func(c *cli.Context) error {
			name, _, err := tunnelArg(c)
			if err != nil {
				return err
			}
			if err := watch.Rekey("", name, c.String("peer"), c.Bool("ike")); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		},
	})
}
