//go:build linux

package harness

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Quick is one tunnel of ipsec-quick in a host.
type Quick struct {
	Host   *Host
	Name   string // the tunnel's
	Binary string // ipsec-quick itself

	t    testing.TB
	up   bool
	said strings.Builder // what all commands printed
}

// Status is one tunnel as `ipsec-quick status --json` shows it.
type Status struct {
	Tunnel    string       `json:"tunnel"`
	Dataplane string       `json:"dataplane"`
	Interface string       `json:"interface"`
	WatchPID  int          `json:"watch_pid"`
	Peers     []PeerStatus `json:"peers"`

	Dropped map[string]uint64 `json:"dropped"` // by reason
}

// PeerStatus is one peer of a Status.
type PeerStatus struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Local  string `json:"local"`
	Remote string `json:"remote"`
	NAT    bool   `json:"nat"`
	IKE    struct {
		SPIi        string `json:"spi_i"`
		SPIr        string `json:"spi_r"`
		Proposal    string `json:"proposal"`
		Established string `json:"established"`
		RekeyAt     string `json:"rekey_at"`
	} `json:"ike"`
	Children []ChildStatus `json:"children"`
	Rekeys   struct {
		Child  int `json:"child"`
		IKE    int `json:"ike"`
		Failed int `json:"failed"`
	} `json:"rekeys"`
	Expires struct {
		Soft int `json:"soft"`
		Hard int `json:"hard"`
	} `json:"expires"`
}

// ChildStatus is one Child SA of a PeerStatus.
type ChildStatus struct {
	SPIIn    string   `json:"spi_in"`
	SPIOut   string   `json:"spi_out"`
	Proposal string   `json:"proposal"`
	Mode     string   `json:"mode"`
	LocalTS  []string `json:"local_ts"`
	RemoteTS []string `json:"remote_ts"`
	BytesIn  uint64   `json:"bytes_in"`
	BytesOut uint64   `json:"bytes_out"`
	Retiring bool     `json:"retiring"`
}

// binaryPath finds ipsec-quick: $IPSEC_QUICK_BIN, or bin/ below the current
// folder.
func binaryPath(t testing.TB) string {
	t.Helper()
	path := os.Getenv("IPSEC_QUICK_BIN")
	if path == "" {
		path = "bin/ipsec-quick"
	}
	path, err := filepath.Abs(path)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("%v (CGO_ENABLED=0 go build -o bin/ ./cmd/...)", err)
	}
	return path
}

// NewQuick writes a tunnel file to /etc/ipsec-quick/NAME.toml of the host. At
// the test's end the tunnel is taken down, and a process that is left then is
// killed and fails the test.
func NewQuick(t testing.TB, h *Host, name, toml string) *Quick {
	t.Helper()
	q := &Quick{Host: h, Name: name, t: t, Binary: binaryPath(t)}
	h.WriteFile("/etc/ipsec-quick/"+name+".toml", toml)
	t.Cleanup(func() {
		if q.up {
			q.Exec("down", name)
		}
		for _, p := range h.Processes() {
			if filepath.Base(strings.Fields(p.Command)[0]) == "ipsec-quick" && strings.Contains(p.Command, name) {
				t.Errorf("%s: still there at the end: %v", h.Name, p)
				_ = syscall.Kill(p.PID, syscall.SIGKILL)
			}
		}
		if t.Failed() {
			t.Logf("ipsec-quick in %s:\n%s\n%s", h.Name, tail(toml, 60), tail(q.said.String(), 300))
			show := "ip -s xfrm state; ip xfrm policy"
			if Dataplane == Userspace {
				show = "ip rule; ip -6 rule; ip route show table all; ip -s link; nft list ruleset"
			}
			t.Logf("%s:\n%s", h.Name, q.Host.Exec("sh", "-c", show).Stdout)
		}
	})
	return q
}

// Exec runs ipsec-quick with any arguments and says how it ended.
func (q *Quick) Exec(args ...string) Result {
	return q.ExecInput(nil, args...)
}

// ExecInput is Exec with something to read on stdin.
func (q *Quick) ExecInput(input []byte, args ...string) Result {
	return q.exec(nil, input, args)
}

// ExecEnv is Exec with variables added to the environment, and to that of the
// loop if args are those of `up`.
func (q *Quick) ExecEnv(env []string, args ...string) Result {
	return q.exec(env, nil, args)
}

func (q *Quick) exec(env []string, input []byte, args []string) Result {
	r := q.Host.exec(env, input, append([]string{q.Binary}, args...))
	if len(args) > 0 && (args[0] == "up" || args[0] == "down") && r.Err == nil {
		q.up = args[0] == "up"
	}
	if len(args) == 0 || args[0] != "status" {
		fmt.Fprintf(&q.said, "%s $ ipsec-quick %s\n%s\n", time.Now().Format(clock), strings.Join(args, " "), r)
	}
	return r
}

