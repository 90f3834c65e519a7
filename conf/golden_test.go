package conf

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ipsec-quick/ike/auth"
)

var update = flag.Bool("update", false, "write what comes out into testdata as what is wanted")

// mark begins the lines at a file's end that say what is wanted of it.
const mark = "#! "

// hidden is in every secret of testdata, and in no error.
const hidden = "that no error may show"

// secrets are the files that tunnel files in testdata name.
func secrets(t testing.TB) func(string, int64) (file, error) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(testKey())
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]file{
		"office.psk":     {data: []byte("the office's pre-shared key\n")},
		"hex.psk":        {data: []byte("0x000102030405060708090a0b0c0d0e0f10111213\r\n")},
		"short.psk":      {data: []byte("short\n")},
		"empty.psk":      {data: []byte("\n")},
		"exposed.psk":    {data: []byte("a secret " + hidden), mode: 0o640},
		"theirs.psk":     {data: []byte("a secret " + hidden), uid: 1 << 30},
		"unreadable.psk": {},
		"hq.key":         {data: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})},
	}
	return func(path string, _ int64) (file, error) {
		f, ok := files[path]
		switch {
		case path == "unreadable.psk":
			return file{}, &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}
		case !ok:
			return file{}, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		case f.mode == 0:
			f.mode = 0o600
		}
		f.path = path
		return f, nil
	}
}

func testKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
}

// parseText parses text as the file office.toml.
func parseText(t testing.TB, text string) (*Tunnel, error) {
	t.Helper()
	mode := fs.FileMode(0o600)
	if strings.HasPrefix(text, "#mode 0644\n") {
		mode = 0o644
	}
	text = strings.ReplaceAll(text, "ed25519:KEY", auth.FormatPublicKey(testKey().Public()))
	return parse("office", file{path: "office.toml", data: []byte(text), mode: mode}, secrets(t))
}

