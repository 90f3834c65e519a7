//go:build lab

package lab_test

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// reference puts strongSwan in ipsec-quick's place in the table of cases, to
// tell a fault of the lab from one of ipsec-quick.
var reference = flag.Bool("reference", false, "test strongSwan with itself")

const (
	quickID = "quick.example"
	swanID  = "swan.example"
)

// An end is one side of a tunnel and the daemon that serves it.
type end struct {
	host       *harness.Host
	initiator  bool
	id, peerID string
	address    string // the host's outer one
	remote     string // the peer's, "" for any
	localTS    []string
	remoteTS   []string
	key        crypto.Signer // nil with a pre-shared key
	peerKey    crypto.Signer // the peer's; what it tells us is the public half
}

// prefixes writes selectors for either side's file.
func prefixes(list ...netip.Prefix) []string {
	var out []string
	for _, p := range list {
		out = append(out, p.String())
	}
	return out
}

// quoted is a TOML array of strings.
func quoted(list []string) string {
	if len(list) == 0 {
		return "[]"
	}
	return `["` + strings.Join(list, `", "`) + `"]`
}

// toml is the tunnel file of a case for this end.
func (e end) toml(c tunnelCase) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("dataplane = %q", harness.Dataplane)
	line("[local]\nid = %q", e.id)
	if e.key != nil {
		line(`key_file = "%s.key"`, e.id)
	}
	line("[ike]\nproposals = %s", quoted(c.quickIKE()))
	if c.fragment > 0 {
		line("fragment = %d", c.fragment)
	}
	if c.encap {
		line(`encap = "yes"`)
	}
	line("[esp]\nproposals = %s", quoted(c.quickESP()))
	if c.esn != "" {
		line("esn = %s", c.esn)
	}
	line("[lifetime]\ntime = { soft = \"50m\", hard = \"60m\" }")
	line("[[peer]]\nname = \"swan\"\nid = %q", e.peerID)
	if e.remote != "" {
		line("endpoint = %q", e.remote)
	}
	if e.key != nil {
		line("public_key = %q", "PUBLIC-KEY")
	} else {
		line(`psk = %q`, testPSK)
	}
	if c.transport {
		line(`mode = "transport"`)
	} else {
		line("local_ts = %s\nremote_ts = %s", quoted(e.localTS), quoted(e.remoteTS))
	}
	if !e.initiator {
		line(`start = "passive"`)
	}
	return b.String()
}

// quick writes the tunnel file and its keys.
func (e end) quick(t *testing.T, c tunnelCase) *harness.Quick {
	t.Helper()
	text := e.toml(c)
	q := harness.NewQuick(t, e.host, "tun", text)
	if e.key != nil {
		e.host.WriteFile("/etc/ipsec-quick/"+e.id+".key", privatePEM(t, e.key))
		public := quickPublicKey(t, q, e.peerKey)
		e.host.WriteFile("/etc/ipsec-quick/tun.toml", strings.Replace(text, "PUBLIC-KEY", public, 1))
	}
	return q
}

// quickPublicKey is the public half of a key as `ipsec-quick pubkey` prints it.
func quickPublicKey(t *testing.T, q *harness.Quick, key crypto.Signer) string {
	t.Helper()
	r := q.ExecInput([]byte(privatePEM(t, key)), "pubkey")
	public := strings.TrimSpace(r.Stdout)
	if r.Err != nil || public == "" {
		t.Fatalf("pubkey: %s", r)
	}
	return public
}