// Running is a command of ipsec-quick that has not ended yet.
type Running struct {
	q    *Quick
	cmd  *exec.Cmd
	out  *lockedBuffer
	args []string
}

// Start starts ipsec-quick and does not wait for it. Wait must be called.
func (q *Quick) Start(args ...string) *Running {
	q.t.Helper()
	r := &Running{q: q, out: &lockedBuffer{}, args: args}
	err := q.Host.Do(func() error {
		r.cmd = exec.Command(q.Binary, args...)
		r.cmd.Stdout, r.cmd.Stderr = r.out, r.out
		r.cmd.WaitDelay = 3 * time.Second
		return r.cmd.Start()
	})
	if err != nil {
		q.t.Fatalf("%s: %v", q.Host.Name, err)
	}
	return r
}

// Signal sends the command a signal.
func (r *Running) Signal(sig syscall.Signal) { r.q.Host.Signal(r.cmd.Process.Pid, sig) }

// Wait waits for the command's end, and kills it when that does not come.
func (r *Running) Wait(limit time.Duration) Result {
	start := time.Now()
	kill := time.AfterFunc(limit, func() { _ = r.cmd.Process.Kill() })
	err := r.cmd.Wait()
	if !kill.Stop() {
		err = fmt.Errorf("killed after %v: %w", limit, err)
	}
	res := Result{Stdout: r.out.String(), Code: r.cmd.ProcessState.ExitCode(), Took: time.Since(start), Err: err}
	fmt.Fprintf(&r.q.said, "%s $ ipsec-quick %s\n%s\n", time.Now().Format(clock), strings.Join(r.args, " "), res)
	return res
}

// Up brings the tunnel up, which must succeed.
func (q *Quick) Up(flags ...string) Result {
	q.t.Helper()
	q.up = true
	r := q.Exec(append([]string{"up", q.Name}, flags...)...)
	if r.Err != nil {
		q.t.Fatalf("%s: up: %s", q.Host.Name, r)
	}
	return r
}

// Fails brings the tunnel up, which must fail with an exit code.
func (q *Quick) Fails(code int, flags ...string) Result {
	q.t.Helper()
	r := q.Exec(append([]string{"up", q.Name}, flags...)...)
	if r.Code != code {
		q.up = r.Code == 0
		q.t.Errorf("%s: up: not exit status %d but: %s", q.Host.Name, code, r)
	}
	return r
}

// Down takes the tunnel down, which must succeed.
func (q *Quick) Down() {
	q.t.Helper()
	q.up = false
	if r := q.Exec("down", q.Name); r.Err != nil {
		q.t.Errorf("%s: down: %s", q.Host.Name, r)
	}
}

// Status returns the tunnel's status; ok is false when it is not up.
func (q *Quick) Status() (status Status, ok bool) {
	q.t.Helper()
	r := q.Exec("status", "--json")
	var all []Status
	if err := json.Unmarshal([]byte(r.Stdout), &all); err != nil || r.Err != nil {
		q.t.Fatalf("%s: status --json: %v: %s", q.Host.Name, err, r)
	}
	for _, s := range all {
		if s.Tunnel == q.Name {
			return s, true
		}
	}
	return Status{}, false
}

// Peer returns the status of the only peer.
func (q *Quick) Peer() PeerStatus {
	q.t.Helper()
	s, ok := q.Status()
	if !ok || len(s.Peers) != 1 {
		q.t.Fatalf("%s: %s is up: %v, with %d peers", q.Host.Name, q.Name, ok, len(s.Peers))
	}
	return s.Peers[0]
}

// Established says whether the only peer is established and has a Child SA.
func (q *Quick) Established() bool {
	q.t.Helper()
	p := q.Peer()
	return p.State == "established" && len(p.Children) > 0
}

// Rekey rekeys the Child SA, or with "--ike" the IKE SA.
func (q *Quick) Rekey(flags ...string) {
	q.t.Helper()
	if r := q.Exec(append([]string{"rekey", q.Name}, flags...)...); r.Err != nil {
		q.t.Errorf("%s: rekey: %s", q.Host.Name, r)
	}
}

// PID is the process of the tunnel's watch loop.
func (q *Quick) PID() int {
	q.t.Helper()
	s, ok := q.Status()
	if !ok || s.WatchPID == 0 {
		q.t.Fatalf("%s: %s has no loop", q.Host.Name, q.Name)
	}
	return s.WatchPID
}

// Freeze stops the loop where it is and returns the function that lets it go
// on. At the test's end it goes on in any case.
func (q *Quick) Freeze() (thaw func()) {
	q.t.Helper()
	pid := q.PID()
	q.Host.Signal(pid, syscall.SIGSTOP)
	q.t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	return func() { q.Host.Signal(pid, syscall.SIGCONT) }
}
