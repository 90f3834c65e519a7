//go:build linux

package harness

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Snapshot is all of a host that a tunnel may touch: SAs, policies, routes,
// rules, links and addresses, processes, the files of /run, DNS, sysctls of the
// network, nftables. Each line is one thing.
type Snapshot map[string][]string

// snapshotCommands are run in one shell, each under its heading.
var snapshotCommands = []string{
	"ip xfrm state",
	"ip xfrm policy",
	"ip -4 route show table all",
	"ip -6 route show table all",
	"ip -4 rule",
	"ip -6 rule",
	"ip -o link",
	"ip -o addr",
	"nft list ruleset",
	"cat /etc/resolv.conf",
}

// volatile is what changes without anybody's doing.
var volatile = regexp.MustCompile(`(expires|valid_lft|preferred_lft|age) \S+|\\\s*`)

// Snapshot takes a snapshot of the host.
func (h *Host) Snapshot() Snapshot {
	h.t.Helper()
	s := Snapshot{}
	var script strings.Builder
	for _, c := range snapshotCommands {
		fmt.Fprintf(&script, "echo '## %s'; %s 2>&1\n", c, c)
	}
	section := ""
	r := h.Exec("sh", "-c", script.String())
	for line := range strings.Lines(r.Stdout) {
		line = strings.TrimRight(line, "\n")
		if name, ok := strings.CutPrefix(line, "## "); ok {
			section = name
			s[section] = nil
			continue
		}
		s[section] = append(s[section], strings.TrimRight(volatile.ReplaceAllString(line, ""), " "))
	}
	if len(s) != len(snapshotCommands) {
		h.t.Fatalf("%s: snapshot is not complete: %s", h.Name, r)
	}
	for _, p := range h.Processes() {
		s["processes"] = append(s["processes"], p.String())
	}
	err := h.Do(func() error {
		var err error
		if s["files under /run"], err = listFiles("/run"); err != nil {
			return err
		}
		s["sysctls"], err = readSysctls()
		return err
	})
	if err != nil {
		h.t.Fatalf("%s: snapshot: %v", h.Name, err)
	}
	return s
}

// listFiles lists what is below a folder, with type and mode.
func listFiles(dir string) ([]string, error) {
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		out = append(out, fmt.Sprintf("%v %s", info.Mode(), path))
		return nil
	})
	return out, err
}

// readSysctls reads the network's sysctls in the calling thread's namespace.
func readSysctls() ([]string, error) {
	var out []string
	for _, dir := range []string{"/proc/sys/net/core", "/proc/sys/net/ipv4", "/proc/sys/net/ipv6"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(path, "/flush") {
				return err
			}
			// Some cannot be read (unset secrets); they cannot be compared.
			if text, err := os.ReadFile(path); err == nil {
				out = append(out, path+" = "+strings.TrimSpace(string(text)))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Diff lists what differs, a line with - is missing after and one with + is new.
func (before Snapshot) Diff(after Snapshot) []string {
	var out []string
	var sections []string
	for s := range after {
		sections = append(sections, s)
	}
	sort.Strings(sections)
	for _, s := range sections {
		rest := slices.Clone(after[s])
		var gone []string
		for _, line := range before[s] {
			if i := slices.Index(rest, line); i >= 0 {
				rest = slices.Delete(rest, i, i+1)
			} else {
				gone = append(gone, line)
			}
		}
		for _, line := range gone {
			out = append(out, s+": - "+line)
		}
		for _, line := range rest {
			out = append(out, s+": + "+line)
		}
	}
	return out
}

// Unchanged fails the test when the host is not as it was. A process that is
// about to exit gets a second to do so.
func (h *Host) Unchanged(before Snapshot, what string) {
	h.t.Helper()
	var diff []string
	for end := time.Now().Add(time.Second); ; time.Sleep(100 * time.Millisecond) {
		if diff = before.Diff(h.Snapshot()); len(diff) == 0 {
			return
		}
		if time.Now().After(end) {
			break
		}
	}
	h.t.Errorf("%s: %s left something behind:\n  %s", h.Name, what, strings.Join(diff, "\n  "))
}

// Process is a process of a host.
type Process struct {
	PID     int
	Command string // its arguments, or its name when it has none
}

func (p Process) String() string { return fmt.Sprintf("%d %s", p.PID, p.Command) }

// Processes lists the processes in the host's network namespace, but not this
// one, whose threads visit it.
func (h *Host) Processes() []Process {
	var out []Process
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		h.t.Fatal(err)
	}
	for _, dir := range dirs {
		var st unix.Stat_t
		var p Process
		if _, err := fmt.Sscanf(dir, "/proc/%d", &p.PID); err != nil || p.PID == os.Getpid() {
			continue
		}
		if unix.Stat(dir+"/ns/net", &st) != nil || st.Ino != h.netInode {
			continue
		}
		line, err := os.ReadFile(dir + "/cmdline")
		if err != nil {
			continue // gone meanwhile
		}
		p.Command = strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
		if p.Command == "" {
			name, err := os.ReadFile(dir + "/comm")
			if err != nil {
				continue
			}
			p.Command = "[" + strings.TrimSpace(string(name)) + "]"
		}
		out = append(out, p)
	}
	return out
}

// KillAll ends all processes of the host, for a test's cleanup, and says which
// were left.
func (h *Host) KillAll(t testing.TB) []Process {
	t.Helper()
	left := h.Processes()
	for _, p := range left {
		if err := unix.Kill(p.PID, unix.SIGKILL); err != nil && err != unix.ESRCH {
			t.Logf("%s: kill %v: %v", h.Name, p, err)
		}
	}
	return left
}
