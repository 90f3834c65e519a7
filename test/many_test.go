//go:build lab

package lab_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// tunnels is how many TestManyTunnels has on one host; 0: what the form says.
var tunnels = flag.Int("tunnels", 0, "how many tunnels the host of TestManyTunnels has")

// A crowd is many tunnels of one host, each with a file and a process of its own.
// Every other one answers.
type crowd struct {
	t     *testing.T
	host  *harness.Host
	count int
	// workers run commands side by side, as many as a boot would.
	workers []*harness.Quick
}

func (c *crowd) name(i int) string { return fmt.Sprintf("t%03d", i) }

func (c *crowd) answers(i int) bool { return i%2 == 1 }

// networks are those of the i-th tunnel, on its host and on the other.
func (c *crowd) networks(i int) (here, there netip.Prefix) {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i), 0}), 24), netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 2, byte(i), 0}), 24)
}

// inner is an address in a network of the i-th tunnel.
func inner(p netip.Prefix) netip.Addr { return p.Addr().Next() }

// each runs a command of ipsec-quick for each of some tunnels, by all workers.
func (c *crowd) each(list []int, args func(i int) []string) {
	c.t.Helper()
	var next int
	var lock sync.Mutex
	var group sync.WaitGroup
	for _, w := range c.workers {
		group.Go(func() {
			for {
				lock.Lock()
				n := next
				next++
				lock.Unlock()
				if n >= len(list) {
					return
				}
				if r := w.Exec(args(list[n])...); r.Err != nil {
					c.t.Errorf("%v: %s", args(list[n]), r)
				}
			}
		})
	}
	group.Wait()
}

// statuses are those of all tunnels of a host.
func (c *crowd) statuses(q *harness.Quick) (all []harness.Status) {
	c.t.Helper()
	r := q.Exec("status", "--json")
	if err := json.Unmarshal([]byte(r.Stdout), &all); err != nil || r.Err != nil {
		c.t.Fatalf("status --json: %v: %s", err, r)
	}
	return all
}

// TestManyTunnels has many tunnels on one host, each its own process, on the shared
// ports, half of them answering, and lets them rekey. The other end is two tunnels
// with a peer for each of them. Ends come up in either order: the other host's
// tunnel that answers is there before ours that call it, and its tunnel that calls
// before ours that answer.
func TestManyTunnels(t *testing.T) {
	count, duration := form(12, 200), form(20*time.Second, 10*time.Minute)
	if *tunnels > 0 {
		count = *tunnels
	}
	lifetime := `time = { soft = "10s", hard = "40s" }`
	if count > 20 {
		lifetime = `time = { soft = "60s", hard = "90s" }`
	}
	row := harness.NewRow("8. More", fmt.Sprintf("%d tunnels on one host, half answering", count), "both ends").Of(t)
	t.Parallel()
	n := harness.NewNet(t, "a", "b")
	c := &crowd{t: t, host: n.A(), count: count}
	far := c.prepare(n.B(), lifetime)
	before := n.A().Snapshot()
	all := make([]int, count)
	for i := range all {
		all[i] = i
	}
	t.Cleanup(func() { // after a test that failed in between
		c.each(all, func(i int) []string { return []string{"down", "--quiet", c.name(i)} })
	})

	start := time.Now()
	for _, q := range far {
		q.Up("--keep-trying", "--timeout", "100ms")
	}
	c.each(all, func(i int) []string {
		return []string{"up", "--keep-trying", "--timeout", "100ms", "--quiet", c.name(i)}
	})
	began := time.Since(start)
	limit := 20 * time.Second
	if os.Getenv("LAB") == "vm" {
		limit *= 3 // emulated
	}
	for {
		up := 0
		for _, s := range c.statuses(c.workers[0]) {
			if len(s.Peers) == 1 && s.Peers[0].State == "established" && len(s.Peers[0].Children) > 0 {
				up++
			}
		}
		if up == count {
			break
		}
		if time.Since(start) > 5*limit {
			t.Fatalf("%d of %d tunnels are established after %v", up, count, time.Since(start))
		}
		time.Sleep(200 * time.Millisecond)
	}
	established := time.Since(start)
	if established > limit && *full { // else other tests run beside it
		t.Errorf("all are established after %v, not %v", established, limit)
	}
	time.Sleep(duration)

	resident, largest := 0, 0
	rekeys, soft := 0, 0
	for _, s := range c.statuses(c.workers[0]) {
		p := s.Peers[0]
		rekeys, soft = rekeys+p.Rekeys.Child, soft+p.Expires.Soft
		if p.Expires.Hard != 0 || p.State == "idle" || p.State == "connecting" {
			t.Errorf("%s: %d hard expires, %s", s.Tunnel, p.Expires.Hard, p.State)
		}
		memory := memoryOf(t, s.WatchPID)
		resident, largest = resident+memory["Rss"], max(largest, memory["Rss"])
	}
	for _, q := range far {
		s, _ := q.Status()
		for _, p := range s.Peers {
			if p.Expires.Hard != 0 {
				t.Errorf("the other end: %s: %d hard expires", p.Name, p.Expires.Hard)
			}
		}
	}
	for i := range count {
		here, there := c.networks(i)
		if got := c.host.Ping(inner(here), inner(there), 2); got != 2 {
			t.Errorf("%s: %d of 2 packets pass", c.name(i), got)
		}
	}
	row.Notef("all established after %.1f s (the last up ended after %.1f s), %d rekeys, %d soft and 0 hard expires in %v; %.1f MiB resident a tunnel, the largest %.1f",
		established.Seconds(), began.Seconds(), rekeys, soft, duration, float64(resident)/float64(count)/1024, float64(largest)/1024)
	start = time.Now()
	c.each(all, func(i int) []string { return []string{"down", "--quiet", c.name(i)} })
	t.Logf("all down after %v", time.Since(start).Round(time.Millisecond))
	for _, q := range far {
		q.Down()
	}
	c.host.Unchanged(before, "all up and down")
}

