package watch

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"ipsec-quick/apply"
	"ipsec-quick/conf"
)

// reloading is a tunnel to change: `left`, with a peer for each of some hosts.
type reloading struct {
	t     *testing.T
	h     *host
	path  string
	head  string
	peers []string // the text of each
	*running
}

// far is a host that the tunnel may have as a peer.
type far struct {
	*host
	name string
	port int
	ts   string
}

// newReloading is the tunnel with the first `have` of some hosts, established.
func newReloading(t *testing.T, count, have int) (*reloading, []*far) {
	t.Helper()
	port, natPort := freePorts(t)
	r := &reloading{t: t, h: newHost(t), head: fmt.Sprintf("[local]\nid = \"left.example\"\n[ike]\nport = %d\nnat_port = %d\n", port, natPort)}
	var fars []*far
	for i := range count {
		f := &far{host: newHost(t), name: fmt.Sprintf("far%d", i), ts: fmt.Sprintf("10.2.%d.0/24", i)}
		s := site{name: f.name, id: f.name + ".example", peerID: "left.example", localTS: f.ts, remoteTS: "10.1.0.0/16"}
		s.port, s.natPort = freePorts(t)
		f.port = s.port
		f.start(loadTunnel(t, s.name, s.text()))
		fars = append(fars, f)
	}
	for _, f := range fars[:have] {
		r.peers = append(r.peers, f.peer(""))
	}
	r.path = writeTunnel(t, "left", r.text())
	tunnel, err := conf.Load(r.path)
	if err != nil {
		t.Fatal(err)
	}
	r.running = r.h.start(tunnel)
	r.call(func() { r.settled = true })
	r.await(have)
	return r, fars
}

// peer is the section of a host.
func (f *far) peer(extra string) string {
	return fmt.Sprintf("[[peer]]\nname = %q\nid = %q\nendpoint = \"127.0.0.2:%d\"\npsk_file = \"psk\"\nlocal_ts = [\"10.1.0.0/16\"]\nremote_ts = [%q]\n%s\n",
		f.name, f.name+".example", f.port, f.ts, extra)
}

func (r *reloading) text() string { return r.head + strings.Join(r.peers, "") }

// write changes the file.
func (r *reloading) write() {
	r.t.Helper()
	if err := os.WriteFile(r.path, []byte(r.text()), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// change changes the file and reloads it.
func (r *reloading) change() (*Reloaded, error) {
	r.t.Helper()
	r.write()
	return Reload(r.h.root, "left", func(string) {})
}

// mustChange is change that must not fail.
func (r *reloading) mustChange() *Reloaded {
	r.t.Helper()
	done, err := r.change()
	if err != nil {
		r.t.Fatal(err)
	}
	return done
}

// of is the status of one peer.
func (r *reloading) of(peer string) PeerStatus {
	r.t.Helper()
	s, err := Get(r.h.root, "left", r.h.opener)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, p := range s.Peers {
		if p.Name == peer {
			return p
		}
	}
	return PeerStatus{}
}

// await waits until so many peers, and no others, are established.
func (r *reloading) await(count int) {
	r.t.Helper()
	eventually(r.t, "established", func() bool {
		s, err := Get(r.h.root, "left", r.h.opener)
		if err != nil || len(s.Peers) != count {
			return false
		}
		for _, p := range s.Peers {
			if p.State != "established" || len(p.live()) != 1 {
				return false
			}
		}
		return true
	})
}

// unchanged checks that a peer has the SAs that it had.
func (r *reloading) unchanged(before PeerStatus) {
	r.t.Helper()
	after := r.of(before.Name)
	if after.IKE.SPIi != before.IKE.SPIi || len(after.live()) != 1 || after.live()[0].SPIIn != before.live()[0].SPIIn {
		r.t.Errorf("%s has other SAs: %+v, before %+v", before.Name, after, before)
	}
}

// guarded are the selectors of the guards.
func (r *reloading) guarded() []string {
	var out []string
	for _, p := range r.h.dp.Policies() {
		if p.Guard && p.Action == apply.Block {
			out = append(out, p.Selector.Remote.String())
		}
	}
	slices.Sort(out)
	return out
}
