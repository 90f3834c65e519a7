//go:build lab

package lab_test

import (
	"crypto"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// An exampleEnd is one side of an example: a tunnel file, or strongSwan's.
type exampleEnd struct {
	file  string // below examples/, or README.md
	inner string // an address that the tunnel carries; empty: the outer one
}

func (e exampleEnd) swan() bool { return strings.HasSuffix(e.file, "swanctl.conf") }

// exampleCases are pairs of ends. The first end is 192.0.2.1, the second is
// 198.51.100.1. The first one starts the tunnel unless the second one does.
var exampleCases = []struct {
	name        string
	a, b        exampleEnd
	secondFirst bool
}{
	{"README", exampleEnd{"README.md", "10.1.7.7"}, exampleEnd{"README.md swanctl.conf", "10.2.7.7"}, false},
	{"site-to-site-psk", exampleEnd{"site-to-site-psk/hq.toml", "10.1.7.7"}, exampleEnd{"site-to-site-psk/branch.toml", "10.2.7.7"}, false},
	{"site-to-site-psk", exampleEnd{"site-to-site-psk/hq.toml", "10.1.7.7"}, exampleEnd{"site-to-site-psk/swanctl.conf", "10.2.7.7"}, false},
	{"hooks", exampleEnd{"hooks/hq.toml", "10.1.7.7"}, exampleEnd{"site-to-site-psk/branch.toml", "10.2.7.7"}, false},
	{"raw-keys", exampleEnd{"raw-keys/hq.toml", "10.1.7.7"}, exampleEnd{"raw-keys/branch.toml", "10.2.7.7"}, false},
	{"raw-keys", exampleEnd{"raw-keys/hq.toml", "10.1.7.7"}, exampleEnd{"raw-keys/swanctl.conf", "10.2.7.7"}, false},
	{"host-to-host-transport", exampleEnd{"host-to-host-transport/a.toml", ""}, exampleEnd{"host-to-host-transport/b.toml", ""}, false},
	{"host-to-host-transport", exampleEnd{"host-to-host-transport/a.toml", ""}, exampleEnd{"host-to-host-transport/swanctl.conf", ""}, false},
	{"responder-two-peers", exampleEnd{"responder-two-peers/hub.toml", "10.0.7.7"}, exampleEnd{"responder-two-peers/north.toml", "10.1.7.7"}, true},
	{"responder-two-peers", exampleEnd{"responder-two-peers/hub.toml", "10.0.7.7"}, exampleEnd{"responder-two-peers/south.toml", "10.2.7.7"}, true},
	{"responder-two-peers", exampleEnd{"responder-two-peers/hub.toml", "10.0.7.7"}, exampleEnd{"responder-two-peers/swanctl.conf", "10.1.7.7"}, true},
	{"default-route", exampleEnd{"default-route/laptop.toml", "10.99.0.2"}, exampleEnd{"default-route/gateway.toml", "203.0.113.7"}, false},
	{"default-route", exampleEnd{"default-route/laptop.toml", "10.99.0.2"}, exampleEnd{"default-route/swanctl.conf", "203.0.113.7"}, false},
}

const (
	firstOuter  = "192.0.2.1"
	secondOuter = "198.51.100.1"
)

// TestExamples brings each example up as it stands, sends packets through,
// rekeys, and takes it down.
func TestExamples(t *testing.T) {
	t.Parallel()
	for _, c := range exampleCases {
		other := c.b.file[strings.LastIndexAny(c.b.file, "/ ")+1:]
		row := harness.NewRow("The examples", c.name, other)
		t.Run(c.name+"/"+other, func(t *testing.T) {
			if harness.Libipsec && c.b.swan() && strings.Contains(c.name, "transport") {
				t.Skip("kernel-libipsec has no transport mode")
			}
			t.Parallel()
			row.Of(t)
			n := harness.NewNet(t, "first", "second")
			a, b := n.A(), n.B()
			b.Run("ip", "address", "add", secondOuter+"/24", "dev", "eth0")
			a.Run("ip", "route", "add", secondOuter+"/32", "dev", "eth0")
			inner := [2]netip.Addr{}
			for i, side := range []struct {
				host *harness.Host
				end  exampleEnd
			}{{a, c.a}, {b, c.b}} {
				if side.end.inner == "" {
					inner[i] = netip.MustParseAddr([]string{firstOuter, secondOuter}[i])
					continue
				}
				side.host.Run("ip", "address", "add", side.end.inner+"/32", "dev", "lo")
				inner[i] = netip.MustParseAddr(side.end.inner)
			}
			capture := harness.StartCapture(t, n)
			keys := newExampleKeys(t)
			quick := keys.quick(t, a, c.a, c.b.swan())
			var peer *harness.Quick
			starts := func() {}
			if c.b.swan() {
				text, pems := keys.swan(t, c.b)
				if !c.secondFirst {
					harness.StartCharon(t, b).Load(text, pems)
				} else {
					starts = func() { harness.StartCharon(t, b).Load(text, pems) }
				}
			} else {
				peer = keys.quick(t, b, c.b, false)
				starts = func() { peer.Up() }
				if !c.secondFirst {
					starts()
					starts = func() {}
				}
			}
			quick.Up()
			starts()
			within(t, 20*time.Second, "a packet through the tunnel", func() bool { return a.Ping(inner[0], inner[1], 1) == 1 })
			quick.Rekey()
			if got := a.Ping(inner[0], inner[1], 5); got != 5 {
				t.Errorf("after the rekey %d of 5 packets came back", got)
			}
			if got := b.Ping(inner[1], inner[0], 5); got != 5 {
				t.Errorf("from the other end %d of 5 packets came back", got)
			}
			capture.Stop()
			if esp := capture.Count(espKind()); esp < 20 {
				t.Errorf("%d packets of ESP on the link: %v", esp, capture)
			}
			quick.Down()
			if peer != nil {
				peer.Down()
			}
		})
	}
}

// exampleKeys are those of the two ends of an example.
type exampleKeys struct{ first, second crypto.Signer }

func newExampleKeys(t *testing.T) exampleKeys {
	t.Helper()
	first, second := newEd25519(t)
	return exampleKeys{first, second}
}

var (
	pinnedKey  = regexp.MustCompile(`"ed25519:[^"]*"`)
	swanSecret = regexp.MustCompile(`secret = "[^"]*"`)
	readmeSwan = regexp.MustCompile("(?s)```\n(connections.*?)```")
)

// text is the example's file.
func (e exampleEnd) text(t *testing.T) string {
	t.Helper()
	name, part, _ := strings.Cut(e.file, " ")
	if name != "README.md" {
		name = "examples/" + name
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if name != "README.md" {
		return string(text)
	}
	block := readmeTunnel
	if part != "" {
		block = readmeSwan
	}
	m := block.FindStringSubmatch(string(text))
	if m == nil {
		t.Fatalf("%s has none", e.file)
	}
	return m[1]
}

// quick writes a tunnel file with its secrets. The keys pinned in examples are
// nobody's; asPEM puts the peer's in as the PEM file that it is with strongSwan.
func (k exampleKeys) quick(t *testing.T, h *harness.Host, e exampleEnd, asPEM bool) *harness.Quick {
	t.Helper()
	text := e.text(t)
	own, theirs := k.first, k.second
	if h.Name == "second" {
		own, theirs = theirs, own
	}
	for _, m := range secretFiles.FindAllStringSubmatch(text, -1) {
		secret := testPSK + "\n"
		if m[1] == "key_file" {
			secret = privatePEM(t, own)
		}
		h.WriteFile("/etc/ipsec-quick/"+m[2], secret)
	}
	q := harness.NewQuick(t, h, "example", text)
	if pinnedKey.MatchString(text) {
		public := fmt.Sprintf("%q", quickPublicKey(t, q, theirs))
		if asPEM {
			public = `"""` + "\n" + publicPEM(t, theirs.Public()) + `"""`
		}
		h.WriteFile("/etc/ipsec-quick/example.toml", pinnedKey.ReplaceAllLiteralString(text, public))
	}
	return q
}

// swan is strongSwan's side with its keys.
func (k exampleKeys) swan(t *testing.T, e exampleEnd) (conf string, pems map[string]string) {
	t.Helper()
	text := swanSecret.ReplaceAllString(e.text(t), fmt.Sprintf("secret = %q", testPSK))
	if !strings.Contains(text, "auth = pubkey") {
		return text, nil
	}
	return text, map[string]string{
		"private/branch.pem": privatePEM(t, k.second),
		"pubkey/branch.pem":  publicPEM(t, k.second.Public()),
		"pubkey/hq.pem":      publicPEM(t, k.first.Public()),
	}
}