// golden compares what with the marked lines of each file in a folder.
func golden(t *testing.T, dir string, what func(*testing.T, string) string) {
	paths, err := filepath.Glob(filepath.Join("testdata", dir, "*.toml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files in testdata/%s (%v)", dir, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".toml"), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text, want, _ := strings.Cut("\n"+string(data), "\n"+mark)
			text = strings.TrimPrefix(text+"\n", "\n")
			if want != "" {
				want = mark + want
			}
			got := ""
			for line := range strings.Lines(what(t, text)) {
				got += mark + line
			}
			if *update {
				if err := os.WriteFile(path, []byte(strings.TrimRight(text, "\n")+"\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestBadFiles(t *testing.T) {
	golden(t, "bad", func(t *testing.T, text string) string {
		tunnel, err := parseText(t, text)
		if err == nil {
			t.Fatal("it was accepted")
		}
		if tunnel != nil {
			t.Error("a tunnel came with the error")
		}
		if strings.Contains(err.Error(), hidden) || strings.Contains(err.Error(), strings.ReplaceAll(hidden, " ", "")) {
			t.Error("a secret is in the error")
		}
		return err.Error() + "\n"
	})
}

func TestGoodFiles(t *testing.T) {
	golden(t, "good", func(t *testing.T, text string) string {
		tunnel, err := parseText(t, text)
		if err != nil {
			t.Fatal(err)
		}
		mustHold(t, tunnel)
		return dump(tunnel)
	})
}

// dump is all that a tunnel says, in lines.
func dump(t *Tunnel) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("%s dataplane=%s id=%q address=%v ports=%d,%d", t.Name, t.Dataplane, t.Local.ID, t.Local.Address, t.Port, t.NATPort)
	if i := t.Interface; i != nil {
		line("interface %s %v mtu=%d table=%d", i.Name, i.Addresses, i.MTU, i.Table)
	}
	for _, p := range t.Peers {
		line("%s endpoint=%v host=%q address=%v port=%d local=%v", p.Name, p.Endpoint, p.Endpoint.Host, p.Endpoint.Addr, p.Endpoint.Port, p.Address)
		line("  ids=%q,%q psk=%d octets key=%v keys=%d", p.LocalID, p.RemoteID, len(p.Local.PSK), p.Local.Key != nil, len(p.Remote.Keys))
		line("  %v - %v %s %s", p.LocalTS, p.RemoteTS, p.Mode, p.Start)
		line("  ike %v %v-%v dpd=%v encap=%v fragment=%d", p.IKE.Proposals, p.IKE.Soft, p.IKE.Hard, p.IKE.DPD, p.IKE.Encap, p.IKE.Fragment)
		line("  esp %v pfs=%s esn=%v window=%d", p.ESP.Proposals, p.ESP.PFS, p.ESP.ESN, p.ESP.ReplayWindow)
		l := p.Lifetime
		line("  time=%v-%v use=%v-%v bytes=%d-%d packets=%d-%d jitter=%v", l.SoftTime, l.HardTime, l.SoftUse, l.HardUse, l.SoftBytes, l.HardBytes, l.SoftPackets, l.HardPackets, l.Jitter)
	}
	for _, w := range t.Warnings {
		line("warning: %v", w)
	}
	return b.String()
}

// mustHold checks what a tunnel promises to those who use it.
func mustHold(t testing.TB, tunnel *Tunnel) {
	t.Helper()
	fail := func(p Peer, format string, args ...any) {
		t.Errorf("peer %q: "+format, append([]any{p.Name}, args...)...)
	}
	if len(tunnel.Peers) == 0 || tunnel.Hooks != nil || tunnel.Port == tunnel.NATPort {
		t.Errorf("a tunnel that cannot be: %+v", tunnel)
	}
	if i := tunnel.Interface; i != nil {
		if checkName(i.Name) != nil || slices.ContainsFunc(i.Addresses, func(a netip.Prefix) bool { return !a.IsValid() }) ||
			i.MTU != 0 && (i.MTU < minMTU || i.MTU > maxMTU) || i.Table < TableOff {
			t.Errorf("an interface that cannot be: %+v", i)
		}
	}
	named := map[string]bool{}
	for _, p := range tunnel.Peers {
		if named[p.Name] || !peerNames.MatchString(p.Name) {
			fail(p, "name")
		}
		named[p.Name] = true
		if psk, key := len(p.Local.PSK) > 0 && len(p.Remote.PSK) > 0, p.Local.Key != nil && len(p.Remote.Keys) > 0; psk == key {
			fail(p, "psk %v and key %v", psk, key)
		}
		if p.Endpoint.Port == 0 || p.Endpoint.Host == "" && p.Start != StartPassive {
			fail(p, "endpoint %v, start %s", p.Endpoint, p.Start)
		}
		if again, err := ParseEndpoint(p.Endpoint.String()); p.Endpoint.Host != "" && (err != nil || again != p.Endpoint) {
			fail(p, "endpoint %v is read as %v, %v", p.Endpoint, again, err)
		}
		if len(p.IKE.Proposals) == 0 || len(p.ESP.Proposals) == 0 || p.IKE.Soft >= p.IKE.Hard || p.IKE.Soft <= 0 {
			fail(p, "ike %+v", p.IKE)
		}
		for _, q := range p.ESP.Proposals {
			if (p.ESP.PFS == PFSYes && len(q.KE()) == 0) || (p.ESP.PFS == PFSNo && len(q.KE()) > 0) {
				fail(p, "pfs %s with %s", p.ESP.PFS, q)
			}
		}
		for _, r := range []float64{0, 0.3, 1} {
			l := p.Lifetime.Draw(r)
			for _, pair := range [][3]int64{
				{int64(p.Lifetime.SoftTime), int64(l.SoftTime), int64(l.HardTime)},
				{int64(p.Lifetime.SoftUse), int64(l.SoftUse), int64(l.HardUse)},
				{int64(p.Lifetime.SoftBytes), int64(l.SoftBytes), int64(l.HardBytes)},
				{int64(p.Lifetime.SoftPackets), int64(l.SoftPackets), int64(l.HardPackets)},
			} {
				if written, soft, hard := pair[0], pair[1], pair[2]; (written == 0) != (soft == 0) || (soft == 0) != (hard == 0) || soft > written || soft > 0 && soft >= hard {
					fail(p, "limits %v drawn with %v", pair, r)
				}
			}
		}
		for _, ts := range append(append([]TS(nil), p.LocalTS...), p.RemoteTS...) {
			if again, err := ParseTS(ts.String()); err != nil || again != ts {
				fail(p, "selector %v is read as %v, %v", ts, again, err)
			}
		}
		for _, id := range []ID{p.LocalID, p.RemoteID} {
			if len(id.Data) > maxID {
				fail(p, "id %v", id)
			}
		}
	}
}
