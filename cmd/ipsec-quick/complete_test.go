package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// selfVariable makes the test's program be ipsec-quick.
const selfVariable = "IPSEC_QUICK_TEST_SELF"

func TestMain(m *testing.M) {
	if os.Getenv(selfVariable) != "" {
		main()
	}
	os.Exit(m.Run())
}

func TestComplete(t *testing.T) {
	h := completer{
		app:   app(nil, nil, nil),
		live:  func() []string { return []string{"lab", "office"} },
		files: func() []string { return []string{"office", "spare"} },
		peers: func(tunnel string) []string { return []string{"branch-of-" + tunnel} },
	}
	for line, want := range map[string]string{
		"":                           "",
		"up ":                        "office spare",
		"up --quiet ":                "office spare",
		"up --timeout ":              "",
		"up --timeout 3s ":           "office spare",
		"up ./":                      "office spare :files",
		"up office ":                 "",
		"down ":                      "lab office",
		"status ":                    "lab office",
		"status --watch ":            "lab office",
		"status --":                  "--json --watch",
		"status --json --":           "--watch",
		"status office --":           "--json --watch",
		"rekey office --peer ":       "branch-of-office",
		"rekey --ike office --peer ": "branch-of-office",
		"rekey --peer ":              "",
		"rekey --peer x ":            "lab office",
		"check ":                     "office spare",
		"genkey --type ":             "ed25519 ecdsa-p256 ecdsa-p384 rsa-3072",
		"import ":                    ":files",
		"import --from ":             "strongswan libreswan aws",
		"import x -o ":               ":files",
		"export ":                    "office spare",
		"export office --to ":        "strongswan libreswan ipsec-quick",
		"export office --peer ":      "branch-of-office",
		"genpsk ":                    "",
		"pubkey ":                    ":files",
		"completion ":                "bash zsh fish",
		"dance ":                     "",
		"__complete ":                "",
		"-":                          "--help --version",
	} {
		var words []string
		if line != "" {
			words = strings.Split(line, " ")
		}
		var got []string
		for _, w := range h.complete(words) {
			got = append(got, w.text)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
	var verbs []string
	for _, w := range h.complete([]string{"st"}) { // the shell leaves out what does not fit
		verbs = append(verbs, w.text)
		if w.about == "" {
			t.Errorf("%s is not explained", w.text)
		}
	}
	for _, want := range []string{"up", "down", "status", "list", "completion"} {
		if !slices.Contains(verbs, want) {
			t.Errorf("no %s in %q", want, verbs)
		}
	}
	if slices.Contains(verbs, "__complete") {
		t.Error("what is hidden is shown")
	}
}

// completed are command lines, with what the key Tab makes of them in every shell.
var completed = map[string]string{
	"ipsec-quick stat":                       "ipsec-quick status",
	"ipsec-quick comp":                       "ipsec-quick completion",
	"ipsec-quick up --keep":                  "ipsec-quick up --keep-trying",
	"ipsec-quick genkey --type ecdsa-p3":     "ipsec-quick genkey --type ecdsa-p384",
	"ipsec-quick completion f":               "ipsec-quick completion fish",
	"ipsec-quick check ./tunnels/of":         "ipsec-quick check ./tunnels/office.toml",
	"ipsec-quick status --json --wat":        "ipsec-quick status --json --watch",
	"ipsec-quick pubkey tunnels/h":           "ipsec-quick pubkey tunnels/hq.key",
	"ipsec-quick completion bash nothing-mo": "ipsec-quick completion bash nothing-mo",
}

// TestShellsComplete types command lines into each shell, on a terminal.
func TestShellsComplete(t *testing.T) {
	folder := t.TempDir()
	if err := os.Symlink(os.Args[0], filepath.Join(folder, "ipsec-quick")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(folder, "tunnels"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"office.toml", "office.psk", "hq.key"} {
		if err := os.WriteFile(filepath.Join(folder, "tunnels", name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const zsh = "unsetopt beep; bindkey -e; autoload -Uz compinit && compinit -u -D"
	for name, begin := range map[string][]string{
		"bash":           {"bash --norc --noprofile -i", "bind 'set bell-style none'; source <(ipsec-quick completion bash)"},
		"zsh":            {"zsh -f -i", zsh + "; source <(ipsec-quick completion zsh)"},
		"zsh, installed": {"zsh -f -i", "ipsec-quick completion zsh >_ipsec-quick; fpath+=($PWD); " + zsh},
		"fish":           {"fish --no-config -i", "ipsec-quick completion fish | source"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shell := strings.Fields(begin[0])
			if _, err := exec.LookPath(shell[0]); err != nil {
				t.Skipf("%v (make test installs it)", err)
			}
			s := startShell(t, folder, shell[0], shell[1:]...)
			s.say(begin[1])
			for typed, want := range completed {
				if got := s.completes(typed); got != want {
					t.Errorf("%q becomes %q, not %q\n%q", typed, got, want, s.said.String())
				}
			}
		})
	}
}

// shellOnTerminal is an interactive shell.
type shellOnTerminal struct {
	t        *testing.T
	terminal *os.File
	output   chan string
	said     strings.Builder
}

// startShell starts a shell on a terminal of its own.
func startShell(t *testing.T, folder, shell string, args ...string) *shellOnTerminal {
	t.Helper()
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(terminal.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(terminal.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 200}); err != nil {
		t.Fatal(err)
	}
	other, err := os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(shell, args...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = folder, other, other, other
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	cmd.Env = append(os.Environ(), selfVariable+"=1", "PATH="+folder+":"+os.Getenv("PATH"), "HOME="+folder, "TERM=dumb", "PS1=", "PROMPT=")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = other.Close()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = terminal.Close()
	})
	s := &shellOnTerminal{t: t, terminal: terminal, output: make(chan string, 64)}
	go func() {
		defer close(s.output)
		b := make([]byte, 4096)
		for {
			n, err := terminal.Read(b)
			if err != nil {
				return
			}
			s.output <- string(b[:n])
		}
	}()
	return s
}

// say runs a command, and waits until it is done.
func (s *shellOnTerminal) say(line string) {
	s.t.Helper()
	s.write(line + "; printf '<%s>' done\r")
	s.expect(regexp.MustCompile(`<done>`))
}

// completes types a line and Tab, and then has the shell print what became of it.
func (s *shellOnTerminal) completes(typed string) string {
	s.t.Helper()
	s.write(typed + "\t\x01printf '<%s>' \x05 end\r") // ^A and ^E: to the beginning, to the end
	m := s.expect(regexp.MustCompile(`((?:<[^<>%]*>)+)<end>`))
	return strings.Join(regexp.MustCompile(`[^<>]+`).FindAllString(m[1], -1), " ")
}

func (s *shellOnTerminal) write(text string) {
	s.t.Helper()
	if _, err := io.Copy(s.terminal, bytes.NewBufferString(text)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shellOnTerminal) expect(what *regexp.Regexp) []string {
	s.t.Helper()
	s.said.Reset()
	limit := time.After(20 * time.Second)
	for {
		if m := what.FindStringSubmatch(s.said.String()); m != nil {
			return m
		}
		select {
		case text, ok := <-s.output:
			if !ok {
				s.t.Fatalf("the shell has ended: %q", s.said.String())
			}
			s.said.WriteString(text)
		case <-limit:
			s.t.Fatalf("no %v: %q", what, s.said.String())
		}
	}
}
