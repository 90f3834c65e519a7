//go:build linux

package harness

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// Types of packets and of a message's elements in VICI, strongSwan's control
// protocol: one socket, each packet behind its length.
const (
	viciRequest       = 0
	viciResponse      = 1
	viciEventRegister = 3
	viciEventConfirm  = 5
	viciEvent         = 7

	viciSectionStart = 1
	viciSectionEnd   = 2
	viciKeyValue     = 3
	viciListStart    = 4
	viciListItem     = 5
	viciListEnd      = 6
)

// Node is a section of a VICI message.
type Node struct {
	Name     string
	Values   map[string]string // a list's items are joined by blanks
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

// vici sends a command with pairs of keys and values, and returns the response
// and the events of the name event that come before it ("" for none).
func (c *Charon) vici(event, command string, pairs ...string) (*Node, []*Node, error) {
	var conn net.Conn
	err := c.Host.Do(func() error {
		var err error
		conn, err = net.Dial("unix", "/run/charon.vici")
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(Timeout)); err != nil {
		return nil, nil, err
	}
	if event != "" {
		if err := viciSend(conn, viciEventRegister, event, nil); err != nil {
			return nil, nil, err
		}
		if kind, _, err := viciReceive(conn); err != nil || kind != viciEventConfirm {
			return nil, nil, fmt.Errorf("event %s: answer %d, %w", event, kind, err)
		}
	}
	var body []byte
	for i := 0; i+1 < len(pairs); i += 2 {
		body = append(body, viciKeyValue, byte(len(pairs[i])))
		body = append(body, pairs[i]...)
		body = binary.BigEndian.AppendUint16(body, uint16(len(pairs[i+1])))
		body = append(body, pairs[i+1]...)
	}
	if err := viciSend(conn, viciRequest, command, body); err != nil {
		return nil, nil, err
	}
	var events []*Node
	for {
		kind, data, err := viciReceive(conn)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", command, err)
		}
		switch kind {
		case viciEvent:
			if len(data) == 0 || len(data) < 1+int(data[0]) {
				return nil, nil, fmt.Errorf("%s: short event", command)
			}
			node, err := viciParse(data[1+int(data[0]):])
			if err != nil {
				return nil, nil, err
			}
			events = append(events, node)
		case viciResponse:
			node, err := viciParse(data)
			if err == nil && node.Values["success"] == "no" {
				err = fmt.Errorf("%s: %s", command, node.Values["errmsg"])
			}
			return node, events, err
		default:
			return nil, nil, fmt.Errorf("%s: answer %d", command, kind)
		}
	}
}

func viciSend(w io.Writer, kind byte, name string, body []byte) error {
	packet := append([]byte{0, 0, 0, 0, kind, byte(len(name))}, name...)
	packet = append(packet, body...)
	binary.BigEndian.PutUint32(packet, uint32(len(packet)-4))
	_, err := w.Write(packet)
	return err
}

func viciReceive(r io.Reader) (kind byte, data []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	length := binary.BigEndian.Uint32(head[:])
	if length < 1 || length > 1<<20 {
		return 0, nil, fmt.Errorf("packet of %d bytes", length)
	}
	data = make([]byte, length-1)
	_, err = io.ReadFull(r, data)
	return head[4], data, err
}

var errVICI = errors.New("malformed VICI message")

// viciParse reads a message into a tree.
func viciParse(b []byte) (*Node, error) {
	root := &Node{Values: map[string]string{}}
	stack := []*Node{root}
	list := ""
	take := func(lengthBytes int) string {
		if len(b) < lengthBytes {
			b = nil
			return ""
		}
		n := 0
		for _, x := range b[:lengthBytes] {
			n = n<<8 | int(x)
		}
		b = b[lengthBytes:]
		s := string(b[:min(n, len(b))])
		b = b[len(s):]
		return s
	}
	for len(b) > 0 {
		kind, top := b[0], stack[len(stack)-1]
		b = b[1:]
		switch kind {
		case viciSectionStart:
			n := &Node{Name: take(1), Values: map[string]string{}}
			top.Sections = append(top.Sections, n)
			stack = append(stack, n)
		case viciSectionEnd:
			if len(stack) == 1 {
				return nil, errVICI
			}
			stack = stack[:len(stack)-1]
		case viciKeyValue:
			key := take(1)
			top.Values[key] = take(2)
		case viciListStart:
			list = take(1)
			top.Values[list] = ""
		case viciListItem:
			top.Values[list] = strings.TrimSpace(top.Values[list] + " " + take(2))
		case viciListEnd:
			list = ""
		default:
			return nil, errVICI
		}
	}
	if len(stack) != 1 {
		return nil, errVICI
	}
	return root, nil
}

// SAs returns the daemon's IKE SAs.
func (c *Charon) SAs() []*Node {
	c.t.Helper()
	_, events, err := c.vici("list-sa", "list-sas")
	if err != nil {
		c.t.Fatalf("%s: %v", c.Host.Name, err)
	}
	var out []*Node
	for _, e := range events {
		out = append(out, e.Sections...)
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

// command runs a VICI command that must succeed.
func (c *Charon) command(name string, pairs ...string) {
	c.t.Helper()
	if _, _, err := c.vici("", name, pairs...); err != nil {
		c.t.Fatalf("%s: strongSwan: %v", c.Host.Name, err)
	}
}

// Initiate sets a child up, and its IKE SA, and waits for it.
func (c *Charon) Initiate(child string) {
	c.t.Helper()
	c.command("initiate", "child", child, "timeout", "20000", "loglevel", "-1")
}

// RekeyChild starts to rekey a Child SA by the name of its configuration.
func (c *Charon) RekeyChild(child string) {
	c.t.Helper()
	c.command("rekey", "child", child)
}

// RekeyIKE starts to rekey an IKE SA by the name of its connection.
func (c *Charon) RekeyIKE(conn string) {
	c.t.Helper()
	c.command("rekey", "ike", conn)
}

// Terminate ends an IKE SA by the name of its connection.
func (c *Charon) Terminate(conn string) {
	c.t.Helper()
	c.command("terminate", "ike", conn, "timeout", "20000", "loglevel", "-1")
}
