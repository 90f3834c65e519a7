package foreign

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"ipsec-quick/conf"
)

// exportCases are the tunnel files of testdata/export with what they are made of.
func exportCases(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("testdata/export/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases (%v)", err)
	}
	return paths
}

// loadText is conf.Load of a text as office.toml, with our private key beside it.
func loadText(t *testing.T, text string) (*conf.Tunnel, error) {
	t.Helper()
	dir := t.TempDir()
	key, err := os.ReadFile("../../test/testdata/rsa-a.key")
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"office.toml": []byte(text), "local.key": key, "office.key": key, "office.psk": []byte("of no account\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return conf.Load(filepath.Join(dir, "office.toml"))
}

// TestExport writes each tunnel file's far end for each program.
func TestExport(t *testing.T) {
	for _, path := range exportCases(t) {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			c := readCase(t, path)
			tunnel, err := loadText(t, c.parts["office.toml"])
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			b.WriteString(c.head + "-- office.toml --\n" + c.parts["office.toml"])
			for _, to := range []string{StrongSwan, Libreswan, IPsecQuick} {
				text, notes, err := Export(tunnel, &tunnel.Peers[0], ExportOptions{To: to})
				if err != nil {
					text = err.Error() + "\n"
				}
				if len(tunnel.Peers[0].Local.PSK) > 0 && strings.Contains(text, string(tunnel.Peers[0].Local.PSK)) {
					t.Errorf("the pre-shared key is in the file for %s", to)
				}
				fmt.Fprintf(&b, "-- %s --\n%s", to, text)
				for _, note := range notes {
					fmt.Fprintf(&b, "note: %s\n", note)
				}
			}
			if *update {
				if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if b.String() != string(want) {
				t.Errorf("it is\n%s\nand not\n%s", b.String(), want)
			}
		})
	}
}

// TestExportMeets holds what is exported against the tunnel file: the one for
// ipsec-quick as conf reads it, those for the others as Import does.
func TestExportMeets(t *testing.T) {
	for _, path := range exportCases(t) {
		c := readCase(t, path)
		near, err := loadText(t, c.parts["office.toml"])
		if err != nil {
			t.Fatal(err)
		}
		p := &near.Peers[0]
		for _, to := range []string{IPsecQuick, StrongSwan, Libreswan} {
			t.Run(strings.TrimSuffix(filepath.Base(path), ".txt")+"/"+to, func(t *testing.T) {
				o := ExportOptions{To: to, Secret: true}
				if !p.Address.IsValid() {
					o.Endpoint = "192.0.2.1"
				}
				text, _, err := Export(near, p, o)
				if err != nil {
					t.Skip(err)
				}
				if to != IPsecQuick {
					text = imported(t, text, to, p)
				}
				far, err := loadText(t, text)
				if err != nil {
					t.Fatalf("%v\n%s", err, text)
				}
				meets(t, p, &far.Peers[0], to)
			})
		}
	}
}

// imported is an exported file as a tunnel file.
func imported(t *testing.T, text, from string, p *conf.Peer) string {
	t.Helper()
	root := fstest.MapFS{"far.conf": {Data: []byte(text)}}
	if from == Libreswan {
		_, secret, _ := strings.Cut(text, "\n#\n# ")
		secret, _, _ = strings.Cut(secret, "\n")
		root["ipsec.secrets"] = &fstest.MapFile{Data: []byte(secret + "\n")}
	}
	if p.Local.Key != nil {
		der, err := x509.MarshalPKIXPublicKey(p.Local.Key.Public())
		if err != nil {
			t.Fatal(err)
		}
		root["pubkey/office-remote.pem"] = &fstest.MapFile{Data: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})}
	}
	tunnel, err := Import(root, "far.conf", Options{})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return tunnel.Text
}

// meets compares what both ends have to agree on.
func meets(t *testing.T, near, far *conf.Peer, to string) {
	t.Helper()
	if !near.RemoteID.Empty() && !near.RemoteID.Equal(far.LocalID) {
		t.Errorf("it says it is %s, and %s is expected", far.LocalID, near.RemoteID)
	}
	if !near.LocalID.Empty() && !near.LocalID.Equal(far.RemoteID) {
		t.Errorf("we say we are %s, and it expects %s", near.LocalID, far.RemoteID)
	}
	if !bytes.Equal(near.Local.PSK, far.Local.PSK) {
		t.Error("the pre-shared keys differ")
	}
	if !slices.Equal(near.LocalTS, far.RemoteTS) || !slices.Equal(near.RemoteTS, far.LocalTS) {
		t.Errorf("selectors: %v and %v here, %v and %v there", near.LocalTS, near.RemoteTS, far.LocalTS, far.RemoteTS)
	}
	if near.Mode != far.Mode {
		t.Errorf("mode: %s here, %s there", near.Mode, far.Mode)
	}
	if near.Start == conf.StartPassive && far.Start != conf.StartNow {
		t.Errorf("start: %s here, %s there", near.Start, far.Start)
	}
	if got, want := fmt.Sprint(far.IKE.Proposals), fmt.Sprint(near.IKE.Proposals); got != want {
		t.Errorf("IKE: %s here, %s there", want, got)
	}
	// libreswan takes the key exchange of ESP from IKE.
	if got, want := fmt.Sprint(far.ESP.Proposals), fmt.Sprint(near.ESP.Proposals); got != want && to != Libreswan {
		t.Errorf("ESP: %s here, %s there", want, got)
	}
	if near.Lifetime.HardTime != far.Lifetime.HardTime || near.Lifetime.SoftTime != far.Lifetime.SoftTime {
		t.Errorf("lifetime: %+v here, %+v there", near.Lifetime, far.Lifetime)
	}
}
