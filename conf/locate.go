package conf

import (
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// position is a place in a file, counted from 1, columns in characters.
type position struct{ line, column int }

// A node is where a key or an element of an array was first written, with
// what lies below it. The decoder gives values and no positions, so the
// nodes are read from the text a second time.
type node struct {
	pos   position
	keys  map[string]*node // of a table
	items []*node          // of an array
}

// child is the node of a key, made where the key is new.
func (n *node) child(key string, pos position) *node {
	if n.keys == nil {
		n.keys = map[string]*node{}
	}
	c := n.keys[key]
	if c == nil {
		c = &node{pos: pos}
		n.keys[key] = c
	}
	return c
}

// last is the table that a path through n goes on in: of an array of tables
// the newest.
func (n *node) last() *node {
	for len(n.items) > 0 {
		n = n.items[len(n.items)-1]
	}
	return n
}

// locate finds the keys of text, which the decoder has accepted: it does not
// look for mistakes.
func locate(text string) *node {
	s := &scanner{text: text, lines: lineStarts(text)}
	root := &node{pos: position{1, 1}}
	table := root
	for {
		s.space(true)
		switch {
		case s.at >= len(s.text):
			return root
		case s.take("[["):
			start := s.at - 2
			table = s.path(root, false)
			// The brackets are the element's position, the name's the array's.
			table.items = append(table.items, &node{pos: s.position(start)})
			table = table.last()
			s.skip("]]")
		case s.take("["):
			table = s.path(root, true).last()
			s.skip("]")
		default:
			if !s.pair(table) {
				return root // not reached with accepted text
			}
		}
	}
}

// lineStarts is the offset of each line.
func lineStarts(text string) []int {
	starts := []int{0}
	for i := range len(text) {
		if text[i] == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}

// A scanner walks over the text of a file that is valid TOML.
type scanner struct {
	text  string
	lines []int
	at    int
}

func (s *scanner) position(offset int) position {
	line := sort.SearchInts(s.lines, offset+1)
	return position{line, utf8.RuneCountInString(s.text[s.lines[line-1]:offset]) + 1}
}

func (s *scanner) take(token string) bool {
	if !strings.HasPrefix(s.text[s.at:], token) {
		return false
	}
	s.at += len(token)
	return true
}

func (s *scanner) skip(token string) {
	s.space(false)
	s.take(token)
}

// space passes over blanks, and with newlines over line ends and comments.
func (s *scanner) space(newlines bool) {
	for s.at < len(s.text) {
		switch c := s.text[s.at]; {
		case c == ' ' || c == '\t' || c == '\r':
			s.at++
		case newlines && c == '\n':
			s.at++
		case newlines && c == '#':
			end := strings.IndexByte(s.text[s.at:], '\n')
			if end < 0 {
				end = len(s.text) - s.at
			}
			s.at += end
		default:
			return
		}
	}
}

// path reads a dotted key below n and returns its node. A header names its
// table anew, so a table that dotted keys made takes the header's position.
func (s *scanner) path(n *node, header bool) *node {
	for {
		s.space(false)
		pos := s.position(s.at)
		n = n.last().child(s.key(), pos)
		s.space(false)
		if !s.take(".") {
			if header && len(n.items) == 0 {
				n.pos = pos
			}
			return n
		}
	}
}

// key reads one part of a dotted key.
func (s *scanner) key() string {
	start := s.at
	if s.at < len(s.text) && (s.text[s.at] == '"' || s.text[s.at] == '\'') {
		s.string()
		return unquoteKey(s.text[start:s.at])
	}
	end := strings.IndexAny(s.text[s.at:], " \t\r\n.=]#")
	if end < 0 {
		end = len(s.text) - s.at
	}
	s.at += end
	return s.text[start:s.at]
}

// unquoteKey leaves escapes to the decoder.
func unquoteKey(quoted string) string {
	var one struct{ K string }
	if _, err := toml.Decode("K = "+quoted, &one); err != nil {
		return quoted
	}
	return one.K
}

// pair reads "key = value" into table; false if it got nowhere.
func (s *scanner) pair(table *node) bool {
	start := s.at
	n := s.path(table, false)
	s.skip("=")
	s.space(false)
	s.value(n)
	return s.at > start
}

// value reads what stands for n.
func (s *scanner) value(n *node) {
	switch {
	case s.at >= len(s.text):
	case s.text[s.at] == '"' || s.text[s.at] == '\'':
		s.string()
	case s.take("["):
		s.list("]", func() bool {
			item := &node{pos: s.position(s.at)}
			n.items = append(n.items, item)
			start := s.at
			s.value(item)
			return s.at > start
		})
	case s.take("{"):
		s.list("}", func() bool { return s.pair(n) })
	default: // a number, a date, true: none holds one of these
		end := strings.IndexAny(s.text[s.at:], ",]}#\n")
		if end < 0 {
			end = len(s.text) - s.at
		}
		s.at += end
	}
}

// list reads elements up to end, with commas and comments between.
func (s *scanner) list(end string, element func() bool) {
	for {
		s.space(true)
		if s.at >= len(s.text) || s.take(end) {
			return
		}
		if !s.take(",") && !element() {
			return
		}
	}
}

// string passes over a string of any of the four kinds.
func (s *scanner) string() {
	quote := s.text[s.at : s.at+1]
	long := strings.Repeat(quote, 3)
	if !s.take(long) {
		s.at++
		s.until(quote)
		return
	}
	s.until(long)
	// Quotes may stand before the closing three: two, and behind an escaped
	// backslash the decoder takes a third.
	for s.take(quote) {
	}
}

// until passes over text up to and with end; in strings with double quotes a
// backslash hides what follows.
func (s *scanner) until(end string) {
	for s.at < len(s.text) {
		if s.take(end) {
			return
		}
		if s.text[s.at] == '\\' && end[0] == '"' {
			s.at++
		}
		s.at++
	}
	s.at = len(s.text)
}
