package conf

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

const hookPeer = "[[peer]]\nname = \"a\"\nendpoint = \"192.0.2.1\"\npsk_file = \"office.psk\"\n"

func TestHooks(t *testing.T) {
	for text, want := range map[string]*Hooks{
		"":                                   nil,
		"[hooks]\npost_up = []\nlost = []\n": nil,
		"hooks.timeout = \"5s\"\n":           nil,
		"[hooks]\npre_up = [\"ip link add %i type dummy\", \"date +%s >/run/%%i.${x%%:*}\"]\n": {
			Commands: map[string][]string{HookPreUp: {"ip link add office type dummy", "date +%s >/run/%i.${x%%:*}"}}, Timeout: hookTimeout,
		},
		"[hooks]\nlost = [\"true\"]\nestablished = [\"%i%i\"]\ntimeout = \"2m\"\n": {
			Commands: map[string][]string{HookLost: {"true"}, HookEstablished: {"officeoffice"}}, Timeout: 2 * time.Minute,
		},
	} {
		tunnel, err := parseText(t, text+hookPeer)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if !reflect.DeepEqual(tunnel.Hooks, want) {
			t.Errorf("%s: %+v", text, tunnel.Hooks)
		}
	}
	long := "[hooks]\nlost = [\"true " + strings.Repeat("x", maxHook) + "\"]\n" + hookPeer
	if _, err := parseText(t, long); err == nil || !strings.Contains(err.Error(), "put it into a file") {
		t.Errorf("a long one: %v", err)
	}
}

// Who can write to a file with hooks is who runs it.
func TestHooksOfOthers(t *testing.T) {
	for text, want := range map[string]string{
		hookPeer: "",
		"[hooks]\nlost = [\"true\"]\n" + hookPeer: "office.toml:1:2: hooks: others can change this file, and with it what is run; run: chmod go-w office.toml",
	} {
		_, err := parse("office", file{path: "office.toml", data: []byte(text), mode: 0o664}, secrets(t))
		if err == nil && want != "" || err != nil && err.Error() != want {
			t.Errorf("%s: %v", text, err)
		}
	}
}
