package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

func checkCommand() *cli.Command {
	return command(cli.Command{
		Name:      "check",
		Usage:     "say all that is wrong with a tunnel file",
		ArgsUsage: "NAME|FILE",
		Action: func(c *cli.Context) error {
			_, path, err := tunnelArg(c)
			if err != nil {
				return err
			}
			t, err := load(c, path)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.App.Writer, "%s: good, %d %s\n", path, len(t.Peers), plural(len(t.Peers), "peer"))
			return nil
		},
	})
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}
