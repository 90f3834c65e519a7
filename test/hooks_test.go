//go:build lab

package lab_test

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// hookNames are in the order in which they run.
var hookNames = []string{"pre_up", "established", "post_up", "pre_down", "lost", "post_down"}

// ranFile is where hooks write what they see. A loop cannot write there.
const ranFile = "/etc/ipsec-quick/ran"

// hooked is a tunnel file with hooks that all write down what they see; before has
// commands that run before that.
func hooked(f quickFile, before map[string]string) string {
	var b strings.Builder
	fmt.Fprintln(&b, "[hooks]\ntimeout = \"2s\"")
	for _, name := range hookNames {
		list := []string{`echo "%i $IPSEC_QUICK_TUNNEL $IPSEC_QUICK_HOOK $IPSEC_QUICK_PEER $IPSEC_QUICK_LOCAL $IPSEC_QUICK_REMOTE ` +
			`$IPSEC_QUICK_LOCAL_TS $IPSEC_QUICK_REMOTE_TS" "$IPSEC_QUICK_STATE" "$IPSEC_QUICK_REASON" >>` + ranFile}
		if c, ok := before[name]; ok {
			list = append([]string{c}, list...)
		}
		fmt.Fprintf(&b, "%s = [", name)
		for _, c := range list {
			fmt.Fprintf(&b, "%q, ", c)
		}
		fmt.Fprintln(&b, "]")
	}
	return strings.Replace(f.String(), "[local]", b.String()+"[local]", 1)
}

// ran are the names of the hooks that a host has run since the last call.
func ran(h *harness.Host) (names []string) {
	for line := range strings.Lines(h.Exec("cat", ranFile).Stdout) {
		if words := strings.Fields(line); len(words) > 2 {
			names = append(names, words[2])
		}
	}
	h.Run("rm", "-f", ranFile)
	return names
}

func wantRan(t *testing.T, h *harness.Host, what string, names ...string) {
	t.Helper()
	if got := ran(h); !slices.Equal(got, names) {
		t.Errorf("%s: these hooks ran: %q, not %q", what, got, names)
	}
}

// killLoop kills a loop.
func killLoop(t *testing.T, q *harness.Quick) {
	t.Helper()
	q.Host.Signal(q.PID(), syscall.SIGKILL)
	ended(t, q)
}

// ended waits until a loop has that was killed: a process takes some milliseconds.
func ended(t *testing.T, q *harness.Quick) {
	t.Helper()
	within(t, 5*time.Second, "the loop has ended", func() bool {
		s, ok := q.Status()
		return ok && s.WatchPID == 0
	})
}

// TestHooks: their order and environment, a peer that goes away and comes back, a
// loop that is killed at several moments, output in the log; a loop that stays
// confined.
func TestHooks(t *testing.T) {
	row := harness.NewRow("Hooks", "order, environment, a lost peer, the loop killed", "both ends ours")
	t.Parallel()
	row.Of(t)
	n := harness.NewNet(t, "a", "b")
	a, b := n.A(), n.B()
	before := a.Snapshot()
	theirs := between(b, a)
	theirs.start = "passive"
	peer := harness.NewQuick(t, b, "other", theirs.String())
	peer.Up()
	ours := between(a, b)
	ours.ikeMore = `dpd = "2s"`
	q := harness.NewQuick(t, a, "hooked", hooked(ours, map[string]string{"lost": "echo to standard error >&2"}))

	if plan := q.Exec("up", q.Name, "--dry-run").Stdout; strings.Index(plan, "# pre_up\n[#] echo") != 0 || !strings.Contains(plan, "# post_up\n[#] echo") {
		t.Errorf("--dry-run:\n%s", plan)
	}
	r := q.Up()
	if !strings.Contains(r.Stderr, "\n[#] echo \"hooked ") {
		t.Error("up does not say what it runs")
	}
	confinedLoop(t, q)
	for i, line := range strings.Split(strings.TrimSpace(a.Run("cat", ranFile)), "\n") {
		want := fmt.Sprintf("hooked hooked %s other %v %v %v %v ", hookNames[i], a.Outer4, b.Outer4, a.Net4, b.Net4)
		want += []string{"idle ", "established ", "established "}[i]
		if i == 0 {
			want = strings.Replace(want, a.Outer4.String()+" ", " ", 1) // the kernel has not chosen yet
		}
		if strings.TrimRight(line, " ") != strings.TrimRight(want, " ") {
			t.Errorf("hook %d sees %q, not %q", i, line, want)
		}
	}
	wantRan(t, a, "up", "pre_up", "established", "post_up")
	log := func() string { return a.Run("cat", "/run/ipsec-quick/hooked/log") }

	thaw := peer.Freeze()
	within(t, 60*time.Second, "the peer is lost", func() bool { return strings.Contains(log(), "to standard error") })
	lost := ""
	within(t, 5*time.Second, "lost is run", func() bool { lost = a.Exec("cat", ranFile).Stdout; return lost != "" })
	if !strings.Contains(lost, " lost other ") || len(strings.Fields(lost)) < 10 {
		t.Errorf("lost sees no reason: %q", lost)
	}
	wantRan(t, a, "the peer does not answer", "lost")
	thaw()
	within(t, 60*time.Second, "the peer is back", func() bool { return strings.Contains(a.Exec("cat", ranFile).Stdout, "established") })
	wantRan(t, a, "it answers", "established")

	q.Exec("restart", q.Name)
	killLoop(t, q)
	q.Up()
	wantRan(t, a, "restarted, killed and revived")
	q.Down()
	wantRan(t, a, "down", "pre_down", "lost", "post_down")
	a.Unchanged(before, "up and down")

	q.Up()
	ran(a)
	killLoop(t, q)
	q.Down()
	wantRan(t, a, "killed, then down", "pre_down", "lost", "post_down")
	a.Unchanged(before, "killed, then down")
	for _, name := range []string{"pre_down", "post_down"} {
		a.WriteFile("/etc/ipsec-quick/hooked.toml", hooked(ours, map[string]string{name: "touch /run/here; sleep 1.5"}))
		q.Up()
		ran(a)
		pid, down := q.PID(), q.Start("down", q.Name)
		within(t, 20*time.Second, name+" is run", func() bool { return a.Exec("rm", "/run/here").Code == 0 })
		a.Signal(pid, syscall.SIGKILL)
		if r := down.Wait(20 * time.Second); r.Code != 0 {
			t.Errorf("down: %s", r)
		}
		wantRan(t, a, "killed in "+name, "pre_down", "lost", "post_down")
		a.Unchanged(before, "killed in "+name)
	}
	row.Notef("lost and established again, killed and taken down: each hook once")
}

