package watch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ipsec-quick/apply"
	"ipsec-quick/apply/fake"
	"ipsec-quick/conf"
	"ipsec-quick/ike"
)

// testKey is the pre-shared key of all tests; no output may have it.
const testKey = "correct-horse-battery-staple-0123456789"

// runDir is a short path: those of unix sockets have 108 octets.
func runDir(t *testing.T) string {
	t.Helper()
	root, err := os.MkdirTemp("/tmp", "iqw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	return filepath.Join(root, "run")
}

// freePorts are two UDP ports that nobody has.
func freePorts(t *testing.T) (port, natPort int) {
	t.Helper()
	var ports [2]int
	for i := range ports {
		c, err := net.ListenUDP("udp", &net.UDPAddr{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ports[i] = c.LocalAddr().(*net.UDPAddr).Port
	}
	return ports[0], ports[1]
}

// writeTunnel writes a tunnel file and its key.
func writeTunnel(t *testing.T, name, text string) string {
	t.Helper()
	folder := t.TempDir()
	path := filepath.Join(folder, name+".toml")
	for file, content := range map[string]string{path: text, filepath.Join(folder, "psk"): testKey + "\n"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func loadTunnel(t *testing.T, name, text string) *conf.Tunnel {
	t.Helper()
	tunnel, err := conf.Load(writeTunnel(t, name, text))
	if err != nil {
		t.Fatal(err)
	}
	return tunnel
}

// site is one end of a pair on the loopback device.
type site struct {
	name, id, peerID  string
	port, natPort     int
	remotePort        int // 0: it only answers
	localTS, remoteTS string
	extra             string // lines of the [[peer]]
	head              string // lines before it
}

func (s site) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[local]\nid = %q\n[ike]\nport = %d\nnat_port = %d\n", s.id, s.port, s.natPort)
	fmt.Fprintf(&b, "%s\n[[peer]]\nname = \"other\"\nid = %q\npsk_file = \"psk\"\n", s.head, s.peerID)
	if s.remotePort != 0 {
		fmt.Fprintf(&b, "endpoint = \"127.0.0.2:%d\"\n", s.remotePort)
	}
	fmt.Fprintf(&b, "local_ts = [%q]\nremote_ts = [%q]\n%s\n", s.localTS, s.remoteTS, s.extra)
	return b.String()
}

// sites are two ends that fit each other: a, at 127.0.0.1, begins; b, at
// 127.0.0.2, answers.
func sites(t *testing.T) (a, b site) {
	t.Helper()
	a = site{name: "left", id: "left.example", peerID: "right.example", localTS: "10.1.0.0/16", remoteTS: "10.2.0.0/16"}
	b = site{name: "right", id: "right.example", peerID: "left.example", localTS: "10.2.0.0/16", remoteTS: "10.1.0.0/16"}
	a.port, a.natPort = freePorts(t)
	b.port, b.natPort = freePorts(t)
	a.remotePort = b.port
	return a, b
}

// recorder is an Observer that remembers.
type recorder struct {
	mu          sync.Mutex
	lines       []string
	established int
	lost        []error
}

func (r *recorder) add(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, time.Now().Format("05.0000 ")+fmt.Sprintf(format, args...))
}

func (r *recorder) Report(rep ike.Report) { r.add("%s: %s %v", rep.Peer, rep.Text, rep.Err) }
func (r *recorder) Change(c string)       { r.add("[#] %s", c) }
func (r *recorder) Hook(h HookReport)     { r.add("hook %s %s: %s%s", h.Hook, h.Peer, h.Command, h.Line) }
func (r *recorder) Established(p string) {
	r.add("%s: established", p)
	r.mu.Lock()
	r.established++
	r.mu.Unlock()
}

func (r *recorder) Lost(l ike.Lost) {
	r.add("%s: lost: %v", l.Peer, l.Err)
	r.mu.Lock()
	r.lost = append(r.lost, l.Err)
	r.mu.Unlock()
}

func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "\n")
}

// keptDataplane is a fake whose Close does not end it: the "kernel" outlives the
// processes that open it.
type keptDataplane struct{ *fake.Dataplane }

func (keptDataplane) Close() error { return nil }

// host is a machine of a test: its run directory, its data plane, what was said.
type host struct {
	t    *testing.T
	root string
	dp   *fake.Dataplane
	rec  *recorder
	logs *syncBuffer
}

// hosts counts them.
var hosts atomic.Int32

// newFake is a fake that has handed out some SPIs already: hosts that are reached
// at one address must not have the same ones.
func newFake(used int) *fake.Dataplane {
	dp := fake.New()
	for range used {
		_, _ = dp.AllocSPI(1, netip.IPv4Unspecified(), netip.IPv4Unspecified(), apply.Tunnel)
	}
	dp.Lapse()
	return dp
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, root: runDir(t), dp: newFake(int(hosts.Add(1)) * 64), rec: &recorder{}, logs: &syncBuffer{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("said:\n%s\nlogged:\n%s", h.rec.text(), h.logs.String())
		}
	})
	return h
}

func (h *host) opener(DataplaneOptions) (apply.Dataplane, error) { return keptDataplane{h.dp}, nil }

