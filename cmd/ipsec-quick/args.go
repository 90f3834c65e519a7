package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// flagsFirst moves a command's flags before its other arguments: cli, like
// package flag, takes none after the first of those, and people write
// `up office --timeout 10s`. What follows "--" is no flag.
func flagsFirst(a *cli.App, args []string) []string {
	at := slices.IndexFunc(args, func(s string) bool { return a.Command(s) != nil })
	if at < 1 {
		return args
	}
	c := a.Command(args[at])
	flags, rest := slices.Clone(args[:at+1]), []string{}
	for i := at + 1; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			rest = append(rest, args[i+1:]...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			rest = append(rest, arg)
			continue
		}
		flags = append(flags, arg)
		if takesValue(c, arg) && i+1 < len(args) {
			i++
			flags = append(flags, args[i])
		}
	}
	if len(rest) == 0 {
		return flags
	}
	return append(append(flags, "--"), rest...)
}

// takesValue reports whether the next argument is the flag's value.
func takesValue(c *cli.Command, arg string) bool {
	name := strings.TrimLeft(arg, "-")
	if strings.Contains(name, "=") {
		return false
	}
	for _, f := range c.Flags {
		if slices.Contains(f.Names(), name) {
			return !standsAlone(f)
		}
	}
	return false
}

// standsAlone reports whether a flag has no value, or only one behind a "=".
func standsAlone(f cli.Flag) bool {
	if g, ok := f.(*cli.GenericFlag); ok {
		_, alone := g.Value.(interface{ IsBoolFlag() bool })
		return alone
	}
	_, alone := f.(*cli.BoolFlag)
	return alone
}
