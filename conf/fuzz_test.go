package conf

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

// FuzzLoad gives any bytes as a tunnel file. What is accepted holds what a
// tunnel promises; what is refused has its errors in order and in the file;
// and the same bytes give the same answer.
func FuzzLoad(f *testing.F) {
	paths, err := filepath.Glob("testdata/*/*.toml")
	if err != nil || len(paths) == 0 {
		f.Fatalf("no seeds (%v)", err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		text := string(data)
		if len(text) > maxFile || strings.Count(text, ".")+strings.Count(text, "[") > 500 {
			return // the decoder is quadratic in the depth of keys
		}
		tunnel, err := parseText(t, text)
		again, err2 := parseText(t, text)
		if (err == nil) != (err2 == nil) || err != nil && err.Error() != err2.Error() {
			t.Fatalf("twice the same:\n%v\n%v", err, err2)
		}
		if err != nil {
			checkErrors(t, text, err)
			return
		}
		mustHold(t, tunnel)
		if dump(tunnel) != dump(again) {
			t.Error("twice the same differs")
		}
	})
}

func checkErrors(t *testing.T, text string, err error) {
	t.Helper()
	var list Errors
	if !errors.As(err, &list) || len(list) == 0 {
		t.Fatalf("%T is no list of errors: %v", err, err)
	}
	lines := strings.Count(text, "\n") + 1
	for i, e := range list {
		if e.Line < 1 || e.Line > lines || e.Column < 1 || e.Message == "" || e.File != "office.toml" {
			t.Errorf("%+v, in a file of %d lines", e, lines)
		}
		if i > 0 && (e.Line < list[i-1].Line || e.Line == list[i-1].Line && e.Column < list[i-1].Column) {
			t.Errorf("%v stands after %v", e, list[i-1])
		}
	}
}

// FuzzLocate holds the positions against what the decoder makes of the text:
// each key it knows has one, and the key stands there.
func FuzzLocate(f *testing.F) {
	for _, text := range locateTexts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.HasPrefix(text, "\ufeff") || strings.Count(text, ".")+strings.Count(text, "[") > 500 {
			return
		}
		text, ok := (&problems{}).text([]byte(text))
		var vals map[string]any
		if !ok {
			return
		}
		if _, err := toml.Decode(text, &vals); err != nil {
			return
		}
		sameShape(t, text, "", vals, locate(text))
	})
}

// sameShape compares a table with its node, all the way down.
func sameShape(t *testing.T, text, path string, val any, n *node) {
	t.Helper()
	var items []any
	switch val := val.(type) {
	case map[string]any:
		if len(val) != len(n.keys) {
			t.Errorf("%s: %d keys, %d positions", path, len(val), len(n.keys))
		}
		for key, below := range val {
			child := n.keys[key]
			if child == nil {
				t.Fatalf("%s: no position of %q", path, key)
			}
			if at := from(text, child.pos); !strings.HasPrefix(at, key) && !strings.HasPrefix(at, `"`) && !strings.HasPrefix(at, "'") {
				t.Errorf("%s.%s: %v is before %.20q", path, key, child.pos, at)
			}
			sameShape(t, text, path+"."+key, below, child)
		}
		return
	case []map[string]any:
		for _, v := range val {
			items = append(items, v)
		}
	case []any:
		items = val
	default:
		return
	}
	if len(items) != len(n.items) {
		t.Fatalf("%s: %d elements, %d positions", path, len(items), len(n.items))
	}
	for i := range items {
		sameShape(t, text, path+"[]", items[i], n.items[i])
	}
}

// from is the text from a position on.
func from(text string, pos position) string {
	line := strings.Split(text, "\n")[pos.line-1]
	runes := []rune(line)
	return string(runes[pos.column-1:])
}
