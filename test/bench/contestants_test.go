//go:build lab

package bench_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// A contestant is something that connects the inner networks of two hosts.
type contestant struct {
	name string
	// up connects them and returns the processes of the daemons.
	up func(t *testing.T, a, b *harness.Host) (daemons []int)

	a, b    *harness.Host
	daemons []int
	rates   map[int]float64 // highest one without loss in an earlier run, by size
}

// The first is what the others are compared to, then ours.
var contestants = []*contestant{
	{name: "plain veth", up: plainVeth},
	{name: "ipsec-quick", up: ipsecQuick},
	{name: "wireguard-go", up: wireguardGo},
	{name: "kernel-libipsec", up: strongSwan},
}

// start builds the contestant's hosts, and connects them.
func (c *contestant) start(t *testing.T) {
	t.Helper()
	n := harness.NewCable(t, "a", "b")
	c.a, c.b, c.rates = n.A(), n.B(), map[int]float64{}
	c.daemons = c.up(t, c.a, c.b)
	// The first packet may be spent on a handshake.
	if !harness.Poll(10*time.Second, func() bool { return c.a.Ping(c.a.Inner4, c.b.Inner4, 1) == 1 }) {
		t.Fatalf("%s: no ping goes through", c.name)
	}
	c.b.ServeIperf(t, c.b.Inner4)
}

// plainVeth routes the inner networks over the cable: no tunnel at all.
func plainVeth(t *testing.T, a, b *harness.Host) []int {
	a.Run("ip", "route", "add", b.Net4.String(), "via", b.Outer4.String())
	b.Run("ip", "route", "add", a.Net4.String(), "via", a.Outer4.String())
	return nil
}

func ipsecQuick(t *testing.T, a, b *harness.Host) []int {
	tunnel := func(we, they *harness.Host, start string) *harness.Quick {
		return harness.NewQuick(t, we, "bench", fmt.Sprintf(`
			dataplane = %q
			[esp]
			proposals = [%q]
			[[peer]]
			name = "other"
			endpoint = "%v"
			psk = %q
			local_ts = ["%v"]
			remote_ts = ["%v"]
			start = %q
			`, harness.Dataplane, *esp, they.Outer4, psk, we.Net4, they.Net4, start))
	}
	qb, qa := tunnel(b, a, "passive"), tunnel(a, b, "now")
	qb.Up()
	qa.Up()
	return []int{qa.PID(), qb.PID()}
}

const psk = "a secret that is only used to measure"

func strongSwan(t *testing.T, a, b *harness.Host) []int {
	daemon := func(we, they *harness.Host) *harness.Charon {
		c := harness.StartCharon(t, we)
		c.Load(harness.Conn{
			Name: "bench", Local: we.Outer4.String(), Remote: they.Outer4.String(), Secret: psk,
			Child: harness.Child{
				LocalTS: we.Net4.String(), RemoteTS: they.Net4.String(), ESP: *esp, Extra: "rekey_time = 0\n",
			},
		}.String(), nil)
		return c
	}
	cb, ca := daemon(b, a), daemon(a, b)
	ca.Initiate("net")
	return []int{ca.PID(), cb.PID()}
}

// wireguardGo starts wireguard-go in both hosts and configures it over its
// socket.
func wireguardGo(t *testing.T, a, b *harness.Host) []int {
	keyA, keyB := x25519(t), x25519(t)
	return []int{
		wireguardPeer(t, a, keyA, b, keyB.PublicKey()),
		wireguardPeer(t, b, keyB, a, keyA.PublicKey()),
	}
}

func x25519(t *testing.T) *ecdh.PrivateKey {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func wireguardPeer(t *testing.T, we *harness.Host, key *ecdh.PrivateKey, they *harness.Host, theirs *ecdh.PublicKey) (pid int) {
	t.Helper()
	const port = 51820
	path, err := filepath.Abs(*wgBinary)
	if err != nil {
		t.Fatal(err)
	}
	pid = we.Background(t, path, "--foreground", "wg0")
	request := fmt.Sprintf("set=1\nprivate_key=%x\nlisten_port=%d\npublic_key=%x\nendpoint=%v\nallowed_ip=%v\n\n",
		key.Bytes(), port, theirs.Bytes(), netip.AddrPortFrom(they.Outer4, port), they.Net4)
	var answer string
	if !harness.Poll(5*time.Second, func() bool {
		answer, err = ask(we, "/var/run/wireguard/wg0.sock", request)
		return err == nil
	}) {
		t.Fatalf("wireguard-go: %v", err)
	}
	if !strings.Contains(answer, "errno=0\n") {
		t.Fatalf("wireguard-go answers %q", answer)
	}
	we.Run("ip", "link", "set", "wg0", "up")
	we.Run("ip", "route", "add", they.Net4.String(), "dev", "wg0")
	return pid
}

// ask sends a request to a host's unix socket and returns what is answered.
func ask(h *harness.Host, path, request string) (answer string, err error) {
	err = h.Do(func() error {
		conn, err := net.DialTimeout("unix", path, time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		if _, err := conn.Write([]byte(request)); err != nil {
			return err
		}
		buf := make([]byte, 4096)
		n, err := conn.Read(buf)
		answer = string(buf[:n])
		return err
	})
	return answer, err
}

// resident is the memory of all daemons that field of /proc/PID/status counts,
// in MiB, of the one that has most.
func (c *contestant) resident(t *testing.T, field string) float64 {
	t.Helper()
	most := 0.0
	for _, pid := range c.daemons {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		for line := range strings.Lines(string(text)) {
			var kib float64
			if _, err := fmt.Sscanf(line, field+": %f kB", &kib); err == nil {
				most = max(most, kib/1024)
			}
		}
	}
	return most
}
