//go:build lab

package lab_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// Exit codes of the command (sysexits).
const (
	exitRefused  = 69
	exitNoAnswer = 75
	exitBadFile  = 78
)

// A failure is an `up` that cannot succeed.
type failure struct {
	name string
	file func(f *quickFile)    // spoils our file
	swan func(c *harness.Conn) // or strongSwan's
	keys bool                  // raw keys, and strongSwan's is not the one pinned
	code int
	says []string // what stderr or stdout has to tell
}

// failures all leave the host as it was.
var failures = []failure{
	{
		name: "wrong PSK", code: exitRefused, says: []string{"authentication"},
		file: func(f *quickFile) { f.psk = "not the secret of the other side" },
	},
	{
		name: "peer is someone else", code: exitRefused, says: []string{"authentication"},
		file: func(f *quickFile) { f.peerID = "someone.example" },
	},
	{
		name: "peer's key is another", keys: true, code: exitRefused, says: []string{"does not match"},
	},
	{
		name: "no IKE proposal in common", code: exitRefused,
		says: []string{"aes128-sha256-modp2048"},
		file: func(f *quickFile) { f.ike = "aes128-sha256-modp2048" },
	},
	{
		name: "no ESP proposal in common", code: exitRefused,
		says: []string{"chacha20poly1305"},
		file: func(f *quickFile) { f.esp = "chacha20poly1305" },
	},
	{
		name: "selectors not acceptable", code: exitRefused, says: []string{"10.1.0.0/16"},
		swan: func(c *harness.Conn) { c.Child.LocalTS, c.Child.RemoteTS = "10.77.0.0/16", "10.78.0.0/16" },
	},
	{
		name: "nobody answers", code: exitNoAnswer, says: []string{"192.0.2.99"},
		file: func(f *quickFile) { f.peer = "192.0.2.99" },
	},
	{
		name: "nobody listens", code: exitNoAnswer, says: []string{"192.0.2.3"},
		file: func(f *quickFile) { f.peer = "192.0.2.3" },
	},
	{
		name: "tunnel file with a mistake", code: exitBadFile, says: []string{".toml:", "endpiont", "endpoint"},
		file: func(f *quickFile) { f.more = "endpiont = \"192.0.2.2\"" },
	},
	{
		name: "key file that is not there", code: exitBadFile, says: []string{".toml:", "missing.psk"},
		file: func(f *quickFile) { f.psk, f.more = noPSK, "psk_file = \"missing.psk\"" },
	},
}

// TestFailedUp wants of every failed up its exit code, a reason, and nothing
// left behind.
func TestFailedUp(t *testing.T) {
	t.Parallel()
	rows := map[string]*harness.Row{}
	for _, f := range failures {
		rows[f.name] = harness.NewRow("5. Nothing left behind", "up: "+f.name, "initiator")
	}
	n := harness.NewNet(t, "a", "b", "idle")
	a, b := n.A(), n.B()
	before := a.Snapshot()
	swan := harness.StartCharon(t, b)
	for _, f := range failures {
		t.Run(f.name, func(t *testing.T) {
			rows[f.name].Of(t)
			n.Use(t)
			swan.Use(t)
			logged := len(swan.Log())
			file, conn := between(a, b), swanBetween(b, a)
			if f.file != nil {
				f.file(&file)
			}
			if f.swan != nil {
				f.swan(&conn)
			}
			q := wrongKeys(t, f, swan, a, file, conn)
			r := q.Fails(f.code, "--timeout", "4s")
			for _, text := range f.says {
				if !strings.Contains(r.Stdout+r.Stderr, text) {
					t.Errorf("up does not say %q", text)
				}
			}
			if strings.Contains(r.Stdout+r.Stderr, testPSK) {
				t.Error("up prints the pre-shared key")
			}
			a.Unchanged(before, "a failed up")
			within(t, 3*time.Second, "no SA left at strongSwan", func() bool { return len(swan.Children("")) == 0 })
			rows[f.name].Notef("exit status %d after %v", r.Code, r.Took.Round(time.Millisecond))
			if t.Failed() {
				t.Logf("strongSwan:\n%s", swan.Log()[logged:])
			}
		})
	}
}

