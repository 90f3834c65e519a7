//go:build lab

package lab_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// monitored is what `monitor` shows of a soft limit by time, line by line.
var monitored = []string{
	`process \d+, version \S+, watches the tunnel`,
	`soft limit of ([0-9a-f]{8}) reached: time \d+ s of 8 s`,
	`CREATE_CHILD_SA request to .*N\(REKEY_SA\)`,
	`CREATE_CHILD_SA response from `,
	`new SAs [0-9a-f]{8} in, ([0-9a-f]{8}) out`,
	`packets leave through ([0-9a-f]{8})`,
	`INFORMATIONAL request to `,
	`INFORMATIONAL response from `,
	`old SAs [0-9a-f]{8} in, ([0-9a-f]{8}) out removed; received [1-9]\d* packets, .*; sent [1-9]\d* packets, `,
}

// TestMonitor watches a soft limit and a restart of the loop under a stream of
// packets, for people and in JSON.
func TestMonitor(t *testing.T) {
	t.Parallel()
	n := harness.NewNet(t, "a", "b")
	a, b := n.A(), n.B()
	answer := between(b, a)
	answer.start = "passive"
	harness.NewQuick(t, b, "answer", answer.String()).Up()
	file := between(a, b)
	file.lifetime = `time = { soft = "8s", hard = "60s" }`
	q := harness.NewQuick(t, a, "office", file.String())
	q.Up()
	people, machines := q.Start("monitor", "office"), q.Start("monitor", "office", "--json")
	stream := harness.StartStream(t, a, a.Inner4, b, b.Inner4, 100)
	rekeyed := func(times int) {
		t.Helper()
		within(t, 40*time.Second, "rekeyed", func() bool { return q.Peer().Rekeys.Child >= times })
	}
	rekeyed(1)
	time.Sleep(6 * time.Second) // the old SAs stay for 5 s
	before := q.Peer()
	if r := q.Exec("restart", "office"); r.Err != nil || !strings.Contains(r.String(), "goes on with it") {
		t.Errorf("restart: %s", r)
	}
	if after := q.Peer(); after.IKE.SPIi != before.IKE.SPIi || after.IKE.Established != before.IKE.Established {
		t.Errorf("another IKE SA: %+v, %+v", before.IKE, after.IKE)
	}
	rekeyed(before.Rekeys.Child + 1)
	t.Log(stream.Lossless("monitored"))
	q.Down()

	r := people.Wait(5 * time.Second)
	if r.Err != nil {
		t.Errorf("monitor: %v", r.Err)
	}
	t.Logf("\n%s", r.Stdout)
	lines := strings.Split(strings.TrimSpace(r.Stdout), "\n")
	found := map[int][]string{}
	next := 0
	for _, line := range lines {
		if next < len(monitored) {
			if m := regexp.MustCompile(`^\d\d:\d\d:\d\d\.\d{3} \S+  (?:` + monitored[next] + `)`).FindStringSubmatch(line); m != nil {
				found[next] = m
				next++
			}
		}
	}
	if next < len(monitored) {
		t.Fatalf("no line for %s", monitored[next])
	}
	if old, gone := found[1][1], found[8][1]; old != gone {
		t.Errorf("%s was due, %s has gone", old, gone)
	}
	if made, used := found[4][1], found[5][1]; made != used {
		t.Errorf("%s was made, %s is used", made, used)
	}
	if last := lines[len(lines)-1]; !strings.HasSuffix(last, "  taken down") || strings.Count(r.Stdout, "watches the tunnel") != 2 {
		t.Errorf("the restart or the end is missing: %s", last)
	}

	j := machines.Wait(5 * time.Second)
	count := 0
	for line := range strings.Lines(j.Stdout) {
		var ev struct{ Time, Tunnel, Event string }
		if err := json.Unmarshal([]byte(line), &ev); err != nil || ev.Time == "" || ev.Tunnel != "office" || ev.Event == "" {
			t.Errorf("%s: %v", line, err)
		}
		count++
	}
	if j.Err != nil || count != len(lines) {
		t.Errorf("%d objects for %d lines: %v", count, len(lines), j.Err)
	}
}
