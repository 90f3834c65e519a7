//go:build lab

package lab_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ipsec-quick/test/harness"
	"ipsec-quick/test/manual"
)

// TestStatus asks a tunnel for its status in all ways there are: for people, on
// a terminal and not, in JSON, again and again, and by name alone.
func TestStatus(t *testing.T) {
	schema := manual.ReadSchema(t, "man/status.schema.json")
	t.Parallel()
	n := harness.NewNet(t, "a", "b")
	a, b := n.A(), n.B()
	answer := between(b, a)
	answer.start = "passive"
	answer.lifetime = "bytes = { soft = \"1GiB\", hard = \"2GiB\" }\npackets = { soft = 1000, hard = 2000 }"
	other := harness.NewQuick(t, b, "answer", answer.String())
	other.Up()
	valid := func(when string) {
		t.Helper()
		r := other.Exec("status", "--json")
		if err := schema.Validate(r.Stdout); r.Err != nil || err != nil {
			t.Errorf("%s: %v\n%s", when, err, r)
		}
	}
	valid("idle")
	q := harness.NewQuick(t, a, "office", between(a, b).String())
	harness.NewQuick(t, a, "spare", between(a, b).String())
	q.Up()
	q.Rekey()
	q.Rekey("--ike")
	within(t, 10*time.Second, "a ping answered", func() bool { return a.Ping(a.Inner4, b.Inner4, 1) == 1 })
	valid("rekeyed")

	r := other.Exec("status", "answer")
	for _, want := range []string{
		`(?m)^tunnel: answer$`, `(?m)^  state: established, .* ago$|now$`, `(?m)^  last rekey: `, `(?m)^    selectors: \S+ === \S+$`,
		`(?m)^    time:    \[[#.]+\|[#.]+\] \S+ of \S+ soft, 1h hard$`, `(?m)^    bytes:   \[\.+\|\.+\] `, `(?m)^    packets: \[[#.]+\|\.+\] [1-9]\d* of \d+ soft, 2000 hard$`,
	} {
		if !regexp.MustCompile(want).MatchString(r.Stdout) {
			t.Errorf("no %s in\n%s", want, r)
		}
	}
	if strings.Contains(r.Stdout, "\x1b") {
		t.Errorf("this is no terminal: %q", r.Stdout)
	}
	t.Logf("\n%s", r.Stdout)

	if r := q.Exec("list"); r.Stdout != "office\n" {
		t.Errorf("list: %s", r)
	}
	if r := q.Exec("list", "--all"); r.Stdout != "office  up\nspare   down\n" {
		t.Errorf("list --all: %s", r)
	}
	if r := q.Exec("list", "--all", "--json"); r.Stdout != `[{"tunnel":"office","state":"up","file":"/etc/ipsec-quick/office.toml"},{"tunnel":"spare","state":"down","file":"/etc/ipsec-quick/spare.toml"}]`+"\n" {
		t.Errorf("list --all --json: %s", r)
	}

	blocks := q.Start("status", "office", "--watch=200ms")
	arrays := q.Start("status", "--watch=200ms", "--json")
	time.Sleep(watchFor)
	blocks.Signal(syscall.SIGINT)
	arrays.Signal(syscall.SIGINT)
	if r := blocks.Wait(5 * time.Second); r.Err != nil || strings.Count(r.Stdout, "tunnel: office\n") < 2 || strings.Contains(r.Stdout, "\x1b") {
		t.Errorf("status --watch: %s", r)
	}
	r = arrays.Wait(5 * time.Second)
	for line := range strings.Lines(r.Stdout) {
		if err := schema.Validate(line); err != nil {
			t.Errorf("status --watch --json: %v", err)
		}
	}
	if r.Err != nil || strings.Count(r.Stdout, "\n") < 2 {
		t.Errorf("status --watch --json: %s", r)
	}
	onTerminal(t, q)
	completion(t, q)
	metrics(t, q)

	crash(t, q)
	if r := q.Exec("list", "--all"); r.Stdout != "office  dead\nspare   down\n" {
		t.Errorf("list --all: %s", r)
	}
	r = q.Exec("status", "--json")
	var dead []harness.Status
	if err := json.Unmarshal([]byte(r.Stdout), &dead); err != nil || len(dead) != 1 || dead[0].WatchPID != 0 {
		t.Errorf("a dead loop: %v, %s", err, r)
	}
	if err := schema.Validate(r.Stdout); err != nil {
		t.Error(err)
	}
	q.Down()
	if r := q.Exec("list"); r.Stdout != "" || r.Err != nil {
		t.Errorf("list: %s", r)
	}
}

