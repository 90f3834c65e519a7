package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ipsec-quick/apply/xfrm"
	"ipsec-quick/conf"
	"ipsec-quick/ike"
	"ipsec-quick/watch"
)

// invoke runs a command line.
func invoke(in string, args ...string) (code int, out, errOut string) {
	var o, e bytes.Buffer
	code = run(append([]string{"ipsec-quick"}, args...), strings.NewReader(in), &o, &e)
	return code, o.String(), e.String()
}

// tunnelFile writes a tunnel file with a key beside it.
func tunnelFile(t *testing.T, text string) string {
	t.Helper()
	folder := t.TempDir()
	path := filepath.Join(folder, "office.toml")
	for file, content := range map[string]string{path: text, filepath.Join(folder, "psk"): "0123456789abcdefghijklmnop\n"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

const goodTunnel = `[local]
address = "192.0.2.1"
[[peer]]
name = "branch"
endpoint = "198.51.100.7"
psk_file = "psk"
local_ts = ["10.1.0.0/16"]
remote_ts = ["10.2.0.0/16"]
`

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{}, {"dance"}, {"--dance"}, {"up"}, {"up", "a", "b"}, {"up", "a name"}, {"up", "office", "--dance"},
		{"up", "office", "--timeout", "soon"}, {"up", "office", "--timeout=-1s"}, {"down"}, {"check"}, {"rekey"},
		{"genpsk", "x"}, {"genkey", "--type", "rot13"}, {"pubkey", "a", "b"}, {"status", "a", "b"}, {"status", "--watch=soon"}, {"status", "--watch=1ms"}, {"list", "a"}, {"watch"}, {"watch", "a", "b"}, {"restart"}, {"reload"}, {"reload", "a", "b"}, {"monitor"},
	} {
		if code, out, errOut := invoke("", args...); code != exitUsage || out+errOut == "" {
			t.Errorf("%q: exit status %d, %q", args, code, errOut)
		}
	}
	if code, out, _ := invoke("", "--help"); code != exitOK || !strings.Contains(out, "up ") || !strings.Contains(out, "watch ") {
		t.Errorf("help: exit status %d: %s", code, out)
	}
	if code, out, _ := invoke("", "up", "--help"); code != exitOK || !strings.Contains(out, "--keep-trying") {
		t.Errorf("help of up: exit status %d: %s", code, out)
	}
}

func TestCheck(t *testing.T) {
	path := tunnelFile(t, goodTunnel)
	if code, out, errOut := invoke("", "check", path); code != exitOK || !strings.Contains(out, "good, 1 peer") || errOut != "" {
		t.Errorf("exit status %d, %q, %q", code, out, errOut)
	}
	bad := tunnelFile(t, strings.Replace(goodTunnel, "endpoint", "endpiont", 1))
	code, _, errOut := invoke("", "check", bad)
	if code != exitBadFile || !strings.Contains(errOut, bad+":5:1: ") || !strings.Contains(errOut, "endpoint") {
		t.Errorf("exit status %d, %q", code, errOut)
	}
	code, _, errOut = invoke("", "check", filepath.Join(t.TempDir(), "none.toml"))
	if code != exitBadFile || !strings.Contains(errOut, "there is no tunnel file") {
		t.Errorf("exit status %d, %q", code, errOut)
	}
}

func TestDryRun(t *testing.T) {
	path := tunnelFile(t, goodTunnel)
	code, out, errOut := invoke("", "up", path, "--dry-run")
	if code != exitOK || errOut != "" {
		t.Fatalf("exit status %d, %q", code, errOut)
	}
	for _, want := range []string{
		"# UDP ports 500 and 4500",
		"[#] ip xfrm policy update src 10.1.0.0/16 dst 10.2.0.0/16 dir out action block priority ",
		"# branch: IKE_SA_INIT to 198.51.100.7, aes256gcm16",
		"[#] ip xfrm state add src 192.0.2.1 dst 198.51.100.7 proto esp spi <agreed> reqid ",
		"'rfc4106(gcm(aes))' <hidden> 128",
		"tmpl src 192.0.2.1 dst 198.51.100.7 proto esp spi <agreed>",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "0123456789abcdef") {
		t.Error("the key is printed")
	}
}

