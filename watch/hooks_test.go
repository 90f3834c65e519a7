package watch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ipsec-quick/conf"
)

// hooked is `left` with hooks that write down their names, and `right`.
type hooked struct {
	t           *testing.T
	left, right *host
	b           site
	path        string // left's tunnel file
	text        string
	ran         string // the file that they write to
}

// newHooked has each hook note that it runs, then what more says, then note again.
func newHooked(t *testing.T, more map[string]string, timeout string) *hooked {
	t.Helper()
	a, b := sites(t)
	h := &hooked{t: t, left: newHost(t), right: newHost(t), b: b, ran: filepath.Join(t.TempDir(), "ran")}
	a.head = fmt.Sprintf("[hooks]\ntimeout = %q\n", timeout)
	for _, name := range []string{conf.HookPreUp, conf.HookPostUp, conf.HookPreDown, conf.HookPostDown, conf.HookEstablished, conf.HookLost} {
		note := fmt.Sprintf(`echo "%%i $IPSEC_QUICK_HOOK $IPSEC_QUICK_PEER $IPSEC_QUICK_REASON" >>%s`, h.ran)
		list := []string{fmt.Sprintf("%q", note)}
		if m, ok := more[name]; ok {
			list = append(list, fmt.Sprintf("%q", m))
		}
		a.head += fmt.Sprintf("%s = [%s, %q]\n", name, strings.Join(list, ", "), note+".2")
	}
	h.text = a.text()
	h.path = writeTunnel(t, a.name, h.text)
	t.Setenv(testDirVariable, h.left.root)
	t.Cleanup(func() {
		if log, err := os.ReadFile(filepath.Join(h.left.root, "left", fileLog)); t.Failed() && err == nil {
			t.Logf("the loop logged:\n%s", log)
		}
	})
	return h
}

// options open what a process finds that has not installed it itself.
func (h *hooked) options(t *conf.Tunnel) Options {
	o := h.left.upOptions(t)
	o.Dataplane = openJournalled
	return o
}

func (h *hooked) up() (Result, error) {
	h.t.Helper()
	t, err := conf.Load(h.path)
	if err != nil {
		h.t.Fatal(err)
	}
	r, err := Up(context.Background(), h.options(t))
	if err == nil {
		h.t.Cleanup(func() { _ = syscall.Kill(r.PID, syscall.SIGKILL) })
	}
	return r, err
}

// hooks are the names of those that ran since the last call, each with all of its
// commands.
func (h *hooked) hooks() (names []string) {
	h.t.Helper()
	second, _ := os.ReadFile(h.ran + ".2")
	first, _ := os.ReadFile(h.ran)
	if string(first) != string(second) {
		h.t.Errorf("of some hooks not all commands ran:\n%s\n%s", first, second)
	}
	for line := range strings.Lines(string(first)) {
		names = append(names, strings.Fields(line)[1])
	}
	_ = os.Remove(h.ran)
	_ = os.Remove(h.ran + ".2")
	return names
}

func (h *hooked) want(what string, names ...string) {
	h.t.Helper()
	if got := h.hooks(); !slices.Equal(got, names) {
		h.t.Errorf("%s: %q, want %q", what, got, names)
	}
}

// killed kills the loop as a child of this process.
func (h *hooked) killed(pid int) {
	h.t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		h.t.Fatal(err)
	}
	reap(h.t, pid)
}

// down takes `left` down, whose loop is dead.
func (h *hooked) down() {
	h.t.Helper()
	if err := Down(DownOptions{Name: "left", Log: h.left.log(), Dir: h.left.root, Dataplane: openJournalled}); err != nil {
		h.t.Error(err)
	}
	if _, err := os.Lstat(h.left.root); !errors.Is(err, os.ErrNotExist) {
		h.t.Error("files are left")
	}
}

