package foreign

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// A tunnel is a tunnel file in the making: its tables with what was set in them.
type tunnel struct {
	name    string // of the connection that it was made of
	at      place
	head    []string // comments at the top
	top     table
	local   table
	device  table // [interface]; nil: none
	ports   table // those of [ike]
	peers   []peer
	remarks []Remark // on its connection alone
}

// A peer is one [[peer]].
type peer struct {
	name          string
	table         table // endpoint, id, and what proves who they are
	local, remote []string
	rest          table // mode, start
	ike           table
	esp           table
	lifetime      table
}

// same says whether two peers are one: at one place, by one name.
func (p peer) same(o peer) bool {
	for _, key := range []string{"endpoint", "id"} {
		if p.table.get(key) != o.table.get(key) {
			return false
		}
	}
	return p.table.get("endpoint") != "" || p.table.get("id") != ""
}

// join adds the selectors of another connection with the same peer, if one Child
// SA can have those of both: they agree in all else, and in the networks of one
// end.
func (p *peer) join(o peer) bool {
	for _, of := range []func(peer) table{
		func(p peer) table { return p.table }, func(p peer) table { return p.rest },
		func(p peer) table { return p.ike }, func(p peer) table { return p.esp }, func(p peer) table { return p.lifetime },
	} {
		if !slices.Equal(of(*p), of(o)) {
			return false
		}
	}
	switch {
	case slices.Equal(p.local, o.local) && len(p.remote) > 0 && len(o.remote) > 0:
		p.remote = appendNew(p.remote, o.remote)
	case slices.Equal(p.remote, o.remote) && len(p.local) > 0 && len(o.local) > 0:
		p.local = appendNew(p.local, o.local)
	default:
		return false
	}
	return true
}

// appendNew adds what is not there yet.
func appendNew(list, more []string) []string {
	for _, s := range more {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// A table is the keys of a TOML table, in their order.
type table []setting

// A setting is a key and its value in TOML.
type setting struct{ key, value string }

// set adds a key, or replaces it; an empty value is none.
func (t *table) set(key, value string) {
	if value == "" {
		return
	}
	for i, s := range *t {
		if s.key == key {
			(*t)[i].value = value
			return
		}
	}
	*t = append(*t, setting{key, value})
}

// get is the value of a key, empty if it was not set.
func (t table) get(key string) string {
	for _, s := range t {
		if s.key == key {
			return s.value
		}
	}
	return ""
}

// apart says why the connection of another tunnel does not fit into the file;
// empty if it does.
func (t *tunnel) apart(o *tunnel) string {
	switch {
	case !slices.Equal(t.local, o.local):
		return "another identity, address or key of ours than"
	case !slices.Equal(t.ports, o.ports):
		return "other ports than"
	case t.device != nil || o.device != nil:
		return "another device than"
	}
	for _, a := range t.peers {
		for _, b := range o.peers {
			if a.name == b.name {
				return "the name of"
			}
			if slices.Equal(a.local, b.local) && slices.Equal(a.remote, b.remote) && len(b.remote) > 0 {
				return "the traffic of"
			}
		}
	}
	return ""
}

// String is the file's text.
func (t *tunnel) String() string {
	var b strings.Builder
	for _, line := range t.head {
		fmt.Fprintf(&b, "# %s\n", line)
	}
	section := func(heading string, tables ...table) {
		all := slices.Concat(tables...)
		if len(all) == 0 && heading != "[[peer]]" && heading != "[interface]" {
			return
		}
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		if heading != "" {
			b.WriteString(heading + "\n")
		}
		width := 0
		for _, s := range all {
			width = max(width, len(s.key))
		}
		for _, s := range all {
			fmt.Fprintf(&b, "%-*s = %s\n", width, s.key, s.value)
		}
	}
	section("", t.top)
	section("[local]", t.local)
	if t.device != nil {
		section("[interface]", t.device)
	}
	// What all peers have in common is the tunnel's.
	ike, ownIKE := common(t.peers, func(p peer) table { return p.ike })
	section("[ike]", t.ports, ike)
	esp, ownESP := common(t.peers, func(p peer) table { return p.esp })
	section("[esp]", esp)
	lifetime, ownLifetime := common(t.peers, func(p peer) table { return p.lifetime })
	section("[lifetime]", lifetime)
	for _, p := range t.peers {
		var selectors table
		selectors.set("local_ts", array(p.local))
		selectors.set("remote_ts", array(p.remote))
		section("[[peer]]", table{{"name", quote(p.name)}}, p.table, selectors, p.rest)
		if ownIKE {
			section("[peer.ike]", p.ike)
		}
		if ownESP {
			section("[peer.esp]", p.esp)
		}
		if ownLifetime {
			section("[peer.lifetime]", p.lifetime)
		}
	}
	return b.String()
}

// common is the table that all peers have, or that each has its own.
func common(peers []peer, of func(peer) table) (shared table, own bool) {
	for _, p := range peers {
		if !slices.Equal(of(p), of(peers[0])) {
			return nil, true
		}
	}
	return of(peers[0]), false
}

// quote is text as a basic string of TOML; empty stays empty, for set.
func quote(s string) string {
	if s == "" {
		return ""
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// array is a list of texts in TOML; empty if there are none.
func array(list []string) string {
	if len(list) == 0 {
		return ""
	}
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = quote(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// limits is a pair of limits in TOML, empty values left out.
func limits(soft, hard string) string {
	var parts []string
	if soft != "" {
		parts = append(parts, "soft = "+soft)
	}
	if hard != "" {
		parts = append(parts, "hard = "+hard)
	}
	if len(parts) == 0 {
		return ""
	}
	return "{ " + strings.Join(parts, ", ") + " }"
}

// span is a duration in TOML.
func span(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return quote(s)
}

// secretText is a pre-shared key of these octets as a tunnel file has it: as it
// is where it can stand in one and does not look like an encoding, else base64.
func secretText(key string) string {
	if plain(key) && !strings.HasPrefix(key, "0x") && !strings.HasPrefix(key, "0s") {
		return key
	}
	return "0s" + base64.StdEncoding.EncodeToString([]byte(key))
}

// plain says whether a text can stand in a tunnel file as it is.
func plain(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f }) < 0
}

var notInNames = regexp.MustCompile(`[^a-zA-Z0-9_=+.-]+`)

// peerName is a connection's name as a peer may have it.
func peerName(s string) string {
	s = notInNames.ReplaceAllString(s, "-")
	if s = s[:min(len(s), 63)]; s == "" {
		return "peer"
	}
	return s
}