// wrongKeys loads both sides of a failure; with keys ours has the wrong one
// pinned.
func wrongKeys(t *testing.T, f failure, swan *harness.Charon, a *harness.Host, file quickFile, conn harness.Conn) *harness.Quick {
	t.Helper()
	if !f.keys {
		swan.Load(conn.String(), nil)
		return harness.NewQuick(t, a, "fails", file.String())
	}
	ours, theirs := newEd25519(t)
	another, _ := newEd25519(t)
	conn.Auth, conn.Secret = "pubkey", ""
	conn.LocalPubkey, conn.RemotePubkey = "b.pem", "a.pem"
	swan.Load(conn.String(), map[string]string{
		"private/b.pem": privatePEM(t, theirs),
		"pubkey/b.pem":  publicPEM(t, theirs.Public()),
		"pubkey/a.pem":  publicPEM(t, ours.Public()),
	})
	a.WriteFile("/etc/ipsec-quick/a.key", privatePEM(t, ours))
	q := harness.NewQuick(t, a, "fails", file.String())
	text := strings.Replace(file.String(), fmt.Sprintf("psk = %q", testPSK),
		fmt.Sprintf("public_key = %q", quickPublicKey(t, q, another)), 1)
	text = strings.Replace(text, "[local]\n", "[local]\nkey_file = \"a.key\"\n", 1)
	a.WriteFile("/etc/ipsec-quick/fails.toml", text)
	return q
}

// TestInterrupted interrupts an up that waits for an answer, kills the loop of
// a tunnel that is up, and asks for what is already so.
func TestInterrupted(t *testing.T) {
	row := harness.NewRow("5. Nothing left behind", "up interrupted, loop killed, up and down twice", "initiator")
	t.Parallel()
	row.Of(t)
	n := harness.NewNet(t, "a", "b")
	a, b := n.A(), n.B()
	before := a.Snapshot()
	file := between(a, b)
	q := harness.NewQuick(t, a, "stopped", file.String())
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		up := q.Start("up", q.Name, "--timeout", "30s")
		time.Sleep(1500 * time.Millisecond)
		up.Signal(sig)
		if r := up.Wait(10 * time.Second); r.Code == 0 || r.Took > 5*time.Second {
			t.Errorf("up after %v: %s", sig, r)
		}
		a.Unchanged(before, "up ended by "+sig.String())
	}

	swan := harness.StartCharon(t, b)
	swan.Load(swanBetween(b, a).String(), nil)
	if r := q.Exec("down", q.Name); r.Code != 0 {
		t.Errorf("down of a tunnel that is not up: %s", r)
	}
	a.Unchanged(before, "down of a tunnel that is not up")
	q.Up()
	up := q.Peer()
	q.Up()
	if again := q.Peer(); again.IKE.SPIi != up.IKE.SPIi || len(swan.Children("INSTALLED")) != 1 {
		t.Errorf("up of a tunnel that is up: IKE SA %s_i, before %s_i", again.IKE.SPIi, up.IKE.SPIi)
	}
	q.Down()
	a.Unchanged(before, "up twice and down")

	q.Up()
	capture := harness.StartCapture(t, n)
	stream := harness.StartStream(t, a, a.Inner4, b, b.Inner4, 50)
	pid := q.PID()
	a.Signal(pid, syscall.SIGKILL)
	time.Sleep(time.Second)
	note := "not the traffic: no process, no ESP"
	if !inUserspace() {
		note = stream.Lossless("loop killed", b)
	}
	stream.Stop()
	capture.NothingClear()
	q.Down()
	a.Unchanged(before, "down after the loop was killed")
	row.Notef("loop killed: %s", note)
}

// TestPortHeld wants to know who holds the IKE port.
func TestPortHeld(t *testing.T) {
	row := harness.NewRow("5. Nothing left behind", "up: port 500 held by another daemon", "initiator")
	t.Parallel()
	row.Of(t)
	n := harness.NewNet(t, "a", "b")
	a := n.A()
	swan := harness.StartCharon(t, a)
	before := a.Snapshot()
	q := harness.NewQuick(t, a, "held", between(a, n.B()).String())
	r := q.Exec("up", q.Name, "--timeout", "4s")
	if r.Code == 0 {
		t.Fatal("up succeeds beside a strongSwan on the same ports")
	}
	for _, text := range []string{"charon", fmt.Sprint(swan.PID()), "500"} {
		if !strings.Contains(r.Stderr+r.Stdout, text) {
			t.Errorf("up does not say %q", text)
		}
	}
	a.Unchanged(before, "a failed up")
	row.Notef("exit status %d", r.Code)
}
