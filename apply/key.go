package apply

import (
	"fmt"
	"io"
	"log/slog"
)

// Key is key material. It prints as <hidden> with every verb, in slog, JSON
// and text encodings.
type Key []byte

const hidden = "<hidden>"

// String hides the key.
func (Key) String() string { return hidden }

// GoString hides the key.
func (Key) GoString() string { return hidden }

// Format hides the key, whatever the verb (%x would print a []byte).
func (Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// LogValue hides the key from log/slog.
func (Key) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalJSON hides the key.
func (Key) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }

// MarshalText hides the key.
func (Key) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// Wipe overwrites the key.
func (k Key) Wipe() { clear(k) }