func TestKeys(t *testing.T) {
	code, psk, _ := invoke("", "genpsk")
	psk = strings.TrimSuffix(psk, "\n")
	if code != exitOK || len(psk) != pskLength || psk[0] == '0' || strings.Trim(psk, pskAlphabet) != "" {
		t.Errorf("exit status %d, a key of %d characters", code, len(psk))
	}
	if _, again, _ := invoke("", "genpsk"); strings.TrimSpace(again) == psk {
		t.Error("the same key twice")
	}
	for _, kind := range keyTypes {
		code, key, errOut := invoke("", "genkey", "--type", kind)
		if code != exitOK || !strings.Contains(key, "PRIVATE KEY") {
			t.Errorf("%s: exit status %d, %s", kind, code, errOut)
			continue
		}
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, []byte(key), 0o600); err != nil {
			t.Fatal(err)
		}
		code, public, errOut := invoke(key, "pubkey")
		_, same, _ := invoke("", "pubkey", path)
		if name, _, _ := strings.Cut(kind, "-"); code != exitOK || !strings.HasPrefix(public, name+":") || same != public {
			t.Errorf("%s: exit status %d, %q, %q, %s", kind, code, public, same, errOut)
		}
	}
	if code, _, errOut := invoke("rubbish", "pubkey"); code != exitOther || !strings.Contains(errOut, "genkey") {
		t.Errorf("exit status %d, %q", code, errOut)
	}
}

func TestFlagsFirst(t *testing.T) {
	a := app(nil, nil, nil)
	for in, want := range map[string]string{
		"ipsec-quick up office --timeout 10s":        "ipsec-quick up --timeout 10s -- office",
		"ipsec-quick up --foreground office":         "ipsec-quick up --foreground -- office",
		"ipsec-quick up office --quiet --timeout=1s": "ipsec-quick up --quiet --timeout=1s -- office",
		"ipsec-quick rekey office --peer b --ike":    "ipsec-quick rekey --peer b --ike -- office",
		"ipsec-quick up -- --odd":                    "ipsec-quick up -- --odd",
		"ipsec-quick status --json":                  "ipsec-quick status --json",
		"ipsec-quick status --watch office":          "ipsec-quick status --watch -- office",
		"ipsec-quick status office --watch=1s":       "ipsec-quick status --watch=1s -- office",
		"ipsec-quick --help":                         "ipsec-quick --help",
		"ipsec-quick pubkey -":                       "ipsec-quick pubkey -- -",
	} {
		if got := flagsFirst(a, strings.Fields(in)); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: %q", in, got)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for want, errs := range map[int][]error{
		exitUsage:        {usage("no"), fmt.Errorf("x: %w", usage("no"))},
		exitBadFile:      {conf.Errors{{Message: "no"}}, &noFile{"x"}},
		exitNotPermitted: {&xfrm.NoPermission{}, fs.ErrPermission, fmt.Errorf("x: %w", os.ErrPermission)},
		exitRefused: {
			&xfrm.NoESP{}, &xfrm.NoAlgorithm{}, &ike.IdentityError{What: "identity", Err: errors.New("no")},
			&watch.Failed{Peer: "x", Err: &ike.PeerError{}}, &watch.Running{},
		},
		exitNoAnswer: {
			&ike.TimeoutError{}, &watch.NoAnswer{}, fmt.Errorf("x: %w", watch.ErrNoAnswer),
			// Out of time is out of time, whatever went wrong on the way.
			&watch.NoAnswer{Last: &ike.PeerError{}},
		},
		exitOther: {errors.New("no"), &watch.PortHeld{Port: 500}, context.Canceled, &watch.Conflict{}, &watch.Running{Starting: true}},
	} {
		for _, err := range errs {
			if got := codeOf(err); got != want {
				t.Errorf("%v: %d, want %d", err, got, want)
			}
			if describe(err) == "" {
				t.Errorf("%T is not described", err)
			}
		}
	}
}

