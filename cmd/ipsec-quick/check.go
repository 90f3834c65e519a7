package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"ipsec-quick/conf"
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
			sayGood(c.App.Writer, path, t)
			return nil
		},
	})
}

// sayGood says that nothing is wrong with a tunnel file.
func sayGood(out io.Writer, path string, t *conf.Tunnel) {
	fmt.Fprintf(out, "%s: good, %d %s\n", path, len(t.Peers), plural(len(t.Peers), "peer"))
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}
