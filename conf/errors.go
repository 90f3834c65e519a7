package conf

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// An Error is one thing that is wrong with a tunnel file, and what to write
// instead. It never holds a secret.
type Error struct {
	File    string // as given to Load
	Line    int    // from 1; 0: the file as a whole
	Column  int    // from 1, in characters
	Key     string // the key's path as the manual spells it, "lifetime.time.soft"; may be empty
	Message string // what is wrong
	Hint    string // what to write instead; may be empty
}

// Error is "office.toml:12:3: lifetime.time.soft: what is wrong; what to write".
func (e Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	b.WriteString(": ")
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Message)
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// Errors is all that is wrong with a tunnel file, by position.
type Errors []Error

// Error is one line for each.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// place is where a key stands and how it is called.
type place struct {
	key string
	pos position
}

// problems collects what is wrong with a file, and what is only worth a word.
type problems struct {
	file     string
	errors   []Error
	warnings []Error
}

func (p *problems) add(at place, hint, format string, args ...any) {
	p.errors = p.insert(p.errors, at, hint, fmt.Sprintf(format, args...))
}

func (p *problems) warn(at place, hint, format string, args ...any) {
	p.warnings = p.insert(p.warnings, at, hint, fmt.Sprintf(format, args...))
}

// insert leaves out what was said already: a tunnel-wide setting is checked
// once for each peer that takes it over.
func (p *problems) insert(list []Error, at place, hint, message string) []Error {
	e := Error{File: p.file, Line: at.pos.line, Column: at.pos.column, Key: at.key, Message: message, Hint: hint}
	if slices.Contains(list, e) {
		return list
	}
	return append(list, e)
}

// err is every error by position, or nil.
func (p *problems) err() error {
	if len(p.errors) == 0 {
		return nil
	}
	sortErrors(p.errors)
	return Errors(p.errors)
}

func sortErrors(list []Error) {
	slices.SortStableFunc(list, func(a, b Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}
