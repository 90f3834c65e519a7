//go:build linux

package harness

import (
	"fmt"
	"strings"
)

// Conn is a connection of swanctl.conf with one child. A field left empty is
// left out of the file.
type Conn struct {
	Name          string
	Local, Remote string // addresses; Remote may be %any
	LocalID       string
	RemoteID      string
	Auth          string // of both sides: psk, pubkey or a signature scheme; psk when empty
	Secret        string // the pre-shared key
	LocalPubkey   string // files in /etc/swanctl/pubkey
	RemotePubkey  string
	Proposals     string
	Extra         string // more lines for the connection
	LocalAuth     string // more lines for the local section
	Child         Child
}

// Child is a child of a Conn.
type Child struct {
	Name     string // "net" when empty
	LocalTS  string
	RemoteTS string
	ESP      string // proposals
	Mode     string // tunnel when empty
	Extra    string // more lines: lifetimes, start_action
}

// String is the connection and its secret as swanctl.conf has them.
func (c Conn) String() string {
	var b strings.Builder
	auth := c.Auth
	if auth == "" {
		auth = "psk"
	}
	line := func(indent int, key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s%s = %s\n", strings.Repeat("\t", indent), key, value)
		}
	}
	more := func(indent int, lines string) {
		for l := range strings.Lines(lines) {
			if l = strings.TrimSpace(l); l != "" {
				fmt.Fprintf(&b, "%s%s\n", strings.Repeat("\t", indent), l)
			}
		}
	}
	fmt.Fprintf(&b, "connections {\n\t%s {\n", c.Name)
	line(2, "version", "2")
	line(2, "local_addrs", c.Local)
	line(2, "remote_addrs", c.Remote)
	line(2, "proposals", c.Proposals)
	more(2, c.Extra)
	b.WriteString("\t\tlocal {\n")
	line(3, "auth", auth)
	line(3, "id", c.LocalID)
	line(3, "pubkeys", c.LocalPubkey)
	more(3, c.LocalAuth)
	b.WriteString("\t\t}\n\t\tremote {\n")
	line(3, "auth", auth)
	line(3, "id", c.RemoteID)
	line(3, "pubkeys", c.RemotePubkey)
	b.WriteString("\t\t}\n\t\tchildren {\n")
	name := c.Child.Name
	if name == "" {
		name = "net"
	}
	fmt.Fprintf(&b, "\t\t\t%s {\n", name)
	line(4, "local_ts", c.Child.LocalTS)
	line(4, "remote_ts", c.Child.RemoteTS)
	line(4, "esp_proposals", c.Child.ESP)
	line(4, "mode", c.Child.Mode)
	more(4, c.Child.Extra)
	b.WriteString("\t\t\t}\n\t\t}\n\t}\n}\n")
	if c.Secret != "" {
		fmt.Fprintf(&b, "secrets {\n\tike-%s {\n", c.Name)
		if c.LocalID != "" && c.RemoteID != "" {
			line(2, "id-local", c.LocalID)
			line(2, "id-remote", c.RemoteID)
		}
		fmt.Fprintf(&b, "\t\tsecret = %q\n\t}\n}\n", c.Secret)
	}
	return b.String()
}

// Node is a section of what swanctl prints with --raw.
type Node struct {
	Name     string
	Values   map[string]string // a list's items are separated by blanks
	Sections []*Node
}

// Section returns the section of a name, or nil.
func (n *Node) Section(name string) *Node {
	for _, s := range n.Sections {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// SAs returns the daemon's IKE SAs.
func (c *Charon) SAs() []*Node {
	c.t.Helper()
	var out []*Node
	for line := range strings.Lines(c.Swanctl("--list-sas", "--raw")) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "list-sa event ")
		if !ok {
			continue
		}
		root, err := parseRaw(rest)
		if err != nil {
			c.t.Fatalf("swanctl --list-sas --raw: %v in %q", err, line)
		}
		out = append(out, root.Sections...)
	}
	return out
}

// Children returns all Child SAs of a state; of every state when it is empty.
func (c *Charon) Children(state string) []*Node {
	c.t.Helper()
	var out []*Node
	for _, sa := range c.SAs() {
		if list := sa.Section("child-sas"); list != nil {
			for _, child := range list.Sections {
				if state == "" || child.Values["state"] == state {
					out = append(out, child)
				}
			}
		}
	}
	return out
}

// parseRaw parses "{name {key=value list=[a b] sub {…}}}".
func parseRaw(s string) (*Node, error) {
	root := &Node{Values: map[string]string{}}
	stack := []*Node{root}
	s = strings.TrimSpace(s)
	if !strings.HasPrefix(s, "{") {
		return nil, fmt.Errorf("no section")
	}
	s = s[1:]
	for len(stack) > 0 {
		s = strings.TrimLeft(s, " ")
		if s == "" {
			return nil, fmt.Errorf("ends within a section")
		}
		if s[0] == '}' {
			stack, s = stack[:len(stack)-1], s[1:]
			continue
		}
		i := strings.IndexAny(s, "={")
		if i < 0 {
			return nil, fmt.Errorf("neither value nor section: %q", s)
		}
		name, top := strings.TrimSpace(s[:i]), stack[len(stack)-1]
		open := s[i] == '{'
		s = s[i+1:]
		switch {
		case open:
			n := &Node{Name: name, Values: map[string]string{}}
			top.Sections = append(top.Sections, n)
			stack = append(stack, n)
		case strings.HasPrefix(s, "["):
			end := strings.IndexByte(s, ']')
			if end < 0 {
				return nil, fmt.Errorf("list without end: %q", s)
			}
			top.Values[name], s = s[1:end], s[end+1:]
		default:
			end := strings.IndexAny(s, " }")
			if end < 0 {
				return nil, fmt.Errorf("value without end: %q", s)
			}
			top.Values[name], s = s[:end], s[end:]
		}
	}
	return root, nil
}
