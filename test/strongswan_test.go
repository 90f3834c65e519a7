//go:build lab

package lab_test

import (
	"strings"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

const testPSK = "a secret that is only used in the lab"

// TestStrongSwan proves that the lab itself works: two strongSwans, a rekey
// under load without loss, nothing in clear, and a capture that would have seen
// it.
func TestStrongSwan(t *testing.T) {
	row := harness.NewRow("1. The lab itself", "strongSwan with strongSwan, PSK", "").Of(t)
	n := harness.NewNet(t, "a", "b")
	a, b := n.A(), n.B()
	beforeA := a.Snapshot()

	capture := harness.StartCapture(t, n)
	if got := a.Ping(a.Inner4, b.Inner4, 2); got != 2 {
		t.Errorf("without a tunnel %d of 2 pings were answered", got)
	}
	if !harness.Poll(time.Second, func() bool { return capture.Count(harness.KindClear) == 4 }) {
		t.Errorf("the capture counts 2 pings in clear as: %v", capture)
	}
	capture.Reset()

	ca, cb := harness.StartCharon(t, a), harness.StartCharon(t, b)
	conn := harness.Conn{
		Name: "gw", Local: a.Outer4.String(), Remote: b.Outer4.String(),
		LocalID: "a.example", RemoteID: "b.example", Secret: testPSK,
		Proposals: "aes256gcm16-prfsha384-x25519",
		Child: harness.Child{
			LocalTS: a.Net4.String(), RemoteTS: b.Net4.String(), ESP: "aes256gcm16-esn",
		},
	}
	if harness.Libipsec {
		conn.Child.ESP = "aes256gcm16"
	}
	ca.Load(conn.String(), nil)
	conn.Local, conn.Remote = conn.Remote, conn.Local
	conn.LocalID, conn.RemoteID = conn.RemoteID, conn.LocalID
	conn.Child.LocalTS, conn.Child.RemoteTS = conn.Child.RemoteTS, conn.Child.LocalTS
	cb.Load(conn.String(), nil)

	start := time.Now()
	ca.Initiate("net")
	took := time.Since(start)
	if got := a.Ping(a.Inner4, b.Inner4, 3); got != 3 {
		t.Fatalf("%d of 3 pings were answered", got)
	}
	first := ca.Children("INSTALLED")
	if len(first) != 1 {
		t.Fatalf("%d Child SAs, not 1", len(first))
	}

	stream := harness.StartStream(t, a, a.Inner4, b, b.Inner4, 500)
	time.Sleep(time.Second)
	ca.RekeyChild("net")
	if !harness.Poll(5*time.Second, func() bool {
		now := ca.Children("INSTALLED")
		return len(now) == 1 && now[0].Values["spi-in"] != first[0].Values["spi-in"]
	}) {
		t.Errorf("not rekeyed")
	}
	time.Sleep(time.Second)
	note := stream.Lossless("rekey of strongSwan", a, b)

	capture.NothingClear()
	if capture.Count(espKind()) < 1000 || capture.Count(harness.KindIKE) < 6 {
		t.Errorf("the capture missed ESP or IKE: %v", capture)
	}
	ca.Terminate("gw")
	ca.Stop()
	// What strongSwan leaves: a socket and a sysctl. That it is found, and no
	// SA or policy is, shows that Diff works.
	found := false
	for _, d := range beforeA.Diff(a.Snapshot()) {
		found = found || strings.Contains(d, "/run/charon.vici")
		if strings.HasPrefix(d, "ip ") || strings.HasPrefix(d, "processes") {
			t.Errorf("strongSwan left behind: %s", d)
		}
	}
	if !found {
		t.Error("Diff does not find the socket that strongSwan leaves")
	}
	row.Notef("initiate %v; %s; %v", took.Round(time.Millisecond), note, capture)
}
