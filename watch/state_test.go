package watch

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ipsec-quick/conf"
	"ipsec-quick/ike"
)

// established is a state file of a tunnel that is up.
func establishedState(t *testing.T) ([]byte, *conf.Tunnel) {
	t.Helper()
	ha, _, ra, _ := pair(t, nil)
	b, err := os.ReadFile(filepath.Join(ha.root, "left", stateFile("other")))
	if err != nil {
		t.Fatal(err)
	}
	return b, ra.tunnel
}

func TestStateFile(t *testing.T) {
	b, tunnel := establishedState(t)
	snapshot, err := parseState(b)
	if err != nil {
		t.Fatal(err)
	}
	core := ike.New(coreConfig(tunnel, false))
	if err := core.Restore("other", snapshot); err != nil {
		t.Fatal(err)
	}
	if st := core.Status(); len(st) != 1 || len(st[0].Children) != 1 {
		t.Errorf("%+v", st)
	}
	for name, bad := range map[string][]byte{
		"empty": {}, "cut short": b[:len(b)/2], "another version": append([]byte("ipsec-quick state 9\n"), snapshot...),
		"times of the wall clock": append([]byte("ipsec-quick state 2\n"), snapshot...), "no magic": snapshot,
	} {
		snapshot, err := parseState(bad)
		if err == nil {
			err = ike.New(coreConfig(tunnel, false)).Restore("other", snapshot)
		}
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestStateUnreadable: the tunnel starts over.
func TestStateUnreadable(t *testing.T) {
	ha, _, ra, _ := pair(t, nil)
	before := ha.status("left")
	tunnel := ra.tunnel
	ra.crash()
	if err := os.WriteFile(filepath.Join(ha.root, "left", stateFile("other")), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	ha.start(tunnel)
	eventually(t, "established anew", func() bool {
		return ha.established("left") && ha.status("left").IKE.SPIi != before.IKE.SPIi
	})
	if got := len(ha.dp.SAs()); got != 2 {
		t.Errorf("%d SAs: the old ones are orphans", got)
	}
	ha.correct()
}

func TestStateNotWritable(t *testing.T) {
	ha, _, ra, _ := pair(t, nil)
	state := filepath.Join(ha.root, "left", stateFile("other"))
	if !ra.call(func() {
		// A folder in the place of the temporary file: it cannot be written.
		if err := os.Mkdir(state+".new", 0o700); err != nil {
			t.Error(err)
		}
	}) {
		t.Fatal("the loop has ended")
	}
	failed := make(chan error, 1)
	go func() { failed <- Rekey(ha.root, "left", "", false) }()
	time.Sleep(100 * time.Millisecond)
	if got := ha.status("left").Rekeys.Child; got != 0 {
		t.Error("something was sent that is on no disk")
	}
	if err := os.Remove(state + ".new"); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err != nil {
		t.Errorf("after it could be written: %v", err)
	}
}

// FuzzState reads state files that nobody of ours wrote. What can be used is
// written and read again as the same.
func FuzzState(f *testing.F) {
	cfg := coreConfig(&conf.Tunnel{Peers: []conf.Peer{{Name: "other"}}}, false) // as in the corpus
	f.Fuzz(func(t *testing.T, b []byte) {
		snapshot, err := parseState(b)
		if err != nil {
			return
		}
		core := ike.New(cfg)
		if core.Restore("other", snapshot) != nil {
			return
		}
		first, err := core.Snapshot("other")
		if err != nil {
			t.Fatal(err)
		}
		core = ike.New(cfg)
		if err := core.Restore("other", first); err != nil {
			t.Fatal(err)
		}
		if again, err := core.Snapshot("other"); err != nil || !bytes.Equal(again, first) {
			t.Errorf("%v: it became another", err)
		}
	})
}
