package watch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"ipsec-quick/ike"
)

// stateMagic begins the state file: what follows is the core's snapshot, keys
// and all. Another format gets another number.
const stateMagic = "ipsec-quick state 1\n"

// maxState bounds the state file: some thousand IKE SAs.
const maxState = 64 << 20

// errNoState: nothing was written yet.
var errNoState = errors.New("there is no saved state")

// save writes what the core knows.
func (l *loop) save() error {
	snapshot, err := l.core.Snapshot()
	if err == nil {
		err = l.dir.replace(fileState, append([]byte(stateMagic), snapshot...))
	}
	clear(snapshot)
	if err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	l.unsaved = false
	return nil
}

// loadState reads the snapshot of a directory.
func loadState(d *dir) ([]byte, error) {
	f, err := os.OpenFile(d.file(fileState), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoState
	}
	if err != nil {
		return nil, fmt.Errorf("state file: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxState+1))
	if err != nil {
		return nil, fmt.Errorf("state file: %w", err)
	}
	return parseState(b)
}

func parseState(b []byte) ([]byte, error) {
	snapshot, ok := bytes.CutPrefix(b, []byte(stateMagic))
	if !ok || len(b) > maxState {
		return nil, errors.New("state file: it is not one of this version")
	}
	return snapshot, nil
}

// restore makes the core from the state of a directory.
func restore(cfg ike.Config, d *dir) (*ike.Endpoint, error) {
	snapshot, err := loadState(d)
	if err != nil {
		return nil, err
	}
	defer clear(snapshot)
	core, err := ike.Restore(cfg, snapshot)
	if err != nil {
		return nil, fmt.Errorf("state file: %w", err)
	}
	return core, nil
}
