package foreign

import (
	"fmt"
	"slices"
	"strings"
)

// An entry is a key with its value, and whether something was made of it.
type entry struct {
	key, value string
	at         place
	used       bool
}

// entries are keys in their order, each once.
type entries []*entry

// set adds a key, or replaces it.
func (es *entries) set(e *entry) {
	for i, old := range *es {
		if old.key == e.key {
			(*es)[i] = e
			return
		}
	}
	*es = append(*es, e)
}

func (es entries) has(key string) bool {
	return slices.ContainsFunc(es, func(e *entry) bool { return e.key == key })
}

// A block is the keys of a connection, or of a part of it.
type block struct {
	im      *importer
	path    string // how they are called, before their own name
	entries entries
	at      place
}

// get is the value of a key and its place, empty if it is not there.
func (b block) get(key string) (string, place) {
	for _, e := range b.entries {
		if e.key == key {
			e.used = true
			return e.value, e.at
		}
	}
	return "", place{}
}

// remark is about one of the keys.
func (b block) remark(key, format string, args ...any) {
	at := b.at
	for _, e := range b.entries {
		if e.key == key {
			e.used, at = true, e.at
		}
	}
	b.im.remark(at, b.path+key, "%s", fmt.Sprintf(format, args...))
}

// rest says what nobody has asked for: without a word where a key has no effect
// here, else by the reasons. A key that neither knows is one.
func (b block) rest(quiet []string, reasons map[string]string) {
	for _, e := range b.entries {
		why, known := reasons[unsided(e.key)]
		switch {
		case e.used || slices.Contains(quiet, unsided(e.key)) || e.value == "":
		case known && isNo(e.value):
		case known:
			b.im.remark(e.at, b.path+e.key, "%s", why)
		default:
			b.im.remark(e.at, b.path+e.key, "this key is not known here, and was left out")
		}
	}
}

// unsided is the key of an ipsec.conf without the side that it is for.
func unsided(key string) string {
	for _, side := range []string{"left", "right"} {
		if rest, ok := strings.CutPrefix(key, side); ok {
			return "left" + rest
		}
	}
	return key
}
