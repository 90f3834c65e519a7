package watch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"ipsec-quick/ike"
)

// stateMagic begins a state file: what follows is the core's snapshot of one
// peer, keys and all. Another format gets another number; up to 2, times were the
// wall clock's.
const stateMagic = "ipsec-quick state 4\n"

// maxState bounds a state file: the IKE SAs with one peer.
const maxState = 4 << 20

// stateFile is the path of a peer's state below the tunnel's directory.
func stateFile(peer string) string { return dirState + "/" + peer + ".state" }

// save writes what the core knows of the peers that changed. Those that cannot
// be written stay unsaved.
func (l *loop) save() error {
	var failed error
	for peer := range l.unsaved {
		if err := l.savePeer(peer); err != nil {
			failed = errors.Join(failed, fmt.Errorf("state of %s: %w", peer, err))
			continue
		}
		delete(l.unsaved, peer)
	}
	return failed
}

func (l *loop) savePeer(peer string) error {
	snapshot, err := l.core.Snapshot(peer)
	if err == nil {
		err = l.dir.replace(stateFile(peer), append([]byte(stateMagic), snapshot...))
	}
	clear(snapshot)
	return err
}

// peersWithState are the peers that there is a state file of.
func (d *dir) peersWithState() []string {
	entries, _ := os.ReadDir(d.file(dirState)) // none: no peer has one
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".state"); ok {
			names = append(names, name)
		}
	}
	return names
}

// loadState reads the snapshot of a peer: fs.ErrNotExist if there is none.
func loadState(d *dir, peer string) ([]byte, error) {
	f, err := os.OpenFile(d.file(stateFile(peer)), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxState+1))
	if err != nil {
		return nil, err
	}
	return parseState(b)
}

func parseState(b []byte) ([]byte, error) {
	snapshot, ok := bytes.CutPrefix(b, []byte(stateMagic))
	if !ok || len(b) > maxState {
		return nil, errors.New("it is no state file of this version")
	}
	return snapshot, nil
}

// restore makes the core from the state in a directory. A peer whose state is
// missing or cannot be used starts over; the error tells of the latter. What is
// there of a peer that the configuration has no more, the core closes.
func restore(cfg ike.Config, d *dir) (*ike.Endpoint, error) {
	core := ike.New(cfg)
	peers := d.peersWithState()
	var failed error
	for i := range cfg.Peers {
		if name := cfg.Peers[i].Name; !slices.Contains(peers, name) {
			peers = append(peers, name)
		}
	}
	for _, peer := range peers {
		snapshot, err := loadState(d, peer)
		if err == nil {
			err = core.Restore(peer, snapshot)
			clear(snapshot)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, fmt.Errorf("state of %s: %w", peer, err))
		}
	}
	return core, failed
}
