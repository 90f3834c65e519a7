package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ipsec-quick/apply"
	"ipsec-quick/apply/fake"
	"ipsec-quick/conf"
	"ipsec-quick/ike"
	"ipsec-quick/watch/hook"
)

// testDirVariable makes the test's program ipsec-quick, with this run directory.
const testDirVariable = "IPSEC_QUICK_TEST_DIR"

func TestMain(m *testing.M) {
	if path := os.Getenv(confineVariable); path != "" {
		os.Exit(confinedMain(path))
	}
	root := os.Getenv(testDirVariable)
	if root == "" || len(os.Args) < 2 || strings.HasPrefix(os.Args[1], "-test.") {
		os.Exit(m.Run())
	}
	if err := testProgram(root, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// testProgram is what of the command line the tests need.
func testProgram(root string, args []string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	switch {
	case args[0] == "--version":
		_, err := fmt.Println("ipsec-quick version test")
		return err
	case args[0] == "hooks":
		return hook.Main()
	case args[0] == "watch" && IsBackground():
		return Background(BackgroundOptions{Name: args[1], Dir: root, Dataplane: openJournalled})
	case args[0] == "watch":
		return Watch(ctx, WatchOptions{Name: args[1], Log: log, Dir: root, Dataplane: openJournalled})
	}
	t, err := conf.Load(args[1])
	if err != nil {
		return err
	}
	_, err = Up(ctx, Options{
		Tunnel: t, Observer: NewLogObserver(log), Log: log, Timeout: 5 * time.Second, Foreground: true, Dir: root, Dataplane: openJournalled,
	})
	return err
}

// journalled is a fake that has what a journal says was installed: what a
// process that did not install it would find in the kernel.
type journalled struct {
	*fake.Dataplane
	path string
}

// openJournalled is what processes of a test open that share a tunnel.
func openJournalled(o DataplaneOptions) (apply.Dataplane, error) {
	return newJournalled(filepath.Join(o.Dir, fileJournal)), nil
}

// newJournalled does not hand out the SPIs that processes before it did.
func newJournalled(path string) *journalled {
	return &journalled{Dataplane: newFake(10_000 + rand.IntN(50_000)), path: path}
}

// List fills the fake first.
func (j *journalled) List(ids []uint32) ([]apply.Installed, error) {
	b, err := os.ReadFile(j.path)
	if err != nil {
		return j.Dataplane.List(ids)
	}
	copied := j.path + ".copy"
	if err := os.WriteFile(copied, b, 0o600); err != nil {
		return nil, err
	}
	defer os.Remove(copied)
	journal, err := apply.OpenJournal(copied, fake.New(), nil)
	if err != nil {
		return nil, err
	}
	for _, id := range journal.SAs() {
		direction := apply.Out
		if id.Dst == netip.MustParseAddr("127.0.0.1") { // that of sites' first
			direction = apply.In
		}
		_ = j.InstallSA(apply.SA{
			SPI: id.SPI, Direction: direction, Src: id.Dst, Dst: id.Dst, ReqID: ids[0],
			Encryption: apply.Algorithm{Name: apply.AESGCM16, Key: make(apply.Key, 36)},
		})
	}
	for _, p := range journal.Policies() {
		_ = j.SetPolicy(p)
	}
	return j.Dataplane.List(ids)
}

// upOptions are those of Up in a test.
func (h *host) upOptions(tunnel *conf.Tunnel) Options {
	return Options{
		Tunnel: tunnel, Observer: h.rec, Log: h.log(), Timeout: 5 * time.Second,
		Dir: h.root, Dataplane: h.opener, Program: os.Args[0],
	}
}

func TestUpInBackground(t *testing.T) {
	ha, hb, o, result := inBackground(t)
	if result.PID == os.Getpid() || result.PID == 0 || result.Revived || len(result.Pending) > 0 {
		t.Errorf("%+v", result)
	}
	s, err := Get(ha.root, "left", nil)
	if err != nil || s.WatchPID != result.PID || s.Peers[0].State != "established" || len(s.Peers[0].Children) != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
	if _, err := Up(context.Background(), o); !errors.As(err, new(*Running)) {
		t.Errorf("up again: %v", err)
	}
	// The process in the background answers the peer, and can begin itself.
	if err := Rekey(hb.root, "right", "", false); err != nil {
		t.Errorf("rekey by the peer: %v", err)
	}
	if err := Rekey(ha.root, "left", "", true); err != nil {
		t.Errorf("rekey by us: %v", err)
	}
	ha.downInBackground(result.PID)
	if _, err := os.Lstat(ha.root); !errors.Is(err, os.ErrNotExist) {
		t.Error("files are left")
	}
	eventually(t, "the peer was told", func() bool { return len(hb.dp.SAs()) == 0 })
}

// reap waits for a process, whose parent we are instead of init.
func reap(t *testing.T, pid int) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(pid, &status, 0, nil)
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("wait: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the process does not end")
	}
}

