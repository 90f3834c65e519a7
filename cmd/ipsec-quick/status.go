package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"ipsec-quick/watch"
)

func statusCommand() *cli.Command {
	return command(cli.Command{
		Name:      "status",
		Usage:     "show a tunnel, or all that are up",
		ArgsUsage: "[NAME]",
		Flags:     []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "as a JSON array of tunnels"}},
		Action:    status,
	})
}

func status(c *cli.Context) error {
	names, err := statusNames(c)
	if err != nil {
		return err
	}
	all := []*watch.Status{}
	for _, name := range names {
		s, err := watch.Get("", name, nil)
		if errors.Is(err, watch.ErrNotUp) && c.NArg() == 0 {
			continue // it went down meanwhile
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, s)
	}
	if c.Bool("json") {
		out := json.NewEncoder(c.App.Writer)
		out.SetEscapeHTML(false)
		return out.Encode(all)
	}
	for i, s := range all {
		if i > 0 {
			fmt.Fprintln(c.App.Writer)
		}
		showTunnel(c.App.Writer, s)
	}
	if len(all) == 0 {
		fmt.Fprintln(c.App.ErrWriter, "no tunnel is up")
	}
	return nil
}

// statusNames are the tunnels to show.
func statusNames(c *cli.Context) ([]string, error) {
	if c.NArg() == 0 {
		return watch.Tunnels("")
	}
	name, _, err := tunnelArg(c)
	return []string{name}, err
}
