//go:build lab

package lab_test

import (
	"fmt"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// limits are one limit of each kind that is reached every second or two by 100
// packets a second each way, and a hard one some seconds later.
var limits = []struct{ kind, file string }{
	{"time", `time = { soft = "2s", hard = "10s" }`},
	{"use", `use = { soft = "2s", hard = "10s" }`},
	{"bytes", `bytes = { soft = "16KiB", hard = "128KiB" }`},
	{"packets", `packets = { soft = 150, hard = 1200 }`},
}

// TestSoftLimits has each kind of soft limit reached many times in a row under a
// stream of packets: each time a rekey, never a hard expire, no packet lost.
func TestSoftLimits(t *testing.T) {
	t.Parallel()
	wantRekeys := form(8, 20)
	for _, limit := range limits {
		for _, peer := range []string{"strongSwan", "ipsec-quick"} {
			row := harness.NewRow("3. Soft limits", limit.kind, "peer "+peer)
			t.Run(limit.kind+"/"+peer, func(t *testing.T) {
				t.Parallel()
				row.Of(t)
				n := harness.NewNet(t, "a", "b")
				a, b := n.A(), n.B()
				before := a.Snapshot()
				if peer == "strongSwan" {
					harness.StartCharon(t, b).Load(swanBetween(b, a).String(), nil)
				} else {
					file := between(b, a)
					file.start = "passive"
					harness.NewQuick(t, b, "answer", file.String()).Up()
				}
				capture := harness.StartCapture(t, n)
				file := between(a, b)
				file.lifetime = limit.file
				q := harness.NewQuick(t, a, "limits", file.String())
				q.Up()
				first := q.Peer()
				stream := harness.StartStream(t, a, a.Inner4, b, b.Inner4, 100)
				start := time.Now()
				var p harness.PeerStatus
				done := harness.Poll(100*time.Second, func() bool {
					p = q.Peer()
					return p.Rekeys.Child >= wantRekeys
				})
				took := time.Since(start)
				time.Sleep(time.Second)
				foreign := []*harness.Host{b}
				if peer == "ipsec-quick" {
					foreign = nil
				}
				note := stream.Lossless("rekeys at soft limits of "+limit.kind, foreign...)
				p = q.Peer()
				if !done || p.Expires.Soft < wantRekeys {
					t.Errorf("%d soft expires and %d rekeys in %v", p.Expires.Soft, p.Rekeys.Child, took)
				}
				if p.Expires.Hard != 0 || p.Rekeys.Failed != 0 {
					t.Errorf("%d hard expires, %d rekeys failed", p.Expires.Hard, p.Rekeys.Failed)
				}
				if p.IKE.SPIi != first.IKE.SPIi || p.IKE.SPIr != first.IKE.SPIr {
					t.Errorf("the IKE SA was made anew: %s_i %s_r, at first %s_i %s_r",
						p.IKE.SPIi, p.IKE.SPIr, first.IKE.SPIi, first.IKE.SPIr)
				}
				capture.NothingClear()
				q.Down()
				a.Unchanged(before, "up and down")
				row.Notef("%d rekeys in %.0f s, %d soft and %d hard expires, %s",
					p.Rekeys.Child, took.Seconds(), p.Expires.Soft, p.Expires.Hard, note)
			})
		}
	}
}

// TestPeersLimits has strongSwan rekey, and both ends at the same moment, under
// a stream of packets.
func TestPeersLimits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, ours, theirs string }{
		{"strongSwan's limits", "", "rekey_time = 2s\nlife_time = 10s\nrand_time = 0s\n"},
		{"both ends' limits at once", `time = { soft = "3s", hard = "12s" }`, "rekey_time = 3s\nlife_time = 12s\nrand_time = 0s\n"},
	} {
		row := harness.NewRow("3. Soft limits", c.name, "peer strongSwan")
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			row.Of(t)
			n := harness.NewNet(t, "a", "b")
			a, b := n.A(), n.B()
			before := a.Snapshot()
			swan := harness.StartCharon(t, b)
			conn := swanBetween(b, a)
			conn.Child.Extra = c.theirs
			swan.Load(conn.String(), nil)
			capture := harness.StartCapture(t, n)
			file := between(a, b)
			file.lifetime = c.ours
			q := harness.NewQuick(t, a, "theirs", file.String())
			q.Up()
			stream := harness.StartStream(t, a, a.Inner4, b, b.Inner4, 100)
			start := time.Now()
			seen := map[string]bool{}
			if !harness.Poll(90*time.Second, func() bool {
				time.Sleep(300 * time.Millisecond)
				for _, child := range swan.Children("INSTALLED") {
					seen[child.Values["spi-in"]] = true
				}
				return len(seen) > 10
			}) {
				t.Errorf("%d Child SAs seen in 90 s", len(seen))
			}
			took := time.Since(start)
			note := stream.Lossless(c.name, b)
			if p := q.Peer(); p.State != "established" || p.Expires.Hard != 0 {
				t.Errorf("%s, %d hard expires", p.State, p.Expires.Hard)
			}
			capture.NothingClear()
			q.Down()
			a.Unchanged(before, "up and down")
			row.Notef("%d Child SAs in %.0f s, %s", len(seen), took.Seconds(), note)
		})
	}
}