func TestBackgroundFrozen(t *testing.T) {
	ha, hb, _, result := inBackground(t)
	if err := syscall.Kill(result.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ha.downInBackground(result.PID)
	ha.clean()
	eventually(t, "the peer was told by the state alone", func() bool { return len(hb.dp.SAs()) == 0 })
}

func TestBackgroundKilledAndRevived(t *testing.T) {
	ha, _, o, first := inBackground(t)
	before := ha.status("left")
	if err := syscall.Kill(first.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	reap(t, first.PID)
	second, err := Up(context.Background(), o)
	if err != nil || !second.Revived {
		t.Fatalf("%+v, %v", second, err)
	}
	defer reap(t, second.PID)
	defer func() { _ = syscall.Kill(second.PID, syscall.SIGKILL) }()
	after := ha.status("left")
	if before.IKE.SPIi != after.IKE.SPIi || before.Children[0].SPIIn != after.Children[0].SPIIn {
		t.Errorf("not the same SAs: %+v, %+v", before, after)
	}
}

// TestBackgroundSignal: a signal ends the loop and leaves the tunnel.
func TestBackgroundSignal(t *testing.T) {
	ha, _, _, result := inBackground(t)
	if err := syscall.Kill(result.PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	reap(t, result.PID)
	if got := len(ha.dp.Policies()); got != 2 {
		t.Errorf("%d policies are left", got)
	}
	if s, err := Get(ha.root, "left", ha.opener); err != nil || s.WatchPID != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if err := Down(DownOptions{Name: "left", Log: ha.log(), Dir: ha.root, Dataplane: ha.opener}); err != nil {
		t.Error(err)
	}
	ha.clean()
}

func TestUpNoAnswer(t *testing.T) {
	a, _ := sites(t) // there is no other end
	h := newHost(t)
	t.Setenv(testDirVariable, h.root)
	o := h.upOptions(loadTunnel(t, a.name, a.text()))
	o.Timeout = 300 * time.Millisecond
	_, err := Up(context.Background(), o)
	var late *NoAnswer
	if !errors.As(err, &late) || len(late.Peers) != 1 || late.Peers[0] != "other" {
		t.Errorf("%v", err)
	}
	h.clean()
}

func TestUpRefused(t *testing.T) {
	a, b := sites(t)
	b.peerID = "somebody.example" // the other end does not know us
	ha, hb := newHost(t), newHost(t)
	hb.start(loadTunnel(t, b.name, b.text()))
	t.Setenv(testDirVariable, ha.root)
	start := time.Now()
	o := ha.upOptions(loadTunnel(t, a.name, a.text()))
	o.Timeout = time.Minute
	_, err := Up(context.Background(), o)
	if !ike.Refused(err) || !strings.Contains(err.Error(), "other: ") {
		t.Errorf("%v", err)
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
	ha.clean()
}

func TestUpInterrupted(t *testing.T) {
	a, _ := sites(t)
	h := newHost(t)
	t.Setenv(testDirVariable, h.root)
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(200*time.Millisecond, cancel)
	if _, err := Up(ctx, h.upOptions(loadTunnel(t, a.name, a.text()))); !errors.Is(err, ErrInterrupted) {
		t.Errorf("%v", err)
	}
	h.clean()
}

func TestUpKeepTrying(t *testing.T) {
	a, b := sites(t)
	ha, hb := newHost(t), newHost(t)
	t.Setenv(testDirVariable, ha.root)
	o := ha.upOptions(loadTunnel(t, a.name, a.text()))
	o.Timeout, o.KeepTrying = 200*time.Millisecond, true
	result, err := Up(context.Background(), o)
	if err != nil || len(result.Pending) != 1 {
		t.Fatalf("%+v, %v", result, err)
	}
	defer reap(t, result.PID)
	defer func() { _ = syscall.Kill(result.PID, syscall.SIGKILL) }()
	hb.start(loadTunnel(t, b.name, b.text()))
	eventually(t, "established", func() bool { return ha.established("left") })
}

// TestUpTakenDown: `down` ends an `up` that is at it.
func TestUpTakenDown(t *testing.T) {
	a, _ := sites(t)
	h := newHost(t)
	t.Setenv(testDirVariable, h.root)
	up := make(chan error, 1)
	tunnel := loadTunnel(t, a.name, a.text())
	go func() {
		_, err := Up(context.Background(), h.upOptions(tunnel))
		up <- err
	}()
	eventually(t, "listening", func() bool { _, err := Get(h.root, "left", h.opener); return err == nil })
	if _, err := Up(context.Background(), h.upOptions(tunnel)); err == nil || !strings.Contains(err.Error(), "being brought up") {
		t.Errorf("up meanwhile: %v", err)
	}
	if err := Down(DownOptions{Name: "left", Log: h.log(), Dir: h.root, Dataplane: h.opener}); err != nil {
		t.Error(err)
	}
	if err := <-up; err == nil || !strings.Contains(err.Error(), "taken down") {
		t.Errorf("%v", err)
	}
	h.clean()
}

func TestUpForeground(t *testing.T) {
	a, b := sites(t)
	ha, hb := newHost(t), newHost(t)
	hb.start(loadTunnel(t, b.name, b.text()))
	systemd := newManager(t)
	o := ha.upOptions(loadTunnel(t, a.name, a.text()))
	o.Foreground = true
	ctx, cancel := context.WithCancel(context.Background())
	up := make(chan error, 1)
	go func() { _, err := Up(ctx, o); up <- err }()
	systemd.expect("READY=1")
	systemd.expect("WATCHDOG=1")
	systemd.expect("WATCHDOG=1")
	if !ha.established("left") {
		t.Error("ready without being established")
	}
	cancel() // systemctl stop
	systemd.expect("STOPPING=1")
	if err := <-up; err != nil {
		t.Error(err)
	}
	ha.clean()
	eventually(t, "the peer was told", func() bool { return len(hb.dp.SAs()) == 0 })
}

// TestUpForegroundAlone: without the peer the service is up as soon as what it
// covers is blocked.
func TestUpForegroundAlone(t *testing.T) {
	a, b := sites(t)
	ha, hb := newHost(t), newHost(t)
	systemd := newManager(t)
	o := ha.upOptions(loadTunnel(t, a.name, a.text()))
	o.Foreground, o.KeepTrying = true, true
	ctx, cancel := context.WithCancel(context.Background())
	up := make(chan error, 1)
	go func() { _, err := Up(ctx, o); up <- err }()
	systemd.expect("READY=1\nSTATUS=0 of 1 peers established")
	if len(ha.dp.Policies()) == 0 {
		t.Error("ready without guards")
	}
	hb.start(loadTunnel(t, b.name, b.text()))
	systemd.expect("1 of 1 peers established")
	cancel()
	systemd.expect("STOPPING=1")
	if err := <-up; err != nil {
		t.Error(err)
	}
	ha.clean()
}

func TestUpPortHeld(t *testing.T) {
	a, _ := sites(t)
	c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: a.natPort})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h := newHost(t)
	_, err = h.tryStart(loadTunnel(t, a.name, a.text()))
	var held *PortHeld
	if !errors.As(err, &held) || held.PID != os.Getpid() || held.Name != filepath.Base(os.Args[0]) || int(held.Port) != a.natPort {
		t.Errorf("%v", err)
	}
	h.clean()
}

// TestUpPortShared: a program that shares a port with us, as SO_REUSEPORT
// permits, takes a part of our datagrams.
func TestUpPortShared(t *testing.T) {
	a, _ := sites(t)
	c, err := bind(false, uint16(a.port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ours := &sockets{conns: [slotCount]*net.UDPConn{slotNAT4: c}}
	for _, known := range []func() []uint64{ours.inodes, func() []uint64 { return socketsOf(os.Getpid()) }} {
		if held := foreignHolder([]uint16{uint16(a.port)}, known); held != nil {
			t.Errorf("we are no foreigners: %v", held)
		}
	}
	none := func() []uint64 { return nil }
	held := foreignHolder([]uint16{uint16(a.port)}, none)
	if held == nil || held.PID != os.Getpid() {
		t.Errorf("%v", held)
	}
	peer := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}
	esp, err := net.DialUDP("udp4", &net.UDPAddr{IP: peer.IP, Port: a.natPort}, peer)
	if err != nil {
		t.Fatal(err)
	}
	defer esp.Close()
	if held := foreignHolder([]uint16{uint16(a.natPort)}, none); held != nil {
		t.Errorf("what is sent to one socket only: %v", held)
	}
}
