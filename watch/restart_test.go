package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// program is a copy of the test's program, which a test may replace.
func program(t *testing.T) string {
	t.Helper()
	from, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	path := filepath.Join(t.TempDir(), "ipsec-quick")
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// replace puts another file in the place of a program, as an upgrade does.
func replace(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// became reports whether a process is another program now than the one that it
// was started as.
func became(t *testing.T, pid int) bool {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(b), inheritVariable+`={`) && strings.Contains(string(b), `"signal":-1`)
}

// goesOn restarts the loop of `left` and checks that it is the same tunnel.
func goesOn(t *testing.T, ha, hb *host, pid int) {
	t.Helper()
	before := ha.status("left")
	if became(t, pid) {
		t.Error("it was restarted before")
	}
	rekeyed := make(chan error, 1) // the peer's request comes while nobody reads
	go func() { rekeyed <- Rekey(hb.root, "right", "", false) }()
	s, err := Restart(ha.root, "left")
	if err != nil {
		t.Fatal(err)
	}
	if s.WatchPID != pid || s.Version == "" || !became(t, pid) {
		t.Errorf("process %d, %q, not %d", s.WatchPID, s.Version, pid)
	}
	if err := <-rekeyed; err != nil {
		t.Errorf("a rekey meanwhile: %v", err)
	}
	if err := Rekey(ha.root, "left", "", false); err != nil {
		t.Errorf("a rekey afterwards: %v", err)
	}
	after := ha.status("left")
	if after.IKE.SPIi != before.IKE.SPIi || after.IKE.Established != before.IKE.Established || after.Rekeys.Child != 2 {
		t.Errorf("not the same IKE SA: %+v, %+v", before, after)
	}
}

func TestRestartInBackground(t *testing.T) {
	ha, hb, _, result := inBackground(t)
	goesOn(t, ha, hb, result.PID)
	if _, err := Restart(ha.root, "left"); err != nil {
		t.Errorf("again: %v", err)
	}
	ha.downInBackground(result.PID)
	if _, err := os.Lstat(ha.root); !errors.Is(err, os.ErrNotExist) {
		t.Error("files are left")
	}
}

// TestRestartInForeground: SIGTERM means the same to the new program as to the
// old one, and the service manager's notifications go on.
func TestRestartInForeground(t *testing.T) {
	a, b := sites(t)
	ha, hb := newHost(t), newHost(t)
	hb.start(loadTunnel(t, b.name, b.text()))
	t.Setenv(testDirVariable, ha.root)
	systemd := newManager(t)
	t.Setenv("WATCHDOG_USEC", "2000000") // nobody reads it most of the time
	run := func(args ...string) *exec.Cmd {
		t.Helper()
		c := exec.Command(os.Args[0], args...)
		c.Stderr = ha.logs
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Process.Kill() })
		systemd.expect("READY=1")
		return c
	}
	path := writeTunnel(t, a.name, a.text())

	up := run("up", path)
	goesOn(t, ha, hb, up.Process.Pid)
	systemd.expect("READY=1")
	systemd.expect("WATCHDOG=1")
	_ = up.Process.Kill()
	_ = up.Wait()

	watch := run("watch", "left")
	if _, err := Restart(ha.root, "left"); err != nil || !became(t, watch.Process.Pid) {
		t.Fatal(err)
	}
	systemd.expect("READY=1")
	_ = watch.Process.Signal(syscall.SIGTERM)
	if err := watch.Wait(); err != nil {
		t.Error(err)
	}
	if s, err := Get(ha.root, "left", ha.opener); err != nil || s.WatchPID != 0 {
		t.Errorf("a signal to watch takes the tunnel down: %+v, %v", s, err)
	}

	up = run("up", path)
	if _, err := Restart(ha.root, "left"); err != nil {
		t.Fatal(err)
	}
	_ = up.Process.Signal(syscall.SIGTERM)
	if err := up.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(ha.root); !errors.Is(err, os.ErrNotExist) {
		t.Error("a signal to up leaves files")
	}
}

