package foreign

import (
	"crypto/rand"
	"errors"
	"flag"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"ipsec-quick/conf"
	"ipsec-quick/ike/auth"
)

var update = flag.Bool("update", false, "write what comes out into testdata as what is wanted")

// hidden is in every secret of testdata, and in no remark.
const hidden = "no-remark-shows-this"

// The parts of a case that are no files of the source.
const (
	wantTunnel  = "tunnel"
	wantRemarks = "remarks"
	wantCheck   = "check" // what conf says of the tunnel file
	wantError   = "error"
)

// A testCase is a file of testdata: a remark with options, then files and what is
// wanted, each behind a line "-- name --".
type testCase struct {
	head  string
	names []string
	parts map[string]string
}

var partMark = regexp.MustCompile(`(?m)^-- (\S+) --\n`)

func readCase(t testing.TB, path string) testCase {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	marks := partMark.FindAllStringSubmatchIndex(text, -1)
	if len(marks) == 0 {
		t.Fatalf("%s has no parts", path)
	}
	c := testCase{head: text[:marks[0][0]], parts: map[string]string{}}
	for i, m := range marks {
		end := len(text)
		if i+1 < len(marks) {
			end = marks[i+1][0]
		}
		name := text[m[2]:m[3]]
		c.names = append(c.names, name)
		c.parts[name] = text[m[1]:end]
	}
	return c
}

func (c testCase) isWanted(name string) bool {
	return name == wantTunnel || name == wantRemarks || name == wantCheck || name == wantError
}

// source is the case's files; the first one is imported.
func (c testCase) source() (fs.FS, string) {
	files := fstest.MapFS{}
	first := ""
	for _, name := range c.names {
		if c.isWanted(name) {
			continue
		}
		if first == "" {
			first = name
		}
		files[name] = &fstest.MapFile{Data: []byte(c.parts[name]), Mode: 0o600}
	}
	return files, first
}

// options are those of the case's head: words such as from=aws.
func (c testCase) options(t testing.TB) Options {
	var o Options
	for _, word := range strings.Fields(c.head) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "from":
			o.From = value
		case "conn":
			o.Conn = value
		case "dir":
			o.Dir = value
		case "own":
			o.Own = append(o.Own, netip.MustParseAddr(value))
		}
	}
	return o
}

// write puts the case with what came out back into its file.
func (c testCase) write(t *testing.T, path string, got map[string]string) {
	t.Helper()
	var b strings.Builder
	b.WriteString(c.head)
	for _, name := range c.names {
		if !c.isWanted(name) {
			b.WriteString("-- " + name + " --\n" + c.parts[name])
		}
	}
	for _, name := range []string{wantTunnel, wantRemarks, wantCheck, wantError} {
		if got[name] != "" {
			b.WriteString("-- " + name + " --\n" + got[name])
		}
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func casePaths(t testing.TB) []string {
	t.Helper()
	var paths []string
	for _, format := range []string{"swanctl", "strongswan", "libreswan", "aws"} {
		more, err := filepath.Glob("testdata/" + format + "/*.txt")
		if err != nil || len(more) == 0 {
			t.Fatalf("no cases for %s (%v)", format, err)
		}
		paths = append(paths, more...)
	}
	if len(paths) < 30 {
		t.Errorf("%d cases", len(paths))
	}
	return paths
}

// TestImport reads each configuration of testdata. What comes out is a tunnel file
// that conf accepts, or remarks name what is missing in it.
func TestImport(t *testing.T) {
	accepted := 0
	for _, path := range casePaths(t) {
		name := strings.TrimSuffix(strings.TrimPrefix(path, "testdata/"), ".txt")
		t.Run(name, func(t *testing.T) {
			c := readCase(t, path)
			root, file := c.source()
			tunnel, err := Import(root, file, c.options(t))
			got := map[string]string{}
			var remarks []Remark
			if err != nil {
				var bad *Error
				if !errors.As(err, &bad) {
					t.Fatalf("%T: %v", err, err)
				}
				got[wantError], remarks = err.Error()+"\n", bad.Remarks
			} else {
				got[wantTunnel], remarks = tunnel.Text, tunnel.Remarks
				got[wantCheck] = check(t, tunnel.Text)
				if got[wantCheck] == "" {
					accepted++
				} else if len(remarks) == 0 {
					t.Error("conf refuses the tunnel file, and nothing was said")
				}
			}
			for _, r := range remarks {
				got[wantRemarks] += r.String() + "\n"
			}
			if strings.Contains(got[wantRemarks]+got[wantError], hidden) {
				t.Error("a secret is in the remarks")
			}
			if *update {
				c.write(t, path, got)
				return
			}
			for _, part := range []string{wantTunnel, wantRemarks, wantCheck, wantError} {
				if got[part] != c.parts[part] {
					t.Errorf("%s is\n%s\nand not\n%s", part, got[part], c.parts[part])
				}
			}
		})
	}
	t.Logf("conf accepts %d of %d", accepted, len(casePaths(t)))
}

var secretFile = regexp.MustCompile(`(?m)^(psk_file|key_file) *= "([^"]+)"`)

// check is what conf says of a tunnel file, with the secrets beside it that it
// names; empty if it accepts it.
func check(t testing.TB, text string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range secretFile.FindAllStringSubmatch(text, -1) {
		secret := []byte(rand.Text() + "\n")
		if m[1] == "key_file" {
			var err error
			if secret, err = auth.GenerateKey("ed25519", rand.Reader); err != nil {
				t.Fatal(err)
			}
		}
		write(m[2], string(secret))
	}
	write("office.toml", text)
	_, err := conf.Load(filepath.Join(dir, "office.toml"))
	var wrong conf.Errors
	switch {
	case err == nil:
		return ""
	case !errors.As(err, &wrong):
		t.Fatal(err)
	}
	return strings.ReplaceAll(err.Error(), dir+string(filepath.Separator), "") + "\n"
}
