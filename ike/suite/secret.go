package suite

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// redacted is all that any print of a Secret shows.
const redacted = "<hidden>"

// Secret is key material in octets: a pre-shared key, a shared secret, a derived key.
//
// Every way of printing it (fmt with any verb, log/slog, JSON, text) gives "<hidden>".
// encoding/gob alone carries the octets, because the state of a tunnel has to survive
// a restart; what is gob-encoded belongs in a file that only root can read.
type Secret []byte

// String returns "<hidden>".
func (Secret) String() string { return redacted }

// GoString returns "<hidden>", so %#v shows nothing either.
func (Secret) GoString() string { return redacted }

// Format writes "<hidden>" for every verb, %x and %d among them.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue makes log/slog print "<hidden>".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON returns "<hidden>" as a JSON string.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText returns "<hidden>".
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// GobEncode returns the octets themselves: see Secret.
func (s Secret) GobEncode() ([]byte, error) { return s, nil }

// GobDecode sets s to a copy of what GobEncode wrote.
func (s *Secret) GobDecode(b []byte) error {
	*s = append(Secret(nil), b...)
	return nil
}

// Wipe overwrites the octets with zeros. Copies made elsewhere are not reached.
func (s Secret) Wipe() { clear(s) }

// Equal reports whether both hold the same octets, in a time that depends on the lengths alone.
func (s Secret) Equal(t Secret) bool { return subtle.ConstantTimeCompare(s, t) == 1 }