// conn is the connection of a case for this end.
func (e end) conn(c tunnelCase) harness.Conn {
	conn := harness.Conn{
		Name: "gw", Local: e.address, Remote: e.remote, LocalID: e.id, RemoteID: e.peerID,
		Proposals: c.swanIKE,
		Extra:     "mobike = no\n" + c.swanExtra,
		LocalAuth: c.swanLocalAuth,
		Child: harness.Child{
			ESP: c.swanESP, LocalTS: strings.Join(e.localTS, ","), RemoteTS: strings.Join(e.remoteTS, ","),
		},
	}
	if conn.Remote == "" {
		conn.Remote = "%any"
	}
	if conn.Proposals == "" {
		conn.Proposals = strings.Join(c.quickIKE(), ",")
	}
	if conn.Child.ESP == "" {
		conn.Child.ESP = strings.Join(c.quickESP(), ",")
	}
	if c.transport {
		conn.Child.Mode = "transport"
		conn.Child.LocalTS, conn.Child.RemoteTS = "", ""
	}
	if e.key != nil {
		conn.Auth = "pubkey"
		conn.LocalPubkey, conn.RemotePubkey = e.id+".pem", e.peerID+".pem"
		if c.swanAuth != "" {
			conn.Auth = c.swanAuth
		}
	} else {
		conn.Secret = testPSK
	}
	return conn
}

// asReference is the case with ours as strongSwan's, for -reference.
func (c tunnelCase) asReference() tunnelCase {
	c.swanIKE = strings.Join(c.quickIKE(), ",")
	c.swanESP = ""
	for i, p := range c.quickESP() {
		if i > 0 {
			c.swanESP += ","
		}
		c.swanESP += p + "-esn-noesn"
	}
	return c
}

// load gives strongSwan the case's connection and keys.
func (e end) load(t *testing.T, d *harness.Charon, c tunnelCase) {
	t.Helper()
	keys := map[string]string{}
	if e.key != nil {
		keys["private/"+e.id+".pem"] = privatePEM(t, e.key)
		keys["pubkey/"+e.id+".pem"] = publicPEM(t, e.key.Public())
		keys["pubkey/"+e.peerID+".pem"] = publicPEM(t, e.peerKey.Public())
	}
	d.Load(e.conn(c).String(), keys)
}

func privatePEM(t *testing.T, key crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func publicPEM(t *testing.T, key crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// A daemon is what the table of cases needs of either implementation.
type daemon interface {
	up(t *testing.T)            // as initiator: returns when established; as responder: listens
	down(t *testing.T)          // ends the tunnel and what served it
	established(*testing.T) int // Child SAs in use
	describe(t *testing.T) string
}

type quickDaemon struct{ *harness.Quick }

func (d quickDaemon) up(t *testing.T)   { t.Helper(); d.Up() }
func (d quickDaemon) down(t *testing.T) { t.Helper(); d.Down() }

func (d quickDaemon) established(t *testing.T) int {
	t.Helper()
	if p := d.Peer(); p.State == "established" {
		return len(p.Children)
	}
	return 0
}

func (d quickDaemon) describe(t *testing.T) string {
	t.Helper()
	p := d.Peer()
	if len(p.Children) == 0 {
		return p.State
	}
	nat := ""
	if p.NAT {
		nat = ", NAT"
	}
	return fmt.Sprintf("%s; %s%s", p.IKE.Proposal, p.Children[0].Proposal, nat)
}

type charonDaemon struct {
	*harness.Charon
	initiator bool
}

func (d charonDaemon) up(t *testing.T) {
	t.Helper()
	if d.initiator {
		d.Initiate("net")
	}
}

func (d charonDaemon) down(t *testing.T) {
	t.Helper()
	d.Terminate("gw")
}

func (d charonDaemon) established(t *testing.T) int {
	t.Helper()
	return len(d.Children("INSTALLED"))
}

func (d charonDaemon) describe(t *testing.T) string {
	t.Helper()
	for _, sa := range d.SAs() {
		v := sa.Values
		return fmt.Sprintf("%s-%s %s-%s-%s", sa.Name, v["state"], v["encr-alg"], v["encr-keysize"], v["dh-group"])
	}
	return "no IKE SA"
}

// within fails the test when f does not become true in time.
func within(t *testing.T, limit time.Duration, what string, f func() bool) {
	t.Helper()
	if !harness.Poll(limit, f) {
		t.Fatalf("not within %v: %s", limit, what)
	}
}
