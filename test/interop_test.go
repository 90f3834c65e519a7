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

// interopWorkers is how many of the cases run at once.
const interopWorkers = 3

// TestInterop runs the table of cases, each with ipsec-quick in both roles and
// strongSwan in the other. Cases that ask for nothing special share a network
// and a strongSwan, which is given another connection for each.
func TestInterop(t *testing.T) {
	t.Parallel()
	shared := make([][]tunnelCase, interopWorkers)
	count := 0
	for _, c := range cases {
		if c.plain() {
			shared[count%interopWorkers] = append(shared[count%interopWorkers], c)
			count++
		}
	}
	rows := map[string]*harness.Row{}
	for _, c := range cases {
		for _, role := range roles {
			rows[c.name+role] = harness.NewRow("2. Interoperability with strongSwan", c.name, role)
		}
	}
	for i, list := range shared {
		t.Run(fmt.Sprintf("shared%d", i), func(t *testing.T) {
			t.Parallel()
			n := harness.NewNet(t, "a", "b")
			place := bench{net: n, before: n.A().Snapshot()}
			if *reference {
				place.second = harness.StartCharon(t, n.A())
			}
			place.swan = harness.StartCharon(t, n.B())
			for _, c := range list {
				for _, role := range roles {
					t.Run(c.title()+"/"+role, func(t *testing.T) {
						rows[c.name+role].Of(t)
						place.use(t)
						interop(t, c, role, place, rows[c.name+role])
					})
				}
			}
		})
	}
	for _, c := range cases {
		if c.plain() {
			continue
		}
		for _, role := range roles {
			t.Run(c.title()+"/"+role, func(t *testing.T) {
				t.Parallel()
				rows[c.name+role].Of(t)
				n := c.network(t)
				we, they := n.A(), n.B()
				if role == "responder" {
					we, they = they, we
				}
				place := bench{net: n, before: we.Snapshot()}
				if *reference {
					place.second = harness.StartCharon(t, we, c.swanSettings...)
				}
				place.swan = harness.StartCharon(t, they, c.swanSettings...)
				interop(t, c, role, place, rows[c.name+role])
			})
		}
	}
}

var roles = []string{"initiator", "responder"}

// bench is where a case runs.
type bench struct {
	net    *harness.Net
	swan   *harness.Charon
	second *harness.Charon  // in ipsec-quick's place, with -reference
	before harness.Snapshot // of our host
}

// use makes failures those of a subtest.
func (b bench) use(t *testing.T) {
	b.net.Use(t)
	b.swan.Use(t)
	if b.second != nil {
		b.second.Use(t)
	}
}

// plain says whether the case can share a network and a daemon with others.
func (c tunnelCase) plain() bool {
	return !c.nat && !c.crowd && c.swanSettings == nil
}

// lacks is what the case needs of strongSwan and its plugin kernel-libipsec does
// not have.
func (c tunnelCase) lacks() string {
	switch {
	case !harness.Libipsec:
		return ""
	case c.transport:
		return "transport mode"
	case c.esn == "true":
		return "ESN"
	}
	return ""
}

func (c tunnelCase) title() string { return strings.ReplaceAll(c.name, " ", "_") }

