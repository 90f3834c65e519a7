package dns

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

var servers = []netip.Addr{netip.MustParseAddr("10.2.0.53"), netip.MustParseAddr("2001:db8::53")}

// startBus makes a bus the system's in this test.
func startBus(t *testing.T, resolved bool, fail map[string]string) *harness.Bus {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bus")
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+path)
	b, err := harness.ServeBus(t, path, resolved, fail)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func noBus(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+filepath.Join(t.TempDir(), "none"))
}

// fakeResolvconf makes a script the one resolvconf of this test, and returns a
// function that tells what it was told.
func fakeResolvconf(t *testing.T, script string) func() string {
	t.Helper()
	folder := t.TempDir()
	said := filepath.Join(folder, "said")
	if script != "" {
		script = "#!/bin/sh\n{ echo \"$@\"; [ \"$1\" != -a ] || /bin/cat; } >>" + said + "\n" + script + "\n"
		if err := os.WriteFile(filepath.Join(folder, resolvconf), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", folder)
	return func() string {
		b, _ := os.ReadFile(said)
		_ = os.Remove(said)
		return string(b)
	}
}

func TestFind(t *testing.T) {
	split := Config{servers, []string{"~corp.example.org"}}
	all := Config{servers, []string{"corp.example.org"}}
	for name, c := range map[string]struct {
		bus        func(t *testing.T)
		resolvconf string
		config     Config
		want       Manager
		err        string
	}{
		"resolved":            {func(t *testing.T) { startBus(t, true, nil) }, "exit 0", split, Resolved, ""},
		"a bus without it":    {func(t *testing.T) { startBus(t, false, nil) }, "exit 0", all, Resolvconf, ""},
		"no bus":              {noBus, "exit 0", all, Resolvconf, ""},
		"the root is no part": {noBus, "exit 0", Config{servers, []string{"~corp.example.org", "~."}}, Resolvconf, ""},
		"a part of names":     {noBus, "exit 0", split, Resolvconf, "without ~"},
		"neither":             {noBus, "", all, "", "neither systemd-resolved nor resolvconf"},
		"a bus that hangs":    {hangingBus, "exit 0", all, Resolvconf, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c.bus(t)
			said := fakeResolvconf(t, c.resolvconf)
			began := time.Now()
			m, err := Find(c.config)
			if m != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q, %v", m, err)
			}
			if took := time.Since(began); took > timeout+time.Second || said() != "" {
				t.Errorf("it took %v, and %q", took, said())
			}
		})
	}
}

// hangingBus takes connections and says nothing.
func hangingBus(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bus")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+path)
}

func TestResolved(t *testing.T) {
	for name, c := range map[string]struct {
		config            Config
		fail              map[string]string
		said, change, err string
	}{
		"all names": {
			config: Config{servers, []string{"corp.example.org"}},
			said: "SetLinkDNS(ia(iay)) [7 [[2 [10 2 0 53]] [10 [32 1 13 184 0 0 0 0 0 0 0 0 0 0 0 83]]]]\n" +
				"SetLinkDomains(ia(sb)) [7 [[corp.example.org false] [. true]]]\nSetLinkDefaultRoute(ib) [7 true]",
			change: "resolvectl dns office 10.2.0.53 2001:db8::53; resolvectl domain office 'corp.example.org' '~.'; resolvectl default-route office yes; ",
		},
		"some": {
			config: Config{servers[:1], []string{"corp.example.org", "~2.10.in-addr.arpa"}},
			said: "SetLinkDNS(ia(iay)) [7 [[2 [10 2 0 53]]]]\n" +
				"SetLinkDomains(ia(sb)) [7 [[corp.example.org false] [2.10.in-addr.arpa true]]]\nSetLinkDefaultRoute(ib) [7 false]",
			change: "resolvectl dns office 10.2.0.53; resolvectl domain office 'corp.example.org' '~2.10.in-addr.arpa'; resolvectl default-route office no; ",
		},
		"an old one": {
			config: Config{Servers: servers[:1]},
			fail:   map[string]string{"SetLinkDefaultRoute": "org.freedesktop.DBus.Error.UnknownMethod"},
			said: "SetLinkDNS(ia(iay)) [7 [[2 [10 2 0 53]]]]\n" +
				"SetLinkDomains(ia(sb)) [7 [[. true]]]\nSetLinkDefaultRoute(ib) [7 true]",
			change: "resolvectl dns office 10.2.0.53; resolvectl domain office '~.'; ",
		},
		"it refuses": {
			config: Config{Servers: servers[:1]},
			fail:   map[string]string{"SetLinkDNS": resolvedName + ".LinkBusy"},
			said:   "SetLinkDNS(ia(iay)) [7 [[2 [10 2 0 53]]]]",
			err:    "dns by systemd-resolved: so says the test",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := startBus(t, true, c.fail)
			changes := ""
			err := Resolved.Set("office", 7, c.config, func(s string) { changes += s + "; " })
			if (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
				t.Errorf("%v", err)
			}
			if said := b.Said(); said != c.said || changes != c.change {
				t.Errorf("it was told\n%s\nand the changes are %q", said, changes)
			}
		})
	}
}

