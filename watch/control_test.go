package watch

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestControlSocket(t *testing.T) {
	ha, _, _, _ := pair(t, nil)
	path := filepath.Join(ha.root, "left", fileControl)
	say := func(text string) string {
		t.Helper()
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.WriteString(conn, text); err != nil {
			return ""
		}
		_ = conn.(*net.UnixConn).CloseWrite()
		answer, _ := io.ReadAll(conn)
		return string(answer)
	}
	for _, bad := range []string{"", "rubbish", `{"verb":`, "[]"} {
		if got := say(bad); got != "" {
			t.Errorf("%q: %s", bad, got)
		}
	}
	if got := say(`{"verb":"dance"}`); !strings.Contains(got, "unknown verb") {
		t.Errorf("%s", got)
	}
	if got := say(`{"verb":"offer","claim":"AAAA"}`); !strings.Contains(got, `"error":"offer`) {
		t.Errorf("%s", got)
	}
	var r response
	if err := json.Unmarshal([]byte(say(`{"verb":"status"}`)), &r); err != nil || r.Status == nil || r.Status.Tunnel != "left" || !r.Done {
		t.Errorf("%+v, %v", r, err)
	}
	// A client that says nothing keeps nobody waiting.
	silent, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if !ha.established("left") {
		t.Error("the others wait")
	}
	for _, name := range []string{fileControl, fileHandover, stateFile("other"), fileJournal, filePID, fileTunnel, fileLock} {
		info, err := os.Stat(filepath.Join(ha.root, "left", name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	for _, name := range []string{"", "left"} {
		if info, err := os.Stat(filepath.Join(ha.root, name)); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%q: %v, %v", name, info.Mode(), err)
		}
	}
}

func TestNoTunnel(t *testing.T) {
	root := runDir(t)
	if names, err := Tunnels(root); err != nil || len(names) != 0 {
		t.Errorf("%v, %v", names, err)
	}
	if _, err := Get(root, "office", nil); !errors.Is(err, ErrNotUp) {
		t.Errorf("status: %v", err)
	}
	if err := Rekey(root, "office", "", false); !errors.Is(err, ErrNotUp) {
		t.Errorf("rekey: %v", err)
	}
	if err := Down(DownOptions{Name: "office", Dir: root}); !errors.Is(err, ErrNotUp) {
		t.Errorf("down: %v", err)
	}
	if _, err := os.Lstat(root); !errors.Is(err, os.ErrNotExist) {
		t.Error("something was made")
	}
}

// TestRunDirOfOthers: nobody else may have prepared it.
func TestRunDirOfOthers(t *testing.T) {
	root := runDir(t)
	if err := os.Mkdir(root, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(root, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := enter(root, "office"); err == nil || !strings.Contains(err.Error(), "0700") {
		t.Errorf("%v", err)
	}
}

func TestLock(t *testing.T) {
	root := runDir(t)
	d, err := enter(root, "office")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.writePID(true); err != nil {
		t.Fatal(err)
	}
	var running *Running
	if _, err := enter(root, "office"); !errors.As(err, &running) || !running.Starting || running.PID != os.Getpid() {
		t.Errorf("%v", err)
	}
	other, err := enter(root, "branch")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.remove(); err != nil {
		t.Error(err)
	}
	d.release()
	if _, err := reenter(root, "office"); !errors.Is(err, ErrNotUp) {
		t.Errorf("%v", err)
	}
	if err := other.remove(); err != nil {
		t.Error(err)
	}
	other.release()
	if _, err := os.Lstat(root); !errors.Is(err, os.ErrNotExist) {
		t.Error("the run directory is left")
	}
}