// TestRekeyCommand rekeys Child and IKE SA on command, from both ends, with a
// key exchange in each, under a stream of packets.
func TestRekeyCommand(t *testing.T) {
	t.Parallel()
	for _, role := range roles {
		row := harness.NewRow("3. Soft limits", "rekey on command, Child and IKE SA, both ends", role)
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			row.Of(t)
			n := harness.NewNet(t, "a", "b")
			a, b := n.A(), n.B()
			before := a.Snapshot()
			swan := harness.StartCharon(t, b)
			conn := swanBetween(b, a)
			conn.Child.ESP = "aes256gcm16-x25519"
			swan.Load(conn.String(), nil)
			file := between(a, b)
			file.esp = "aes256gcm16-x25519"
			if role == "responder" {
				file.start = "passive"
			}
			q := harness.NewQuick(t, a, "rekey", file.String())
			q.Up()
			if role == "responder" {
				swan.Initiate("net")
			}
			within(t, 5*time.Second, "established", q.Established)
			capture := harness.StartCapture(t, n)
			stream := harness.StartStream(t, a, a.Inner4, b, b.Inner4, 100)
			rounds := form(2, 3)
			for round := range rounds {
				for _, step := range []struct {
					name string
					do   func()
				}{
					{"Child SA by us", func() { q.Rekey() }},
					{"Child SA by strongSwan", func() { swan.RekeyChild("net") }},
					{"IKE SA by us", func() { q.Rekey("--ike") }},
					{"IKE SA by strongSwan", func() { swan.RekeyIKE("gw") }},
				} {
					old := q.Peer()
					step.do()
					within(t, 10*time.Second, fmt.Sprintf("%s, round %d", step.name, round), func() bool {
						return rekeyed(old, q.Peer(), step.name[:3] == "IKE")
					})
				}
			}
			note := stream.Lossless("rekeys on command", b)
			capture.NothingClear()
			p := q.Peer()
			row.Notef("%d rekeys, %s", 4*rounds, note)
			if p.Rekeys.Failed != 0 {
				t.Errorf("%d rekeys failed", p.Rekeys.Failed)
			}
			q.Down()
			within(t, 5*time.Second, "strongSwan's SAs gone", func() bool { return len(swan.SAs()) == 0 })
			a.Unchanged(before, "up and down")
		})
	}
}

// rekeyed says whether the one SA changed and the other is there.
func rekeyed(old, now harness.PeerStatus, ike bool) bool {
	if now.State != "established" || len(now.Children) == 0 || len(old.Children) == 0 {
		return false
	}
	if ike {
		return now.IKE.SPIi != old.IKE.SPIi
	}
	for _, c := range now.Children {
		if c.SPIIn == old.Children[0].SPIIn {
			return false
		}
	}
	return true
}
