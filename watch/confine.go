package watch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"

	"github.com/landlock-lsm/go-landlock/landlock"
	landlocksys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"ipsec-quick/conf"
)

// kept are the capabilities of a loop that runs: SAs, policies and routes need
// the first, ports below 1024 the second.
var kept = []cap.Value{cap.NET_ADMIN, cap.NET_BIND_SERVICE}

// gcPercent trades time for memory (GOGC): a loop allocates little, and its heap
// is small unless there are a thousand peers.
const gcPercent = 50

// confine gives up, in all threads and for good, what a loop that runs does not
// need: files, capabilities, and the memory that the start took. A host that does
// not allow it is no reason to leave the tunnel down.
func (l *loop) confine() {
	defer debug.FreeOSMemory()
	debug.SetGCPercent(gcPercent)
	l.code = findCode() // while /proc can be read
	l.code.unmap()
	abi, err := restrictFiles(l.dir.root, l.facts.Path, l.tunnel)
	switch {
	case err != nil:
		l.log.Warn("the loop may still reach all files", "err", err)
	case abi == 0:
		l.log.Debug("the kernel has no landlock: the loop may still reach all files")
	default:
		l.log.Debug("files are restricted", "landlock", abi)
	}
	keep := kept
	if inUserspace(l.dp) {
		keep = append(slices.Clone(kept), cap.NET_RAW) // for ESP that does not go in UDP
	}
	if err := dropCapabilities(keep); err != nil {
		l.log.Warn("the loop keeps rights that it does not need", "err", err)
		return
	}
	l.log.Debug("capabilities are dropped", "kept", cap.GetProc().String())
}

// restrictFiles leaves the files that the loop needs (landlock(7)), and returns
// the kernel's version of landlock; 0: it has none. root is the run directory,
// path the tunnel file. Descriptors that are open
// stay open, and sockets are not restricted. The rules are for folders where
// files are replaced: one for a file does not cover its successor.
func restrictFiles(root, path string, t *conf.Tunnel) (abi int, err error) {
	abi, err = landlocksys.LandlockGetABIVersion()
	if err != nil {
		return 0, nil // not built in, or not switched on
	}
	program, err := os.Executable() // where the next version will lie
	if err != nil {
		return abi, err
	}
	read := []string{"/usr/share/zoneinfo", filepath.Dir(program), filepath.Dir(path)}
	for _, f := range t.Files {
		read = append(read, filepath.Dir(f))
	}
	// A reload may bring the first name to look up. /etc as a whole is only for a
	// tunnel that has one already.
	named := slices.ContainsFunc(t.Peers, func(p conf.Peer) bool { return p.Endpoint.Host != "" && !p.Endpoint.Addr.IsValid() })
	if folder := resolverFolder(); named || folder != "/etc" {
		read = append(read, folder)
	}
	err = landlock.V5.BestEffort().RestrictPaths(
		landlock.RWDirs(root),
		landlock.PathAccess(landlocksys.AccessFSRemoveDir, filepath.Dir(root)), // to remove root
		landlock.RODirs(read...).IgnoreIfMissing(),
		landlock.RODirs(libraries...).IgnoreIfMissing(),
		landlock.ROFiles("/etc/ld.so.cache", "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/localtime").IgnoreIfMissing(),
		landlock.RWFiles(os.DevNull),
		// What the next program needs to do ESP itself.
		landlock.RWFiles("/dev/net/tun").WithIoctlDev().IgnoreIfMissing(),
		landlock.ROFiles("/proc/sys/kernel/random/boot_id").IgnoreIfMissing(),
	)
	if errors.Is(err, unix.E2BIG) {
		err = nil // a loop that was restarted many times, and has the rules of each
	}
	return abi, err
}

// libraries are for a next version of this program that is not linked statically.
var libraries = []string{"/lib", "/lib64", "/usr/lib", "/usr/lib64"}

// resolverFolder is where resolv.conf lies: with most of those who write it not
// in /etc itself. What it points to may not be there yet, nor its folder; then it
// is the one above.
func resolverFolder() string {
	path := "/etc/resolv.conf"
	for range 8 { // more links than anybody has
		to, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	folder := filepath.Dir(path)
	for {
		if folder == "/" {
			return "/etc"
		}
		if there, err := filepath.EvalSymlinks(folder); err == nil {
			return there
		}
		folder = filepath.Dir(folder)
	}
}

// dropCapabilities leaves those to keep; execve gives none back.
func dropCapabilities(keep []cap.Value) error {
	if _, err := cap.Prctlw(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	was, left := cap.GetProc(), cap.NewSet()
	for _, v := range keep {
		if has, err := was.GetFlag(cap.Permitted, v); err != nil || !has {
			continue // never had it; whatever needs it says so
		}
		if err := errors.Join(left.SetFlag(cap.Permitted, true, v), left.SetFlag(cap.Effective, true, v)); err != nil {
			return err
		}
	}
	if may, err := was.GetFlag(cap.Effective, cap.SETPCAP); err == nil && may {
		for v := range cap.MaxBits() {
			if slices.Contains(keep, v) {
				continue
			}
			if err := cap.DropBound(v); err != nil {
				return fmt.Errorf("bounding set: %w", err)
			}
		}
	}
	if err := left.SetProc(); err != nil { // it empties the ambient set too
		return fmt.Errorf("capabilities: %w", err)
	}
	return nil
}
