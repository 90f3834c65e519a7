package watch

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	landlocksys "github.com/landlock-lsm/go-landlock/landlock/syscall"

	"ipsec-quick/apply/fake"
	"ipsec-quick/conf"
)

// confineVariable makes the test's program confine itself as the loop of the
// tunnel file that it names, and look at what is left.
const confineVariable = "IPSEC_QUICK_TEST_CONFINE"

// confinedLine is what that program says when it is confined.
const confinedLine = "confined"

func TestConfine(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root has something to give up")
	}
	for _, host := range []string{"192.0.2.1", "peer.example"} {
		t.Run(host, func(t *testing.T) {
			key := filepath.Join(t.TempDir(), "psk")
			if err := os.WriteFile(key, []byte(testKey), 0o600); err != nil {
				t.Fatal(err)
			}
			path := writeTunnel(t, "office", fmt.Sprintf(
				"[[peer]]\nname = \"other\"\nendpoint = %q\npsk_file = %q\nlocal_ts = [\"10.1.0.0/16\"]\nremote_ts = [\"10.2.0.0/16\"]\n", host, key))
			cmd := exec.Command(os.Args[0], t.TempDir())
			cmd.Env = append(os.Environ(), confineVariable+"="+path)
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			looked := false
			for lines := bufio.NewScanner(out); lines.Scan(); {
				if lines.Text() == confinedLine {
					looked = true
					checkThreads(t, cmd.Process.Pid)
					_ = in.Close()
					continue
				}
				t.Log(lines.Text())
			}
			if err := cmd.Wait(); err != nil || !looked {
				t.Errorf("%v, confined: %v", err, looked)
			}
		})
	}
}

// checkThreads checks the rights of all threads of a process.
func checkThreads(t *testing.T, pid int) {
	t.Helper()
	const kept = "0000000000001400" // 1 << CAP_NET_ADMIN | 1 << CAP_NET_BIND_SERVICE
	want := map[string]string{
		"CapInh": "0000000000000000", "CapPrm": kept, "CapEff": kept, "CapBnd": kept, "CapAmb": "0000000000000000",
		"NoNewPrivs": "1",
	}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(files) < lockedThreads {
		t.Errorf("%d threads: %v", len(files), err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Error(err)
		}
		found := 0
		for line := range strings.Lines(string(b)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
			if w, ok := want[key]; ok {
				found++
				if value != w {
					t.Errorf("%s: %s is %s, not %s", f, key, value, w)
				}
			}
		}
		if found != len(want) {
			t.Errorf("%s has %d of %d lines", f, found, len(want))
		}
	}
}

// lockedThreads are there before the program is confined.
const lockedThreads = 4

// confinedMain is the program that TestConfine starts.
func confinedMain(path string) int {
	for range lockedThreads {
		ready := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(ready)
			select {}
		}()
		<-ready
	}
	if err := confined(path, os.Args[1]); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// confined has its run directory below base.
func confined(path, base string) error {
	tunnel, err := conf.Load(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(base, "other"), nil, 0o600); err != nil {
		return err
	}
	d, err := enter(filepath.Join(base, "run"), "office")
	if err != nil {
		return err
	}
	(&loop{
		dir: d, tunnel: tunnel, facts: &facts{Path: path}, dp: fake.New(),
		log: slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}).confine()
	fmt.Println(confinedLine)
	_, _ = io.Copy(io.Discard, os.Stdin) // until the threads were looked at

	for _, name := range []string{path, tunnel.Files[0], os.Args[0], "/etc/hosts"} {
		f, oerr := os.Open(name)
		if oerr == nil {
			oerr = f.Close()
		}
		err = errors.Join(err, oerr)
	}
	err = errors.Join(err, d.writePID(false))
	if _, none := landlocksys.LandlockGetABIVersion(); none != nil {
		fmt.Println("this kernel has no landlock")
	} else {
		err = errors.Join(err, denied(base, !tunnel.Peers[0].Endpoint.Addr.IsValid()))
	}
	// As `down` does.
	err = errors.Join(err, d.remove())
	if _, serr := os.Stat(d.root); !errors.Is(serr, fs.ErrNotExist) {
		err = errors.Join(err, fmt.Errorf("the run directory: %w", serr))
	}
	return err
}

// denied checks that files cannot be reached that the loop does not need. With
// names to resolve it may read the folder of resolv.conf.
func denied(base string, resolves bool) (err error) {
	read := []string{"/proc/self/environ", filepath.Join(base, "other")}
	if !resolves || resolverFolder() != "/etc" {
		read = append(read, "/etc/shadow")
	}
	refused := func(name string, flags int) {
		f, oerr := os.OpenFile(name, flags, 0o600)
		if oerr == nil {
			_ = f.Close()
		}
		if !errors.Is(oerr, fs.ErrPermission) {
			err = errors.Join(err, fmt.Errorf("open %s: %v", name, oerr))
		}
	}
	for _, name := range read {
		refused(name, os.O_RDONLY)
	}
	for _, name := range []string{filepath.Join(base, "new"), "/etc/ipsec-quick.new", "/proc/sys/kernel/core_pattern"} {
		refused(name, os.O_WRONLY|os.O_CREATE)
	}
	return err
}
