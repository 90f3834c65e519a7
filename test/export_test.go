//go:build lab

package lab_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// TestExport brings tunnels up with the far end as `export` prints it, unedited:
// by either end, to strongSwan and to ourselves.
func TestExport(t *testing.T) {
	for _, to := range []string{"strongswan", "ipsec-quick"} {
		for _, starts := range []string{"near end", "far end"} {
			row := harness.NewRow("The far end by export", to, starts+" starts")
			t.Run(to+"/"+starts, func(t *testing.T) {
				t.Parallel()
				row.Of(t)
				exported(t, to, starts == "far end")
			})
		}
	}
}

// TestImport brings up what `import` makes of a strongSwan's configuration, with
// the strongSwan that it was configured for.
func TestImport(t *testing.T) {
	harness.NewRow("A tunnel file by import", "swanctl.conf", "with strongSwan").Of(t)
	n := harness.NewNet(t, "a", "b")
	a, b := n.A(), n.B()
	near, far := swanBetween(a, b), swanBetween(b, a)
	near.Child.Extra = "start_action = start\nrekey_time = 1h\n"
	harness.StartCharon(t, b).Load(far.String(), nil)
	q := harness.NewQuick(t, a, "office", "")
	a.WriteFile("/etc/swanctl/swanctl.conf", near.String())
	a.Run("rm", "/etc/ipsec-quick/office.toml")
	if r := q.Exec("import", "/etc/swanctl/swanctl.conf", "-o", "/etc/ipsec-quick/office.toml"); r.Err != nil || strings.Contains(r.Stderr, testPSK) {
		t.Fatalf("import: %s", r)
	}
	capture := harness.StartCapture(t, n)
	q.Up()
	within(t, 20*time.Second, "a packet through the tunnel", func() bool { return a.Ping(a.Inner4, b.Inner4, 1) == 1 })
	q.Rekey()
	within(t, 10*time.Second, "a packet after a rekey", func() bool { return a.Ping(a.Inner4, b.Inner4, 1) == 1 })
	capture.NothingClear()
	q.Down()
}

func exported(t *testing.T, to string, farStarts bool) {
	n := harness.NewNet(t, "a", "b")
	a, b := n.A(), n.B()
	before := a.Snapshot()
	text := fmt.Sprintf("[local]\nid = \"hq.example.org\"\naddress = %q\n", a.Outer4)
	if harness.Libipsec {
		text += "[esp]\nesn = false\n" // which kernel-libipsec does not have
	}
	text += fmt.Sprintf("[[peer]]\nname = \"branch\"\nid = \"branch.example.org\"\npsk = %q\nlocal_ts = [%q]\nremote_ts = [%q]\n", testPSK, a.Net4, b.Net4)
	if !farStarts {
		text += fmt.Sprintf("endpoint = %q\n", b.Outer4)
	}
	near := harness.NewQuick(t, a, "office", fmt.Sprintf("dataplane = %q\n%s", harness.Dataplane, text))
	r := near.Exec("export", "office", "--to", to, "--with-secret")
	if r.Err != nil {
		t.Fatalf("export: %s", r)
	}
	capture := harness.StartCapture(t, n)
	var far *harness.Quick
	var farUp func()
	if to == "strongswan" {
		swan := harness.StartCharon(t, b)
		farUp = func() { swan.Load(r.Stdout, nil) }
	} else {
		far = harness.NewQuick(t, b, "office", r.Stdout)
		farUp = func() { far.Up() }
	}
	if farStarts {
		near.Up()
		farUp()
	} else {
		farUp()
		near.Up()
	}
	within(t, 20*time.Second, "a packet through the tunnel", func() bool { return a.Ping(a.Inner4, b.Inner4, 1) == 1 })
	for _, flags := range [][]string{nil, {"--ike"}} {
		near.Rekey(flags...)
		within(t, 10*time.Second, "a packet after a rekey", func() bool { return a.Ping(a.Inner4, b.Inner4, 1) == 1 })
	}
	if got := b.Ping(b.Inner4, a.Inner4, 5); got != 5 {
		t.Errorf("from the far end %d of 5 packets came back", got)
	}
	capture.NothingClear()
	near.Down()
	if far != nil {
		far.Down()
	}
	a.Unchanged(before, "a tunnel up and down")
}
