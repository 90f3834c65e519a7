package conf

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// keys are the tables of a tunnel file and the keys each has.
var keys = map[string][]string{
	"":              {"dataplane", "local", "interface", "ike", "esp", "lifetime", "hooks", "peer"},
	"local":         {"id", "address", "key_file", "cert_file"},
	"interface":     {"name", "addresses", "mtu", "dns", "table"},
	"ike":           {"proposals", "lifetime", "dpd", "encap", "port", "nat_port", "fragment"},
	"esp":           {"proposals", "pfs", "esn", "replay_window"},
	"lifetime":      {"time", "use", "bytes", "packets", "jitter"},
	"hooks":         {HookPreUp, HookPostUp, HookPreDown, HookPostDown, HookEstablished, HookLost, "timeout"},
	"peer":          {"name", "endpoint", "id", "psk", "psk_file", "public_key", "ca_file", "local_ts", "remote_ts", "mode", "start", "ike", "esp", "lifetime"},
	"peer.ike":      {"proposals", "lifetime", "dpd", "encap", "fragment"},
	"peer.esp":      {"proposals", "pfs", "esn", "replay_window"},
	"peer.lifetime": {"time", "use", "bytes", "packets", "jitter"},
}

// limitKeys are the keys of each pair of limits.
var limitKeys = []string{"soft", "hard"}

// heading is how a table's header is written.
func heading(table string) string {
	switch table {
	case "":
		return "the top of the file"
	case "peer":
		return "[[peer]]"
	}
	return "[" + table + "]"
}

// A table is a TOML table with the positions of what is in it. A nil table
// is one that was left out: it has no keys.
type table struct {
	*problems
	at   place
	vals map[string]any
	node *node
	keys []string // that it may have
}

func newTable(p *problems, at place, vals map[string]any, n *node, keys []string) *table {
	t := &table{p, at, vals, n, keys}
	t.refuseUnknown()
	return t
}

// where is the place of a key, of the table itself when the key was left out.
func (t *table) where(key string) place {
	at := place{key: join(t.at.key, key), pos: t.at.pos}
	if n := t.node.keys[key]; n != nil {
		at.pos = n.pos
	}
	return at
}

func join(table, key string) string {
	if table == "" {
		return key
	}
	return table + "." + key
}

// get is the value of a key, if it is there.
func (t *table) get(key string) (value, bool) {
	if t == nil {
		return value{}, false
	}
	raw, ok := t.vals[key]
	if !ok {
		return value{}, false
	}
	n := t.node.keys[key]
	if n == nil {
		n = &node{pos: t.at.pos}
	}
	return value{t.problems, t.where(key), raw, n}, true
}

// refuseUnknown names for each key that nothing asks for the one that was
// meant. It never shows a value: it may be a secret under a misspelt key.
func (t *table) refuseUnknown() {
	for key := range t.vals {
		if slices.Contains(t.keys, key) {
			continue
		}
		at := t.where(key)
		at.key = join(t.at.key, spellKey(key))
		home := homeOf(key)
		near := nearest(key, t.keys)
		switch {
		case home != "" && t.at.key != home:
			t.add(at, "write it there: a key belongs to the last [header] above it", "%s is a key of %s, not of %s", key, heading(home), heading(t.at.key))
		case near != "":
			t.add(at, "write "+near, "there is no such key")
		default:
			t.add(at, "the keys here are "+strings.Join(t.keys, ", "), "there is no such key")
		}
	}
}

// homeOf is the table that a key belongs to, if there is just one beside the
// overrides of peers.
func homeOf(key string) string {
	home := ""
	for name, keys := range keys {
		if name == "" || strings.HasPrefix(name, "peer.") || !slices.Contains(keys, key) {
			continue
		}
		if home != "" {
			return ""
		}
		home = name
	}
	return home
}

// spellKey is a key as it is written, quoted where it has to be.
func spellKey(key string) string {
	const bare = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
	if key != "" && strings.Trim(key, bare) == "" {
		return key
	}
	return strconv.Quote(key)
}

// A value is a TOML value with the place of its key.
type value struct {
	*problems
	at   place
	raw  any
	node *node
}

func (v value) wrong(hint, format string, args ...any) { v.add(v.at, hint, format, args...) }

// wrongType says what stands where something else belongs. example is the
// right side of an assignment.
func (v value) wrongType(want, example string) {
	v.wrong("write "+example, "this is %s, not %s", v.describe(), want)
}

