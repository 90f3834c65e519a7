//go:build linux

package harness

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"
)

// Bus is a system bus with nobody on it but, perhaps, a systemd-resolved that
// writes down what it is told.
type Bus struct {
	t        testing.TB
	resolved bool              // it is there
	fail     map[string]string // errors of it, by method

	mu    sync.Mutex
	calls []string
}

// ServeBus serves a bus at a unix socket until the test ends.
func ServeBus(t testing.TB, path string, resolved bool, fail map[string]string) (*Bus, error) {
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	b := &Bus{t: t, resolved: resolved, fail: fail}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer conn.Close()
				if err := b.serve(conn); err != nil && !errors.Is(err, io.EOF) {
					t.Errorf("bus: %v", err)
				}
			})
		}
	})
	t.Cleanup(func() { listener.Close(); served.Wait() })
	return b, nil
}

// ServeBus serves a bus at the place of the system's.
func (h *Host) ServeBus(resolved bool, fail map[string]string) *Bus {
	h.t.Helper()
	var b *Bus
	err := h.Do(func() error {
		err := os.MkdirAll("/run/dbus", 0o755)
		if err == nil {
			b, err = ServeBus(h.t, "/run/dbus/system_bus_socket", resolved, fail)
		}
		return err
	})
	if err != nil {
		h.t.Fatalf("%s: %v", h.Name, err)
	}
	return b
}

// serve speaks D-Bus with one client: SASL first (D-Bus Specification,
// "Authentication Protocol"), then messages.
func (b *Bus) serve(conn net.Conn) error {
	in := bufio.NewReader(conn)
	if zero, err := in.ReadByte(); err != nil || zero != 0 {
		return err
	}
	for begun := false; !begun; {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		answer := ""
		switch words := strings.Fields(line); words[0] {
		case "AUTH":
			answer = "REJECTED EXTERNAL\r\n"
			if len(words) > 1 {
				answer = "DATA\r\n" // who is it?
			}
		case "DATA":
			answer = "OK 0123456789abcdef0123456789abcdef\r\n"
		case "NEGOTIATE_UNIX_FD":
			answer = "ERROR\r\n"
		case "BEGIN":
			begun = true
		}
		if _, err := io.WriteString(conn, answer); err != nil {
			return err
		}
	}
	for {
		m, err := dbus.DecodeMessage(in)
		if err != nil {
			return err
		}
		if m.Type != dbus.TypeMethodCall {
			continue
		}
		body, failure := b.answer(m)
		reply := &dbus.Message{Type: dbus.TypeMethodReply, Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldReplySerial: dbus.MakeVariant(m.Serial()), dbus.FieldDestination: dbus.MakeVariant(":1.1"),
		}}
		if failure != "" {
			reply.Type = dbus.TypeError
			reply.Headers[dbus.FieldErrorName] = dbus.MakeVariant(failure)
			body = []any{"so says the test"}
		}
		if reply.Body = body; len(body) > 0 {
			reply.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(body...))
		}
		if err := reply.EncodeTo(conn, binary.LittleEndian); err != nil {
			return err
		}
	}
}

// answer is what a method returns, or the name of its error.
func (b *Bus) answer(m *dbus.Message) (body []any, failure string) {
	method, _ := m.Headers[dbus.FieldMember].Value().(string)
	to, _ := m.Headers[dbus.FieldDestination].Value().(string)
	signature, _ := m.Headers[dbus.FieldSignature].Value().(dbus.Signature)
	switch {
	case method == "Hello":
		return []any{":1.1"}, ""
	case method == "NameHasOwner":
		return []any{b.resolved}, ""
	case to != "org.freedesktop.resolve1" || !b.resolved:
		return nil, "org.freedesktop.DBus.Error.ServiceUnknown"
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = append(b.calls, fmt.Sprintf("%s(%s) %v", method, signature.String(), m.Body))
	return nil, b.fail[method]
}

// Said is what systemd-resolved was told, a line for each method.
func (b *Bus) Said() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.calls, "\n")
}

// Forget forgets what it was told.
func (b *Bus) Forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = nil
}
