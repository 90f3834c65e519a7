//go:build lab

package lab_test

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// full runs the long forms of the tests whose length is a matter of patience:
// `make soak`. The short ones, of seconds, are part of `make test`.
var full = flag.Bool("full", false, "run the long forms of the soak tests, at 1,000 packets a second")

// form is the short or the long form's value.
func form[T any](short, long T) T {
	if *full {
		return long
	}
	return short
}

// soakRate is how many packets a second go each way: the short forms share the
// machine with other tests.
func soakRate() int { return form(100, 1000) }

// soakGroup is the table's heading of the long tests.
const soakGroup = "9. No packet lost"

// soakLimits are limits that are reached every two seconds or so at soakRate. A
// packet of the stream counts 92 octets, with its IP and UDP headers.
func soakLimits() []struct{ kind, file string } {
	packets := 2 * soakRate()
	return []struct{ kind, file string }{
		{"time", `time = { soft = "2s", hard = "30s" }`},
		{"bytes", fmt.Sprintf("bytes = { soft = %d, hard = %d }", packets*92, packets*92*15)},
		{"packets", fmt.Sprintf("packets = { soft = %d, hard = %d }", packets, packets*15)},
	}
}

// TestSoak has two of ours rekey both at once, nearly every time: the same soft
// limit on both ends, without jitter, and the IKE SA every ten seconds besides.
func TestSoak(t *testing.T) {
	t.Parallel()
	duration := form(20*time.Second, 10*time.Minute)
	for _, limit := range soakLimits() {
		row := harness.NewRow(soakGroup, "two of us, both rekey at once by "+limit.kind, "both ends")
		t.Run(limit.kind, func(t *testing.T) {
			t.Parallel()
			row.Of(t)
			n := harness.NewNet(t, "a", "b")
			a, b := n.A(), n.B()
			beforeA, beforeB := a.Snapshot(), b.Snapshot()
			capture := harness.StartCapture(t, n)
			file := func(we, they *harness.Host) quickFile {
				f := between(we, they)
				f.lifetime = limit.file
				f.ikeMore = `lifetime = { soft = "10s", hard = "60s" }`
				return f
			}
			fa, fb := file(a, b), file(b, a)
			fb.start = "passive"
			qa, qb := harness.NewQuick(t, a, "soak", fa.String()), harness.NewQuick(t, b, "soak", fb.String())
			qb.Up()
			qa.Up()
			monitors := []*harness.Running{qa.Start("monitor", "soak"), qb.Start("monitor", "soak")}
			stream := harness.StartStream(t, a, a.Inner4, b, b.Inner4, soakRate())
			time.Sleep(duration)
			note := stream.Lossless("rekeys by " + limit.kind)
			there, back := stream.Stop()
			pa, pb := qa.Peer(), qb.Peer()
			if there.Duplicated+back.Duplicated != 0 {
				t.Errorf("duplicated packets: %v\n%v", there, back)
			}
			// Two seconds, and what the rekey itself takes beside other tests.
			if want := int(duration.Seconds() / form(4, 2.4)); pa.Rekeys.Child < want {
				t.Errorf("%d rekeys of the Child SA, not %d", pa.Rekeys.Child, want)
			}
			if want := int(duration.Seconds() / 13); pa.Rekeys.IKE < want {
				t.Errorf("%d rekeys of the IKE SA, not %d", pa.Rekeys.IKE, want)
			}
			if pa.Expires.Hard+pb.Expires.Hard != 0 {
				t.Errorf("%d and %d hard expires", pa.Expires.Hard, pb.Expires.Hard)
			}
			capture.NothingClear()
			row.Notef("%d rekeys of the Child SA, %d of the IKE SA, %d and %d soft expires, %s, %d duplicated, longest gap %v",
				pa.Rekeys.Child, pa.Rekeys.IKE, pa.Expires.Soft, pb.Expires.Soft, note,
				there.Duplicated+back.Duplicated, max(there.Gap, back.Gap).Round(time.Millisecond))
			qa.Down()
			qb.Down()
			a.Unchanged(beforeA, "up and down")
			b.Unchanged(beforeB, "up and down")
			for i, m := range monitors {
				if said := m.Wait(5 * time.Second); t.Failed() {
					t.Logf("what the loop of %s did about the lost packets:\n%s", "ab"[i:i+1], meanwhile(said.Stdout, there, back))
				}
			}
		})
	}
}

// meanwhile are the lines of a monitor of the seconds in which packets were lost. A
// retiring SA stays for five.
func meanwhile(monitor string, reports ...harness.Report) string {
	var moments []time.Time
	for _, r := range reports {
		if r.Errors > 0 {
			moments = append(moments, r.RefusedAt)
		}
		for _, h := range r.Holes {
			moments = append(moments, h.From)
		}
	}
	var out strings.Builder
	for line := range strings.Lines(monitor) {
		stamp, _, _ := strings.Cut(line, " ")
		if slices.ContainsFunc(moments, func(m time.Time) bool {
			at, err := time.ParseInLocation("2006-01-02 15:04:05.000", m.Format("2006-01-02 ")+stamp, m.Location())
			return err == nil && m.Sub(at).Abs() < 8*time.Second
		}) {
			out.WriteString(line)
		}
	}
	return out.String()
}

// spis are the SPIs of a tunnel's Child SAs as the kernel of its host prints
// them, and those that its loop knows of.
func spis(q *harness.Quick) (kernel, known map[string]bool) {
	kernel, known = map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(q.Host.Run("ip", "-o", "xfrm", "state")) {
		if _, rest, ok := strings.Cut(line, " spi 0x"); ok {
			kernel[strings.Fields(rest)[0]] = true
		}
	}
	if s, ok := q.Status(); ok {
		for _, p := range s.Peers {
			for _, c := range p.Children {
				known[c.SPIIn], known[c.SPIOut] = true, true
			}
		}
	}
	return kernel, known
}
