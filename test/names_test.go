//go:build lab

package lab_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// TestEndpointName has a peer whose endpoint is a name: at boot there is no name
// server, then the name has addresses where nobody is, and one day another one.
func TestEndpointName(t *testing.T) {
	row := harness.NewRow("8. More", "no name server at boot, addresses in turn, a peer that moves", "initiator")
	t.Parallel()
	row.Of(t)
	n := harness.NewNet(t, "a", "b", "c")
	a, b, c := n.A(), n.B(), n.Hosts[2]
	a.UseNameServer(c.Outer4)
	a.Run("ip", "route", "add", "unreachable", "2001:db8::99")
	before := a.Snapshot()
	dead4, dead6, moved := netip.MustParseAddr("192.0.2.99"), netip.MustParseAddr("2001:db8::99"), netip.MustParseAddr("192.0.2.77")

	fa, fb := between(a, b), between(b, a)
	fa.peer, fa.ikeMore = "gw.example", `dpd = "1s"`
	fb.start = "passive"
	fb.peer = ""
	qb := harness.NewQuick(t, b, "gw", fb.String())
	qb.Up()
	qa := harness.NewQuick(t, a, "office", fa.String())
	r := qa.Fails(75, "--timeout", "3s")
	if !strings.Contains(r.Stderr, "gw.example") {
		t.Errorf("the name is not in the error: %s", r)
	}
	a.Unchanged(before, "a failed up")

	qa.Up("--keep-trying", "--timeout", "1s")
	names := harness.StartNameServer(t, c, c.Outer4)
	time.Sleep(time.Second) // a name that is not there yet is tried again as well
	names.Set("gw.example", dead6, dead4, b.Outer4)
	start := time.Now()
	within(t, 45*time.Second, "established at the third address", qa.Established)
	third := time.Since(start)

	// The loop finds the peer at its new address when it gives up the old one.
	asked := names.Asked()
	b.Run("ip", "addr", "del", b.Outer4.String()+"/24", "dev", "eth0")
	b.Run("ip", "addr", "add", moved.String()+"/24", "dev", "eth0")
	b.Run("ip", "route", "replace", "default", "via", c.Outer4.String())
	names.Set("gw.example", moved)
	start = time.Now()
	within(t, 70*time.Second, "established at the new address", func() bool {
		return strings.HasPrefix(qa.Peer().Remote, moved.String()) && qa.Established()
	})
	if names.Asked() == asked {
		t.Error("the name was not looked up again")
	}
	capture := harness.StartCapture(t, n) // before, there were questions to the name server
	stream := harness.StartStream(t, a, a.Inner4, b, b.Inner4, 50)
	time.Sleep(time.Second)
	stream.Lossless("at the new address")
	capture.NothingClear()
	row.Notef("established %.0f s after the name was there, and %.0f s after the peer moved", third.Seconds(), time.Since(start).Seconds())
	qa.Down()
	a.Unchanged(before, "up and down")
}
