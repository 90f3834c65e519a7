package watch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ipsec-quick/apply"
	"ipsec-quick/conf"
	"ipsec-quick/ike"
)

// TestNamedEndpoint: every address of a name is tried in turn.
func TestNamedEndpoint(t *testing.T) {
	a, b := sites(t)
	ha, hb := newHost(t), newHost(t)
	hb.start(loadTunnel(t, b.name, b.text()))
	text := strings.Replace(a.text(), fmt.Sprintf("127.0.0.2:%d", b.port), fmt.Sprintf("localhost:%d", b.port), 1)
	ha.start(loadTunnel(t, a.name, text))
	eventually(t, "established", func() bool { return ha.established("left") })
}

// TestAddressesInTurn: each address is tried before any is again, in whatever order
// the name servers give them.
func TestAddressesInTurn(t *testing.T) {
	a, _ := sites(t)
	h := newHost(t)
	r := h.start(loadTunnel(t, a.name, strings.Replace(a.text(), `name = "other"`, "name = \"other\"\nstart = \"on-demand\"", 1)))
	if !r.call(func() {
		p := r.peers["other"]
		p.conf.Endpoint.Host, p.conf.Endpoint.Addr = "two.example", netip.Addr{}
		two, three := netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3")
		next := func(found ...netip.Addr) string {
			t.Helper()
			r.queue = nil
			p.wanted = true
			r.answered(answer{"other", "two.example", found, nil})
			ev, ok := r.queue[len(r.queue)-1].(ike.Initiate)
			if !ok || ev.Err != nil || ev.Local.Addr().String() != "127.0.0.1" || ev.Others != (len(found) > 1) {
				t.Errorf("%+v", r.queue)
			}
			return ev.Remote.Addr().String()
		}
		var tried []string
		for _, found := range [][]netip.Addr{{two, three}, {two, three}, {three, two}, {two, three}, {two}, {two}} {
			tried = append(tried, next(found...))
		}
		if want := []string{"127.0.0.2", "127.0.0.3", "127.0.0.3", "127.0.0.2", "127.0.0.2", "127.0.0.2"}; !slices.Equal(tried, want) {
			t.Errorf("tried %v", tried)
		}
		// What is known from before does while there are no name servers.
		r.queue, p.wanted = nil, true
		r.answered(answer{"other", "two.example", nil, errors.New("no name servers")})
		if ev, ok := r.queue[0].(ike.Initiate); !ok || ev.Err != nil || ev.Remote.Addr() != two {
			t.Errorf("%+v", r.queue)
		}
		r.queue, p.wanted, p.addresses = nil, true, nil
		r.answered(answer{"other", "two.example", nil, errors.New("no name servers")})
		if ev, ok := r.queue[0].(ike.Initiate); !ok || ev.Err == nil {
			t.Errorf("%+v", r.queue)
		}
		r.queue = nil
	}) {
		t.Fatal("the loop has ended")
	}
}

