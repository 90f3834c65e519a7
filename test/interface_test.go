//go:build lab

package lab_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// TestInterfaces has two route-based tunnels on one host: all traffic goes through
// the first, but for a network behind the peer of the second. One goes down, the
// other changes, and neither disturbs the other.
func TestInterfaces(t *testing.T) {
	row := harness.NewRow(interfaceGroup, "two tunnels, one of them the default route", "initiator")
	t.Parallel()
	row.Of(t)
	n := harness.NewNet(t, "a", "b", "c")
	a, b, c := n.A(), n.B(), n.Hosts[2]
	for _, addr := range everywhere {
		b.Run("ip", "addr", "add", netip.PrefixFrom(addr, addr.BitLen()).String(), "dev", "lo")
	}
	before := a.Snapshot()
	const all = `"0.0.0.0/0", "::/0"`
	world, gateway := between(a, b), between(b, a)
	gateway.start = "passive"
	for _, f := range []*quickFile{&world, &gateway} {
		f.localTS, f.remoteTS, f.device = netip.Prefix{}, netip.Prefix{}, "[interface]"
	}
	world.more = fmt.Sprintf("local_ts = [%q, %q]\nremote_ts = [%s]", a.Net4, a.Net6, all)
	gateway.more = fmt.Sprintf("local_ts = [%s]\nremote_ts = [%q, %q]", all, a.Net4, a.Net6)
	office, branch := between(a, c), between(c, a)
	office.device, branch.start = "[interface]\nname = \"ipsec0\"\naddresses = [\"10.1.99.1/32\"]", "passive"
	harness.NewQuick(t, b, "gateway", gateway.String()).Up()
	harness.NewQuick(t, c, "branch", branch.String()).Up()
	q1, q2 := harness.NewQuick(t, a, "world", world.String()), harness.NewQuick(t, a, "office", office.String())
	q1.Up()
	q2.Up()
	if s, ok := q2.Status(); !ok || s.Interface != "ipsec0" {
		t.Errorf("status: %+v", s)
	}
	capture := harness.StartCapture(t, n)
	stream := harness.StartStream(t, a, a.Inner4, c, c.Inner4, 200)
	if got := unbound(a); got != len(everywhere) {
		t.Errorf("%d of %d addresses answer through the default route", got, len(everywhere))
	}
	office.device = strings.Replace(office.device, "10.1.99.1/32", "10.1.99.2/32", 1)
	a.WriteFile("/etc/ipsec-quick/office.toml", office.String())
	if r := q2.Exec("reload", "office"); r.Err != nil || !strings.Contains(r.Stdout+r.Stderr, "ip addr add 10.1.99.2/32 dev ipsec0") {
		t.Errorf("reload: %v", r)
	}
	if addrs := a.Run("ip", "addr", "show", "dev", "ipsec0"); strings.Contains(addrs, "10.1.99.1") || !strings.Contains(addrs, "10.1.99.2") {
		t.Errorf("after reload:\n%s", addrs)
	}
	q1.Down()
	if got := a.Ping(a.Inner4, c.Inner4, 3); got != 3 {
		t.Errorf("%d of 3 pings are answered after the other tunnel has gone", got)
	}
	note := stream.Lossless("the other tunnel, and a reload")
	capture.NothingClear()
	q2.Down()
	a.Unchanged(before, "two route-based tunnels up and down")
	row.Notef("%s", note)
}

// TestPeerInItsNetwork has a peer whose own address, which nobody knows beforehand,
// is in a network that is routed to the tunnel.
func TestPeerInItsNetwork(t *testing.T) {
	row := harness.NewRow(interfaceGroup, "a peer of any address, in a network that it is the way to", "responder")
	t.Parallel()
	row.Of(t)
	n := harness.NewRouter(t, "a", "b")
	a, b := n.A(), n.B()
	before := b.Snapshot()
	network := netip.PrefixFrom(a.Outer4, 24).Masked()
	fa, fb := between(a, b), between(b, a)
	fa.localTS, fb.remoteTS = network, network
	fb.peer, fb.start, fb.device = "", "passive", "[interface]"
	q := harness.NewQuick(t, b, "hub", fb.String())
	q.Up()
	first := b.Run("ip", "rule")
	harness.NewQuick(t, a, "spoke", fa.String()).Up()
	within(t, 5*time.Second, "established", q.Established)
	capture := harness.StartCapture(t, n)
	if got := b.Ping(b.Inner4, a.Outer4, 3); got != 3 {
		t.Errorf("%d of 3 pings are answered", got)
	}
	if now := b.Run("ip", "rule"); now == first {
		t.Errorf("no rule leaves the way to the peer where it was:\n%s", now)
	}
	capture.NothingClear()
	q.Down()
	b.Unchanged(before, "up and down")
}
