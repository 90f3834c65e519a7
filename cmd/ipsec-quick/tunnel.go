package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/urfave/cli/v2"

	"ipsec-quick/conf"
)

// noFile is a tunnel file that is not there.
type noFile struct{ path string }

// Error says where it was looked for.
func (e *noFile) Error() string { return "there is no tunnel file " + e.path }

// tunnelArg is the one argument of a command that takes a tunnel: its name and
// its file.
func tunnelArg(c *cli.Context) (name, path string, err error) {
	if c.NArg() != 1 {
		return "", "", usage("%s takes one tunnel, NAME or FILE", c.Command.Name)
	}
	path, name, err = conf.Find(c.Args().First())
	if err != nil {
		return "", "", usage("%v", err)
	}
	return name, path, nil
}

// load reads a tunnel file and prints its warnings.
func load(c *cli.Context, path string) (*conf.Tunnel, error) {
	t, err := conf.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &noFile{path}
	}
	if err != nil {
		return nil, err
	}
	warn(c, t.Warnings)
	return t, nil
}

// warn prints the warnings about a tunnel file.
func warn(c *cli.Context, list []conf.Error) {
	for _, w := range list {
		fmt.Fprintf(c.App.ErrWriter, "warning: %v\n", w)
	}
}
