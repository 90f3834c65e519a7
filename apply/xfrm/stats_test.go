package xfrm

import (
	"os"
	"path/filepath"
	"testing"
)

func TestStatistics(t *testing.T) {
	path := filepath.Join(t.TempDir(), "xfrm_stat")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("XfrmInError                     \t1\nXfrmInNoStates                  \t12\nXfrmInStateProtoError           \t3\n")
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	s := &statistics{file: f}
	defer s.close()
	if n := s.unknown(); n != 12 {
		t.Errorf("%d", n)
	}
	write("XfrmInNoStates 13\n")
	if n := s.unknown(); n != 13 {
		t.Errorf("read again: %d", n)
	}
	write("XfrmInError 1\n")
	if n := s.unknown(); n != 0 {
		t.Errorf("without the counter: %d", n)
	}
	none := &statistics{}
	if none.unknown() != 0 || none.close() != nil {
		t.Error("a kernel without statistics")
	}
}
