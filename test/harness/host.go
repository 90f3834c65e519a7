//go:build linux

package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Timeout bounds every command that a Host runs to its end. Tests of a thousand
// peers in an emulated machine set it higher before they begin.
var Timeout = 60 * time.Second

// Userspace is the other Dataplane.
const Userspace = "userspace"

// Dataplane is what does ESP for ipsec-quick, as in its tunnel files.
var Dataplane = "kernel"

// Libipsec has strongSwan do ESP by its plugin kernel-libipsec, outside the
// kernel: in tunnel mode only, in UDP only, without ESN.
var Libipsec = false

// Host is a machine of a Net: a network and a mount namespace.
type Host struct {
	// Name is the host's name within its Net.
	Name string
	// Outer4 and Outer6 are the host's own addresses on its link, eth0.
	Outer4, Outer6 netip.Addr
	// Inner4 and Inner6 are addresses on lo that only a tunnel should carry.
	Inner4, Inner6 netip.Addr
	// Net4 and Net6 are the prefixes that the inner addresses belong to.
	Net4, Net6 netip.Prefix

	t        testing.TB
	netns    *os.File
	mntns    *os.File
	netInode uint64
}

// newHost makes the namespaces. They live as long as the files are open.
func newHost(t testing.TB, name string) *Host {
	t.Helper()
	h := &Host{Name: name, t: t}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := privateMounts(); err != nil {
			return err
		}
		var err error
		if h.netns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		h.mntns, err = os.Open("/proc/thread-self/ns/mnt")
		return err
	})
	if err != nil {
		t.Fatalf("host %s: %v", name, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(h.netns.Fd()), &st); err != nil {
		t.Fatalf("host %s: %v", name, err)
	}
	h.netInode = st.Ino
	t.Cleanup(func() {
		h.netns.Close()
		h.mntns.Close()
	})
	return h
}

// privateMounts gives the calling thread's mount namespace what a host has to
// itself: /run, the folders with tunnels and keys, and the sysfs of its network.
func privateMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	for _, dir := range []string{"/run", "/etc/swanctl", "/etc/ipsec-quick"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	for _, dir := range []string{"/run/lock", "/run/netns"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	return nil
}

// onThread runs f on a thread of its own that ends afterwards, so that f may
// change the thread's namespaces.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		done <- f()
	}()
	return <-done
}

// Do runs f inside the host: sockets that f opens, processes that it starts and
// paths that it names are the host's.
func (h *Host) Do(f func() error) error {
	return onThread(func() error {
		// A thread that shares its working directory cannot change its mounts.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Setns(int(h.netns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("setns net: %w", err)
		}
		wd, err := os.Getwd()
		if err != nil {
			return err
		}
		if err := unix.Setns(int(h.mntns.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("setns mnt: %w", err)
		}
		if err := unix.Chdir(wd); err != nil {
			return err
		}
		return f()
	})
}

// Result is how a command ended.
type Result struct {
	Stdout, Stderr string
	Code           int           // exit status; -1 when a signal ended it
	Took           time.Duration // from before exec to after exit
	Err            error         // set when Code is not 0 or the command did not run
}

// String shows all that the command printed, for a test's log.
func (r Result) String() string {
	s := fmt.Sprintf("exit status %d after %v\n%s%s", r.Code, r.Took.Round(time.Millisecond), r.Stdout, r.Stderr)
	if r.Err != nil && r.Code <= 0 {
		s += r.Err.Error()
	}
	return s
}

// errHeldOpen says that a command ended and left its stdout to a background
// process, which would hang whoever reads it.
var errHeldOpen = errors.New("a background process keeps the command's stdout or stderr open")

// Exec runs a command in the host until it ends and says how.
func (h *Host) Exec(argv ...string) Result {
	return h.ExecInput(nil, argv...)
}

// ExecInput is Exec with something to read on stdin.
func (h *Host) ExecInput(input []byte, argv ...string) Result {
	return h.exec(nil, input, argv)
}

// ExecEnv is Exec with variables added to the environment.
func (h *Host) ExecEnv(env []string, argv ...string) Result {
	return h.exec(env, nil, argv)
}

