package watch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// RunDir is where the directories of all tunnels that are up lie. It is on a
// tmpfs: what is in it does not outlive the kernel, like SAs and policies.
const RunDir = "/run/ipsec-quick"

// The files in a tunnel's directory. Everything is readable by the owner alone.
const (
	fileLock     = "lock"    // flock: held by the one process that runs the loop
	filePID      = "pid"     // that process; with " starting" while `up` is at it
	fileTunnel   = "tunnel"  // facts, JSON
	fileJournal  = "journal" // what is installed on this host
	fileControl  = "control.sock"
	fileHandover = "handover.sock"
	fileESP      = "esp.sock"
	fileLog      = "log"
	dirState     = "state" // a file for each peer: the IKE state with its keys
	dirSPI       = "spi"   // an empty file for each IKE SPI on our side
)

// dir is the directory of one tunnel.
type dir struct {
	root, name, path string
	lock             *os.File // held
}

func newDir(root, name string) *dir {
	return &dir{root: root, name: name, path: filepath.Join(root, name)}
}

func (d *dir) file(name string) string { return filepath.Join(d.path, name) }

// enter takes the tunnel's lock, and makes its directory where there is none.
// The error is a *Running if another process has the lock.
func enter(root, name string) (*dir, error) {
	d := newDir(root, name)
	err := withHostLock(root, func() error {
		if err := os.Mkdir(d.path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return d.take()
	})
	if err != nil {
		var running *Running
		if errors.As(err, &running) {
			return nil, err
		}
		return nil, fmt.Errorf("run directory: %w", err)
	}
	return d, nil
}

// reenter takes the lock of a tunnel that is there: ErrNotUp if it is not, a
// *Running if its loop lives.
func reenter(root, name string) (*dir, error) {
	d := newDir(root, name)
	if _, err := os.Lstat(d.path); err != nil {
		return nil, ErrNotUp
	}
	if err := withHostLock(root, d.take); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			_ = os.Remove(root) // it fails unless this was the last tunnel
			return nil, ErrNotUp
		}
		return nil, err
	}
	return d, nil
}

// withHostLock keeps other tunnels' processes from making and removing
// directories meanwhile. The lock is on the run directory itself, so that it
// leaves no file behind.
func withHostLock(root string, do func() error) error {
	for {
		if err := os.Mkdir(root, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		f, err := os.OpenFile(root, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another process removed it
		}
		if err != nil {
			return err
		}
		if err = flock(f, unix.LOCK_EX); err == nil {
			if !sameFile(f, root) {
				_ = f.Close()
				continue
			}
			if err = checkPrivate(f); err == nil {
				err = do()
			}
		}
		_ = f.Close()
		return err
	}
}

// checkPrivate refuses a run directory into which others could have put things.
func checkPrivate(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {
		return fmt.Errorf("%s belongs to user %d with mode %04o: it must be ours with mode 0700; remove it",
			f.Name(), st.Uid, st.Mode&0o7777)
	}
	return nil
}

// take opens and locks the lock file.
func (d *dir) take() error {
	f, err := os.OpenFile(d.file(fileLock), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	err = flock(f, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		_ = f.Close()
		return d.running()
	}
	if err != nil {
		_ = f.Close()
		return err
	}
	d.lock = f
	return nil
}

// running describes the process that has the lock.
func (d *dir) running() *Running {
	pid, starting := d.pid()
	r := &Running{Name: d.name, PID: pid, Starting: starting}
	if f, err := d.facts(); err == nil {
		r.Path = f.Path
	}
	return r
}

// release gives the lock up and leaves everything as it is.
func (d *dir) release() {
	if d.lock != nil {
		_ = d.lock.Close()
		d.lock = nil
	}
}

// remove removes the directory, and the run directory when it was the last one.
func (d *dir) remove() error {
	return withHostLock(d.root, func() error {
		if err := os.RemoveAll(d.path); err != nil {
			return err
		}
		if err := os.Remove(d.root); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EBUSY) {
			return err
		}
		return nil
	})
}

// writePID tells others which process has the lock.
func (d *dir) writePID(starting bool) error {
	text := strconv.Itoa(os.Getpid())
	if starting {
		text += " starting"
	}
	return d.replace(filePID, []byte(text+"\n"))
}

func (d *dir) pid() (pid int, starting bool) {
	b, err := os.ReadFile(d.file(filePID))
	if err != nil {
		return 0, false
	}
	words := strings.Fields(string(b))
	if len(words) == 0 {
		return 0, false
	}
	pid, _ = strconv.Atoi(words[0])
	return pid, len(words) > 1
}

func (d *dir) writeFacts(f *facts) error {
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return d.replace(fileTunnel, append(b, '\n'))
}

func (d *dir) facts() (*facts, error) {
	b, err := os.ReadFile(d.file(fileTunnel))
	if err != nil {
		return nil, err
	}
	f := new(facts)
	if err := json.Unmarshal(b, f); err != nil {
		return nil, fmt.Errorf("%s: %w", d.file(fileTunnel), err)
	}
	return f, nil
}

// replace writes a file in one step. It does not sync: a tmpfs has no disk, and
// what is written survives this process.
func (d *dir) replace(name string, data []byte) error {
	path := d.file(name)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// makeFolders makes those inside the tunnel's directory.
func (d *dir) makeFolders() error {
	for _, name := range []string{dirState, dirSPI} {
		if err := os.Mkdir(d.file(name), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// forget removes what a loop of a namespace that is gone left.
func (d *dir) forget() error {
	entries, err := os.ReadDir(d.path)
	for _, e := range entries {
		if e.Name() != fileLock {
			err = errors.Join(err, os.RemoveAll(d.file(e.Name())))
		}
	}
	return err
}

// tunnels are the names of all tunnels that are up, or whose loop has died.
func tunnels(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// others are the facts of the other tunnels in our network namespace.
func (d *dir) others(netns string) map[string]*facts {
	found := map[string]*facts{}
	names, _ := tunnels(d.root) // it is ours, so it can be read
	for _, name := range names {
		if name == d.name {
			continue
		}
		if f, err := newDir(d.root, name).facts(); err == nil && (netns == "" || f.Netns == netns) {
			found[name] = f
		}
	}
	return found
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// sameFile reports whether the path still names the open file.
func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}
