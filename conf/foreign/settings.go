package foreign

import (
	"slices"
	"strings"
)

// A section is a named block of a swanctl.conf.
type section struct {
	name     string
	at       place
	entries  entries
	sections []*section
	parents  []string // that it inherits from, by their paths
	done     bool     // and has inherited
}

// below is the section of this name in s, nil if there is none.
func (s *section) below(name string) *section {
	if s == nil {
		return nil
	}
	for _, b := range s.sections {
		if b.name == name {
			return b
		}
	}
	return nil
}

// parseSettings reads a file of strongSwan's format into the section root.
func (im *importer) parseSettings(root *section, name, text string, depth int) error {
	p := &settingsParser{im: im, text: text, at: place{name, 1}, depth: depth}
	if err := p.section(root, 0); err != nil {
		return err
	}
	if p.pos < len(p.text) {
		return refuse(p.at, "", "this } closes nothing")
	}
	return nil
}

// A settingsParser is at a position of a file.
type settingsParser struct {
	im    *importer
	text  string
	pos   int
	at    place
	depth int // of includes
}

// next is the octet at the position, 0 at the end.
func (p *settingsParser) next() byte {
	if p.pos == len(p.text) {
		return 0
	}
	return p.text[p.pos]
}

func (p *settingsParser) skip() {
	if p.next() == '\n' {
		p.at.line++
	}
	p.pos = min(p.pos+1, len(p.text))
}

// blanks skips white space and comments; lines says whether beyond the line too.
func (p *settingsParser) blanks(lines bool) {
	for p.pos < len(p.text) {
		switch c := p.next(); {
		case c == '#':
			for p.pos < len(p.text) && p.next() != '\n' {
				p.skip()
			}
		case c == ' ' || c == '\t' || c == '\r' || lines && c == '\n':
			p.skip()
		default:
			return
		}
	}
}

// word is what stands before the next of the octets that end it.
func (p *settingsParser) word(ends string) string {
	start := p.pos
	for p.pos < len(p.text) && !strings.ContainsRune(ends, rune(p.next())) {
		p.skip()
	}
	return p.text[start:p.pos]
}

// section reads keys and sections up to the brace that closes s.
func (p *settingsParser) section(s *section, depth int) error {
	for {
		p.blanks(true)
		if p.pos == len(p.text) || p.next() == '}' {
			return nil
		}
		at := p.at
		name := p.word(" \t\r\n{}=:#,\"")
		if name == "include" && p.next() != '=' {
			p.blanks(false)
			if err := p.include(s); err != nil {
				return err
			}
			continue
		}
		p.blanks(true)
		if err := p.im.count(1); err != nil {
			return refuse(at, "", "%v", err)
		}
		switch c := p.next(); {
		case name == "":
			return refuse(at, "", "a key or a section belongs here")
		case c == '=':
			p.skip()
			value, err := p.value()
			if err != nil {
				return err
			}
			s.entries.set(&entry{key: name, value: value, at: at})
		case c == '{' || c == ':':
			if err := p.block(s, name, at, depth); err != nil {
				return err
			}
		default:
			return refuse(at, "", "a key has a = behind it, a section a {")
		}
	}
}

// block reads a section with what it inherits from.
func (p *settingsParser) block(s *section, name string, at place, depth int) error {
	if depth >= maxDepth {
		return refuse(at, name, "sections are more than %d deep", maxDepth)
	}
	b := s.below(name)
	if b == nil {
		b = &section{name: name, at: at}
		s.sections = append(s.sections, b)
	}
	if p.next() == ':' {
		p.skip()
		for _, parent := range strings.Split(p.word("{}=#\""), ",") {
			b.parents = append(b.parents, strings.TrimSpace(parent))
		}
	}
	p.blanks(true)
	if p.next() != '{' {
		return refuse(at, name, "this section has no {")
	}
	p.skip()
	if err := p.section(b, depth+1); err != nil {
		return err
	}
	if p.next() != '}' {
		return refuse(at, name, "this section is not closed")
	}
	p.skip()
	return nil
}

func (p *settingsParser) include(s *section) error {
	at := p.at
	pattern := strings.TrimSpace(p.word("\r\n#"))
	return p.im.include(at, p.depth, pattern, func(name, text string) error {
		return p.im.parseSettings(s, name, text, p.depth+1)
	})
}

// value reads words and quoted texts up to the end of the line.
func (p *settingsParser) value() (string, error) {
	var words []string
	for {
		p.blanks(false)
		switch c := p.next(); {
		case p.pos == len(p.text) || c == '\n' || c == '}':
			return strings.Join(words, " "), nil
		case c == '{':
			return "", refuse(p.at, "", "a value does not hold a {; put it into quotes")
		case c == '"':
			text, err := p.quoted()
			if err != nil {
				return "", err
			}
			words = append(words, text)
		default:
			words = append(words, p.word(" \t\r\n#{}\""))
		}
	}
}

// quoted reads a text in double quotes, which may be longer than a line.
func (p *settingsParser) quoted() (string, error) {
	at := p.at
	var b strings.Builder
	for p.skip(); p.pos < len(p.text); p.skip() {
		switch c := p.next(); c {
		case '"':
			p.skip()
			return b.String(), nil
		case '\\':
			p.skip()
			switch e := p.next(); e {
			case 'n':
				b.WriteByte('\n')
			case 'r':
				b.WriteByte('\r')
			case 't':
				b.WriteByte('\t')
			case '\n':
			default:
				b.WriteByte(e)
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", refuse(at, "", "these quotes are not closed")
}

// inherit gives each section what it has of others.
func (im *importer) inherit(root *section) error {
	return im.complete(root, root, 0)
}

func (im *importer) complete(root, s *section, depth int) error {
	if depth > 2*maxDepth {
		return refuse(s.at, s.name, "sections inherit from each other more than %d deep", maxDepth)
	}
	if s.done {
		return nil
	}
	s.done = true
	for _, path := range s.parents {
		parent := root
		for name := range strings.SplitSeq(path, ".") {
			parent = parent.below(name)
		}
		if parent == nil {
			im.remark(s.at, s.name, "there is no section %s to inherit from", path)
			continue
		}
		if err := im.complete(root, parent, depth+1); err != nil {
			return err
		}
		if err := im.merge(s, parent, depth); err != nil {
			return err
		}
	}
	for _, b := range s.sections {
		if err := im.complete(root, b, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// merge adds to s what it does not have itself.
func (im *importer) merge(s, from *section, depth int) error {
	if s == from || depth > 2*maxDepth {
		return nil
	}
	if err := im.count(len(from.entries) + len(from.sections)); err != nil {
		return refuse(s.at, s.name, "%v", err)
	}
	for _, e := range slices.Clone(from.entries) {
		if !s.entries.has(e.key) {
			copied := *e
			s.entries = append(s.entries, &copied)
		}
	}
	for _, b := range slices.Clone(from.sections) {
		own := s.below(b.name)
		if own == nil {
			own = &section{name: b.name, at: b.at}
			s.sections = append(s.sections, own)
		}
		own.parents = appendNew(own.parents, b.parents)
		if err := im.merge(own, b, depth+1); err != nil {
			return err
		}
	}
	return nil
}