// TestHooksFail: what a hook that fails or hangs does to `up` and `down`.
func TestHooksFail(t *testing.T) {
	all := []string{"pre_up", "established", "post_up", "pre_down", "lost", "post_down"}
	row := harness.NewRow("Hooks", "that fail, that hang", "both ends ours")
	t.Parallel()
	row.Of(t)
	n := harness.NewNet(t, "a", "b")
	a, b := n.A(), n.B()
	before := a.Snapshot()
	theirs := between(b, a)
	theirs.start = "passive"
	peer := harness.NewQuick(t, b, "other", theirs.String())
	peer.Up()
	q := harness.NewQuick(t, a, "hooked", "")
	for _, c := range []struct {
		hook, command string
		code          int
		says          string
		ran           []string
	}{
		{"pre_up", "exit 3", 1, "hook pre_up: `exit 3`: exit status 3", []string{"post_down"}},
		{"post_up", "exit 3", 1, "hook post_up: `exit 3`: exit status 3", []string{"pre_up", "established", "pre_down", "lost", "post_down"}},
		{"pre_up", "trap '' TERM; (sleep 600; echo) & sleep 600", 1, "killed after 2s", []string{"post_down"}},
		{"established", "sleep 600", 0, "killed after 2s", all},
		{"pre_down", "exit 3", 0, "", all},
		{"post_down", "sleep 600", 0, "", all},
	} {
		a.WriteFile("/etc/ipsec-quick/hooked.toml", hooked(between(a, b), map[string]string{c.hook: c.command}))
		r := q.Exec("up", q.Name)
		if r.Code != c.code || !strings.Contains(r.Stderr, c.says) {
			t.Errorf("%s = %q: %s", c.hook, c.command, r)
		}
		if r.Code == 0 {
			if d := q.Exec("down", q.Name); d.Code != 0 || d.Took > 8*time.Second {
				t.Errorf("%s = %q: down: %s", c.hook, c.command, d)
			}
		}
		wantRan(t, a, fmt.Sprintf("%s = %q", c.hook, c.command), c.ran...)
		a.Unchanged(before, fmt.Sprintf("%s = %q", c.hook, c.command))
	}
	a.WriteFile("/etc/ipsec-quick/hooked.toml", strings.Replace(hooked(between(a, b), map[string]string{"pre_up": "sleep 600; true"}), "2s", "600s", 1))
	up := q.Start("up", q.Name)
	within(t, 10*time.Second, "pre_up is run", func() bool { return a.Exec("test", "-e", "/run/ipsec-quick/hooked/tunnel").Code == 0 })
	if r := q.Exec("down", q.Name); r.Code != 0 || r.Took > 8*time.Second {
		t.Errorf("down while pre_up is run: %s", r)
	}
	if r := up.Wait(time.Second); r.Code != 1 || !strings.Contains(r.Stdout, "interrupted") {
		t.Errorf("up that is taken down: %s", r)
	}
	wantRan(t, a, "down while pre_up is run", "post_down")
	a.Unchanged(before, "down while pre_up is run")
	peer.Down()
	a.WriteFile("/etc/ipsec-quick/hooked.toml", hooked(between(a, b), nil))
	q.Fails(exitNoAnswer, "--timeout", "2s")
	wantRan(t, a, "no answer", "pre_up", "post_down")
	a.Unchanged(before, "no answer")

	up = q.Start("up", q.Name)
	within(t, 10*time.Second, "it is being brought up", func() bool { return a.Exec("test", "-e", "/run/ipsec-quick/hooked/journal").Code == 0 })
	up.Signal(syscall.SIGKILL)
	up.Wait(5 * time.Second)
	q.Exec("down", q.Name)
	wantRan(t, a, "up killed, then down", "pre_up", "post_down")
	a.Unchanged(before, "up killed, then down")
	row.Notef("pre_up, post_up: exit status 1 and nothing left; the others are logged")
}
