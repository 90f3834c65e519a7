package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"ipsec-quick/conf/foreign"
)

// importable are the programs whose configurations import reads.
var importable = []string{foreign.StrongSwan, foreign.Libreswan, foreign.AWS}

func importCommand() *cli.Command {
	return command(cli.Command{
		Name:      "import",
		Usage:     "make a tunnel file of another program's configuration",
		ArgsUsage: "FILE",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "the `PROGRAM` it is of, strongswan, libreswan or aws; by its content if not given"},
			&cli.StringFlag{Name: "conn", Usage: "this `CONNECTION` alone"},
			&cli.StringFlag{Name: "local", Usage: "the `ADDRESS` that is ours, for an ipsec.conf; those of this host if not given"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write it to this `FILE`, which must not exist"},
		},
		Action: importFile,
	})
}

func importFile(c *cli.Context) error {
	if c.NArg() != 1 {
		return usage("import takes one file")
	}
	o := foreign.Options{From: c.String("from"), Conn: c.String("conn")}
	if o.From != "" && !slices.Contains(importable, o.From) {
		return usage("--from takes one of %s", strings.Join(importable, ", "))
	}
	if local := c.String("local"); local != "" {
		addr, err := netip.ParseAddr(local)
		if err != nil {
			return usage("--local is an address, not %q", local)
		}
		o.Own = []netip.Addr{addr}
	} else {
		o.Own = ownAddresses()
	}
	path := c.Args().First()
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return err
	}
	o.Dir = dir
	// Nothing outside of the folder is read, not by a symbolic link either.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	t, err := foreign.Import(root.FS(), filepath.Base(path), o)
	var bad *foreign.Error
	if errors.As(err, &bad) {
		remarks(c.App.ErrWriter, bad.Remarks)
	}
	if err != nil {
		return err
	}
	remarks(c.App.ErrWriter, t.Remarks)
	output := c.String("output")
	if output == "" {
		warnReadable(c)
		_, err := io.WriteString(c.App.Writer, t.Text)
		return err
	}
	return writeTunnel(c, output, t.Text)
}

func remarks(out io.Writer, list []foreign.Remark) {
	for _, r := range list {
		fmt.Fprintln(out, r)
	}
}

// writeTunnel writes a new tunnel file, which may hold secrets, and says what
// check says of it.
func writeTunnel(c *cli.Context, path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already, and is left as it is", path)
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	t, err := load(c, path)
	if err != nil {
		fmt.Fprintf(c.App.ErrWriter, "%v\n%s was written, and is not good yet: see above\n", err, path)
		return nil
	}
	sayGood(c.App.ErrWriter, path, t)
	return nil
}

// ownAddresses are those of this host; none if they cannot be told.
func ownAddresses() []netip.Addr {
	list, _ := net.InterfaceAddrs()
	var own []netip.Addr
	for _, a := range list {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, prefix.Addr())
		}
	}
	return own
}
