package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"math/big"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"ipsec-quick/ike/auth"
)

// pskLength makes 256 bits of the characters below, with one to spare.
const pskLength = 44

// pskAlphabet is what every product takes in a pre-shared key; some take no key
// that begins with 0, and 0x and 0s have a meaning here.
const pskAlphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// keyTypes are those that genkey makes.
var keyTypes = []string{"ed25519", "ecdsa-p256", "ecdsa-p384", "rsa-3072"}

// maxKeyInput bounds what pubkey reads.
const maxKeyInput = 64 << 10

func genpskCommand() *cli.Command {
	return command(cli.Command{
		Name:  "genpsk",
		Usage: "make a pre-shared key",
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usage("genpsk takes no argument")
			}
			warnReadable(c)
			key := make([]byte, pskLength)
			for i := range key {
				digits := pskAlphabet
				if i == 0 {
					digits = pskAlphabet[1:]
				}
				n, err := rand.Int(rand.Reader, big.NewInt(int64(len(digits))))
				if err != nil {
					return err
				}
				key[i] = digits[n.Int64()]
			}
			_, err := fmt.Fprintf(c.App.Writer, "%s\n", key)
			return err
		},
	})
}

func genkeyCommand() *cli.Command {
	return command(cli.Command{
		Name:  "genkey",
		Usage: "make a private key",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "type", Value: keyTypes[0], Usage: strings.Join(keyTypes, ", ")},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usage("genkey takes no argument")
			}
			key, err := auth.GenerateKey(c.String("type"), rand.Reader)
			if err != nil {
				return usage("%v", err)
			}
			warnReadable(c)
			_, err = c.App.Writer.Write(key)
			return err
		},
	})
}

func pubkeyCommand() *cli.Command {
	return command(cli.Command{
		Name:      "pubkey",
		Usage:     "print the public key of a private key, for the peer's tunnel file",
		ArgsUsage: "[FILE]",
		Action: func(c *cli.Context) error {
			in := c.App.Reader
			switch c.NArg() {
			case 0:
			case 1:
				f, err := os.Open(c.Args().First())
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			default:
				return usage("pubkey takes one file, or the key from its input")
			}
			text, err := io.ReadAll(io.LimitReader(in, maxKeyInput))
			if err != nil {
				return err
			}
			key, err := auth.ParsePrivateKey(text)
			if err != nil {
				return fmt.Errorf("%w; make a key with: ipsec-quick genkey", err)
			}
			_, err = fmt.Fprintln(c.App.Writer, auth.FormatPublicKey(key.Public()))
			return err
		},
	})
}

// warnReadable says so when a secret goes to a file that others can read.
func warnReadable(c *cli.Context) {
	f, ok := c.App.Writer.(*os.File)
	if !ok {
		return
	}
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		fmt.Fprintln(c.App.ErrWriter, "warning: others can read the file this goes to: chmod 600 it, and use umask 077 the next time")
	}
}
