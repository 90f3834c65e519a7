// Package manual reads the manual pages for tests: they name what is in code,
// and the other way round.
package manual

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Page is the source of a manual page, in mdoc(7).
type Page struct{ lines []string }

// Read reads a page.
func Read(t testing.TB, path string) *Page {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return &Page{strings.Split(string(text), "\n")}
}

// Section is what stands between a heading and the next one of the same level.
func (p *Page) Section(heading string) *Page {
	for i, line := range p.lines {
		macro, text, _ := strings.Cut(line, " ")
		if macro != ".Sh" && macro != ".Ss" || strings.Trim(text, `"`) != heading {
			continue
		}
		end := slices.IndexFunc(p.lines[i+1:], func(s string) bool {
			return strings.HasPrefix(s, ".Sh ") || macro == ".Ss" && strings.HasPrefix(s, ".Ss ")
		})
		if end < 0 {
			return &Page{p.lines[i:]}
		}
		return &Page{p.lines[i : i+1+end]}
	}
	return &Page{}
}

// Lines are those of the page's source.
func (p *Page) Lines() []string { return p.lines }

// Items are what the page's lists explain that is marked up by a macro, such as
// "Ic" in ".It Ic port , nat_port".
func (p *Page) Items(macro string) []string {
	var found []string
	for _, line := range p.lines {
		words := strings.Fields(line)
		if len(words) < 3 || words[0] != ".It" || words[1] != macro {
			continue
		}
		for _, w := range words[2:] {
			if isMacro(w) && w != macro {
				break // what follows is its argument
			}
			if w != "," && w != macro {
				found = append(found, strings.TrimPrefix(w, "-"))
			}
		}
	}
	return found
}

// Names reports whether the page has a word marked up by a macro anywhere.
func (p *Page) Names(macro, word string) bool {
	return slices.ContainsFunc(p.lines, func(line string) bool {
		words := strings.Fields(strings.TrimPrefix(line, "."))
		for i, w := range words {
			if w == macro && slices.ContainsFunc(words[i+1:], func(s string) bool { return strings.TrimPrefix(s, "-") == word }) {
				return true
			}
		}
		return false
	})
}

// isMacro: two letters, the first a capital.
func isMacro(w string) bool {
	return len(w) == 2 && unicode.IsUpper(rune(w[0])) && unicode.IsLower(rune(w[1]))
}

// Says reports whether the page has a text, whatever its markup, punctuation and
// line breaks.
func (p *Page) Says(text string) bool {
	var words []string
	for _, line := range p.lines {
		if !strings.HasPrefix(line, ".") {
			words = append(words, line)
			continue
		}
		for i, w := range strings.Fields(line) {
			if i > 0 && !isMacro(w) {
				words = append(words, w)
			}
		}
	}
	return strings.Contains(bare(strings.Join(words, " ")), bare(text))
}

// bare is the letters and digits of a text.
func bare(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, strings.ReplaceAll(s, `\(dq`, ""))
}

// Schema is the JSON Schema in a file.
type Schema struct {
	compiled *jsonschema.Schema
	// Root is the schema as it is written.
	Root map[string]any
}

// ReadSchema reads a schema.
func ReadSchema(t testing.TB, path string) *Schema {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := new(Schema)
	if err := json.Unmarshal(text, &s.Root); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if s.compiled, err = jsonschema.NewCompiler().Compile(path); err != nil {
		t.Fatal(err)
	}
	return s
}

// Validate says where a JSON text is not what the schema describes.
func (s *Schema) Validate(text string) error {
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return err
	}
	return s.compiled.Validate(v)
}