func TestRevertResolved(t *testing.T) {
	told := 0
	count := func(string) { told++ }
	b := startBus(t, true, nil)
	if err := Resolved.Revert("office", 7, count); err != nil || b.Said() != "RevertLink(i) [7]" || told != 1 {
		t.Errorf("%v, told %d times", err, told)
	}
	startBus(t, true, map[string]string{"RevertLink": resolvedName + ".NoSuchLink"})
	if err := Resolved.Revert("office", 7, count); err != nil || told != 1 {
		t.Errorf("no such link: %v", err)
	}
	startBus(t, true, map[string]string{"RevertLink": resolvedName + ".LinkBusy"})
	if err := Resolved.Revert("office", 7, count); err == nil {
		t.Error("what it refuses is no error")
	}
	startBus(t, false, nil)
	if err := Resolved.Revert("office", 7, count); err != nil {
		t.Errorf("it has gone: %v", err)
	}
	noBus(t)
	if err := Resolved.Revert("office", 7, count); err != nil || told != 1 {
		t.Errorf("no bus: %v", err)
	}
}

func TestResolvconf(t *testing.T) {
	for name, c := range map[string]struct {
		order, script, said, err string
	}{
		"openresolv": {said: "-a office.ipsec-quick -m 0 -x\nnameserver 10.2.0.53\nnameserver 2001:db8::53\nsearch corp.example.org example.net\n-d office.ipsec-quick\n"},
		"Debian's": {
			order: "lo.inet\ntun*\neth*\n",
			said:  "-a tun.office.ipsec-quick -m 0 -x\nnameserver 10.2.0.53\nnameserver 2001:db8::53\nsearch corp.example.org example.net\n-d tun.office.ipsec-quick\n",
		},
		"it fails": {
			script: "echo of no use >&2; exit 3", err: "exit status 3: of no use",
			said: "-a office.ipsec-quick -m 0 -x\nnameserver 10.2.0.53\nnameserver 2001:db8::53\nsearch corp.example.org example.net\n-d office.ipsec-quick\n",
		},
		"it hangs": {
			script: "exec /bin/sleep 60", err: "signal: killed",
			said: "-a office.ipsec-quick -m 0 -x\nnameserver 10.2.0.53\nnameserver 2001:db8::53\nsearch corp.example.org example.net\n-d office.ipsec-quick\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			said := fakeResolvconf(t, c.script+"\n")
			orderFile = filepath.Join(t.TempDir(), "order")
			if c.order != "" {
				if err := os.WriteFile(orderFile, []byte(c.order), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			changes := ""
			change := func(s string) { changes += s + "; " }
			for _, err := range []error{
				Resolvconf.Set("office", 7, Config{servers, []string{"corp.example.org", "example.net", "~."}}, change),
				Resolvconf.Revert("office", 7, change),
			} {
				if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
					t.Errorf("%v", err)
				}
			}
			if got := said(); got != c.said {
				t.Errorf("it was told %q", got)
			}
			if c.err == "" && (strings.Count(changes, "resolvconf -") != 2 || !strings.HasPrefix(changes, `printf '%s\n' 'nameserver 10.2.0.53' `)) {
				t.Errorf("changes: %q", changes)
			}
		})
	}
	fakeResolvconf(t, "")
	if err := Resolvconf.Revert("office", 7, func(string) {}); err != nil {
		t.Errorf("it has gone: %v", err)
	}
}