func TestHooks(t *testing.T) {
	h := newHooked(t, map[string]string{conf.HookPostUp: "echo some output"}, "5s")
	right := h.right.start(loadTunnel(t, h.b.name, h.b.text()))
	r, err := h.up()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"[#] echo some output", "hook post_up : some output"} {
		if said := strings.ReplaceAll(h.left.rec.text(), "hook post_up : echo", "[#] echo"); !strings.Contains(said, want) {
			t.Errorf("up does not say %q", want)
		}
	}
	h.want("up", "pre_up", "established", "post_up")
	// The process that runs them goes on too.
	if _, err := Restart(h.left.root, "left"); err != nil {
		t.Fatal(err)
	}
	right.down()
	eventually(t, "lost is run", func() bool {
		b, _ := os.ReadFile(h.ran + ".2")
		return strings.Contains(string(b), "lost other ")
	})
	h.want("the peer goes", "lost")
	h.right.start(loadTunnel(t, h.b.name, h.b.text()))
	eventually(t, "established is run", func() bool { b, _ := os.ReadFile(h.ran + ".2"); return strings.Contains(string(b), "established") })
	h.want("the peer comes", "established")

	h.killed(r.PID)
	if r, err = h.up(); err != nil || !r.Revived {
		t.Fatal(r, err)
	}
	h.want("revived")
	h.killed(r.PID)
	h.down()
	h.want("down without a loop", "pre_down", "lost", "post_down")

	if r, err = h.up(); err != nil {
		t.Fatal(err)
	}
	h.want("up again", "pre_up", "established", "post_up")
	h.left.downInBackground(r.PID)
	h.want("down", "pre_down", "lost", "post_down")
}

// TestHooksFail: an up hook that fails takes all back, the others do not matter.
func TestHooksFail(t *testing.T) {
	for name, c := range map[string]struct {
		more map[string]string
		says string // the error of up; empty: none
		ran  []string
	}{
		"pre_up":    {map[string]string{conf.HookPreUp: "exit 3"}, "hook pre_up: `exit 3`: exit status 3", []string{"pre_up", "post_down"}},
		"post_up":   {map[string]string{conf.HookPostUp: "kill $$"}, "hook post_up: `kill $$`: signal: terminated", []string{"pre_up", "established", "post_up", "pre_down", "lost", "post_down"}},
		"it hangs":  {map[string]string{conf.HookPreUp: "sleep 60"}, "hook pre_up: `sleep 60`: killed after 5s", []string{"pre_up", "post_down"}},
		"the peer":  {map[string]string{"no peer": ""}, "not established", []string{"pre_up", "post_down"}},
		"the other": {map[string]string{conf.HookEstablished: "exit 3", conf.HookLost: "exit 4", conf.HookPreDown: "exit 5", conf.HookPostDown: "exit 6"}, "", []string{"pre_up", "established", "post_up", "pre_down", "lost", "post_down"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHooked(t, c.more, "5s")
			if _, none := c.more["no peer"]; !none {
				h.right.start(loadTunnel(t, h.b.name, h.b.text()))
			}
			r, err := h.up()
			switch {
			case c.says == "" && err != nil:
				t.Fatal(err)
			case c.says == "":
				h.left.downInBackground(r.PID)
			case err == nil || !strings.Contains(err.Error(), c.says):
				t.Fatalf("%v", err)
			}
			if _, err := os.Lstat(h.left.root); !errors.Is(err, os.ErrNotExist) {
				t.Error("files are left")
			}
			b, _ := os.ReadFile(h.ran)
			var ran []string
			for line := range strings.Lines(string(b)) {
				ran = append(ran, strings.Fields(line)[1])
			}
			if !slices.Equal(ran, c.ran) {
				t.Errorf("these ran: %q, want %q", ran, c.ran)
			}
		})
	}
}

// TestHooksSlow: a hook may take longer than a loop that `down` takes for frozen.
func TestHooksSlow(t *testing.T) {
	h := newHooked(t, map[string]string{conf.HookPreDown: fmt.Sprintf("sleep %v", (frozenAfter + time.Second).Seconds())}, "10s")
	h.right.start(loadTunnel(t, h.b.name, h.b.text()))
	r, err := h.up()
	if err != nil {
		t.Fatal(err)
	}
	h.want("up", "pre_up", "established", "post_up")
	h.left.downInBackground(r.PID)
	h.want("down", "pre_down", "lost", "post_down")
	if said := h.left.logs.String(); strings.Contains(said, "does not answer") {
		t.Errorf("down has ended the loop:\n%s", said)
	}
}

