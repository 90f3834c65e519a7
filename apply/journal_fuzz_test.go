package apply_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"ipsec-quick/apply"
	"ipsec-quick/apply/fake"
)

// FuzzJournal opens journals that it did not write. What can be opened has the
// same records when it is opened again, also behind a line that was cut short,
// and can be undone.
func FuzzJournal(f *testing.F) {
	path := filepath.Join(f.TempDir(), "journal")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		open := func() (*apply.Journal, error) { return apply.OpenJournal(path, fake.New(), func(string) {}) }
		j, err := open()
		if err != nil {
			return
		}
		sas, policies := j.SAs(), j.Policies()
		for _, torn := range []string{"", `{"sa":{"Dst":"192.0.2.1"`} {
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			written, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, append(written, torn...), 0o600); err != nil {
				t.Fatal(err)
			}
			if j, err = open(); err != nil {
				t.Fatalf("again, behind %q: %v", written, err)
			}
			if !reflect.DeepEqual(j.SAs(), sas) || !reflect.DeepEqual(j.Policies(), policies) {
				t.Errorf("again: %v %v, want %v %v", j.SAs(), j.Policies(), sas, policies)
			}
		}
		if err := j.Undo(); err != nil {
			t.Errorf("undo: %v", err)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after Undo: %v", err)
		}
		_ = j.Close()
	})
}