func (h *Host) exec(env []string, input []byte, argv []string) Result {
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	var out, errs bytes.Buffer
	var cmd *exec.Cmd
	var start time.Time
	err := h.Do(func() error {
		cmd = exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Stdout, cmd.Stderr = &out, &errs
		if env != nil {
			cmd.Env = append(os.Environ(), env...)
		}
		if input != nil {
			cmd.Stdin = bytes.NewReader(input)
		}
		cmd.WaitDelay = 3 * time.Second
		start = time.Now()
		return cmd.Start()
	})
	if err != nil {
		return Result{Code: -1, Err: err}
	}
	// The exit is timed by the process and not by the end of its output.
	exited := make(chan time.Time, 1)
	go func() {
		waitExit(cmd.Process.Pid)
		exited <- time.Now()
	}()
	err = cmd.Wait()
	r := Result{
		Stdout: out.String(), Stderr: errs.String(),
		Code: cmd.ProcessState.ExitCode(), Took: (<-exited).Sub(start), Err: err,
	}
	switch {
	case ctx.Err() != nil:
		r.Err = fmt.Errorf("not done after %v", Timeout)
	case errors.Is(err, exec.ErrWaitDelay):
		r.Err, r.Code = errHeldOpen, -1
	}
	return r
}

// waitExit returns when the process has ended, without reaping it.
func waitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return // ended, or already reaped
		}
	}
}

// Run runs a command that must succeed and returns its stdout.
func (h *Host) Run(argv ...string) string {
	h.t.Helper()
	r := h.Exec(argv...)
	if r.Err != nil {
		h.t.Fatalf("%s: %s: %v\n%s", h.Name, strings.Join(argv, " "), r.Err, r)
	}
	return r.Stdout
}

// Shell runs a shell script that must succeed and returns its stdout.
func (h *Host) Shell(script string) string {
	h.t.Helper()
	return h.Run("sh", "-euc", script)
}

// WriteFile writes a file of the host, 0600, and the folders above it.
func (h *Host) WriteFile(path, text string) {
	h.t.Helper()
	err := h.Do(func() error {
		if i := strings.LastIndexByte(path, '/'); i > 0 {
			if err := os.MkdirAll(path[:i], 0o755); err != nil {
				return err
			}
		}
		return os.WriteFile(path, []byte(text), 0o600)
	})
	if err != nil {
		h.t.Fatalf("%s: %v", h.Name, err)
	}
}

// XfrmStat is what the host's kernel has counted of packets that it could not
// encrypt or decrypt, by name as in /proc/net/xfrm_stat, without the zeros.
func (h *Host) XfrmStat() map[string]int {
	h.t.Helper()
	if Dataplane == Userspace {
		return nil // a kernel without XFRM has no such file
	}
	var text []byte
	err := h.Do(func() error {
		var err error
		text, err = os.ReadFile("/proc/thread-self/net/xfrm_stat")
		return err
	})
	if err != nil {
		h.t.Fatalf("%s: %v", h.Name, err)
	}
	stat := map[string]int{}
	for line := range strings.Lines(string(text)) {
		var name string
		var n int
		if _, err := fmt.Sscan(line, &name, &n); err == nil && n > 0 {
			stat[name] = n
		}
	}
	return stat
}

// QueueDrops is how many packets were dropped because a queue was full: those of
// the host's links and those of its UDP sockets.
func (h *Host) QueueDrops() (drops int) {
	h.t.Helper()
	err := h.Do(func() error {
		files, err := filepath.Glob("/sys/class/net/*/statistics/[rt]x_dropped")
		if err != nil {
			return err
		}
		for _, path := range files {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			n, err := strconv.Atoi(strings.TrimSpace(string(text)))
			if err != nil {
				return err
			}
			drops += n
		}
		// Names in one line, their values in the next.
		text, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			return err
		}
		var names []string
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if i := slices.Index(names, "RcvbufErrors"); i > 0 && fields[0] == "Udp:" {
				n, err := strconv.Atoi(fields[i])
				if err != nil {
					return err
				}
				drops += n
			}
			names = fields
		}
		return nil
	})
	if err != nil {
		h.t.Fatalf("%s: %v", h.Name, err)
	}
	return drops
}

// ListenUDP opens a UDP socket in the host.
func (h *Host) ListenUDP(addr netip.AddrPort) (*net.UDPConn, error) {
	var conn *net.UDPConn
	err := h.Do(func() error {
		var err error
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		return err
	})
	return conn, err
}

// Signal sends a signal to one process.
func (h *Host) Signal(pid int, sig syscall.Signal) {
	h.t.Helper()
	if pid <= 1 {
		h.t.Fatalf("%s: no process to signal: %d", h.Name, pid)
	}
	if err := syscall.Kill(pid, sig); err != nil {
		h.t.Fatalf("%s: signal %v to %d: %v", h.Name, sig, pid, err)
	}
}
