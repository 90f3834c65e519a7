//go:build lab

package lab_test

import (
	"slices"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// TestSpeed compares `ipsec-quick up` with `swanctl --initiate`, from exec to
// exit, in turn, towards the same strongSwan. strongSwan's own daemon runs
// already, as it does on every host; ours is started by up. It does not run in
// parallel with other tests.
func TestSpeed(t *testing.T) {
	rounds := form(8, 20) // of which it takes the median
	row := harness.NewRow("7. Time of up", "ipsec-quick up against swanctl --initiate", "initiator").Of(t)
	n := harness.NewNet(t, "a", "b", "c")
	a, b, c := n.A(), n.B(), n.Hosts[2]
	server, client := harness.StartCharon(t, b), harness.StartCharon(t, c)
	forA, forC := swanBetween(b, a), swanBetween(b, c)
	forC.Name = "forc"
	server.Load(forA.String()+forC.String(), nil)
	client.Load(swanBetween(c, b).String(), nil)
	q := harness.NewQuick(t, a, "speed", between(a, b).String())

	var ours, theirs []time.Duration
	for round := range rounds + 1 {
		r := client.Swanctl("--initiate", "--child", "net")
		if r.Err != nil {
			t.Fatalf("swanctl --initiate: %s", r)
		}
		up := q.Up()
		if round > 0 { // the first one loads modules and fills caches
			theirs, ours = append(theirs, r.Took), append(ours, up.Took)
		}
		client.Terminate("gw")
		q.Down()
		within(t, 5*time.Second, "strongSwan's SAs gone", func() bool { return len(server.SAs()) == 0 })
	}
	o, s := median(ours), median(theirs)
	ratio := o.Seconds() / s.Seconds()
	row.Notef("median of %d: ipsec-quick up %.1f ms, swanctl --initiate %.1f ms, ratio %.2f",
		rounds, o.Seconds()*1000, s.Seconds()*1000, ratio)
	t.Logf("ipsec-quick up %v\nswanctl --initiate %v\nratio %.2f", ours, theirs, ratio)
	if ratio > 1 && !inUserspace() { // where it makes a device, routes and a guard first
		t.Errorf("ipsec-quick up takes %.2f times as long as swanctl --initiate", ratio)
	}
}

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return (list[(len(list)-1)/2] + list[len(list)/2]) / 2
}
