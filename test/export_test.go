//go:build lab

package lab_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// exportCases are far ends.
var exportCases = []struct {
	to        string
	farStarts bool
	rawKeys   bool
}{
	{"strongswan", false, false},
	{"strongswan", true, false},
	{"strongswan", false, true},
	{"ipsec-quick", false, false},
	{"ipsec-quick", true, false},
	{"ipsec-quick", false, true},
}

// TestExport brings tunnels up with the far end as `export` prints it, unedited.
func TestExport(t *testing.T) {
	t.Parallel()
	for _, c := range exportCases {
		how := "PSK, near end starts"
		switch {
		case c.farStarts:
			how = "PSK, far end starts"
		case c.rawKeys:
			how = "raw keys, near end starts"
		}
		row := harness.NewRow("The far end by export", c.to, how)
		t.Run(c.to+"/"+how, func(t *testing.T) {
			t.Parallel()
			row.Of(t)
			exported(t, c.to, c.farStarts, c.rawKeys)
		})
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

// printedKey is a public key in a comment of an exported file, and the file that
// it is for.
var printedKey = regexp.MustCompile(`(?s)/etc/swanctl/(pubkey/\S+\.pem):\n#\n((?:# [^\n]*\n)+)`)

func exported(t *testing.T, to string, farStarts, rawKeys bool) {
	n := harness.NewNet(t, "a", "b")
	a, b := n.A(), n.B()
	before := a.Snapshot()
	near := harness.NewQuick(t, a, "office", "")
	local := fmt.Sprintf("[local]\nid = \"hq.example.org\"\naddress = %q\n", a.Outer4)
	peer := fmt.Sprintf("[[peer]]\nname = \"branch\"\nid = \"branch.example.org\"\nlocal_ts = [%q]\nremote_ts = [%q]\n", a.Net4, b.Net4)
	if harness.Libipsec {
		local += "[esp]\nesn = false\n" // which kernel-libipsec does not have
	}
	if !farStarts {
		peer += fmt.Sprintf("endpoint = %q\n", b.Outer4)
	}
	pems := map[string]string{}
	if rawKeys {
		ours, theirs := newEd25519(t)
		a.WriteFile("/etc/ipsec-quick/hq.key", privatePEM(t, ours))
		local = strings.Replace(local, "[local]\n", "[local]\nkey_file = \"hq.key\"\n", 1)
		peer += fmt.Sprintf("public_key = %q\n", quickPublicKey(t, near, theirs))
		pems["private/branch.pem"] = privatePEM(t, theirs)
		b.WriteFile("/etc/ipsec-quick/office.key", privatePEM(t, theirs))
	} else {
		peer += fmt.Sprintf("psk = %q\n", testPSK)
	}
	a.WriteFile("/etc/ipsec-quick/office.toml", fmt.Sprintf("dataplane = %q\n%s%s", harness.Dataplane, local, peer))
	r := near.Exec("export", "office", "--to", to, "--with-secret")
	if r.Err != nil {
		t.Fatalf("export: %s", r)
	}
	capture := harness.StartCapture(t, n)
	var far *harness.Quick
	var farUp func()
	if to == "strongswan" {
		for _, m := range printedKey.FindAllStringSubmatch(r.Stdout, -1) {
			pems[m[1]] = strings.ReplaceAll(m[2], "# ", "")
		}
		swan := harness.StartCharon(t, b)
		farUp = func() { swan.Load(r.Stdout, pems) }
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
