//go:build lab

package lab_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// A hub is a tunnel with several peers, whose file a test changes.
type hub struct {
	*harness.Quick
	t     *testing.T
	head  string
	peers map[*harness.Host]*hubPeer
}

// hubPeer is what the hub's file says of a peer.
type hubPeer struct {
	psk, esp string
	gone     bool
}

// newHub is a hub at the first host with all others as its peers, each with a
// tunnel of its own that answers.
func newHub(t *testing.T, n *harness.Net) (h *hub, far map[*harness.Host]*harness.Quick) {
	t.Helper()
	h = &hub{t: t, peers: map[*harness.Host]*hubPeer{}, head: fmt.Sprintf(
		"dataplane = %q\n[local]\nid = \"hub.example\"\n[ike]\nproposals = [\"aes256gcm16-prfsha384-x25519\"]\n", harness.Dataplane)}
	far = map[*harness.Host]*harness.Quick{}
	for _, o := range n.Hosts[1:] {
		h.peers[o] = &hubPeer{psk: testPSK, esp: "aes256gcm16"}
		far[o] = harness.NewQuick(t, o, "far", farFile(n.A(), o, testPSK).String())
		far[o].Up()
	}
	h.Quick = harness.NewQuick(t, n.A(), "hub", h.text(n))
	return h, far
}

// farFile is the other end.
func farFile(hub, o *harness.Host, psk string) quickFile {
	f := between(o, hub)
	f.id, f.peerID, f.psk, f.start = o.Name+".example", "hub.example", psk, "passive"
	f.esp = "aes256gcm16-aes128gcm16"
	return f
}

// text is the hub's file, with the peers in the order of the hosts.
func (h *hub) text(n *harness.Net) string {
	var b strings.Builder
	b.WriteString(h.head)
	for _, o := range n.Hosts[1:] {
		p := h.peers[o]
		if p.gone {
			continue
		}
		fmt.Fprintf(&b, "[[peer]]\nname = %q\nid = %q\nendpoint = %q\npsk = %q\nlocal_ts = [%q]\nremote_ts = [%q]\n[peer.esp]\nproposals = [%q]\n",
			o.Name, o.Name+".example", o.Outer4, p.psk, n.A().Net4, o.Net4, p.esp)
	}
	return b.String()
}

// reload writes the file and reloads it. What it says has to have some lines.
func (h *hub) reload(n *harness.Net, want ...string) {
	h.t.Helper()
	h.Host.WriteFile("/etc/ipsec-quick/hub.toml", h.text(n))
	r := h.Exec("reload", "hub")
	if r.Err != nil {
		h.t.Fatalf("reload: %s", r)
	}
	for _, w := range want {
		if !strings.Contains(r.Stderr, w) {
			h.t.Errorf("reload says nothing of %q: %s", w, r)
		}
	}
}

// established says whether these hosts, and no others, are established.
func (h *hub) established(hosts ...*harness.Host) bool {
	h.t.Helper()
	s, ok := h.Status()
	if !ok || len(s.Peers) != len(hosts) {
		return false
	}
	for _, p := range s.Peers {
		if p.State != "established" || len(p.Children) == 0 {
			return false
		}
	}
	return true
}

