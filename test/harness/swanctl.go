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
