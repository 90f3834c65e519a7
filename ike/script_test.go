package ike

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write into the scripts what happens; then read what has changed")

// TestScripts plays the scripts of testdata/scripts: named situations, with what
// must be in place after each event. The README there says how they are written.
// Each is played with either host as the original initiator, and for each nonce
// that can be the lowest.
func TestScripts(t *testing.T) {
	missing := map[string]int{"child": 30, "ike": 18}
	files, err := filepath.Glob("testdata/scripts/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var played strings.Builder
		kind, _, _ := strings.Cut(filepath.Base(file), "_")
		for part := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n\n") {
			s := parseScript(part)
			t.Run(s.name, s.run)
			missing[kind]--
			fmt.Fprintln(&played, s)
		}
		if got := strings.TrimSuffix(played.String(), "\n"); *rewrite {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		} else if got != string(text) {
			t.Errorf("%s is not as -rewrite would write it", file)
		}
	}
	for kind, n := range missing {
		if n != 0 {
			t.Errorf("%s: %d situations are missing", kind, n)
		}
	}
}

// script is one situation: lines that it begins with, and then the cases.
type script struct {
	name  string
	given []string // what is not as usual
	lines []*line
	cases []*scriptCase
}

// scriptCase is one way in which a situation goes on.
type scriptCase struct {
	name  string
	lines []*line
}

// line is an event, and what is in place on a and b after it; or a comment.
type line struct{ event, a, b string }

func parseScript(text string) *script {
	s := &script{}
	for raw := range strings.SplitSeq(text, "\n") {
		lines := &s.lines
		if len(s.cases) > 0 {
			lines = &s.cases[len(s.cases)-1].lines
		}
		switch word, rest, _ := strings.Cut(raw, " "); word {
		case "==":
			s.name = rest
		case "given":
			s.given = strings.Fields(rest)
		case "case":
			s.cases = append(s.cases, &scriptCase{name: rest})
		case "#":
			*lines = append(*lines, &line{event: raw})
		default:
			columns := strings.Split(raw+"||", "|")
			for i := range columns {
				columns[i] = strings.TrimSpace(columns[i])
			}
			*lines = append(*lines, &line{columns[0], columns[1], columns[2]})
		}
	}
	return s
}

func (s *script) String() string {
	list := []string{"== " + s.name}
	if len(s.given) > 0 {
		list = append(list, "given "+strings.Join(s.given, " "))
	}
	for _, l := range s.lines {
		list = append(list, l.String())
	}
	for _, c := range s.cases {
		list = append(list, "case "+c.name)
		for _, l := range c.lines {
			list = append(list, l.String())
		}
	}
	return strings.Join(list, "\n") + "\n"
}

func (l *line) String() string {
	if l.comment() {
		return l.event
	}
	return fmt.Sprintf("%-28s| %-23s| %s", l.event, l.a, l.b)
}

func (l *line) comment() bool { return strings.HasPrefix(l.event, "#") }

// run plays all cases. One that says in which SA the lowest nonce is counts for
// the initiator's and the responder's nonce of that SA, another one for all four.
func (s *script) run(t *testing.T) {
	cases := s.cases
	if len(cases) == 0 {
		cases = []*scriptCase{{}}
	}
	for _, c := range cases {
		for _, lowest := range []string{"A.Ni", "A.Nr", "B.Ni", "B.Nr"} {
			if in, ok := strings.CutPrefix(c.name, "lowest nonce in "); ok && in[0] != lowest[0] {
				continue
			}
			for original := range 2 {
				newPlay(t, s.given, lowest, original).play(slices.Concat(s.lines, c.lines))
			}
		}
	}
}
