package main

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"ipsec-quick/conf"
	"ipsec-quick/watch"
)

// stateDown is that of a tunnel with a file that is not up.
const stateDown = "down"

// listed is a tunnel, as `list --json` prints it.
type listed struct {
	Tunnel string `json:"tunnel"`
	State  string `json:"state"`
	File   string `json:"file"`
}

func listCommand() *cli.Command {
	return command(cli.Command{
		Name:  "list",
		Usage: "name the tunnels that are up",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "those that have a file in " + conf.Dir + " too, with the state of each"},
			&cli.BoolFlag{Name: "json", Usage: "as a JSON array"},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usage("list takes no argument")
			}
			list, err := list(c.Bool("all"))
			if err != nil {
				return err
			}
			if c.Bool("json") {
				printJSON(c.App.Writer, list)
				return nil
			}
			width := 0
			for _, t := range list {
				width = max(width, len(t.Tunnel))
			}
			for _, t := range list {
				if c.Bool("all") {
					fmt.Fprintf(c.App.Writer, "%-*s  %s\n", width, t.Tunnel, t.State)
				} else {
					fmt.Fprintln(c.App.Writer, t.Tunnel)
				}
			}
			return nil
		},
	})
}

// list is the tunnels that are up, or all, in the order of the alphabet.
func list(all bool) ([]listed, error) {
	list := []listed{}
	live, err := watch.List("")
	if err != nil {
		return nil, err
	}
	for _, t := range live {
		list = append(list, listed{t.Name, t.State, t.Path})
	}
	if !all {
		return list, nil
	}
	files, err := conf.Files(conf.Dir)
	if err != nil {
		return nil, err
	}
	for name, path := range files {
		if !slices.ContainsFunc(list, func(t listed) bool { return t.Tunnel == name }) {
			list = append(list, listed{name, stateDown, path})
		}
	}
	slices.SortFunc(list, func(a, b listed) int { return cmp.Compare(a.Tunnel, b.Tunnel) })
	return list, nil
}
