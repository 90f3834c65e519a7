package conf

import (
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

// locateTexts are seeds with every way to write a key.
var locateTexts = []string{
	"a = 1\n  b.c = 2 # d = 3\n\"e f\".'g' = 4\n",
	"[a]\nb = 1\n[a.c]\nd = 2\n[[a.e]]\nf = 1\n[[a.e]]\nf = 2\n[a.e.g]\nh = 3\n",
	"a = [1, [2, 3], # ]\n  4,\n]\nb = { c = 1, d = { e = \"}\" }, f.g = [{}, {h = 1}] }\n",
	"a = \"\"\"\nb = 1\n\"\"\\\" \"\"\"\"\"\nc = '''\n[d]\n'''\n[e]\nf = '\\'\ng = \"\\\\\"\nh = \"\\\"#\" # i\n",
	"a = \"\"\nb = ''\nc = 1979-05-27 07:32:00\r\nd = 1.5e-3\r\n\te=[]\n[[f]]\n[[f]]\n[f.\"\\u0067\"]\nh=true",
	"\"\" = 1\nb = {\n c = 1,\n}\n[ x . y ]\nz = '''it''s''''\n",
}

func TestPositions(t *testing.T) {
	for _, c := range []struct {
		text, path string
		want       position
	}{
		{"a = 1", "a", position{1, 1}},
		{"\n\n  a = 1", "a", position{3, 3}},
		{"a.b.c = 1", "a.b.c", position{1, 5}},
		{"a.b = 1\na.c = 2", "a", position{1, 1}},
		{"[a]\nb = 1", "a", position{1, 2}},
		{"[a.b]\n[a]\n", "a", position{2, 2}},
		{"[a]\nb = 1 # [c]\n[c]", "c", position{3, 2}},
		{"x = { a = 1, b = 2 }", "x.b", position{1, 14}},
		{"x = { a = { c = \"}, b = 1\" }, b = 2 }", "x.b", position{1, 31}},
		{"[[p]]\na = 1\n[[p]]\na = 2", "p[1].a", position{4, 1}},
		{"[[p]]\na = 1\n [[p]]\na = 2", "p[1]", position{3, 2}},
		{"[[p]]\n[p.q]\na = 1\n[[p]]\n[p.q]\n  a = 2", "p[1].q.a", position{6, 3}},
		{"x = [ 'a', \"b\",\n  'c' ]", "x[2]", position{2, 3}},
		{"x = [\n # 'no',\n 'a' ]", "x[0]", position{3, 2}},
		{"s = \"\"\"\na = 1\n\"\"\"\na = 2", "a", position{4, 1}},
		{"s = '''\n'a' = 1''''\na = 2", "a", position{3, 1}},
		{"s = \"\\\"\"\na = 2", "a", position{2, 1}},
		{"s = \"\"\"\\\"\"\"\"\na = 2", "a", position{2, 1}},
		{"\"ä ö\" = 1\n\"ü\".a = 1", "ü.a", position{2, 5}},
		{"x = { \"ä\" = 1, b = 2 }", "x.b", position{1, 16}},
		{"a = 1\r\nb = 2\r\n", "b", position{2, 1}},
		{"\"\\u0061\" = 1", "a", position{1, 1}},
	} {
		var vals map[string]any
		if _, err := toml.Decode(c.text, &vals); err != nil {
			t.Errorf("%q is not TOML: %v", c.text, err)
			continue
		}
		n := locate(c.text)
		for _, part := range strings.Split(c.path, ".") {
			name, index, isItem := strings.Cut(part, "[")
			if n = n.keys[name]; n == nil {
				break
			}
			if isItem {
				n = n.items[index[0]-'0']
			}
		}
		if n == nil || n.pos != c.want {
			t.Errorf("%s in %q is at %+v, want %v", c.path, c.text, n, c.want)
		}
	}
}

func TestLocateShapes(t *testing.T) {
	for _, text := range locateTexts {
		var vals map[string]any
		if _, err := toml.Decode(text, &vals); err != nil {
			t.Errorf("%q is not TOML: %v", text, err)
			continue
		}
		sameShape(t, text, "", vals, locate(text))
	}
}
