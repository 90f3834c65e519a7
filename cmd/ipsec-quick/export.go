package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"ipsec-quick/conf"
	"ipsec-quick/conf/foreign"
)

// exportable are the programs that export writes for.
var exportable = []string{foreign.StrongSwan, foreign.Libreswan, foreign.IPsecQuick}

func exportCommand() *cli.Command {
	return command(cli.Command{
		Name:      "export",
		Usage:     "print the configuration of a tunnel's far end",
		ArgsUsage: "NAME|FILE",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "to", Usage: "the `PROGRAM` there: strongswan, libreswan or ipsec-quick"},
			&cli.StringFlag{Name: "peer", Usage: "the `PEER` whose it is; not needed if there is one"},
			&cli.StringFlag{Name: "endpoint", Usage: "the `ADDRESS` at which it reaches us; local.address if not given"},
			&cli.BoolFlag{Name: "with-secret", Usage: "print the pre-shared key too"},
		},
		Action: export,
	})
}

func export(c *cli.Context) error {
	if !slices.Contains(exportable, c.String("to")) {
		return usage("export needs --to with one of %s", strings.Join(exportable, ", "))
	}
	_, path, err := tunnelArg(c)
	if err != nil {
		return err
	}
	t, err := load(c, path)
	if err != nil {
		return err
	}
	p, err := onePeer(t, c.String("peer"))
	if err != nil {
		return err
	}
	secret := c.Bool("with-secret")
	text, notes, err := foreign.Export(t, p, foreign.ExportOptions{To: c.String("to"), Endpoint: c.String("endpoint"), Secret: secret})
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if secret {
		warnReadable(c)
	}
	for _, note := range notes {
		fmt.Fprintln(c.App.ErrWriter, "note: "+note)
	}
	_, err = io.WriteString(c.App.Writer, text)
	return err
}

// onePeer is the peer of this name, or the only one.
func onePeer(t *conf.Tunnel, name string) (*conf.Peer, error) {
	if name == "" && len(t.Peers) == 1 {
		return &t.Peers[0], nil
	}
	names := ""
	for i := range t.Peers {
		if t.Peers[i].Name == name {
			return &t.Peers[i], nil
		}
		names += " " + t.Peers[i].Name
	}
	if name == "" {
		return nil, usage("there are several peers; choose one with --peer:%s", names)
	}
	return nil, usage("there is no peer %q; there are:%s", name, names)
}
