package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"ipsec-quick/test/manual"
)

// commandLine is what there is to write: the flags of each verb, and of none.
type commandLine map[string][]string

func (c commandLine) add(verb string, flags ...string) {
	c[verb] = append(c[verb], flags...)
}

// TestCommandLineIsInTheManual: each verb and each of its flags is in
// ipsec-quick(8), in the synopsis and with what it does, and no other is.
func TestCommandLineIsInTheManual(t *testing.T) {
	code := commandLine{"": flagNames(cli.HelpFlag, cli.VersionFlag)}
	for _, c := range app(nil, nil, nil).Commands {
		if !c.Hidden {
			code.add(c.Name)
			for _, f := range c.Flags {
				code.add(c.Name, flagNames(f)...)
			}
		}
	}
	page := manual.Read(t, "../../man/ipsec-quick.8")
	for part, said := range map[string]commandLine{
		"the synopsis":    synopsis(page.Section("SYNOPSIS")),
		"the description": described(page.Section("DESCRIPTION")),
	} {
		for verb := range code {
			if _, ok := said[verb]; !ok {
				t.Errorf("%s has no %q", part, verb)
			}
		}
		for verb, flags := range said {
			real, ok := code[verb]
			if !ok {
				t.Errorf("%s has %q, which is no command", part, verb)
			}
			slices.Sort(flags)
			slices.Sort(real)
			if !slices.Equal(flags, real) {
				t.Errorf("%s of %q has the flags %q; these are there: %q", part, verb, flags, real)
			}
		}
	}

	// What the pages say in passing.
	pages, err := filepath.Glob("../../man/*.[578]")
	if err != nil || len(pages) < 3 {
		t.Fatalf("%v, %v", pages, err)
	}
	for _, path := range pages {
		for _, line := range manual.Read(t, path).Lines() {
			words := strings.Fields(line)
			if len(words) < 4 || words[0] != ".Cm" || words[2] != "Fl" {
				continue
			}
			if flag := strings.TrimPrefix(words[3], "-"); !slices.Contains(code[words[1]], flag) {
				t.Errorf("%s: %s has no --%s", path, words[1], flag)
			}
		}
	}
}

func flagNames(flags ...cli.Flag) []string {
	var names []string
	for _, f := range flags {
		names = append(names, f.Names()...)
	}
	return names
}

// synopsis reads the lines between each .Nm and the next.
func synopsis(p *manual.Page) commandLine {
	found, verb := commandLine{}, ""
	for _, line := range p.Lines() {
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case words[0] == ".Nm":
			verb = ""
		case words[0] == ".Cm":
			verb = words[1]
			found.add(verb)
		default:
			found.add(verb, flagsIn(words)...)
		}
	}
	return found
}

// described reads the list of verbs, and below each that of its flags.
func described(p *manual.Page) commandLine {
	found, verb, depth := commandLine{}, "", 0
	for _, line := range p.Lines() {
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case words[0] == ".Ss":
			return found
		case words[0] == ".Bl":
			depth++
		case words[0] == ".El":
			depth--
		case words[0] != ".It" || len(words) < 2:
		case depth == 1 && words[1] == "Cm":
			verb = words[2]
			found.add(verb)
		case depth == 1:
			found.add("", flagsIn(words)...)
		default:
			found.add(verb, flagsIn(words)...)
		}
	}
	return found
}

// flagsIn are the flags in a line of mdoc(7): ".Op Fl q | -quiet".
func flagsIn(words []string) []string {
	var flags []string
	at := slices.IndexFunc(words, func(w string) bool { return strings.TrimPrefix(w, ".") == "Fl" })
	if at < 0 {
		return nil
	}
	for _, w := range words[at+1:] {
		if w == "Ar" || w == "Ns" {
			break
		}
		if w != "|" && w != "," {
			flags = append(flags, strings.TrimPrefix(w, "-"))
		}
	}
	return flags
}