// TestNameNotThere: without name servers it is tried again, and a name that does
// not exist is an error at once unless it was told to keep trying.
func TestNameNotThere(t *testing.T) {
	a, b := sites(t)
	hb := newHost(t)
	hb.start(loadTunnel(t, b.name, b.text()))
	text := strings.Replace(a.text(), fmt.Sprintf("127.0.0.2:%d", b.port), fmt.Sprintf("gw.example:%d", b.port), 1)
	none := &net.DNSError{Err: "no such host", Name: "gw.example", IsNotFound: true}
	for _, keepTrying := range []bool{false, true} {
		h := newHost(t)
		o := h.upOptions(loadTunnel(t, a.name, text))
		o.KeepTrying, o.Foreground = keepTrying, true
		var asked atomic.Int32
		o.resolver = func(context.Context, string) ([]netip.Addr, error) {
			switch asked.Add(1) {
			case 1:
				return nil, errors.New("no name servers yet")
			case 2:
				return nil, none
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.2")}, nil
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() {
			_, err := Up(ctx, o)
			ended <- err
		}()
		if !keepTrying {
			var dns *net.DNSError
			if err := <-ended; !errors.As(err, &dns) || asked.Load() != 2 {
				t.Errorf("%v after %d look-ups", err, asked.Load())
			}
			h.clean()
			cancel()
			continue
		}
		eventually(t, "established", func() bool {
			s, err := Get(h.root, "left", h.opener)
			return err == nil && s.Peers[0].State == "established"
		})
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// TestLocalAddressOfNobody: the reason is said, not only that nobody answers.
func TestLocalAddressOfNobody(t *testing.T) {
	a, _ := sites(t)
	h := newHost(t)
	t.Setenv(testDirVariable, h.root)
	text := strings.Replace(a.text(), "[local]\n", "[local]\naddress = \"192.0.2.99\"\n", 1)
	o := h.upOptions(loadTunnel(t, a.name, text))
	o.Timeout = 200 * time.Millisecond
	_, err := Up(context.Background(), o)
	if err == nil || !strings.Contains(err.Error(), "192.0.2.99 is none of this host's") {
		t.Errorf("%v", err)
	}
	h.clean()
}

// TestUnfinishedUp: what an `up` left that was killed is undone by the next one
// that fails, and taken over by one that does not.
func TestUnfinishedUp(t *testing.T) {
	a, b := sites(t)
	ha, hb := newHost(t), newHost(t)
	t.Setenv(testDirVariable, ha.root)
	tunnel := loadTunnel(t, a.name, a.text())
	kill := func() {
		r := ha.start(tunnel)
		if err := r.u.parts.dir.writePID(true); err != nil {
			t.Fatal(err)
		}
		r.crash()
	}
	kill()
	if len(ha.dp.Policies()) == 0 {
		t.Fatal("nothing was left")
	}
	o := ha.upOptions(tunnel)
	o.Timeout = 200 * time.Millisecond
	if _, err := Up(context.Background(), o); !errors.As(err, new(*NoAnswer)) {
		t.Errorf("%v", err)
	}
	ha.clean()
	kill()
	hb.start(loadTunnel(t, b.name, b.text()))
	result, err := Up(context.Background(), ha.upOptions(tunnel))
	if err != nil || result.Revived {
		t.Fatalf("%+v, %v", result, err)
	}
	defer reap(t, result.PID)
	defer func() { _ = syscall.Kill(result.PID, syscall.SIGKILL) }()
	if !ha.established("left") {
		t.Error("not established")
	}
}

// TestReviveDoesNotUndo: a tunnel that was up stays fail closed although its
// peer is gone when the loop is revived.
func TestReviveDoesNotUndo(t *testing.T) {
	ha, _, ra, rb := pair(t, nil)
	t.Setenv(testDirVariable, ha.root)
	tunnel := ra.tunnel
	ra.crash()
	rb.crash()
	for _, sa := range ha.dp.SAs() {
		ha.dp.Expire(sa.ID(), true)
	}
	o := ha.upOptions(tunnel)
	o.Timeout = 200 * time.Millisecond
	result, err := Up(context.Background(), o)
	var late *NoAnswer
	if !errors.As(err, &late) || !late.Revived || result.PID == 0 {
		t.Fatalf("%+v, %v", result, err)
	}
	defer reap(t, result.PID)
	defer func() { _ = syscall.Kill(result.PID, syscall.SIGKILL) }()
	guarded := false
	for _, p := range ha.dp.Policies() {
		guarded = guarded || p.Guard && p.Action == apply.Block
	}
	if !guarded {
		t.Error("the guard is gone")
	}
}

func TestNamespaceThatIsGone(t *testing.T) {
	ha, _, ra, _ := pair(t, nil)
	tunnel := ra.tunnel
	ra.crash()
	d := newDir(ha.root, "left")
	f, err := d.facts()
	if err != nil {
		t.Fatal(err)
	}
	f.Netns = "1:2"
	if err := d.writeFacts(f); err != nil {
		t.Fatal(err)
	}
	ha.dp = newFake(9000) // what was installed went with the namespace
	r := ha.start(tunnel)
	eventually(t, "established", func() bool { return ha.established("left") })
	r.crash()
	if err := d.writeFacts(f); err != nil {
		t.Fatal(err)
	}
	if err := Down(DownOptions{Name: "left", Log: ha.log(), Dir: ha.root, Dataplane: ha.opener}); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(ha.root); !errors.Is(err, os.ErrNotExist) {
		t.Error("files are left")
	}
}

func TestNamespaceThatIsThere(t *testing.T) {
	other := exec.Command("sleep", "60")
	other.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := other.Start(); err != nil {
		t.Skipf("making a network namespace needs root: %v", err)
	}
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	ha, _, ra, _ := pair(t, nil)
	tunnel := ra.tunnel
	ra.crash()
	d := newDir(ha.root, "left")
	f, err := d.facts()
	if err != nil {
		t.Fatal(err)
	}
	f.Netns = namespaceAt(fmt.Sprintf("/proc/%d/ns/net", other.Process.Pid))
	if err := d.writeFacts(f); err != nil {
		t.Fatal(err)
	}
	if _, err := ha.tryStart(tunnel); !errors.Is(err, errElsewhere) {
		t.Errorf("up: %v", err)
	}
	if err := Down(DownOptions{Name: "left", Log: ha.log(), Dir: ha.root, Dataplane: ha.opener}); !errors.Is(err, errElsewhere) {
		t.Errorf("down: %v", err)
	}
	if got := len(ha.dp.SAs()); got != 2 {
		t.Errorf("%d SAs", got)
	}
}

// TestDataplaneGone: nothing would tell the loop of expires; it ends instead of
// going on blindly.
func TestDataplaneGone(t *testing.T) {
	ha, _, ra, _ := pair(t, nil)
	if err := ha.dp.Close(); err != nil {
		t.Fatal(err)
	}
	if err := ra.wait(); !errors.Is(err, errDataplaneGone) {
		t.Errorf("%v", err)
	}
	ra.loop.release()
	ra.u.parts.dir.release()
	ra.u = nil
}

// TestDownWithoutFile: the journal is enough.
func TestDownWithoutFile(t *testing.T) {
	ha, _, ra, _ := pair(t, nil)
	path := ra.tunnel.Path
	ra.crash()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if s, err := Get(ha.root, "left", ha.opener); err != nil || s.WatchPID != 0 || s.Tunnel != "left" {
		t.Errorf("%+v, %v", s, err)
	}
	if err := Down(DownOptions{Name: "left", Log: ha.log(), Dir: ha.root, Dataplane: ha.opener}); err != nil {
		t.Error(err)
	}
	ha.clean()
}

// TestPeerLeftTheFile: what belonged to it goes when the loop is revived.
func TestPeerLeftTheFile(t *testing.T) {
	ha, _, ra, _ := pair(t, nil)
	path := ra.tunnel.Path
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	ra.crash()
	changed := strings.NewReplacer(`name = "other"`, `name = "another"`, "10.2.0.0/16", "10.9.0.0/16", "[[peer]]", "[[peer]]\nstart = \"on-demand\"").Replace(string(text))
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	tunnel, err := conf.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	r := ha.start(tunnel)
	if sas := ha.dp.SAs(); len(sas) != 0 {
		t.Errorf("SAs of nobody: %v", sas)
	}
	for _, p := range ha.dp.Policies() {
		if p.Selector.Remote.String() != "10.9.0.0/16" {
			t.Errorf("policy of nobody: %v", p)
		}
	}
	r.down()
	ha.clean()
}

func TestLogFileIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), fileLog)
	c := &cappedFile{path: path}
	line := []byte(strings.Repeat("x", 1000) + "\n")
	for range 3 * maxLog / len(line) {
		if _, err := c.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{path, path + ".1"} {
		if info, err := os.Stat(name); err != nil || info.Size() > maxLog || info.Size() == 0 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}
