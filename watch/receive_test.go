package watch

import (
	"bytes"
	"slices"
	"testing"
)

// FuzzDestination reads control messages of a datagram. An address that is found
// stands in one of them.
func FuzzDestination(f *testing.F) {
	f.Fuzz(func(t *testing.T, control []byte) {
		before := slices.Clone(control)
		addr := destination(control)
		if !bytes.Equal(control, before) {
			t.Error("reading changed them")
		}
		if addr.IsValid() && (!bytes.Contains(control, addr.AsSlice()) || addr.Zone() != "") {
			t.Errorf("%v is in none of them", addr)
		}
	})
}
