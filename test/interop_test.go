//go:build lab

package lab_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// TestInterop runs the table of cases, each with ipsec-quick in both roles and
// strongSwan in the other.
func TestInterop(t *testing.T) {
	for _, c := range cases {
		for _, role := range []string{"initiator", "responder"} {
			t.Run(strings.ReplaceAll(c.name, " ", "_")+"/"+role, func(t *testing.T) {
				row := harness.AddRow(t, "Interoperability with strongSwan (line 2)", c.name, role)
				t.Parallel()
				interop(t, c, role, row)
			})
		}
	}
}

// ends makes both sides of a case: who initiates is the net's first host.
func ends(t *testing.T, c tunnelCase, n *harness.Net, weInitiate bool) (quick, swan end) {
	t.Helper()
	a := end{host: n.A(), initiator: true, id: quickID, peerID: swanID}
	b := end{host: n.B(), id: swanID, peerID: quickID}
	if !weInitiate {
		a.id, a.peerID, b.id, b.peerID = swanID, quickID, quickID, swanID
	}
	if c.longIDs {
		long := strings.Repeat("a-long-name-", 4) + "." + strings.Repeat("a-longer-name-", 4) + "."
		for _, id := range []*string{&a.id, &a.peerID, &b.id, &b.peerID} {
			*id = long + *id
		}
	}
	outer := func(h *harness.Host) netip.Addr {
		if c.outer6 {
			return h.Outer6
		}
		return h.Outer4
	}
	a.address, b.address = outer(a.host).String(), outer(b.host).String()
	a.remote, b.remote = b.address, a.address
	if c.nat || c.crowd {
		b.remote = ""
	}
	var tsA, tsB []netip.Prefix
	if c.inner4 || !c.inner6 {
		tsA, tsB = append(tsA, a.host.Net4), append(tsB, b.host.Net4)
	}
	if c.inner6 {
		tsA, tsB = append(tsA, a.host.Net6), append(tsB, b.host.Net6)
	}
	a.localTS, a.remoteTS = prefixes(tsA...), prefixes(tsB...)
	b.localTS, b.remoteTS = a.remoteTS, a.localTS
	if c.keys != nil {
		a.key, b.key = c.keys(t)
		a.peerKey, b.peerKey = b.key.Public(), a.key.Public()
	}
	quick, swan = a, b
	if !weInitiate {
		quick, swan = b, a
	}
	if c.narrow {
		swan.localTS = prefixes(netip.PrefixFrom(swan.host.Inner4, 24).Masked())
		swan.remoteTS = prefixes(netip.PrefixFrom(quick.host.Inner4, 24).Masked())
	}
	return quick, swan
}

// pairs are the addresses between which a case's traffic goes.
func (c tunnelCase) pairs(n *harness.Net) [][2]netip.Addr {
	a, b := n.A(), n.B()
	var out [][2]netip.Addr
	switch {
	case c.transport && c.outer6:
		return append(out, [2]netip.Addr{a.Outer6, b.Outer6})
	case c.transport:
		return append(out, [2]netip.Addr{a.Outer4, b.Outer4})
	}
	if c.inner4 || !c.inner6 {
		out = append(out, [2]netip.Addr{a.Inner4, b.Inner4})
	}
	if c.inner6 {
		out = append(out, [2]netip.Addr{a.Inner6, b.Inner6})
	}
	return out
}

// network builds what a case runs over.
func (c tunnelCase) network(t *testing.T) *harness.Net {
	t.Helper()
	switch {
	case c.nat:
		return harness.NewNAT(t, "a", "b")
	case c.crowd:
		return harness.NewNet(t, "a", "b", "crowd")
	}
	return harness.NewNet(t, "a", "b")
}

// interop runs one case in one role: set up, traffic both ways, nothing in
// clear, taken down by us, nothing left.
func interop(t *testing.T, c tunnelCase, role string, row *harness.Row) {
	weInitiate := role == "initiator"
	if c.vary != nil {
		c.vary(&c, weInitiate)
	}
	n := c.network(t)
	us, them := ends(t, c, n, weInitiate)
	before := us.host.Snapshot()

	swan := charonDaemon{them.charon(t, c), them.initiator}
	var ours daemon
	var quick *harness.Quick
	if *reference {
		ours = charonDaemon{us.charon(t, c), us.initiator}
	} else {
		quick = us.quick(t, c)
		ours = quickDaemon{quick}
	}
	first, second := daemon(swan), ours // the responder is ready first
	if !weInitiate {
		first, second = ours, swan
	}
	first.up(t)
	if c.crowd {
		halfOpen(t, n.Hosts[2], n.B().Outer4)
	}
	capture := harness.StartCapture(t, n)
	start := time.Now()
	second.up(t)
	took := time.Since(start)

	within(t, 5*time.Second, "established at both ends", func() bool {
		return ours.established(t) == 1 && swan.established(t) == 1
	})
	for _, p := range c.pairs(n) {
		if got := n.A().Ping(p[0], p[1], 3); got != 3 {
			t.Errorf("%d of 3 pings from %v to %v were answered", got, p[0], p[1])
		}
		if got := n.B().Ping(p[1], p[0], 3); got != 3 {
			t.Errorf("%d of 3 pings from %v to %v were answered", got, p[1], p[0])
		}
	}
	row.Notef("%v, %s", took.Round(time.Millisecond), ours.describe(t))
	esp := harness.KindESP
	if c.nat || c.encap {
		esp = harness.KindESPinUDP
	}
	if got, want := capture.Count(esp), 12*len(c.pairs(n)); got < want {
		t.Errorf("%d of %d packets were %v: %v", got, want, esp, capture)
	}
	capture.NothingClear()
	if c.after != nil {
		c.after(t, caseResult{role: role, quick: quick, swanLog: swan.Log(), capture: capture})
	}
	if quick != nil && c.nat && !quick.Peer().NAT {
		t.Error("status does not show the NAT")
	}

	ours.down(t)
	within(t, 5*time.Second, "strongSwan's SAs gone after our end went down", func() bool {
		return swan.established(t) == 0
	})
	if quick != nil {
		us.host.Unchanged(before, "up and down")
	}
}
