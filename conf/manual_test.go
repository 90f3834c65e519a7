package conf

import (
	"slices"
	"strings"
	"testing"

	"ipsec-quick/test/manual"
)

// TestKeysAreInTheManual: each key that a tunnel file may have is in
// ipsec-quick.toml(5), in the section of its table, and no other is.
func TestKeysAreInTheManual(t *testing.T) {
	page := manual.Read(t, "../man/ipsec-quick.toml.5")
	tables := map[string]string{} // by their sections
	for table, names := range keys {
		if !page.Names("Ic", "["+table+"]") && !page.Names("Ic", "[["+table+"]]") && table != "" {
			t.Errorf("%s is not in the manual", heading(table))
		}
		base, isOverride := strings.CutPrefix(table, "peer.")
		if isOverride {
			// The manual says that these are the keys of the other table.
			for _, name := range names {
				if !slices.Contains(keys[base], name) {
					t.Errorf("%s has %s, which %s has not", heading(table), name, heading(base))
				}
			}
			continue
		}
		title := strings.ToUpper(table) + " TABLE"
		if table == "" {
			title = "TOP OF THE FILE"
		}
		tables[title] = table
		section := page.Section(title)
		for _, name := range names {
			if keys[name] == nil && !section.Names("Ic", name) {
				t.Errorf("%s of %s is not in the manual", name, heading(table))
			}
		}
		for _, name := range section.Items("Ic") {
			if !slices.Contains(names, name) {
				t.Errorf("%s has no %s, and the manual has", heading(table), name)
			}
		}
	}
	for _, line := range page.Lines() {
		title, ok := strings.CutPrefix(line, ".Sh ")
		if _, known := tables[title]; ok && strings.HasSuffix(title, " TABLE") && !known {
			t.Errorf("the manual has a %s", title)
		}
	}
	for _, name := range limitKeys {
		if !page.Says(name + " = ") {
			t.Errorf("%s is not in the manual", name)
		}
	}
}
