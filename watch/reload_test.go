package watch

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ipsec-quick/conf"
)

func TestReloadPeers(t *testing.T) {
	r, fars := newReloading(t, 4, 3)
	stays := r.of("far0")
	since := len(r.h.dp.Log())
	r.peers = []string{fars[0].peer(""), fars[1].peer("id = \"far1.example\"\nlocal_id = \"x\""), fars[3].peer("")}
	r.peers[1] = strings.Replace(fars[1].peer(""), "10.2.1.0/24", "10.2.1.0/25", 1)
	done := r.mustChange()
	var said []string
	for _, c := range done.Peers {
		said = append(said, c.String())
	}
	want := []string{"far1: remote_ts changed: its SAs end, and new ones are negotiated", "far3: added", "far2: removed"}
	if !slices.Equal(said, want) {
		t.Errorf("said %q", said)
	}
	if got := r.guarded(); !slices.Equal(got, []string{"10.2.0.0/24", "10.2.1.0/25", "10.2.3.0/24"}) {
		t.Errorf("guarded: %v", got)
	}
	r.await(3)
	r.unchanged(stays)
	eventually(t, "the peer that was removed was told", func() bool { return len(fars[2].dp.SAs()) == 0 })
	eventually(t, "its state is forgotten", func() bool {
		_, err := os.Stat(r.dir.file(stateFile("far2")))
		f, ferr := r.dir.facts()
		return errors.Is(err, fs.ErrNotExist) && ferr == nil && len(f.ReqIDs) == 3
	})
	if got := len(r.h.dp.SAs()); got != 6 {
		t.Errorf("%d SAs", got)
	}
	// What traffic was covered by is never left without a policy meanwhile.
	for i, line := range r.h.dp.Log()[since:] {
		if strings.HasPrefix(line, "RemovePolicy") && strings.Contains(line, "10.2.1.0/24") &&
			!slices.ContainsFunc(r.h.dp.Log()[since:since+i], func(l string) bool {
				return strings.HasPrefix(l, "SetPolicy block") && strings.Contains(l, "10.2.1.0/25")
			}) {
			t.Error("the old guard went before the new one was there")
		}
	}
	r.down()
	r.h.clean()
	r.h.correct()
}

// TestReloadMoved gives the traffic of one peer to another: its guard is there all
// the time.
func TestReloadMoved(t *testing.T) {
	r, fars := newReloading(t, 2, 2)
	since := len(r.h.dp.Log())
	r.peers = []string{strings.Replace(fars[0].peer(""), "far0\"\n", "renamed\"\n", 1)}
	done := r.mustChange()
	if len(done.Peers) != 3 {
		t.Errorf("%v", done.Peers)
	}
	r.await(1)
	if got := r.guarded(); !slices.Equal(got, []string{"10.2.0.0/24"}) {
		t.Errorf("guarded: %v", got)
	}
	for _, line := range r.h.dp.Log()[since:] {
		if strings.HasPrefix(line, "RemovePolicy block") && strings.Contains(line, "10.2.0.0/24") {
			t.Errorf("%s", line)
		}
	}
	r.h.correct()
}

func TestReloadSame(t *testing.T) {
	r, _ := newReloading(t, 1, 1)
	before, since := r.of("far0"), len(r.h.dp.Log())
	r.head = "# a remark\n" + r.head
	if done := r.mustChange(); len(done.Peers) != 0 {
		t.Errorf("%v", done.Peers)
	}
	r.unchanged(before)
	for _, line := range r.h.dp.Log()[since:] {
		if !strings.HasPrefix(line, "Query") && !strings.HasPrefix(line, "List") {
			t.Errorf("%s", line)
		}
	}
}

// TestReloadLive: what needs no new negotiation does not make one.
func TestReloadLive(t *testing.T) {
	r, fars := newReloading(t, 1, 1)
	before := r.of("far0")
	r.peers = []string{fars[0].peer("[peer.ike]\ndpd = \"5m\"")}
	if done := r.mustChange(); len(done.Peers) != 1 || done.Peers[0].Effect != EffectNow {
		t.Errorf("%v", done.Peers)
	}
	r.unchanged(before)
	r.peers = []string{fars[0].peer("[peer.lifetime]\nbytes = { soft = \"1GiB\", hard = \"2GiB\" }")}
	if done := r.mustChange(); len(done.Peers) != 1 || done.Peers[0].Effect != EffectRekey {
		t.Errorf("%v", done.Peers)
	}
	eventually(t, "rekeyed", func() bool {
		p := r.of("far0")
		return len(p.live()) == 1 && p.live()[0].Lifetime.Bytes.Hard == 2<<30
	})
	if after := r.of("far0"); after.IKE.SPIi != before.IKE.SPIi || after.Rekeys.Child != 1 {
		t.Errorf("%+v", after)
	}
	r.h.correct()
}