// TestRestartRefused: what cannot go on is found out before anything ends.
func TestRestartRefused(t *testing.T) {
	a, b := sites(t)
	ha, hb := newHost(t), newHost(t)
	hb.start(loadTunnel(t, b.name, b.text()))
	t.Setenv(testDirVariable, ha.root)
	path, file := program(t), writeTunnel(t, a.name, a.text())
	good := a.text()
	// In the foreground, because that is not confined here: it can run a shell.
	up := exec.Command(path, "up", file)
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = up.Process.Kill() }()
	eventually(t, "established", func() bool {
		s, err := Get(ha.root, "left", ha.opener)
		return err == nil && s.Peers[0].State == "established"
	})
	for name, c := range map[string]struct{ program, tunnel, want string }{
		"no program":      {"", good, "exec format error"},
		"another program": {"#!/bin/sh\necho hello\n", good, "another program"},
		"it fails":        {"#!/bin/sh\nexit 3\n", good, "exit status 3"},
		"a bad file":      {"#!/bin/sh\necho ipsec-quick version 9\n", "rubbish", "left.toml:1:"},
		"other ports":     {"#!/bin/sh\necho ipsec-quick version 9\n", strings.Replace(good, fmt.Sprintf("nat_port = %d", a.natPort), "nat_port = 4500", 1), "ike.nat_port"},
	} {
		replace(t, path, c.program)
		if err := os.WriteFile(file, []byte(c.tunnel), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Restart(ha.root, "left"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Rekey(ha.root, "left", "", false); err != nil || became(t, up.Process.Pid) {
		t.Errorf("it does not go on: %v", err)
	}
	// One that lied: the loop is gone, the tunnel is not.
	if err := os.WriteFile(file, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	replace(t, path, "#!/bin/sh\necho ipsec-quick version 9\n")
	if _, err := Restart(ha.root, "left"); !errors.Is(err, ErrNoLoop) || !strings.Contains(err.Error(), "the new program") {
		t.Errorf("%v", err)
	}
	_ = up.Wait()
	if s, err := Get(ha.root, "left", ha.opener); err != nil || s.WatchPID != 0 || s.Version != "" {
		t.Errorf("%+v, %v", s, err)
	}
	revived, err := Revive(context.Background(), WatchOptions{
		Name: "left", Log: ha.log(), Dir: ha.root, Dataplane: ha.opener, Program: os.Args[0]})
	if err != nil || !revived.Revived {
		t.Fatalf("%+v, %v", revived, err)
	}
	defer reap(t, revived.PID)
	defer func() { _ = syscall.Kill(revived.PID, syscall.SIGKILL) }()
	eventually(t, "established", func() bool { return ha.established("left") })
}

// TestExecFails: what was checked can fail all the same; the loop goes on.
func TestExecFails(t *testing.T) {
	ha, hb, ra, _ := pair(t, nil)
	if _, err := Restart(ha.root, "left"); err == nil || !strings.Contains(err.Error(), "version") {
		t.Errorf("%v", err) // the test's program says none without testDirVariable
	}
	if !ra.call(func() {
		if err := ra.become("/nowhere"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v", err)
		}
	}) {
		t.Fatal("the loop has ended")
	}
	if err := Rekey(ha.root, "left", "", false); err != nil {
		t.Errorf("ours: %v", err)
	}
	if err := Rekey(hb.root, "right", "", true); err != nil {
		t.Errorf("the peer's: %v", err)
	}
	before := len(openFiles(t))
	for range 3 {
		ra.call(func() { _ = ra.become("/nowhere") })
	}
	// The loops are not idle yet, and what they save is open meanwhile.
	eventually(t, fmt.Sprintf("no more than %d descriptors", before), func() bool { return len(openFiles(t)) <= before })
}

func openFiles(t *testing.T) []os.DirEntry {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestRestartOfNothing(t *testing.T) {
	if _, err := Restart(runDir(t), "left"); !errors.Is(err, ErrNotUp) {
		t.Errorf("%v", err)
	}
	ha, _, ra, _ := pair(t, nil)
	ra.crash()
	start := time.Now()
	if _, err := Restart(ha.root, "left"); !errors.Is(err, ErrNoLoop) || time.Since(start) > time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}
