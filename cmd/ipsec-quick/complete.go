package main

import (
	"embed"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"ipsec-quick/conf"
	"ipsec-quick/watch"
)

// completions are the scripts for each shell. All they know is how to ask this
// program, by its hidden command __complete.
//
//go:embed completion
var completions embed.FS

var shells = []string{"bash", "zsh", "fish"}

// filesLike stands for the paths of files, which the shell completes; what is said
// of it is their pattern.
const filesLike = ":files"

func completionCommand() *cli.Command {
	return command(cli.Command{
		Name:      "completion",
		Usage:     "print what makes a shell complete our command lines",
		ArgsUsage: strings.Join(shells, "|"),
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 || !slices.Contains(shells, c.Args().First()) {
				return usage("completion takes one shell, %s", strings.Join(shells, ", "))
			}
			script, err := completions.ReadFile("completion/ipsec-quick." + c.Args().First())
			if err != nil {
				return err
			}
			_, err = c.App.Writer.Write(script)
			return err
		},
	})
}

func completeCommand() *cli.Command {
	return command(cli.Command{
		Name:   "__complete",
		Hidden: true,
		Action: func(c *cli.Context) error {
			host := completer{app: c.App, live: liveTunnels, files: fileTunnels, peers: peersOf}
			for _, w := range host.complete(c.Args().Slice()) {
				fmt.Fprintf(c.App.Writer, "%s\t%s\n", w.text, w.about)
			}
			return nil
		},
	})
}

// completer knows what can stand on a command line.
type completer struct {
	app         *cli.App
	live, files func() []string              // tunnels that are up; that have a file
	peers       func(tunnel string) []string // of one that is up
}

// word is one that fits, and what it is.
type word struct{ text, about string }

// complete is what the last of the words may become; the shell leaves out what
// does not begin as it does.
func (h completer) complete(words []string) []word {
	if len(words) == 0 {
		return nil
	}
	current, words := words[len(words)-1], words[:len(words)-1]
	if len(words) == 0 {
		return h.verbs(current)
	}
	c := h.app.Command(words[0])
	if c == nil || c.Hidden {
		return nil
	}
	line := flagsFirst(h.app, append([]string{h.app.Name}, words...))
	arguments := []string{}
	if at := slices.Index(line, "--"); at >= 0 {
		arguments = line[at+1:]
	}
	last := words[len(words)-1]
	switch {
	case len(words) > 1 && strings.HasPrefix(last, "-") && takesValue(c, last):
		return h.values(strings.TrimLeft(last, "-"), arguments)
	case strings.HasPrefix(current, "-"):
		return flagWords(c.Flags, words)
	case len(arguments) == 0:
		return h.arguments(c, current)
	}
	return nil
}

func (h completer) verbs(current string) []word {
	if strings.HasPrefix(current, "-") {
		return flagWords([]cli.Flag{cli.HelpFlag, cli.VersionFlag}, nil)
	}
	var list []word
	for _, c := range h.app.Commands {
		if !c.Hidden {
			list = append(list, word{c.Name, c.Usage})
		}
	}
	return list
}

// flagWords are the flags that are not there yet.
func flagWords(flags []cli.Flag, there []string) []word {
	var list []word
	for _, f := range flags {
		name := "--" + f.Names()[0]
		if slices.Contains(there, name) {
			continue
		}
		about := ""
		if d, ok := f.(cli.DocGenerationFlag); ok {
			about = strings.ReplaceAll(d.GetUsage(), "`", "")
		}
		list = append(list, word{name, about})
	}
	return list
}

// values are those of a flag.
func (h completer) values(flag string, arguments []string) []word {
	switch flag {
	case "peer":
		if len(arguments) == 1 {
			return wordsOf("peer", h.peers(arguments[0]))
		}
	case "type":
		return wordsOf("", keyTypes)
	case "from":
		return wordsOf("", importable)
	case "to":
		return wordsOf("", exportable)
	case "output", "o":
		return []word{{filesLike, "*"}}
	}
	return nil
}

// arguments are what can stand where a command's usage has NAME and FILE.
func (h completer) arguments(c *cli.Command, current string) []word {
	var list []word
	takes := strings.FieldsFunc(c.ArgsUsage, func(r rune) bool { return strings.ContainsRune("[]|", r) })
	for _, what := range takes {
		switch {
		case what == "NAME" && (c.Name == "up" || c.Name == "check" || c.Name == "export"):
			list = append(list, wordsOf("tunnel", h.files())...)
		case what == "NAME":
			list = append(list, wordsOf("tunnel", h.live())...)
		case what == "FILE" && !slices.Contains(takes, "NAME"):
			list = append(list, word{filesLike, "*"})
		case what == "FILE":
			if current != "" { // folders would hide the names
				list = append(list, word{filesLike, "*.toml"})
			}
		default:
			list = append(list, word{what, ""})
		}
	}
	return list
}

func wordsOf(about string, texts []string) []word {
	var list []word
	for _, t := range texts {
		list = append(list, word{t, about})
	}
	return list
}

// What cannot be found out completes to nothing: an error has no place in the
// middle of a command line.

func liveTunnels() []string {
	names, _ := watch.Tunnels("")
	return names
}

func fileTunnels() []string {
	files, _ := conf.Files(conf.Dir)
	return slices.Sorted(maps.Keys(files))
}

func peersOf(tunnel string) []string {
	_, name, err := conf.Find(tunnel)
	if err != nil {
		return nil
	}
	s, err := watch.Get("", name, nil)
	if err != nil {
		return nil
	}
	var names []string
	for i := range s.Peers {
		names = append(names, s.Peers[i].Name)
	}
	return names
}