// completed is what bash offers for a command line, by a function that a script
// defines.
func completed(h *harness.Host, env []string, script, function, line string) harness.Result {
	const complete = `COMP_LINE=$3 COMP_POINT=${#3}
		source <(echo "$1")
		read -ra COMP_WORDS <<<"$3"
		[[ $3 != *' ' ]] || COMP_WORDS+=('')
		COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
		cd /run/lock
		"$2"
		printf '%s\n' "${COMPREPLY[@]}"`
	return h.ExecEnv(env, "bash", "-c", complete, "bash", script, function, line)
}

// completion has bash complete what depends on the tunnels of this host.
func completion(t *testing.T, q *harness.Quick) {
	t.Helper()
	env := []string{"PATH=" + filepath.Dir(q.Binary) + ":" + os.Getenv("PATH")}
	for line, want := range map[string]string{
		"ipsec-quick down ":                "office",
		"ipsec-quick status of":            "office",
		"ipsec-quick up ":                  "office spare",
		"ipsec-quick check /etc/ipsec-q":   "/etc/ipsec-quick",
		"ipsec-quick rekey office --peer ": q.Peer().Name,
		"ipsec-quick rekey spare --peer ":  "",
	} {
		r := completed(q.Host, env, "source <(ipsec-quick completion bash)", "_ipsec_quick", line)
		if got := strings.Join(strings.Fields(r.Stdout), " "); r.Err != nil || got != want {
			t.Errorf("%q: %q, want %q: %s", line, got, want, r)
		}
	}
}

// metrics asks the exporter for what it says of this host.
func metrics(t *testing.T, q *harness.Quick) {
	t.Helper()
	const scrape = `"$1" & exporter=$!
		for _ in {1..100}; do
			exec 3<>/dev/tcp/127.0.0.1/9903 && break
			sleep 0.1
		done 2>/dev/null
		printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
		cat <&3
		grep VmRSS /proc/$exporter/status >&2
		kill $exporter && wait $exporter`
	r := q.Host.Exec("bash", "-c", scrape, "bash", q.Binary+"-exporter")
	for _, want := range []string{
		`ipsec_up{tunnel="office"} 1`, `ipsec_up{tunnel="spare"} 0`, `ipsec_peer_up{peer="other",tunnel="office"} 1`,
		`ipsec_rekeys_total{peer="other",sa="child",tunnel="office"} 1`,
		`ipsec_child_sa_bytes_in{local_ts="10.1.0.0/16",peer="other",remote_ts="10.2.0.0/16",spi_in="` + q.Peer().Children[0].SPIIn + `",tunnel="office"} `,
	} {
		if r.Err != nil || !strings.Contains(r.Stdout, want) {
			t.Errorf("no %s: %s", want, r)
		}
	}
	t.Log(strings.TrimSpace(r.Stderr))
}

// columns is how wide the terminal of onTerminal is.
const columns = 70

// onTerminal looks what a terminal gets: colours unless they are not wanted, and
// with --watch the screen that was there back in the end.
func onTerminal(t *testing.T, q *harness.Quick) {
	t.Helper()
	color := regexp.MustCompile(`\x1b\[[0-9]+m`)
	for _, c := range []struct {
		env          string
		color, moves bool
	}{{"TERM=xterm", true, true}, {"TERM=xterm NO_COLOR=1", false, true}, {"TERM=dumb", false, false}} {
		once, again := typescript(q, c.env, "status office"), typescript(q, c.env, "status office --watch=200ms")
		for _, text := range []string{once, again} {
			if color.MatchString(text) != c.color || !strings.Contains(text, "office") {
				t.Errorf("%s: %q", c.env, text)
			}
		}
		moves := strings.HasPrefix(again, "\x1b[?1049h") && strings.HasSuffix(again, "\x1b[?1049l") && strings.Count(again, "\x1b[H") >= 2
		if moves != c.moves || !c.moves && strings.Contains(again, "\x1b") {
			t.Errorf("%s: --watch: %q", c.env, again)
		}
	}
	narrow, wide := typescript(q, "TERM=dumb", "status office"), typescript(q, "TERM=dumb COLUMNS=200", "status office")
	if longest(narrow) > columns || longest(wide) <= columns {
		t.Errorf("%d and %d characters wide:\n%s%s", longest(narrow), longest(wide), narrow, wide)
	}
}

// watchFor is how long --watch is looked at, on a slow machine long enough for two
// times.
const watchFor = 3 * time.Second

// typescript is what a command prints on a terminal, where it is interrupted if it
// goes on.
func typescript(q *harness.Quick, env, command string) string {
	command = "stty cols " + strconv.Itoa(columns) + "; exec timeout --foreground -s INT " + strconv.Itoa(int(watchFor/time.Second)) + " " + q.Binary + " " + command
	return q.Host.Exec("env", "-S", env, "script", "-q", "-c", command, "/dev/null").Stdout
}

// longest is the length of the longest line that has a bar.
func longest(text string) int {
	most := 0
	for line := range strings.Lines(text) {
		if strings.Contains(line, "|") {
			most = max(most, len(strings.TrimRight(line, "\r\n")))
		}
	}
	return most
}
