package lab_test

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"ipsec-quick/conf"
	"ipsec-quick/ike/auth"
)

// secretFiles finds what a tunnel file names as a secret, by the key.
var secretFiles = regexp.MustCompile(`(?m)^\s*(psk_file|key_file)\s*=\s*"([^"]+)"`)

// exampleFiles are the tunnel files that users copy.
func exampleFiles(t *testing.T) []string {
	t.Helper()
	outside(t)
	files, err := filepath.Glob("../examples/*/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	return files
}

// copyExample copies a tunnel file to a folder of its own and makes the
// secrets that it names.
func copyExample(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return writeTunnel(t, filepath.Base(name), string(text))
}

func writeTunnel(t *testing.T, name, text string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, m := range secretFiles.FindAllStringSubmatch(text, -1) {
		secret := []byte(rand.Text() + rand.Text() + "\n")
		if m[1] == "key_file" {
			var err error
			if secret, err = auth.GenerateKey("ed25519", rand.Reader); err != nil {
				t.Fatal(err)
			}
		}
		write(m[2], string(secret))
	}
	return write(name, text)
}

// load is conf.Load with every error on a line of its own.
func load(t *testing.T, path string) *conf.Tunnel {
	t.Helper()
	tunnel, err := conf.Load(path)
	var wrong conf.Errors
	if errors.As(err, &wrong) {
		for _, e := range wrong {
			t.Error(e)
		}
	}
	if err != nil {
		t.Fatal("it does not load")
	}
	for _, w := range tunnel.Warnings {
		t.Errorf("warning: %v", w)
	}
	return tunnel
}

func TestExamplesLoad(t *testing.T) {
	for _, name := range exampleFiles(t) {
		t.Run(strings.TrimPrefix(name, "../examples/"), func(t *testing.T) {
			load(t, copyExample(t, name))
		})
	}
}

// TestExamplesMeet puts the two ends of each example side by side: what one
// says of itself is what the other says of its peer.
func TestExamplesMeet(t *testing.T) {
	for _, pair := range [][2]string{
		{"site-to-site-psk/hq.toml", "site-to-site-psk/branch.toml"},
		{"hooks/hq.toml", "site-to-site-psk/branch.toml"},
		{"raw-keys/hq.toml", "raw-keys/branch.toml"},
		{"host-to-host-transport/a.toml", "host-to-host-transport/b.toml"},
		{"responder-two-peers/hub.toml", "responder-two-peers/north.toml"},
		{"responder-two-peers/hub.toml", "responder-two-peers/south.toml"},
		{"default-route/laptop.toml", "default-route/gateway.toml"},
	} {
		t.Run(pair[1], func(t *testing.T) {
			outside(t)
			a := load(t, copyExample(t, "../examples/"+pair[0]))
			b := load(t, copyExample(t, "../examples/"+pair[1]))
			for _, theirs := range b.Peers {
				for _, ours := range a.Peers {
					if ours.RemoteID.Equal(ownID(theirs)) {
						mirror(t, ours, theirs)
						return
					}
				}
			}
			t.Error("no peer of one is the other")
		})
	}
}

// ownID is who an end says it is.
func ownID(p conf.Peer) conf.ID {
	if p.LocalID.Empty() {
		return conf.IDOf(p.Address)
	}
	return p.LocalID
}

// mirror compares the peer that is b in a's file with the one that is a in b's.
func mirror(t *testing.T, a, b conf.Peer) {
	t.Helper()
	if !ownID(a).Equal(b.RemoteID) {
		t.Errorf("ids: %s is taken for %s", ownID(a), b.RemoteID)
	}
	if a.Mode != b.Mode || len(a.Local.PSK) > 0 != (len(b.Local.PSK) > 0) {
		t.Errorf("mode %s and %s, psk %v and %v", a.Mode, b.Mode, len(a.Local.PSK) > 0, len(b.Local.PSK) > 0)
	}
	for _, pair := range [][2][]conf.TS{{a.LocalTS, b.RemoteTS}, {a.RemoteTS, b.LocalTS}} {
		if len(pair[0]) != len(pair[1]) || len(pair[0]) > 0 && pair[0][0] != pair[1][0] {
			t.Errorf("traffic selectors: %v and %v", pair[0], pair[1])
		}
	}
	for _, end := range []struct{ from, to conf.Peer }{{a, b}, {b, a}} {
		if to := end.from.Endpoint.Addr; to.IsValid() && end.to.Address.IsValid() && to != end.to.Address {
			t.Errorf("the endpoint %s is at %s", to, end.to.Address)
		}
	}
	if a.Start == conf.StartPassive && b.Start == conf.StartPassive {
		t.Error("both wait for the other")
	}
}

// readmeTunnel is a tunnel file in the README.
var readmeTunnel = regexp.MustCompile("(?s)```toml\n(.*?)```")

// TestReadmeTunnels loads each tunnel file of the README.
func TestReadmeTunnels(t *testing.T) {
	outside(t)
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := readmeTunnel.FindAllStringSubmatch(string(text), -1)
	if len(blocks) == 0 {
		t.Error("the README has no tunnel file")
	}
	for _, b := range blocks {
		load(t, writeTunnel(t, "office.toml", b[1]))
	}
}
