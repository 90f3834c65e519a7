package conf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestFind(t *testing.T) {
	for _, c := range []struct{ arg, path, name string }{
		{"office", "/etc/ipsec-quick/office.toml", "office"},
		{"a=b_c+d.e-f", "/etc/ipsec-quick/a=b_c+d.e-f.toml", "a=b_c+d.e-f"},
		{"office.toml", "office.toml", "office"},
		{"./office", "./office", "office"},
		{"/root/hq/office.toml", "/root/hq/office.toml", "office"},
		{"", "", ""},
		{".", "", ""},
		{"..", "", ""},
		{"../x/..", "../x/..", ""},
		{".toml", ".toml", ""},
		{"sixteen-is-much.", "", ""},
		{"two words", "", ""},
		{"/etc/sixteen-is-much..toml", "/etc/sixteen-is-much..toml", ""},
	} {
		path, name, err := Find(c.arg)
		if path != c.path || name != c.name || (err != nil) != (c.name == "") {
			t.Errorf("Find(%q) = %q, %q, %v", c.arg, path, name, err)
		}
	}
}

// write makes a file in a new folder.
func write(t *testing.T, dir, name, text string, mode fs.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

const (
	withFile   = "[[peer]]\nname = \"a\"\nendpoint = \"192.0.2.1\"\npsk_file = \"keys/a.psk\"\n"
	withInline = "[[peer]]\nname = \"a\"\nendpoint = \"192.0.2.1\"\npsk = \"a secret that no error may show\"\n"
)

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	psk := write(t, dir, "keys/a.psk", "the pre-shared key of a\n", 0o600)
	for _, c := range []struct {
		name, text string
		mode, key  fs.FileMode
		want       string // in the error; empty: none
	}{
		{"office.toml", withFile, 0o644, 0o600, ""},
		{"office.toml", withFile, 0o600, 0o400, ""},
		{"office.toml", withFile, 0o644, 0o604, "keys/a.psk can be read by others (mode 0604); run: chmod 600 " + psk},
		{"office.toml", withInline, 0o600, 0o600, ""},
		{"office.toml", withInline, 0o640, 0o600, "this file holds a secret and can be read by others (mode 0640); run: chmod 600 " + filepath.Join(dir, "office.toml")},
		{"a name with blanks.toml", withFile, 0o600, 0o600, "is no tunnel name"},
		{"long.toml", strings.Repeat("#", maxFile+1), 0o600, 0o600, "too long"},
	} {
		if err := os.Chmod(psk, c.key); err != nil {
			t.Fatal(err)
		}
		path := write(t, dir, c.name, c.text, c.mode)
		tunnel, err := Load(path)
		var list Errors
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want == "":
			if tunnel.Name != "office" || tunnel.Path != path || tunnel.Peers[0].Name != "a" {
				t.Errorf("%s: %+v", c.name, tunnel)
			}
		case !errors.As(err, &list) || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), path+":"):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestCredential: what systemd hands over stands in a folder of its own.
func TestCredential(t *testing.T) {
	folder := t.TempDir()
	write(t, folder, "a.psk", "the pre-shared key of a\n", 0o400)
	write(t, folder, "exposed", "the pre-shared key of a\n", 0o444)
	for _, c := range []struct{ folder, name, want string }{
		{folder, "a.psk", ""},
		{folder, "b.psk", "there is no file " + filepath.Join(folder, "b.psk")},
		{folder, "exposed", "can be read by others"},
		{folder, "../a.psk", `"credential:../a.psk" is no credential`},
		{folder, "..", `"credential:.." is no credential`},
		{folder, "", `"credential:" is no credential`},
		{"", "a.psk", "LoadCredential=a.psk:FILE"},
	} {
		t.Setenv(credentialsVariable, c.folder)
		path := write(t, t.TempDir(), "office.toml", strings.ReplaceAll(withFile, "keys/a.psk", "credential:"+c.name), 0o644)
		tunnel, err := Load(path)
		switch {
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%q in %q: %v, want %q", c.name, c.folder, err, c.want)
		case c.want == "" && err != nil:
			t.Error(err)
		case c.want == "" && !slices.Contains(tunnel.Files, filepath.Join(folder, c.name)):
			t.Errorf("files %q", tunnel.Files)
		}
	}
}