// TestHooksKilled kills whoever runs a hook at each of its commands. What goes on
// with the tunnel does not repeat it, and leaves nothing out.
func TestHooksKilled(t *testing.T) {
	for _, name := range []string{conf.HookPreDown, conf.HookPostDown} {
		t.Run(name, func(t *testing.T) {
			h := newHooked(t, map[string]string{name: "touch $IPSEC_QUICK_HOOK.here; sleep 3"}, "5s")
			here := filepath.Join("/", name+".here") // commands run in /
			t.Cleanup(func() { _ = os.Remove(here) })
			h.right.start(loadTunnel(t, h.b.name, h.b.text()))
			r, err := h.up()
			if err != nil {
				t.Fatal(err)
			}
			h.want("up", "pre_up", "established", "post_up")
			down := make(chan error, 1)
			go func() {
				down <- Down(DownOptions{Name: "left", Log: h.left.log(), Dir: h.left.root, Dataplane: openJournalled})
			}()
			eventually(t, name+" is run", func() bool { _, err := os.Stat(here); return err == nil })
			h.killed(r.PID)
			if err := <-down; err != nil { // it goes on by itself
				t.Error(err)
			}
			if _, err := os.Lstat(h.left.root); !errors.Is(err, os.ErrNotExist) {
				t.Error("files are left")
			}
			h.want("down", "pre_down", "lost", "post_down")
		})
	}
}

// TestHooksInterrupted ends `up` by a signal while a hook runs.
func TestHooksInterrupted(t *testing.T) {
	for _, name := range []string{conf.HookPreUp, conf.HookPostUp} {
		t.Run(name, func(t *testing.T) {
			h := newHooked(t, map[string]string{name: "sleep 60"}, "5s")
			h.right.start(loadTunnel(t, h.b.name, h.b.text()))
			ctx, cancel := context.WithCancel(context.Background())
			var interrupted time.Time
			go func() {
				eventually(t, "it is run", func() bool { return strings.Contains(h.left.rec.text(), ": sleep 60") })
				interrupted = time.Now()
				cancel()
			}()
			tunnel, err := conf.Load(h.path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Up(ctx, h.options(tunnel)); err == nil || !strings.Contains(err.Error(), "interrupted") {
				t.Errorf("%v", err)
			}
			if took := time.Since(interrupted); took > 4*time.Second {
				t.Errorf("after %v", took)
			}
			if b, _ := os.ReadFile(h.ran); !strings.HasSuffix(string(b), "post_down other \n") {
				t.Errorf("these ran:\n%s", b)
			}
			if _, err := os.Lstat(h.left.root); !errors.Is(err, os.ErrNotExist) {
				t.Error("files are left")
			}
		})
	}
}

// TestNewHookFacts: how far the hooks have come is taken over, and what was undone
// runs again.
func TestNewHookFacts(t *testing.T) {
	const preUp, postUp, preDown, postDown = conf.HookPreUp, conf.HookPostUp, conf.HookPreDown, conf.HookPostDown
	two := &conf.Hooks{Commands: map[string][]string{preUp: {"a", "b"}, postUp: {"a", "b"}, preDown: {"a", "b"}, postDown: {"a", "b"}}}
	one := &conf.Hooks{Commands: map[string][]string{preUp: {"a"}, postDown: {"a"}}}
	type begun = map[string]int
	for name, c := range map[string]struct {
		now     *conf.Hooks
		before  *hookFacts
		revived bool
		begun   begun
		up      bool
	}{
		"new":                        {two, nil, false, begun{}, false},
		"up was killed":              {two, &hookFacts{Hooks: *two, Begun: begun{preUp: 1}}, false, begun{preUp: 1}, false},
		"up was killed later":        {two, &hookFacts{Hooks: *two, Begun: begun{preUp: 2, postUp: 1}, Up: true}, false, begun{preUp: 2, postUp: 1}, true},
		"revived":                    {two, &hookFacts{Hooks: *two, Begun: begun{preUp: 2, postUp: 2}, Up: true}, true, begun{preUp: 2, postUp: 2}, true},
		"revived with more":          {two, &hookFacts{Hooks: *one, Begun: begun{preUp: 1}, Up: true}, true, begun{preUp: 2, postUp: 2}, true},
		"revived, and had none":      {two, nil, true, begun{preUp: 2, postUp: 2}, true},
		"down was killed":            {two, &hookFacts{Hooks: *two, Begun: begun{preUp: 2, postUp: 2, preDown: 1}, Up: true}, true, begun{preUp: 2}, true},
		"down was killed at the end": {two, &hookFacts{Hooks: *two, Begun: begun{preUp: 2, postUp: 2, preDown: 2, postDown: 1}, Up: true}, true, begun{}, false},
	} {
		f := newHookFacts(c.now, c.before, c.revived)
		if !maps.Equal(f.Begun, c.begun) || f.Up != c.up || f.Told == nil {
			t.Errorf("%s: %+v", name, f)
		}
	}
	if f := newHookFacts(nil, &hookFacts{Hooks: *two}, true); f != nil {
		t.Errorf("there are none any more: %+v", f)
	}
}
