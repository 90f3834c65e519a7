package foreign

import (
	"net/netip"
	"path"
	"slices"
	"strings"
)

// A stanza is a section of an ipsec.conf: "conn NAME" or "config setup".
type stanza struct {
	kind, name string
	at         place
	entries    entries
	also       []*entry
}

// parseStanzas reads the sections of an ipsec.conf and of the files that it
// includes.
func (im *importer) parseStanzas(list []*stanza, name, text string, depth int) ([]*stanza, error) {
	var open *stanza
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		at, line := place{name, i + 1}, strings.TrimRight(lines[i], " \t\r")
		indented := strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t")
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		// A quoted value may be longer than a line.
		for strings.Count(line, `"`)%2 == 1 && i+1 < len(lines) {
			i++
			line += " " + strings.TrimSpace(lines[i])
		}
		if err := im.count(1); err != nil {
			return nil, refuse(at, "", "%v", err)
		}
		word, rest, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
		rest = strings.TrimSpace(uncommented(rest))
		key, value, isKey := strings.Cut(line, "=")
		switch {
		case word == "include" && !strings.HasPrefix(rest, "="):
			err := im.include(at, depth, rest, func(name, text string) (err error) {
				list, err = im.parseStanzas(list, name, text, depth+1)
				return err
			})
			if err != nil {
				return nil, err
			}
			open = nil
		case !indented && (word == "conn" || word == "config" || word == "ca"):
			open = &stanza{kind: word, name: rest, at: at}
			list = append(list, open)
		case !indented && word == "version":
		case isKey && open != nil:
			e := &entry{key: strings.ToLower(strings.TrimSpace(key)), value: unquoted(value), at: at}
			if e.key == "also" || e.key == "alsoflip" {
				open.also = append(open.also, e)
				continue
			}
			open.entries.set(e)
		default:
			return nil, refuse(at, "", "this is neither a section nor a key = value of one")
		}
	}
	return list, nil
}

// unquoted is a value without its comment and its quotes.
func unquoted(value string) string {
	value = strings.TrimSpace(value)
	if strings.HasPrefix(value, `"`) {
		if end := strings.Index(value[1:], `"`); end >= 0 {
			return value[1 : 1+end]
		}
	}
	return strings.TrimSpace(uncommented(value))
}

// uncommented cuts off a comment, which has a blank before it.
func uncommented(s string) string {
	for _, mark := range []string{" #", "\t#"} {
		s, _, _ = strings.Cut(s, mark)
	}
	return s
}

// conns are the connections with what they have of others and of %default. Those
// that are only there to be had by others are left out.
func (im *importer) conns(list []*stanza) ([]*stanza, error) {
	named := map[string]*stanza{}
	taken := map[string]bool{}
	for _, s := range list {
		if s.kind != "conn" {
			continue
		}
		if old := named[s.name]; old != nil {
			for _, e := range s.entries {
				old.entries.set(e)
			}
			old.also = append(old.also, s.also...)
			continue
		}
		named[s.name] = s
		for _, e := range s.also {
			taken[e.value] = true
		}
	}
	var conns []*stanza
	for _, s := range list {
		if s.kind != "conn" || s.name == "%default" || named[s.name] != s {
			continue
		}
		full := &stanza{kind: s.kind, name: s.name, at: s.at}
		seen := map[*stanza]bool{}
		if err := im.gather(full, s, named, seen, false); err != nil {
			return nil, err
		}
		if err := im.gather(full, named["%default"], named, seen, false); err != nil {
			return nil, err
		}
		b := block{im, "", full.entries, full.at}
		left, _ := b.get("left")
		right, _ := b.get("right")
		if taken[s.name] && (left == "" && right == "" || !full.entries.has("auto")) {
			continue
		}
		conns = append(conns, full)
	}
	return conns, nil
}

// gather adds to a connection what it does not have yet of s and of what that has
// of others.
func (im *importer) gather(full, s *stanza, named map[string]*stanza, seen map[*stanza]bool, flip bool) error {
	if s == nil || seen[s] {
		return nil
	}
	seen[s] = true
	if err := im.count(len(s.entries) + len(s.also)); err != nil {
		return refuse(s.at, s.name, "%v", err)
	}
	for _, e := range s.entries {
		copied := *e
		if flip {
			copied.key = flipped(e.key)
		}
		if !full.entries.has(copied.key) {
			full.entries = append(full.entries, &copied)
		}
	}
	for _, e := range s.also {
		if named[e.value] == nil {
			im.remark(e.at, "conn "+s.name+": "+e.key, "there is no conn %s to have more of", e.value)
		}
		if err := im.gather(full, named[e.value], named, seen, flip != (e.key == "alsoflip")); err != nil {
			return err
		}
	}
	return nil
}

// flipped is the key for the other side.
func flipped(key string) string {
	if rest, ok := strings.CutPrefix(key, "left"); ok {
		return "right" + rest
	}
	if rest, ok := strings.CutPrefix(key, "right"); ok {
		return "left" + rest
	}
	return key
}

// ipsecConf reads an ipsec.conf, with the ipsec.secrets that lies beside it.
func (im *importer) ipsecConf(name, text string, libreswan bool) ([]*tunnel, error) {
	stanzas, err := im.parseStanzas(nil, name, text, 0)
	if err != nil {
		return nil, err
	}
	for _, s := range stanzas {
		if s.kind == "ca" {
			im.remark(s.at, "ca "+s.name, "%s", noCertificates)
		}
	}
	conns, err := im.conns(stanzas)
	if err != nil {
		return nil, err
	}
	secrets, err := im.ipsecSecrets(path.Join(path.Dir(name), "ipsec.secrets"))
	if err != nil {
		return nil, err
	}
	var list []*tunnel
	for _, s := range conns {
		list = im.convert(list, s.name, s.at, func(t *tunnel) bool { return im.ipsecConn(t, s, secrets, libreswan) })
	}
	return list, nil
}

// orient says which side of a connection we are: the one with an address of this
// host, else the one that has no peer's address, else the left one.
func (im *importer) orient(b block) (ours, theirs string) {
	left, at := b.get("left")
	right, rightAt := b.get("right")
	own := func(s string) bool {
		addr, err := netip.ParseAddr(s)
		return err == nil && slices.Contains(im.Own, addr)
	}
	turn := own(right) && !own(left) || right == "%defaultroute" && left != "%defaultroute" && !own(left)
	if turn {
		im.remark(rightAt, "right", "%s is taken for our end", right)
		return "right", "left"
	}
	if !own(left) && !isAny(left) && !isAny(right) {
		im.remark(at, "left", "%s is taken for our end, as the left one is where neither is an address of this host; --local ADDRESS tells", left)
	}
	return "left", "right"
}
