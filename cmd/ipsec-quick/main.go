// Command ipsec-quick brings IPsec tunnels up and down: one TOML file a tunnel,
// IKEv2 with any standard peer.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"ipsec-quick/watch"
)

func main() {
	// Whoever reads what `up` says may go away; that must not end it halfway. Caught
	// and not ignored, because the commands of hooks would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	// Keys must end neither in a core file nor in a debugger of the same user's.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) // Linux knows it since 2.4
	// A loop uses a few MiB; with huge pages each of its arenas would take 2 MiB or
	// more. Programs that this one starts inherit it.
	_ = unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0) // Linux knows it since 3.15
	os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// run is main with its surroundings as arguments; it returns the exit code.
func run(args []string, in io.Reader, out, errOut io.Writer) int {
	a := app(in, out, errOut)
	err := a.Run(flagsFirst(a, args))
	if err == nil {
		return exitOK
	}
	var said *reported
	if !errors.As(err, &said) {
		fmt.Fprintln(errOut, describe(err))
	}
	return codeOf(err)
}

// app is the command line.
func app(in io.Reader, out, errOut io.Writer) *cli.App {
	return &cli.App{
		Name:            "ipsec-quick",
		Usage:           "IPsec tunnels, quickly",
		Description:     "One TOML file is one tunnel: see ipsec-quick.toml(5). NAME stands for /etc/ipsec-quick/NAME.toml.",
		Version:         watch.Version(),
		HideHelpCommand: true,
		Reader:          in,
		Writer:          out,
		ErrWriter:       errOut,
		Commands: []*cli.Command{
			upCommand(), downCommand(), statusCommand(), listCommand(), checkCommand(), reloadCommand(), rekeyCommand(),
			monitorCommand(), watchCommand(), hooksCommand(), restartCommand(),
			importCommand(), exportCommand(),
			genpskCommand(), genkeyCommand(), pubkeyCommand(),
			completionCommand(), completeCommand(),
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usage("there is no command %q", c.Args().First())
			}
			_ = cli.ShowAppHelp(c)
			return &reported{exitUsage}
		},
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return usage("%v", err) },
		ExitErrHandler: func(*cli.Context, error) {}, // errors are printed in one place, run
	}
}

// command fills in what all commands have in common.
func command(c cli.Command) *cli.Command {
	c.HideHelpCommand = true
	c.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return usage("%v", err) }
	return &c
}
