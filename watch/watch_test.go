package watch

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// manager is the notification socket of a service manager.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
}

func newManager(t *testing.T) *manager {
	t.Helper()
	path := filepath.Join(filepath.Dir(runDir(t)), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "100000")
	t.Setenv("WATCHDOG_PID", "")
	return &manager{t, conn}
}

// expect waits for a line.
func (m *manager) expect(want string) {
	m.t.Helper()
	buf := make([]byte, 512)
	for {
		_ = m.conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, err := m.conn.Read(buf)
		if err != nil {
			m.t.Fatalf("no %s: %v", want, err)
		}
		if strings.Contains(string(buf[:n]), want) {
			return
		}
	}
}

// TestManagerThatDoesNotRead: the loop goes on.
func TestManagerThatDoesNotRead(t *testing.T) {
	newManager(t)
	start := time.Now()
	for range 600 { // more than the kernel queues (net.unix.max_dgram_qlen)
		if notify("WATCHDOG=1"); time.Since(start) > notifyTimeout {
			break
		}
	}
	if took := time.Since(start); took < notifyTimeout || took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

func (h *host) watch(ctx context.Context) chan error {
	ended := make(chan error, 1)
	go func() {
		ended <- Watch(ctx, WatchOptions{Name: "left", Log: h.log(), Dir: h.root, Dataplane: h.opener})
	}()
	return ended
}

func TestWatch(t *testing.T) {
	ha, _, ra, _ := pair(t, nil)
	before := ha.status("left")
	if err := <-ha.watch(context.Background()); !errors.As(err, new(*Running)) {
		t.Errorf("of a tunnel whose loop lives: %v", err)
	}
	ra.crash()

	systemd := newManager(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := ha.watch(ctx)
	systemd.expect("READY=1")
	systemd.expect("WATCHDOG=1")
	s, err := Get(ha.root, "left", ha.opener)
	if err != nil || s.WatchPID != os.Getpid() {
		t.Fatalf("%+v, %v", s, err)
	}
	if now := s.Peers[0]; now.IKE.SPIi != before.IKE.SPIi || now.Children[0].SPIIn != before.Children[0].SPIIn {
		t.Errorf("not the same SAs: %+v", now)
	}
	if err := Rekey(ha.root, "left", "", false); err != nil {
		t.Error(err)
	}

	cancel() // a signal
	systemd.expect("STOPPING=1")
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := len(ha.dp.Policies()); got != 2 {
		t.Errorf("%d policies are left", got)
	}
	if s, err := Get(ha.root, "left", ha.opener); err != nil || s.WatchPID != 0 || len(s.Peers[0].live()) != 1 {
		t.Errorf("%+v, %v", s, err)
	}

	ended = ha.watch(context.Background())
	systemd.expect("READY=1")
	if err := Down(DownOptions{Name: "left", Log: ha.log(), Dir: ha.root, Dataplane: ha.opener}); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("taken down: %v", err)
	}
	ha.clean()
	ha.correct()
}

func TestWatchOfNothing(t *testing.T) {
	h := newHost(t)
	if err := <-h.watch(context.Background()); !errors.Is(err, ErrNotUp) {
		t.Errorf("%v", err)
	}
	h.clean()
	// What an `up` left that was killed is no tunnel to go on with.
	ha, _, ra, _ := pair(t, nil)
	if err := ra.u.parts.dir.writePID(true); err != nil {
		t.Fatal(err)
	}
	ra.crash()
	if err := <-ha.watch(context.Background()); !errors.Is(err, ErrNotUp) {
		t.Errorf("%v", err)
	}
	if got := len(ha.dp.Policies()); got != 2 {
		t.Errorf("%d policies are left", got)
	}
}
