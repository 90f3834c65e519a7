package conf

import (
	"strings"
	"time"
)

// The hooks of a tunnel, by their keys.
const (
	HookPreUp       = "pre_up"      // before anything is changed on this host
	HookPostUp      = "post_up"     // when the tunnel is up
	HookPreDown     = "pre_down"    // before it is taken down
	HookPostDown    = "post_down"   // when nothing of it is left
	HookEstablished = "established" // a peer is
	HookLost        = "lost"        // it is no more
)

// hookNames are in the order in which they run.
var hookNames = []string{HookPreUp, HookPostUp, HookEstablished, HookLost, HookPreDown, HookPostDown}

// Hooks are lines for the shell that run at the moments their names say.
type Hooks struct {
	Commands map[string][]string `json:"commands"` // by hook, with %i replaced; no list is empty
	Timeout  time.Duration       `json:"timeout"`  // of each command
}

const (
	// hookTimeout is that of a command unless the file says otherwise. It is below
	// what systemd waits for a unit that stops, 90 s.
	hookTimeout = 30 * time.Second
	// maxHook bounds a line, as the kernel bounds an argument (MAX_ARG_STRLEN).
	maxHook = 128<<10 - 1
)

// readHooks reads and checks [hooks]; nil: there is nothing to run.
func readHooks(t *table, name string) *Hooks {
	h := &Hooks{
		Commands: map[string][]string{},
		Timeout:  read(t, "timeout", func(v value) (time.Duration, bool) { return v.duration(`"30s"`) }).or(hookTimeout),
	}
	for _, hook := range hookNames {
		v, ok := t.get(hook)
		if !ok {
			continue
		}
		elements, _ := v.list(`["ip link show %i"]`)
		for _, e := range elements {
			s, ok := e.text(`"ip link show %i"`)
			switch {
			case !ok:
			case strings.TrimSpace(s) == "":
				e.wrong("leave it out", "there is no command in it")
			case strings.Contains(s, "\x00"):
				e.wrong("leave it out", "a command cannot have a NUL in it")
			case len(s) > maxHook:
				e.wrong("put it into a file, and call that", "a command has %d bytes at most", maxHook)
			default:
				h.Commands[hook] = append(h.Commands[hook], expandName(s, name))
			}
		}
	}
	if len(h.Commands) == 0 {
		return nil
	}
	return h
}

// expandName puts the tunnel's name in the place of %i; %%i is %i itself. Other
// percent signs are the shell's and its commands': ${x%%:*}, date +%s.
func expandName(s, name string) string {
	return strings.NewReplacer("%%i", "%i", "%i", name).Replace(s)
}