// ends makes both sides of a case.
func ends(t *testing.T, c tunnelCase, initiator, responder *harness.Host, weInitiate bool) (quick, swan end) {
	t.Helper()
	a := end{host: initiator, initiator: true, id: quickID, peerID: swanID}
	b := end{host: responder, id: swanID, peerID: quickID}
	if !weInitiate {
		a.id, a.peerID, b.id, b.peerID = swanID, quickID, quickID, swanID
	}
	if c.longIDs {
		long := strings.Repeat(strings.Repeat("long-name-", 4)+"x.", 4)
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
		a.peerKey, b.peerKey = b.key, a.key
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
func (c tunnelCase) pairs(a, b *harness.Host) [][2]netip.Addr {
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

// aboutESP says whether packets of the case are encrypted or sent otherwise than
// those of others.
func (c tunnelCase) aboutESP() bool {
	return c.esp != "" || c.esn != "" || c.transport || c.outer6 || c.inner6 || c.nat || c.encap
}

// traffic sends pings both ways and, where ESP is what the case is about, so many
// packets in a stream of rate a second each way; none in the short form where the
// kernel is emulated.
func (c tunnelCase) traffic(t *testing.T, a, b *harness.Host, rate, packets int) (note string) {
	t.Helper()
	pairs := c.pairs(a, b)
	for _, p := range pairs {
		if got := a.Ping(p[0], p[1], 3); got != 3 {
			t.Errorf("%d of 3 pings from %v to %v were answered", got, p[0], p[1])
		}
		if got := b.Ping(p[1], p[0], 3); got != 3 {
			t.Errorf("%d of 3 pings from %v to %v were answered", got, p[1], p[0])
		}
	}
	if !c.aboutESP() || !*full && !inUserspace() {
		return ""
	}
	for _, p := range pairs {
		stream := harness.StartStream(t, a, p[0], b, p[1], rate)
		within(t, time.Duration(4*packets/rate)*time.Second, "all packets sent", func() bool {
			there, back := stream.Peek()
			return there.Sent+back.Sent >= packets
		})
		note += ", " + stream.Lossless(fmt.Sprintf("%v ↔ %v", p[0], p[1]))
		if there, back := stream.Peek(); there.Duplicated+back.Duplicated > 0 {
			t.Errorf("packets came twice: %v\n%v", there, back)
		}
	}
	return note
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
func interop(t *testing.T, c tunnelCase, role string, place bench, row *harness.Row) {
	if lacks := c.lacks(); lacks != "" {
		t.Skip("kernel-libipsec has no " + lacks)
	}
	weInitiate := role == "initiator"
	if c.vary != nil {
		c.vary(&c, weInitiate)
	}
	initiator, responder := place.net.A(), place.net.B()
	if place.swan.Host == initiator == weInitiate {
		initiator, responder = responder, initiator
	}
	us, them := ends(t, c, initiator, responder, weInitiate)

	logged := len(place.swan.Log())
	them.load(t, place.swan, c)
	swan := charonDaemon{place.swan, them.initiator}
	var ours daemon
	var quick *harness.Quick
	if *reference {
		us.load(t, place.second, c.asReference())
		ours = charonDaemon{place.second, us.initiator}
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
		halfOpen(t, place.net.Hosts[2], responder.Outer4)
	}
	capture := harness.StartCapture(t, place.net)
	start := time.Now()
	second.up(t)
	took := time.Since(start)

	within(t, 5*time.Second, "established at both ends", func() bool {
		return ours.established(t) == 1 && swan.established(t) == 1
	})
	if harness.Libipsec {
		// It may lose the first packets on a new SA.
		p := c.pairs(them.host, us.host)[0]
		within(t, 5*time.Second, "a ping", func() bool { return them.host.Ping(p[0], p[1], 1) == 1 })
	}
	// Together the long forms of all cases send more than 1,000,000 packets; an
	// emulated kernel carries fewer a second.
	rate, packets := form(200, 3_000), form(400, 50_000)
	if !harness.Libipsec {
		rate, packets = form(200, 500), form(400, 30_000)
	}
	note := c.traffic(t, initiator, responder, rate, packets)
	row.Notef("%v, %s%s", took.Round(time.Millisecond), ours.describe(t), note)
	esp := espKind()
	if c.nat || c.encap {
		esp = harness.KindESPinUDP
	}
	capture.NothingClear()
	if got, want := capture.Count(esp), 12*len(c.pairs(initiator, responder)); got < want {
		t.Errorf("%d of %d packets were %v: %v", got, want, esp, capture)
	}
	if quick != nil && c.nat && !quick.Peer().NAT {
		t.Error("status does not show the NAT")
	}
	if c.after != nil {
		c.after(t, caseResult{role: role, quick: quick, swanLog: place.swan.Log()[logged:], capture: capture})
	}

	ours.down(t)
	within(t, 5*time.Second, "strongSwan's SAs gone after our end went down", func() bool {
		return swan.established(t) == 0
	})
	if quick != nil {
		us.host.Unchanged(place.before, "up and down")
	}
	if t.Failed() {
		t.Logf("strongSwan:\n%s", place.swan.Log()[logged:])
	}
}