// TestReloadRefused: whatever is wrong changes nothing.
func TestReloadRefused(t *testing.T) {
	r, fars := newReloading(t, 2, 1)
	before, since, head := r.of("far0"), len(r.h.dp.Log()), r.head
	refused := func(head string, peers []string) error {
		t.Helper()
		r.head, r.peers = head, peers
		_, err := r.change()
		if err == nil {
			t.Fatal("not refused")
		}
		r.unchanged(before)
		for _, line := range r.h.dp.Log()[since:] {
			if strings.HasPrefix(line, "SetPolicy") || strings.HasPrefix(line, "Remove") {
				t.Errorf("%v: %s", err, line)
			}
		}
		return err
	}
	_, want := conf.Load(writeTunnel(t, "left", head+"[[peer]]\nnam = \"x\"\n"))
	var wrong, expected conf.Errors
	err := refused(head, []string{"[[peer]]\nnam = \"x\"\n"})
	if !errors.As(err, &wrong) || !errors.As(want, &expected) || len(wrong) != len(expected) || wrong[0].Message != expected[0].Message || wrong[0].File != r.path {
		t.Errorf("%v, not as check: %v", err, want)
	}
	ok := []string{fars[0].peer(""), fars[1].peer("")}
	for key, text := range map[string]string{
		"ike.nat_port": regexp.MustCompile(`nat_port = \d+`).ReplaceAllString(head, "nat_port = 4500"),
		"dataplane":    "dataplane = \"userspace\"\n" + head,
	} {
		if err := refused(text, ok); !strings.Contains(err.Error(), key+" has changed") {
			t.Errorf("%s: %v", key, err)
		}
	}

	third := site{name: "third", id: "third.example", peerID: "x", localTS: "10.1.0.0/16", remoteTS: fars[1].ts}
	third.port, third.natPort = freePorts(t)
	other := r.h.start(loadTunnel(t, third.name, third.text()))
	since = len(r.h.dp.Log())
	if err := refused(head, ok); !strings.Contains(err.Error(), "third") {
		t.Errorf("%v", err)
	}
	if facts, err := r.dir.facts(); err != nil || len(facts.ReqIDs) != 1 || len(facts.Guards) != 1 {
		t.Errorf("%+v, %v", facts, err)
	}
	other.down()
	r.head, r.peers = head, ok
	r.mustChange()
	r.await(2)

	if err := os.Remove(r.path); err != nil {
		t.Fatal(err)
	}
	if _, err := Reload(r.h.root, "left", nil); !errors.As(err, &wrong) {
		t.Errorf("%v", err)
	}
	if _, err := Reload(r.h.root, "nobody", nil); !errors.Is(err, ErrNotUp) {
		t.Errorf("%v", err)
	}
}

// TestReloadGuardFails: a guard that cannot be set leaves all as it was.
func TestReloadGuardFails(t *testing.T) {
	r, fars := newReloading(t, 3, 1)
	before := r.of("far0")
	r.peers = []string{fars[0].peer("start = \"on-demand\""), fars[1].peer(""), fars[2].peer("")}
	r.h.dp.FailLater("SetPolicy", 2, errors.New("no memory"))
	if _, err := r.change(); err == nil || !strings.Contains(err.Error(), "no memory") {
		t.Fatalf("%v", err)
	}
	r.unchanged(before)
	if got := r.guarded(); !slices.Equal(got, []string{"10.2.0.0/24"}) {
		t.Errorf("guarded: %v", got)
	}
	r.mustChange()
	r.await(3)
	r.down()
	r.h.clean()
}

// TestReloadCrash: a loop that dies when the file has changed goes on with what the
// file says, whether the reload had begun or not.
func TestReloadCrash(t *testing.T) {
	for _, begun := range []bool{false, true} {
		r, fars := newReloading(t, 4, 3)
		stays := r.of("far0")
		r.peers = []string{fars[0].peer(""), strings.Replace(fars[1].peer(""), "10.2.1.0/24", "10.2.1.0/25", 1), fars[3].peer("")}
		if begun {
			r.mustChange()
		} else {
			r.write()
		}
		r.crash()
		tunnel, err := conf.Load(r.path)
		if err != nil {
			t.Fatal(err)
		}
		r.running = r.h.start(tunnel)
		r.await(3)
		r.unchanged(stays)
		if ts := r.of("far1").live()[0].RemoteTS[0]; ts != "10.2.1.0/25" {
			t.Errorf("begun %t: far1 has %s", begun, ts)
		}
		if got := r.guarded(); !slices.Equal(got, []string{"10.2.0.0/24", "10.2.1.0/25", "10.2.3.0/24"}) {
			t.Errorf("begun %t: guarded: %v", begun, got)
		}
		eventually(t, "the peer that was removed was told", func() bool { return len(fars[2].dp.SAs()) == 0 })
		eventually(t, "its state is forgotten", func() bool {
			f, err := r.dir.facts()
			return err == nil && len(f.ReqIDs) == 3
		})
		r.down()
		r.h.clean()
	}
}

// TestReloadByHangup: in the foreground SIGHUP asks for a reload, of which the
// service manager hears.
func TestReloadByHangup(t *testing.T) {
	a, b := sites(t)
	ha, hb := newHost(t), newHost(t)
	hb.start(loadTunnel(t, b.name, b.text()))
	t.Setenv(testDirVariable, ha.root)
	systemd := newManager(t)
	t.Setenv("WATCHDOG_USEC", "2000000")
	path := writeTunnel(t, a.name, a.text())
	up := exec.Command(os.Args[0], "up", path)
	up.Stderr = ha.logs
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = up.Process.Kill() })
	systemd.expect("READY=1")
	a.extra = "[peer.lifetime]\nbytes = { soft = \"1GiB\", hard = \"2GiB\" }"
	if err := os.WriteFile(path, []byte(a.text()), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = up.Process.Signal(syscall.SIGHUP)
	systemd.expect("RELOADING=1")
	systemd.expect("READY=1")
	eventually(t, "rekeyed", func() bool {
		p := ha.status("left")
		return len(p.live()) == 1 && p.live()[0].Lifetime.Bytes.Hard == 2<<30
	})
	if err := os.WriteFile(path, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = up.Process.Signal(syscall.SIGHUP)
	systemd.expect("RELOADING=1")
	systemd.expect("READY=1")
	time.Sleep(10 * time.Millisecond)
	if !ha.established("left") {
		t.Error("a broken file has changed something")
	}
	_ = up.Process.Signal(syscall.SIGTERM)
	if err := up.Wait(); err != nil {
		t.Error(err)
	}
}