func TestDownOfNothing(t *testing.T) {
	if _, err := os.Lstat(watch.RunDir); err == nil {
		t.Skip("there are tunnels on this host")
	}
	if code, _, errOut := invoke("", "down", "office"); code != exitOK || !strings.Contains(errOut, "office is not up") {
		t.Errorf("exit status %d, %q", code, errOut)
	}
	if code, out, _ := invoke("", "status", "--json"); code != exitOK || out != "[]\n" {
		t.Errorf("exit status %d, %q", code, out)
	}
	if code, out, _ := invoke("", "list"); code != exitOK || out != "" {
		t.Errorf("exit status %d, %q", code, out)
	}
	if code, out, _ := invoke("", "list", "--json"); code != exitOK || out != "[]\n" {
		t.Errorf("exit status %d, %q", code, out)
	}
	if code, _, errOut := invoke("", "status", "office"); code != exitOther || !strings.Contains(errOut, "is not up") {
		t.Errorf("exit status %d, %q", code, errOut)
	}
	for _, verb := range []string{"watch", "restart", "reload", "monitor"} {
		if code, _, errOut := invoke("", verb, "office"); code != exitOther || !strings.Contains(errOut, "`ipsec-quick up office`") {
			t.Errorf("%s: exit status %d, %q", verb, code, errOut)
		}
	}
}

func TestEventLine(t *testing.T) {
	const at = "2026-11-23T12:34:56.789Z"
	for want, ev := range map[string]watch.MonitorEvent{
		"branch  soft limit of c0000003 reached: time 3000 s of 3000 s": {Event: watch.EventSoft, SPI: "c0000003", Limit: "time", Used: 3000, Soft: 3000},
		"branch  soft limit of c0000003 reached: packets 9 of 8":        {Event: watch.EventSoft, SPI: "c0000003", Limit: "packets", Used: 9, Soft: 8},
		"branch  soft limit of c0000003 reached":                        {Event: watch.EventSoft, SPI: "c0000003"},
		"branch  hard limit of c0000003 reached: it is gone":            {Event: watch.EventHard, SPI: "c0000003"},
		"branch  new SAs c1 in, c2 out":                                 {Event: watch.EventInstalled, SPIIn: "c1", SPIOut: "c2"},
		"branch  packets leave through c2":                              {Event: watch.EventSwitched, SPIIn: "c1", SPIOut: "c2"},
		"branch  old SAs c1 in, c2 out removed":                         {Event: watch.EventRemoved, SPIIn: "c1", SPIOut: "c2"},
		"branch  old SAs c1 in, c2 out removed; received 1 packet, 1.00 KiB; sent 0 packets, 0 B": {
			Event: watch.EventRemoved, SPIIn: "c1", SPIOut: "c2", Carried: &watch.Carried{PacketsIn: 1, BytesIn: 1024}},
		"branch  CREATE_CHILD_SA request to 192.0.2.2:500 [SA]": {Event: watch.EventMessage, Exchange: "CREATE_CHILD_SA", Text: "request to 192.0.2.2:500 [SA]"},
		"branch  lost: no answer":                               {Event: watch.EventLost, Error: "no answer"},
	} {
		ev.Time, ev.Tunnel, ev.Peer = at, "office", "branch"
		got := eventLine(&ev)
		if clock, text, _ := strings.Cut(got, " "); !strings.HasSuffix(clock, ":56.789") || text != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for _, kind := range []watch.EventKind{
		watch.EventWatching, watch.EventInterrupted, watch.EventDown, watch.EventAcquire, watch.EventMapping, watch.EventOverrun,
		watch.EventClock, watch.EventReport, watch.EventMoved, watch.EventEstablished,
	} {
		if got := eventLine(&watch.MonitorEvent{Time: at, Tunnel: "office", Event: kind, Text: "x"}); !strings.Contains(got, " office  ") || strings.HasSuffix(got, "  ") {
			t.Errorf("%s: %q", kind, got)
		}
	}
}
