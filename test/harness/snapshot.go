//go:build linux

package harness

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Snapshot is all of a host that a tunnel may touch: SAs and policies, or the
// guards that stand in for them in user space, routes, rules, links and addresses,
// processes, the files of /run, DNS, sysctls of the network. Each line is one thing.
type Snapshot map[string][]string

// snapshotBatch is what ip(8) prints, in one process: under emulation each
// costs a tenth of a second.
const snapshotBatch = `route show table all
rule
link
addr
`

// volatile is what changes without anybody's doing.
var volatile = regexp.MustCompile(`(expires|valid_lft|preferred_lft|age) \S+|\\\s*`)

// sysctls are those that a tunnel could want to change; to read all takes
// seconds under emulation. %s is each interface.
var sysctls = []string{
	"core/xfrm_acq_expires", "core/xfrm_larval_drop", "core/xfrm_aevent_etime", "core/xfrm_aevent_rseqth",
	"core/rmem_max", "core/wmem_max", "ipv4/ip_forward", "ipv4/fwmark_reflect", "ipv4/tcp_fwmark_accept",
	"ipv4/ip_no_pmtu_disc", "ipv6/fwmark_reflect",
	"ipv4/conf/%s/rp_filter", "ipv4/conf/%s/src_valid_mark", "ipv4/conf/%s/disable_policy",
	"ipv4/conf/%s/disable_xfrm", "ipv4/conf/%s/send_redirects", "ipv4/conf/%s/accept_redirects",
	"ipv6/conf/%s/forwarding", "ipv6/conf/%s/disable_ipv6", "ipv6/conf/%s/disable_policy",
}

// Snapshot takes a snapshot of the host.
func (h *Host) Snapshot() Snapshot {
	h.t.Helper()
	s := Snapshot{}
	batch := snapshotBatch
	if Dataplane == Userspace {
		s["nftables"] = strings.Split(h.Run("nft", "list", "ruleset"), "\n")
	} else {
		batch = "xfrm state\nxfrm policy\n" + batch
	}
	r := h.ExecInput([]byte(batch), "ip", "-o", "-batch", "-")
	if r.Err != nil {
		h.t.Fatalf("%s: snapshot: %s", h.Name, r)
	}
	for line := range strings.Lines(r.Stdout) {
		s["ip"] = append(s["ip"], strings.TrimSpace(volatile.ReplaceAllString(line, "")))
	}
	for _, p := range h.Processes() {
		s["processes"] = append(s["processes"], p.String())
	}
	err := h.Do(func() error {
		var err error
		if s["files under /run"], err = listFiles("/run"); err != nil {
			return err
		}
		s["sysctls"] = readSysctls()
		dns, err := os.ReadFile("/etc/resolv.conf")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		s["DNS"] = strings.Split(string(dns), "\n")
		s["IPv6 rules, as messages"], err = rules6()
		return err
	})
	if err != nil {
		h.t.Fatalf("%s: snapshot: %v", h.Name, err)
	}
	return s
}

// rules6 dumps the IPv6 routing rules, which the batch does not show.
func rules6() ([]string, error) {
	dump, err := syscall.NetlinkRIB(syscall.RTM_GETRULE, syscall.AF_INET6)
	if err != nil {
		return nil, err
	}
	messages, err := syscall.ParseNetlinkMessage(dump)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, m := range messages {
		if m.Header.Type == syscall.RTM_NEWRULE {
			out = append(out, hex.EncodeToString(m.Data))
		}
	}
	return out, nil
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

// readSysctls reads the sysctls of the calling thread's network namespace.
func readSysctls() []string {
	var out []string
	read := func(name string) {
		// One that this kernel does not have cannot be changed either.
		if text, err := os.ReadFile("/proc/sys/net/" + name); err == nil {
			out = append(out, name+" = "+strings.TrimSpace(string(text)))
		}
	}
	for _, name := range sysctls {
		if !strings.Contains(name, "%s") {
			read(name)
			continue
		}
		for _, ifname := range []string{"all", "default", "eth0"} {
			read(fmt.Sprintf(name, ifname))
		}
	}
	return out
}

// Diff lists what differs, a line with - is missing after and one with + is new.
func (before Snapshot) Diff(after Snapshot) []string {
	var out []string
	sections := slices.AppendSeq(slices.Collect(maps.Keys(before)), maps.Keys(after))
	slices.Sort(sections)
	for _, s := range slices.Compact(sections) {
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
