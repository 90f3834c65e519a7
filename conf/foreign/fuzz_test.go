package foreign

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/BurntSushi/toml"
)

// FuzzImport reads any bytes as each of the formats, with any secrets beside
// them. What comes out is TOML, the same twice, with remarks in the source's
// lines that do not show the pre-shared keys.
func FuzzImport(f *testing.F) {
	for _, path := range casePaths(f) {
		c := readCase(f, path)
		_, first := c.source()
		f.Add("", c.parts[first], c.parts["ipsec.secrets"])
	}
	f.Fuzz(func(t *testing.T, from, text, secrets string) {
		if !slices.Contains([]string{"", StrongSwan, Libreswan, AWS}, from) {
			return
		}
		root := fstest.MapFS{"x.conf": {Data: []byte(text)}, "ipsec.secrets": {Data: []byte(secrets)}}
		one, err := Import(root, "x.conf", Options{From: from})
		two, err2 := Import(root, "x.conf", Options{From: from})
		if (err == nil) != (err2 == nil) || err != nil && err.Error() != err2.Error() {
			t.Fatalf("twice the same:\n%v\n%v", err, err2)
		}
		if err != nil {
			return
		}
		if one.Text != two.Text || !slices.Equal(one.Remarks, two.Remarks) {
			t.Errorf("twice the same:\n%s\n%s", one.Text, two.Text)
		}
		var tunnel struct {
			Peer []struct {
				PSK string `toml:"psk"`
			} `toml:"peer"`
		}
		if _, err := toml.Decode(one.Text, &tunnel); err != nil {
			t.Fatalf("%v in\n%s", err, one.Text)
		}
		if len(tunnel.Peer) == 0 {
			t.Errorf("no peer in\n%s", one.Text)
		}
		lines := max(strings.Count(text, "\n"), strings.Count(secrets, "\n")) + 1
		for _, r := range one.Remarks {
			if r.Line < 0 || r.Line > lines || r.Message == "" {
				t.Errorf("%+v, in a file of %d lines", r, lines)
			}
		}
	})
}
