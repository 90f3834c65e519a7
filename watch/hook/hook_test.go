package hook

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ipsec-quick/conf"
)

func TestMain(m *testing.M) {
	if len(os.Args) < 2 || os.Args[1] != "hooks" {
		os.Exit(m.Run())
	}
	if err := Main(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// both makes a test of either kind of Runner.
func both(t *testing.T, f func(t *testing.T, start func(timeout time.Duration, commands ...string) *Runner)) {
	for name, make := range map[string]func(*conf.Hooks) (*Runner, error){
		"here":  Start,
		"apart": func(h *conf.Hooks) (*Runner, error) { return Spawn(os.Args[0], "office", h) },
	} {
		t.Run(name, func(t *testing.T) {
			f(t, func(timeout time.Duration, commands ...string) *Runner {
				r, err := make(&conf.Hooks{Timeout: timeout, Commands: map[string][]string{conf.HookLost: commands}})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(r.Close)
				return r
			})
		})
	}
}

// run runs a command to its end.
func run(t *testing.T, r *Runner, at int, env map[string]string) (lines []string, err error) {
	t.Helper()
	if err := r.Begin(conf.HookLost, at, env); err != nil {
		t.Fatal(err)
	}
	return end(t, r)
}

func end(t *testing.T, r *Runner) (lines []string, err error) {
	t.Helper()
	for limit := time.After(10 * time.Second); ; {
		select {
		case ev, ok := <-r.Events():
			switch {
			case !ok:
				return lines, ErrGone
			case ev.Done:
				return lines, ev.Err
			}
			lines = append(lines, ev.Line)
		case <-limit:
			t.Fatal("the command does not end")
		}
	}
}

func TestRun(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/nowhere")
	t.Setenv(prefix+"PEER", "somebody")
	both(t, func(t *testing.T, start func(time.Duration, ...string) *Runner) {
		long, many := strings.Repeat("x", maxLine), maxLines+5
		for command, want := range map[string]struct {
			lines []string
			err   string
		}{
			"exit 3":                               {err: "exit status 3"},
			"echo one; echo two >&2; printf three": {lines: []string{"one", "two", "three"}},
			`echo "$IPSEC_QUICK_PEER, $IPSEC_QUICK_HOOK, $NOTIFY_SOCKET"`: {lines: []string{"a b, lost, "}},
			"pwd; ls /proc/self/fd | wc -l; cat":                          {lines: []string{"/", "4"}}, // stdin is empty; ls opens the folder
			"printf '\\377\\n'; echo " + long + "y":                       {lines: []string{"\ufffd", long + " ..."}},
			fmt.Sprintf("seq %d | tail -n 1; seq %d; exit 1", many, many): {
				lines: append(append([]string{strconv.Itoa(many)}, count(maxLines-1)...), "(more output is left out)"), err: "exit status 1",
			},
			"sleep 3 & echo left": {lines: []string{"left"}},
			"kill -9 $$":          {err: "signal: killed"},
			"yes | head -n 1":     {lines: []string{"y"}}, // SIGPIPE is not ignored
		} {
			t.Run(command[:min(12, len(command))], func(t *testing.T) {
				lines, err := run(t, start(time.Minute, command), 0, map[string]string{"PEER": "a b", "HOOK": "lost"})
				if !slices.Equal(lines, want.lines) || fmt.Sprint(err) != fmt.Sprint(asError(want.err)) {
					t.Errorf("%s: %d lines %.200q, %v", command, len(lines), lines, err)
				}
			})
		}
		r := start(time.Minute, "exit 1", "echo more")
		for at, want := range []string{"exit status 1", "<nil>", "there is no command 2 of lost"} {
			if _, err := run(t, r, at, nil); fmt.Sprint(err) != want {
				t.Errorf("command %d: %v", at, err)
			}
		}
	})
}

func asError(text string) error {
	if text == "" {
		return nil
	}
	return errors.New(text)
}

func count(n int) (list []string) {
	for i := range n {
		list = append(list, strconv.Itoa(i+1))
	}
	return list
}

// TestKilled: a command ends with all of its group, when its time is over, when it
// is cancelled, and when nobody is left to hear of it.
func TestKilled(t *testing.T) {
	both(t, func(t *testing.T, start func(time.Duration, ...string) *Runner) {
		for _, how := range []string{"timeout", "cancel", "close"} {
			t.Run(how, func(t *testing.T) {
				pids := filepath.Join(t.TempDir(), "pids")
				timeout := time.Minute
				if how == "timeout" {
					timeout = 300 * time.Millisecond
				}
				r := start(timeout, "trap '' TERM INT HUP; (trap '' TERM; echo $$ >"+pids+"; exec sleep 60) & echo on; sleep 60; echo off", "echo next")
				began := time.Now()
				if err := r.Begin(conf.HookLost, 0, nil); err != nil {
					t.Fatal(err)
				}
				if ev := <-r.Events(); ev.Line != "on" {
					t.Fatalf("%+v", ev)
				}
				group := 0
				for limit := time.Now().Add(5 * time.Second); group == 0 && time.Now().Before(limit); time.Sleep(time.Millisecond) {
					b, _ := os.ReadFile(pids)
					group, _ = strconv.Atoi(strings.TrimSpace(string(b))) // $$ is the shell's, that leads the group
				}
				if own, err := syscall.Getpgid(group); err != nil || own != group {
					t.Fatalf("group %d of %d, %v", own, group, err)
				}
				want := map[string]string{"timeout": "killed after 300ms", "cancel": "interrupted"}[how]
				switch how {
				case "cancel":
					if err := r.Cancel(); err != nil {
						t.Fatal(err)
					}
					fallthrough
				case "timeout":
					if lines, err := end(t, r); err == nil || err.Error() != want || len(lines) > 0 {
						t.Errorf("%q, %v", lines, err)
					}
					if lines, err := run(t, r, 1, nil); err != nil || !slices.Equal(lines, []string{"next"}) {
						t.Errorf("the next: %q, %v", lines, err)
					}
				case "close":
					r.conn.Close()
					<-r.ended
				}
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("it took %v", took)
				}
				for limit := time.Now().Add(5 * time.Second); syscall.Kill(-group, 0) == nil; time.Sleep(time.Millisecond) {
					if time.Now().After(limit) {
						t.Fatal("some of the group is still there")
					}
				}
			})
		}
	})
}

// TestAdopt hands a Runner down while a command runs: the next one hears nothing
// of that, and its own wait until then.
func TestAdopt(t *testing.T) {
	h := &conf.Hooks{Timeout: time.Minute, Commands: map[string][]string{conf.HookLost: {"echo one; sleep 0.3; echo two", "echo three"}}}
	r, err := Spawn(os.Args[0], "office", h)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Begin(conf.HookLost, 0, nil); err != nil {
		t.Fatal(err)
	}
	if ev := <-r.Events(); ev.Line != "one" {
		t.Fatalf("%+v", ev)
	}
	fd, pid, err := r.Bequeath()
	if err != nil {
		t.Fatal(err)
	}
	close(r.stop) // it reads no more, as if the program had gone
	_ = r.conn.SetReadDeadline(time.Unix(1, 0))
	next, err := Adopt(fd, pid)
	if err != nil {
		t.Fatal(err)
	}
	_ = next.conn.SetReadDeadline(time.Time{})
	if lines, err := run(t, next, 1, nil); err != nil || !slices.Equal(lines, []string{"three"}) {
		t.Errorf("%q, %v", lines, err)
	}
	_ = r.conn.Close()
	next.Close()
	if syscall.Kill(pid, 0) == nil {
		t.Error("the process is still there")
	}
}

// TestGone: what runs the commands dies.
func TestGone(t *testing.T) {
	r, err := Spawn(os.Args[0], "office", &conf.Hooks{Timeout: time.Minute, Commands: map[string][]string{conf.HookLost: {"sleep 60"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Begin(conf.HookLost, 0, nil); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(r.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := end(t, r); !errors.Is(err, ErrGone) {
		t.Errorf("%v", err)
	}
	if err := r.Begin(conf.HookLost, 0, nil); !errors.Is(err, ErrGone) {
		t.Errorf("and then: %v", err)
	}
}

// TestServeRefuses: requests that are none end it.
func TestServeRefuses(t *testing.T) {
	for _, text := range []string{"", "{}\n", "rubbish\n", `{"hooks":{"commands":{},"timeout":1}}` + "\nrubbish\n"} {
		ours, theirs := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- Serve(theirs) }()
		_, _ = ours.Write([]byte(text))
		_ = ours.Close()
		select {
		case err := <-done:
			if err == nil {
				t.Errorf("%q is fine", text)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%q: it goes on", text)
		}
	}
}
