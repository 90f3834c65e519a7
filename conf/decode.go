package conf

import (
	"crypto"
	"errors"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// A decoder makes a Tunnel of a file.
type decoder struct {
	*problems
	self file
	open func(path string, limit int64) (file, error) // for files of secrets

	files []string // that were asked for

	// What is tunnel-wide and goes into each peer.
	local    Local
	key      option[crypto.Signer]
	ike      ikeSettings
	esp      espSettings
	lifetime lifetimeSettings
	routed   bool // there is an [interface]
}

// parse reads the text of a tunnel file. Other files are read by open.
func parse(name string, self file, open func(string, int64) (file, error)) (*Tunnel, error) {
	p := &problems{file: self.path}
	text, ok := p.text(self.data)
	if !ok {
		return nil, p.err()
	}
	var vals map[string]any
	if _, err := toml.Decode(text, &vals); err != nil {
		p.syntax(text, err)
		return nil, p.err()
	}
	d := &decoder{problems: p, self: self, open: open}
	root := locate(text)
	top := newTable(p, place{pos: root.pos}, vals, root, keys[""])
	t := d.tunnel(name, top)
	if self.mode.Perm()&0o022 != 0 && t.Hooks != nil {
		p.add(top.where("hooks"), "run: chmod go-w "+shellWord(self.path), "others can change this file, and with it what is run")
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	t.Path, t.Files = self.path, d.files
	if t.Interface != nil && t.Interface.Name == "" {
		t.Interface.Name = name
	}
	if self.mode.Perm()&0o022 != 0 && t.Hooks == nil {
		p.warn(place{}, "run: chmod go-w "+shellWord(self.path), "others can change this file, and with it where the traffic goes")
	}
	sortErrors(p.warnings)
	t.Warnings = p.warnings
	return t, nil
}

// text is the file's text without a byte order mark.
func (p *problems) text(data []byte) (string, bool) {
	text := strings.TrimPrefix(string(data), "\ufeff")
	if good := strings.ToValidUTF8(text, ""); good != text {
		at := 0
		for {
			r, n := utf8.DecodeRuneInString(text[at:])
			if r == utf8.RuneError && n <= 1 {
				break
			}
			at += n
		}
		s := &scanner{text: text, lines: lineStarts(text)}
		p.add(place{pos: s.position(at)}, "save the file as UTF-8", "this is not UTF-8")
		return "", false
	}
	if strings.HasPrefix(text, "\ufeff") {
		p.add(place{pos: position{1, 1}}, "save the file without", "there is more than one byte order mark")
		return "", false
	}
	return text, true
}

// unquoted is a word, or a number with a unit, after "=" and without quotes.
var unquoted = regexp.MustCompile(`=\s*(?:[0-9][0-9_.]*[A-Za-z%]|[A-Za-z][^\s,}\]]*)`)

// syntax reports what the TOML decoder stopped at. Of a line with a secret it
// repeats nothing.
func (p *problems) syntax(text string, err error) {
	var pe toml.ParseError
	if !errors.As(err, &pe) {
		p.add(place{pos: position{1, 1}}, "", "this is not TOML: %v", err)
		return
	}
	at := place{key: pe.LastKey, pos: position{max(pe.Position.Line, 1), max(pe.Position.Col, 1)}}
	line := ""
	if lines := strings.Split(text, "\n"); at.pos.line <= len(lines) {
		line = lines[at.pos.line-1]
		if n := at.pos.column - 1; n <= len(line) {
			at.pos.column = utf8.RuneCountInString(line[:n]) + 1
		}
	}
	message := strings.TrimSuffix(pe.Message, ".")
	if strings.Contains(line, "psk") || strings.Contains(pe.LastKey, "psk") {
		p.add(at, "write psk = \"...\", with the key between quotes, or use psk_file", "this is not TOML")
		return
	}
	hint := ""
	switch {
	case strings.HasSuffix(message, "has already been defined"):
		if strings.HasPrefix(strings.TrimSpace(line), "[peer]") {
			hint = "write [[peer]], with two brackets, for each peer"
		} else {
			hint = "leave one of the two out"
		}
	case unquoted.MatchString(line):
		hint = `text, durations and sizes stand in quotes: key = "50m"`
	}
	p.add(at, hint, "this is not TOML: %s", message)
}

// tunnel reads the whole file.
func (d *decoder) tunnel(name string, root *table) *Tunnel {
	t := &Tunnel{Name: name, Dataplane: DataplaneAuto}
	t.Dataplane = read(root, "dataplane", func(v value) (string, bool) {
		return v.word(DataplaneAuto, DataplaneKernel, DataplaneUserspace)
	}).or(DataplaneAuto)
	d.readLocal(d.section(root, "local"))
	t.Local = d.local
	device := d.section(root, "interface")
	t.Interface = d.readInterface(device)
	d.routed = t.Interface != nil
	t.Hooks = readHooks(d.section(root, "hooks"), name)
	ike := d.section(root, "ike")
	d.ike = readIKE(ike)
	t.Port, t.NATPort = d.readPorts(ike)
	d.esp = readESP(d.section(root, "esp"))
	d.lifetime = readLifetime(d.section(root, "lifetime"))
	d.peers(t, root)
	if t.Interface != nil {
		d.checkInterface(t.Interface, t.Peers, device.where("mtu"))
	}
	return t
}

// section is a table of the file's top, nil where it was left out or is none.
func (d *decoder) section(root *table, name string) *table {
	v, ok := root.get(name)
	if !ok {
		return nil
	}
	if list, isList := v.raw.([]map[string]any); isList && len(list) > 0 {
		v.wrong("write ["+name+"], with one bracket, once", "there is one such table, not a list of them")
		return nil
	}
	t, _ := v.table("["+name+"]", keys[name])
	return t
}

// unserved refuses what this version reads and cannot do yet.
func (d *decoder) unserved(at place, hint, what string) {
	d.add(at, hint, "%s is not served by this version yet", what)
}

func (d *decoder) readLocal(t *table) {
	d.local.ID = read(t, "id", readID).val
	d.local.Address = read(t, "address", func(v value) (netip.Addr, bool) {
		s, ok := v.text(`"192.0.2.1"`)
		if !ok {
			return netip.Addr{}, false
		}
		addr, err := parseHostAddr(s)
		if err != nil {
			v.wrong("", "%v", err)
		}
		return addr, err == nil
	}).val
	d.key = read(t, "key_file", d.readKeyFile)
	if cert := read(t, "cert_file", func(v value) (string, bool) { return v.text(`"hq.crt"`) }); cert.set {
		d.unserved(cert.at, "leave it out and give the peer our raw public key", "a certificate")
	}
}

func readID(v value) (ID, bool) {
	s, ok := v.text(`"hq.example.org"`)
	if !ok {
		return ID{}, false
	}
	id, err := ParseID(s)
	if err != nil {
		v.wrong("", "%v", err)
	}
	return id, err == nil
}

// readPorts are our own ports.
func (d *decoder) readPorts(t *table) (port, nat uint16) {
	one := func(key string, def uint16) option[uint16] {
		o := read(t, key, func(v value) (uint16, bool) {
			n, ok := v.whole(1, maxPort, strconv.Itoa(int(def)))
			return uint16(n), ok
		})
		o.val = o.or(def)
		return o
	}
	p, n := one("port", ikePort), one("nat_port", natPort)
	if p.val == n.val {
		at := p.at
		if n.set {
			at = n.at
		}
		d.add(at, "write two ports, 500 and 4500 by default", "port and nat_port are both %d", p.val)
	}
	return p.val, n.val
}
