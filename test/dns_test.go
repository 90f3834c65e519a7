//go:build lab

package lab_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// resolvconfFolder has a resolvconf that writes down what it is told.
const resolvconfFolder = "/etc/ipsec-quick/bin"

// fakeResolvconf makes it, and returns the environment in which it is found.
func fakeResolvconf(h *harness.Host) (env []string, said func() string, forget func()) {
	const file = "/etc/ipsec-quick/said"
	h.WriteFile(resolvconfFolder+"/resolvconf", "#!/bin/sh\n{ echo \"$@\"; [ \"$1\" != -a ] || cat; } >>"+file+"\n")
	h.Run("chmod", "755", resolvconfFolder+"/resolvconf")
	return []string{"PATH=" + resolvconfFolder + ":/usr/sbin:/usr/bin:/sbin:/bin"},
		func() string { return strings.TrimSpace(h.Exec("cat", file).Stdout) },
		func() { h.Run("rm", "-f", file) }
}

// dnsFile is a route-based tunnel with name servers.
func dnsFile(a, b *harness.Host, names string) string {
	f := between(a, b)
	f.device = "[interface]\naddresses = [\"10.1.9.9/32\"]\ndns = " + names
	return f.String()
}

// TestDNS: who resolves a host's names is told the servers of a tunnel when that is
// there, and told to forget them when it goes, whoever takes it down.
func TestDNS(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"systemd-resolved", "resolvconf", "nobody"} {
		row := harness.NewRow("DNS", by, "both ends ours")
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			row.Of(t)
			n := harness.NewNet(t, "a", "b")
			a, b := n.A(), n.B()
			theirs := between(b, a)
			theirs.start = "passive"
			harness.NewQuick(t, b, "other", theirs.String()).Up()
			bus := a.ServeBus(by == "systemd-resolved", nil)
			env, said, forget := fakeResolvconf(a)
			const add = "-a named.ipsec-quick -m 0 -x\nnameserver 10.2.0.53\nsearch corp.example.org"
			set := func() string { return add }
			remove := func() string { return "-d named.ipsec-quick" }
			switch by {
			case "systemd-resolved":
				said, forget = bus.Said, bus.Forget
				set = func() string { return resolved(t, a, `[corp.example.org false] [. true]`, true) }
				remove = func() string { return fmt.Sprintf("RevertLink(i) [%d]", index(t, a)) }
			case "nobody":
				env = []string{"PATH=/nowhere"}
			}
			want := func(what string, text ...string) {
				t.Helper()
				all := strings.Join(text, "\n")
				if !harness.Poll(5*time.Second, func() bool { return said() == all }) {
					t.Errorf("%s: it was told\n%s\nnot\n%s", what, said(), all)
				}
				forget()
			}
			before := a.Snapshot()
			file := dnsFile(a, b, `["10.2.0.53", "corp.example.org"]`)
			q := harness.NewQuick(t, a, "named", file)
			up := func() harness.Result { return q.ExecEnv(env, "up", "named") }
			if by == "nobody" {
				r := up()
				if r.Code != 1 || !strings.Contains(r.Stderr, "neither systemd-resolved nor resolvconf") || strings.Contains(r.Stderr, "[#]") {
					t.Errorf("up: %s", r)
				}
				a.Unchanged(before, "up without anybody who resolves names")
				return
			}

			r := up()
			if r.Code != 0 || !strings.Contains(r.Stderr, "[#] resolvectl dns named 10.2.0.53\n") && !strings.Contains(r.Stderr, " | resolvconf -a named.ipsec-quick") {
				t.Fatalf("up: %s", r)
			}
			want("up, and the loop in the background", set(), set())
			if by == "systemd-resolved" {
				a.WriteFile("/etc/ipsec-quick/named.toml", dnsFile(a, b, `["10.2.0.53", "~corp.example.org"]`))
				if r := q.Exec("reload", "named"); r.Code != 0 {
					t.Errorf("reload: %s", r)
				}
				want("reload", resolved(t, a, `[corp.example.org true]`, false))
			} else {
				a.WriteFile("/etc/ipsec-quick/named.toml", dnsFile(a, b, `["10.2.0.54"]`))
				if r := q.Exec("reload", "named"); r.Code == 0 || !strings.Contains(r.Stderr, "interface.dns has changed") {
					t.Errorf("reload: %s", r)
				}
			}
			a.WriteFile("/etc/ipsec-quick/named.toml", file)
			gone := remove()
			q.Down()
			want("down", gone)
			a.Unchanged(before, "up and down")

			if r := up(); r.Code != 0 {
				t.Fatalf("up: %s", r)
			}
			want("up again", set(), set())
			killLoop(t, q)
			if r := up(); r.Code != 0 {
				t.Fatalf("up: %s", r)
			}
			want("revived", set(), set())
			gone = remove()
			killLoop(t, q)
			if r := q.ExecEnv(env, "down", "named"); r.Code != 0 {
				t.Errorf("down: %s", r)
			}
			want("killed, then down", gone)
			a.Unchanged(before, "killed, then down")
			row.Notef("set when established, taken back by the loop and without it")
		})
	}
}

// resolved is what systemd-resolved is told of a tunnel's servers.
func resolved(t *testing.T, h *harness.Host, domains string, route bool) string {
	t.Helper()
	at := index(t, h)
	return fmt.Sprintf("SetLinkDNS(ia(iay)) [%d [[2 [10 2 0 53]]]]\nSetLinkDomains(ia(sb)) [%d [%s]]\nSetLinkDefaultRoute(ib) [%d %v]",
		at, at, domains, at, route)
}

// index is that of the tunnel's device.
func index(t *testing.T, h *harness.Host) (index int) {
	t.Helper()
	err := h.Do(func() error {
		d, err := net.InterfaceByName("named")
		if err == nil {
			index = d.Index
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return index
}
