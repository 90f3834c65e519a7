package watch

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"ipsec-quick/conf"
	"ipsec-quick/test/manual"
)

const schemaFile = "../man/status.schema.json"

// TestStatusSchema: what a loop says of itself, and what is known of a dead one,
// is as the schema has it.
func TestStatusSchema(t *testing.T) {
	schema := manual.ReadSchema(t, schemaFile)
	valid := func(what string, s *Status) {
		t.Helper()
		s.Dataplane = conf.DataplaneKernel // it is the fake
		b, err := json.Marshal([]*Status{s})
		if err == nil {
			err = schema.Validate(string(b))
		}
		if err != nil {
			t.Errorf("%s: %v\n%s", what, err, b)
		}
	}
	ha, hb, ra, rb := pair(t, nil)
	get := func(h *host, name string) *Status {
		t.Helper()
		s, err := Get(h.root, name, h.opener)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	_, alone := sites(t)
	idle := newHost(t)
	idle.start(loadTunnel(t, "right", alone.text()))
	valid("idle", get(idle, "right"))
	valid("established", get(hb, "right"))
	if err := Rekey(hb.root, "right", "", false); err != nil {
		t.Fatal(err)
	}
	valid("two Child SAs", get(hb, "right"))
	ra.crash()
	valid("dead", get(ha, "left"))
	rb.crash()
	if err := schema.Validate("[]"); err != nil {
		t.Error(err)
	}
	if err := schema.Validate(`[{"tunnel":"office"}]`); err == nil {
		t.Error("the schema lets everything pass")
	}
}

// TestSchemaIsComplete: the schema has each field there is, and no other, and
// says of each what the manual says.
func TestSchemaIsComplete(t *testing.T) {
	schema := manual.ReadSchema(t, schemaFile)
	s := &schemaWalk{t: t, root: schema.Root, page: manual.Read(t, "../man/ipsec-quick.8").Section("JSON")}
	s.compare("status", reflect.TypeFor[[]Status](), schema.Root)
}

type schemaWalk struct {
	t    *testing.T
	root map[string]any
	page *manual.Page
}

// follow is what a $ref stands for.
func (s *schemaWalk) follow(schema map[string]any) map[string]any {
	s.says(schema)
	ref, ok := schema["$ref"].(string)
	if !ok {
		return schema
	}
	to := any(s.root)
	for _, step := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
		to = to.(map[string]any)[step]
	}
	s.says(to.(map[string]any))
	return to.(map[string]any)
}

func (s *schemaWalk) says(schema map[string]any) {
	if text, ok := schema["description"].(string); ok && !s.page.Says(text) {
		s.t.Errorf("the manual does not say %q", text)
	}
}

func (s *schemaWalk) compare(path string, in reflect.Type, schema map[string]any) {
	schema = s.follow(schema)
	switch in.Kind() {
	case reflect.Slice:
		s.compare(path+"[]", in.Elem(), schema["items"].(map[string]any))
	case reflect.Struct:
		var have, always []string
		properties := schema["properties"].(map[string]any)
		for i := range in.NumField() {
			name, option, _ := strings.Cut(in.Field(i).Tag.Get("json"), ",")
			have = append(have, name)
			if option == "" {
				always = append(always, name)
			}
			if property, ok := properties[name].(map[string]any); ok {
				s.compare(path+"."+name, in.Field(i).Type, property)
			}
			if !s.page.Names("Li", name) {
				s.t.Errorf("%s.%s is not in the manual", path, name)
			}
		}
		s.same(path, have, slices.Collect(maps.Keys(properties)))
		var required []string
		for _, name := range schema["required"].([]any) {
			required = append(required, name.(string))
		}
		s.same(path+", required", always, required)
	default:
	}
}

func (s *schemaWalk) same(path string, code, schema []string) {
	slices.Sort(code)
	slices.Sort(schema)
	if !slices.Equal(code, schema) {
		s.t.Errorf("%s: in code %v, in the schema %v", path, code, schema)
	}
}