// describe is the value as a reader of the file would name it.
func (v value) describe() string {
	if last := v.at.key[strings.LastIndexByte(v.at.key, '.')+1:]; strings.HasPrefix(last, "psk") {
		return "something else" // it may be the secret
	}
	switch raw := v.raw.(type) {
	case string:
		return fmt.Sprintf("the text %q", raw)
	case int64:
		return fmt.Sprintf("the number %d", raw)
	case float64:
		return fmt.Sprintf("the number %v", raw)
	case bool:
		return strconv.FormatBool(raw)
	case time.Time:
		return "a date"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "a list of tables"
	}
	return "a list"
}

// text is a string.
func (v value) text(example string) (string, bool) {
	s, ok := v.raw.(string)
	if !ok {
		v.wrongType("text in quotes", example)
		return "", false
	}
	if s == "" {
		v.wrong("write "+example+" or leave it out", "this is empty")
		return "", false
	}
	return s, true
}

// word is one of a few strings.
func (v value) word(words ...string) (string, bool) {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = strconv.Quote(w)
	}
	choice := strings.Join(quoted[:len(quoted)-1], ", ") + " or " + quoted[len(quoted)-1]
	s, ok := v.raw.(string)
	if !ok {
		v.wrongType("one of its words", choice)
		return "", false
	}
	if !slices.Contains(words, s) {
		hint := "write " + choice
		if w := nearest(strings.ToLower(s), words); w != "" {
			hint = "write " + strconv.Quote(w)
		}
		v.wrong(hint, "%q is not one of its words", s)
		return "", false
	}
	return s, true
}

// whole is a number from low to high.
func (v value) whole(low, high int64, example string) (int64, bool) {
	n, ok := v.raw.(int64)
	if !ok {
		v.wrongType("a whole number", example)
		return 0, false
	}
	if n < low || n > high {
		limits := fmt.Sprintf("from %d to %d", low, high)
		if high == math.MaxInt64 {
			limits = fmt.Sprintf("of %d or more", low)
		}
		v.wrong("write a number "+limits, "%d is out of its range", n)
		return 0, false
	}
	return n, true
}

func (v value) truth() (truth, ok bool) {
	truth, ok = v.raw.(bool)
	if !ok {
		v.wrongType("true or false", "true or false, without quotes")
	}
	return truth, ok
}

// list is the elements of an array, each with its own position.
func (v value) list(example string) ([]value, bool) {
	var raws []any
	switch raw := v.raw.(type) {
	case []any:
		raws = raw
	case []map[string]any:
		for _, r := range raw {
			raws = append(raws, r)
		}
	default:
		v.wrongType("a list", example)
		return nil, false
	}
	elements := make([]value, len(raws))
	for i, raw := range raws {
		n := v.node
		if i < len(v.node.items) {
			n = v.node.items[i]
		}
		elements[i] = value{v.problems, place{v.at.key, n.pos}, raw, n}
	}
	return elements, true
}

// filled is a list with something in it.
func (v value) filled(example string) ([]value, bool) {
	elements, ok := v.list(example)
	if ok && len(elements) == 0 {
		v.wrong("write "+example+" or leave it out", "this list is empty")
		return nil, false
	}
	return elements, ok
}

// table is a table with these keys.
func (v value) table(example string, keys []string) (*table, bool) {
	vals, ok := v.raw.(map[string]any)
	if !ok {
		v.wrongType("a table", example)
		return nil, false
	}
	return newTable(v.problems, v.at, vals, v.node, keys), true
}

// An option is a setting that may have been left out: then at is zero.
type option[T any] struct {
	val T
	at  place
	set bool
}

// over is the option, or base where it was left out. A wrong one is not
// replaced, so nothing is said about base that the file does not ask for.
func (o option[T]) over(base option[T]) option[T] {
	if o.at.key == "" {
		return base
	}
	return o
}

// or is the value, or a default where it was left out.
func (o option[T]) or(def T) T {
	if o.set {
		return o.val
	}
	return def
}

// read is a key's value as parse understands it. What parse refuses, and says
// so, is not set and has a place.
func read[T any](t *table, key string, parse func(value) (T, bool)) option[T] {
	v, ok := t.get(key)
	if !ok {
		return option[T]{}
	}
	val, ok := parse(v)
	return option[T]{val, v.at, ok}
}