func (h *host) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(h.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// syncBuffer is a bytes.Buffer for several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// running is a loop in a goroutine.
type running struct {
	*loop
	h      *host
	u      *upRun
	cancel context.CancelFunc
	ended  chan error
}

// start begins a tunnel as `up` does, without a background process.
func (h *host) start(tunnel *conf.Tunnel) *running {
	h.t.Helper()
	r, err := h.tryStart(tunnel)
	if err != nil {
		h.t.Fatalf("%s: %v", tunnel.Name, err)
	}
	return r
}

func (h *host) tryStart(tunnel *conf.Tunnel) (*running, error) {
	h.t.Helper()
	u := &upRun{o: Options{
		Tunnel: tunnel, Observer: h.rec, Log: h.log(), Timeout: 10 * time.Second, Foreground: true,
		Dir: h.root, Dataplane: h.opener,
	}}
	if err := u.prepare(context.Background()); err != nil {
		return nil, err
	}
	if err := u.parts.dir.writePID(false); err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{loop: u.loop, h: h, u: u, cancel: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- r.run(ctx, forever) }()
	h.t.Cleanup(func() {
		if r.u != nil {
			r.crash()
		}
	})
	return r, nil
}

// crash ends the loop with nothing but what a dead process leaves.
func (r *running) crash() {
	r.h.t.Helper()
	r.cancel()
	r.wait()
	r.loop.release()
	r.u.parts.dir.release()
	r.u = nil
}

// wait waits for the loop's end.
func (r *running) wait() error {
	r.h.t.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(10 * time.Second):
		r.h.t.Fatal("the loop does not end")
		return nil
	}
}

// down takes the tunnel down by its control socket.
func (r *running) down() {
	r.h.t.Helper()
	done := make(chan error, 1)
	go func() {
		done <- Down(DownOptions{Name: r.dir.name, Log: r.h.log(), Dir: r.h.root, Dataplane: r.h.opener})
	}()
	if err := r.wait(); !errors.Is(err, errClosed) {
		r.h.t.Errorf("%s: the loop ended with %v", r.dir.name, err)
	}
	r.loop.release()
	r.u.parts.dir.release()
	r.u = nil
	if err := <-done; err != nil {
		r.h.t.Errorf("%s: down: %v", r.dir.name, err)
	}
}

// inBackground brings `left` up, with the loop in a process of its own, which is
// killed at the end if it is still there, and `right` in this one.
func inBackground(t *testing.T) (left, right *host, o Options, result Result) {
	t.Helper()
	a, b := sites(t)
	left, right = newHost(t), newHost(t)
	right.start(loadTunnel(t, b.name, b.text()))
	t.Setenv(testDirVariable, left.root)
	o = left.upOptions(loadTunnel(t, a.name, a.text()))
	result, err := Up(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(result.PID, syscall.SIGKILL) })
	return left, right, o, result
}

// downInBackground takes `left` down, whose loop is a child of this process.
func (h *host) downInBackground(pid int) {
	h.t.Helper()
	down := make(chan error, 1)
	go func() { down <- Down(DownOptions{Name: "left", Log: h.log(), Dir: h.root, Dataplane: h.opener}) }()
	reap(h.t, pid)
	if err := <-down; err != nil {
		h.t.Error(err)
	}
}

// status asks by the control socket.
func (h *host) status(name string) PeerStatus {
	h.t.Helper()
	s, err := Get(h.root, name, h.opener)
	if err != nil {
		h.t.Fatalf("%s: status: %v", name, err)
	}
	if len(s.Peers) != 1 {
		h.t.Fatalf("%s: %d peers", name, len(s.Peers))
	}
	return s.Peers[0]
}

// live are the Child SAs that are not being replaced.
func (p PeerStatus) live() []ChildStatus {
	return slices.DeleteFunc(slices.Clone(p.Children), func(c ChildStatus) bool { return c.Retiring })
}

func (h *host) established(name string) bool {
	p := h.status(name)
	return p.State == "established" && len(p.live()) == 1
}

// replaced: another Child SA than before is established.
func (h *host) replaced(name string, before ChildStatus) bool {
	p := h.status(name)
	live := p.live()
	return p.State == "established" && len(live) == 1 && live[0].SPIIn != before.SPIIn
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

// clean checks that nothing is left.
func (h *host) clean() {
	h.t.Helper()
	if _, err := os.Lstat(h.root); !errors.Is(err, os.ErrNotExist) {
		var names []string
		_ = filepath.Walk(h.root, func(path string, _ os.FileInfo, _ error) error {
			names = append(names, path)
			return nil
		})
		h.t.Errorf("files are left: %v", names)
	}
	if sas, policies, larval := h.dp.SAs(), h.dp.Policies(), h.dp.Reservations(); len(sas)+len(policies)+len(larval) != 0 {
		h.t.Errorf("left in the data plane: %v, %v, %v", sas, policies, larval)
	}
}

// correct checks what no correct user of a data plane does.
func (h *host) correct() {
	h.t.Helper()
	for _, v := range h.dp.Violations() {
		h.t.Errorf("violation: %s", v)
	}
}
