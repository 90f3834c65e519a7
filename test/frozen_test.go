//go:build lab

package lab_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// TestFrozenPeer stops the peer's daemon until the hard limit is past: the SA
// goes, what the tunnel covers is not sent in clear, and after the peer goes on
// the tunnel is back by itself.
func TestFrozenPeer(t *testing.T) {
	t.Parallel()
	for _, peer := range []string{"strongSwan", "ipsec-quick"} {
		row := harness.NewRow("4. Frozen past the hard limit", "peer "+peer, "initiator")
		t.Run(peer, func(t *testing.T) {
			t.Parallel()
			row.Of(t)
			n := harness.NewNet(t, "a", "b")
			a, b := n.A(), n.B()
			before := a.Snapshot()
			var freeze func() (thaw func())
			if peer == "strongSwan" {
				swan := harness.StartCharon(t, b)
				swan.Load(swanBetween(b, a).String(), nil)
				freeze = func() func() { swan.Freeze(); return swan.Thaw }
			} else {
				file := between(b, a)
				file.start = "passive"
				q := harness.NewQuick(t, b, "answer", file.String())
				q.Up()
				freeze = q.Freeze
			}
			file := between(a, b)
			file.lifetime = `time = { soft = "4s", hard = "12s" }`
			q := harness.NewQuick(t, a, "frozen", file.String())
			q.Up()
			capture := harness.StartCapture(t, n)
			stream := harness.StartStream(t, a, a.Inner4, b, b.Inner4, 50)
			within(t, 20*time.Second, "a first rekey", func() bool { return q.Peer().Rekeys.Child > 0 })

			thaw := freeze()
			frozen := time.Now()
			var spis []string
			for _, child := range q.Peer().Children {
				spis = append(spis, child.SPIIn, child.SPIOut)
			}
			if len(spis) == 0 {
				t.Fatal("no Child SA when the peer was frozen")
			}
			within(t, 20*time.Second, "the SAs gone", func() bool {
				installed := a.Run("ip", "xfrm", "state")
				if inUserspace() {
					// One that waits for the peer's word that it goes is listed still.
					installed = fmt.Sprint(slices.DeleteFunc(q.Peer().Children, func(c harness.ChildStatus) bool { return c.Retiring }))
				}
				for _, spi := range spis {
					if strings.Contains(installed, spi) {
						return false
					}
				}
				return true
			})
			gone := time.Since(frozen)
			// Traffic goes on for a while with no SA at all.
			time.Sleep(3 * time.Second)
			stuck, _ := stream.Peek()
			thaw()
			thawed := time.Now()
			within(t, 15*time.Second, "packets through the tunnel again", func() bool {
				now, back := stream.Peek()
				return now.Received > stuck.Received+10 && back.Received > 0 && q.Established()
			})
			back := time.Since(thawed)
			if back > 10*time.Second {
				t.Errorf("the tunnel was back %v after the peer went on, not 10 s", back)
			}
			if got := a.Ping(a.Inner4, b.Inner4, 3); got != 3 {
				t.Errorf("%d of 3 pings were answered", got)
			}
			stream.Stop()
			if peer == "strongSwan" {
				// What strongSwan's own host does while its tunnel is made
				// anew is strongSwan's.
				capture.NothingClearFrom(a)
			} else {
				capture.NothingClear()
			}
			p := q.Peer()
			row.Notef("SAs gone after %.1f s, back %.1f s after SIGCONT, %d hard expires; %v",
				gone.Seconds(), back.Seconds(), p.Expires.Hard, capture)
			q.Down()
			a.Unchanged(before, "up and down")
		})
	}
}