// prepare writes the files of both hosts, and gives both the addresses.
func (c *crowd) prepare(other *harness.Host, lifetime string) (far []*harness.Quick) {
	c.t.Helper()
	files := [2]strings.Builder{}
	for i, name := range []string{"answers", "calls"} {
		fmt.Fprintf(&files[i], "dataplane = %q\n[local]\nid = \"%s.example\"\n[ike]\nproposals = [\"aes256gcm16-prfsha384-x25519\"]\n[esp]\nproposals = [\"aes256gcm16\"]\n[lifetime]\n%s\n", harness.Dataplane, name, lifetime)
	}
	for i := range c.count {
		here, there := c.networks(i)
		f := between(c.host, other)
		f.id, f.localTS, f.remoteTS, f.start = c.name(i)+".example", here, there, "now"
		f.lifetime, f.peerID = "", "answers.example"
		peer := fmt.Sprintf("[[peer]]\nname = %q\nid = %q\nendpoint = %q\npsk = %q\nlocal_ts = [%q]\nremote_ts = [%q]\n",
			c.name(i), f.id, c.host.Outer4, testPSK, there, here)
		if c.answers(i) {
			f.peerID, f.start = "calls.example", "passive"
			files[1].WriteString(peer)
		} else {
			files[0].WriteString(peer + "start = \"passive\"\n")
		}
		f.more = "[peer.lifetime]\n" + lifetime
		c.host.WriteFile("/etc/ipsec-quick/"+c.name(i)+".toml", f.String())
		if inner(here) != c.host.Inner4 {
			c.host.Run("ip", "addr", "add", inner(here).String()+"/32", "dev", "lo")
			other.Run("ip", "addr", "add", inner(there).String()+"/32", "dev", "lo")
		}
	}
	for i := range min(8, c.count) {
		text := c.host.Run("cat", "/etc/ipsec-quick/"+c.name(i)+".toml")
		c.workers = append(c.workers, harness.NewQuick(c.t, c.host, c.name(i), text))
	}
	for i, name := range []string{"answers", "calls"} {
		far = append(far, harness.NewQuick(c.t, other, name, files[i].String()))
	}
	return slices.Clip(far)
}