// TestReload adds, changes and removes peers, again and again, under packets to a
// peer whose section does not change: none is lost, and nothing leaves in clear.
func TestReload(t *testing.T) {
	row := harness.NewRow(soakGroup, "reload adds, changes and removes peers", "a peer that stays")
	t.Parallel()
	row.Of(t)
	n := harness.NewNet(t, "a", "b", "c", "d", "e")
	a, b, c, d, e := n.A(), n.Hosts[1], n.Hosts[2], n.Hosts[3], n.Hosts[4]
	before := a.Snapshot()
	h, far := newHub(t, n)
	h.peers[e].gone = true
	a.WriteFile("/etc/ipsec-quick/hub.toml", h.text(n))
	h.Up()
	within(t, 10*time.Second, "established", func() bool { return h.established(b, c, d) })
	stays, changes := h.peerOf("b"), h.peerOf("c")

	capture := harness.StartCapture(t, n)
	stream := harness.StartStream(t, a, a.Inner4, b, b.Inner4, soakRate())
	beside := harness.StartStream(t, a, a.Inner4, c, c.Inner4, 50)
	rounds, end := 0, time.Now().Add(form(5*time.Second, 5*time.Minute))
	for ; rounds == 0 || time.Now().Before(end); rounds++ {
		// A Child SA by other algorithms, one peer out and another in.
		h.peers[c].esp, h.peers[d].gone, h.peers[e].gone = "aes128gcm16", true, false
		h.reload(n, "c: esp.proposals changed", "d: removed", "e: added")
		within(t, 10*time.Second, "the first change", func() bool {
			return h.established(b, c, e) && h.carries("c", "aes128gcm16")
		})
		if p := h.peerOf("c"); p.IKE.SPIi != changes.IKE.SPIi {
			t.Error("a change of the Child SA has ended the IKE SA")
		}
		within(t, 10*time.Second, "d was told", func() bool { return far[d].Peer().State == "idle" })

		// Another key on both ends, and the peers back.
		psk := fmt.Sprintf("the secret of round %d", rounds)
		h.peers[c].psk, h.peers[c].esp, h.peers[d].gone, h.peers[e].gone = psk, "aes256gcm16", false, true
		c.WriteFile("/etc/ipsec-quick/far.toml", farFile(a, c, psk).String())
		if r := far[c].Exec("reload", "far"); r.Err != nil {
			t.Fatalf("the other end: reload: %s", r)
		}
		h.reload(n, "c: psk, esp.proposals changed", "d: added", "e: removed")
		within(t, 15*time.Second, "the second change", func() bool { return h.established(b, c, d) })
		changes = h.peerOf("c")
	}
	beside.Stop()
	note := stream.Lossless("reloads")
	if p := h.peerOf("b"); p.IKE.SPIi != stays.IKE.SPIi || p.Children[0].SPIIn != stays.Children[0].SPIIn {
		t.Error("the peer that stays has other SAs")
	}
	h.refuses(n)
	h.kill(n, b, c, e)
	capture.NothingClear()
	h.Down()
	a.Unchanged(before, "reloads, up and down")
	row.Notef("%d reloads, %s", 2*rounds, note)
}

// peerOf is the status of one peer.
func (h *hub) peerOf(name string) harness.PeerStatus {
	h.t.Helper()
	s, _ := h.Status()
	for _, p := range s.Peers {
		if p.Name == name && len(p.Children) > 0 {
			return p
		}
	}
	h.t.Fatalf("%s has no Child SA", name)
	return harness.PeerStatus{}
}

// carries says whether a peer has one Child SA for packets, by an algorithm.
func (h *hub) carries(name, algorithm string) bool {
	h.t.Helper()
	var live []harness.ChildStatus
	for _, c := range h.peerOf(name).Children {
		if !c.Retiring {
			live = append(live, c)
		}
	}
	return len(live) == 1 && strings.HasPrefix(live[0].Proposal, algorithm)
}

// refuses tries what changes nothing.
func (h *hub) refuses(n *harness.Net) {
	h.t.Helper()
	path := "/etc/ipsec-quick/hub.toml"
	before := h.peerOf("b")
	for want, text := range map[string]string{
		"nothing was changed":      h.text(n),
		"ike.nat_port has changed": strings.Replace(h.text(n), "[ike]\n", "[ike]\nnat_port = 4501\n", 1),
		path + ":":                 strings.Replace(h.text(n), "endpoint", "end", 1),
	} {
		h.Host.WriteFile(path, text)
		r, code := h.Exec("reload", "hub"), 1
		switch want {
		case path + ":":
			check := h.Exec("check", "hub")
			if code = 78; r.Stderr != check.Stderr {
				h.t.Errorf("reload says\n%s\nand check says\n%s", r.Stderr, check.Stderr)
			}
		case "nothing was changed":
			code = 0
		}
		if r.Code != code || !strings.Contains(r.Stderr, want) {
			h.t.Errorf("not exit status %d with %q but %s", code, want, r)
		}
	}
	if p := h.peerOf("b"); p.Children[0].SPIIn != before.Children[0].SPIIn {
		h.t.Error("a file that was refused has changed something")
	}
	h.Host.WriteFile(path, h.text(n))
}

// kill ends the loop in the middle of a reload: the next one has the new peers.
func (h *hub) kill(n *harness.Net, b, c, e *harness.Host) {
	h.t.Helper()
	for _, p := range h.peers {
		p.gone = false
	}
	h.peers[n.Hosts[3]].gone = true
	h.peers[c].esp = "aes128gcm16"
	h.Host.WriteFile("/etc/ipsec-quick/hub.toml", h.text(n))
	pid := h.PID()
	reload := h.Start("reload", "hub")
	time.Sleep(5 * time.Millisecond)
	h.Host.Signal(pid, syscall.SIGKILL)
	reload.Wait(10 * time.Second)
	ended(h.t, h.Quick)
	h.Up()
	within(h.t, 10*time.Second, "the new peers", func() bool {
		return h.established(b, c, e) && h.carries("c", "aes128gcm16")
	})
}