func TestLoadUnreadable(t *testing.T) {
	dir := t.TempDir()
	_, err := Load(filepath.Join(dir, "none.toml"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	pipe := filepath.Join(dir, "pipe.toml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir + "/", pipe} {
		if dir := filepath.Join(t.TempDir(), "dir.toml"); path != pipe {
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			path = dir
		}
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "no regular file") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestPSK(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"plain text of the key", "plain text of the key"},
		{" blanks stay ", " blanks stay "},
		{"0x616263", "abc"},
		{"0xABcd", "\xab\xcd"},
		{"0sYWJjZA==", "abcd"},
		{"0sYWJjZA", "abcd"},
		{"00x61", "00x61"},
		{"0x61 ", ""},
		{"0x", ""},
		{"0s", ""},
		{"0x6", ""},
		{"", ""},
	} {
		p := &problems{}
		got, ok := value{problems: p}.psk(c.text)
		if string(got) != c.want && ok || ok != (c.want != "") || ok != (len(p.errors) == 0) {
			t.Errorf("%q: %q %v %v", c.text, string(got), ok, p.errors)
		}
	}
}

func TestWarnings(t *testing.T) {
	const peer = "[[peer]]\nname = \"a\"\nendpoint = \"192.0.2.1\"\n"
	for _, c := range []struct{ text, want string }{
		{peer + "psk_file = \"office.psk\"", ""},
		{peer + "psk_file = \"short.psk\"", "4:1: peer.psk_file: a pre-shared key of 5 octets can be guessed"},
		{"local.key_file = \"hq.key\"\n" + peer + "psk_file = \"office.psk\"", "1:7: local.key_file: no peer has a public key"},
		{"lifetime.time = \"off\"\n" + peer + "psk_file = \"office.psk\"", "1:10: lifetime.time: no limit is left"},
		{"lifetime.time = { soft = \"5s\", hard = \"9s\" }\n" + peer + "psk_file = \"office.psk\"", "1:10: lifetime.time: a rekey that takes longer than the 4s"},
		{
			peer + "psk_file = \"office.psk\"\nlocal_ts = [\"0.0.0.0/0\"]\nremote_ts = [\"10.2.0.0/16\"]\n" +
				"[[peer]]\nname = \"b\"\nendpoint = \"192.0.2.2\"\npsk_file = \"office.psk\"\nlocal_ts = [\"10.0.0.0/8\"]\nremote_ts = [\"0.0.0.0/0\"]",
			"12:14: peer.remote_ts: peers \"a\" (0.0.0.0/0 - 10.2.0.0/16) and \"b\" (10.0.0.0/8 - 0.0.0.0/0) share traffic",
		},
		{ // one holds the other: the narrower wins
			peer + "psk_file = \"office.psk\"\nlocal_ts = [\"10.0.0.0/8\"]\nremote_ts = [\"10.2.0.0/16\"]\n" +
				"[[peer]]\nname = \"b\"\nendpoint = \"192.0.2.2\"\npsk_file = \"office.psk\"\nlocal_ts = [\"10.0.0.0/8\"]\nremote_ts = [\"0.0.0.0/0\"]",
			"",
		},
	} {
		tunnel, err := parseText(t, c.text)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		got := fmt.Sprint(tunnel.Warnings)
		if len(tunnel.Warnings) > 1 || !strings.Contains(got, c.want) || (c.want == "") != (len(tunnel.Warnings) == 0) {
			t.Errorf("%s\nwarns %s, want %q", c.text, got, c.want)
		}
	}
}

// No way of printing a tunnel shows a key.
func TestRedaction(t *testing.T) {
	const secret = "a secret that no print may show"
	text := "[local]\nkey_file = \"hq.key\"\n" +
		"[[peer]]\nname = \"a\"\nendpoint = \"192.0.2.1\"\npsk = \"" + secret + "\"\n" +
		"[[peer]]\nname = \"b\"\nendpoint = \"192.0.2.2\"\npublic_key = \"ed25519:KEY\"\n"
	tunnel, err := parseText(t, text)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, v := range []any{tunnel, *tunnel, tunnel.Peers, tunnel.Peers[0], tunnel.Peers[1], &tunnel.Peers[1]} {
		fmt.Fprintf(&out, "%v %+v %#v %s %x\n", v, v, v, v, v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		if err := json.NewEncoder(&out).Encode(v); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{
		secret, fmt.Sprintf("%x", secret), fmt.Sprint([]byte(secret)[:4]), "YSBzZWNyZXQ", // base64 of it
		strings.Trim(fmt.Sprint([]byte(testKey())[:8]), "[]"), fmt.Sprintf("%x", []byte(testKey())[:8]), "BwcHBwcHBwcH",
		strings.TrimSuffix(fmt.Sprintf("%#v", []byte(testKey())[:4]), "}")[len("[]byte{"):],
	} {
		if strings.Contains(out.String(), bad) {
			t.Errorf("%q is in:\n%s", bad, out.String())
		}
	}
}

// Every key of the schema is one that something reads, and the other way
// round: a file that sets each key to a wrong value gets an error at each.
func TestEveryKeyIsRead(t *testing.T) {
	for name, list := range keys {
		for _, key := range list {
			full := join(name, key)
			if slices.Contains([]string{"local", "interface", "ike", "esp", "lifetime", "hooks"}, full) {
				continue // tables, whose own keys are here
			}
			text := "[[peer]]\nname = \"a\"\nendpoint = \"192.0.2.1\"\npsk_file = \"office.psk\"\n"
			if below, isPeer := strings.CutPrefix(full, "peer."); isPeer {
				text = strings.ReplaceAll(text, key+" =", "#") + below + " = 1.5\n"
			} else if full == "peer" {
				text = "peer = 1.5\n"
			} else {
				text = full + " = 1.5\n" + text
			}
			_, err := parseText(t, text)
			if err == nil || !strings.Contains(err.Error(), ": "+full+": ") || strings.Contains(err.Error(), "no such key") {
				t.Errorf("%s = 1.5: %v", full, err)
			}
		}
	}
}

func TestFiles(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"office.toml", "office.psk", "name-that-is-too-long.toml", "b.toml"} {
		if err := os.WriteFile(filepath.Join(folder, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(folder, "c.toml"), 0o700); err != nil {
		t.Fatal(err)
	}
	got, err := Files(folder)
	if want := map[string]string{"b": folder + "/b.toml", "office": folder + "/office.toml"}; err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := Files(filepath.Join(folder, "none")); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}
