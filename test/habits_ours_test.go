//go:build lab

package lab_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ipsec-quick/test/harness"
)

// newOurs is the side of ipsec-quick: a host with a tunnel file, and two that answer.
func newOurs(t *testing.T) *side {
	t.Helper()
	n := harness.NewNet(t, "a", "b", "c")
	a := n.A()
	for _, o := range n.Hosts[1:] {
		f := between(o, a)
		f.start = "passive"
		f.localTS, f.remoteTS = netip.Prefix{}, netip.Prefix{}
		f.more = fmt.Sprintf("local_ts = [%q, %q]\nremote_ts = [%q, %q]", o.Net4, o.Net6, a.Net4, a.Net6)
		if o == n.B() {
			f.more = fmt.Sprintf("local_ts = [\"0.0.0.0/0\", \"::/0\"]\nremote_ts = [%q, %q]", a.Net4, a.Net6)
			addEverywhere(o)
		}
		harness.NewQuick(t, o, "far", f.String()).Up()
	}
	s := &side{program: ourProgram, net: n, file: "/etc/ipsec-quick/office.toml", plain: ourFile(n, ""), printed: map[string]bool{}}
	s.quick = harness.NewQuick(t, a, "office", s.plain)
	s.env = []string{"PATH=" + filepath.Dir(s.quick.Binary) + ":" + os.Getenv("PATH")}
	t.Cleanup(func() {
		for _, name := range []string{"office", "branch"} {
			s.quick.Exec("down", name)
		}
	})
	return s
}

// addEverywhere gives a host the addresses that stand for the internet.
func addEverywhere(h *harness.Host) {
	for _, addr := range everywhere {
		h.Run("ip", "addr", "add", netip.PrefixFrom(addr, addr.BitLen()).String(), "dev", "lo")
	}
}

// ourFile is a tunnel file with a device and b for its peer, with more lines in
// [interface].
func ourFile(n *harness.Net, more string) string {
	f := between(n.A(), n.B())
	f.device = fmt.Sprintf("[interface]\naddresses = [%q]\n%s", device4, more)
	return f.String()
}

func oursUpByName(t *testing.T, s *side) {
	s.shows(t, "cat /etc/ipsec-quick/office.toml")
	s.types(t, 0, "ipsec-quick up office", "[#] ip ", "other: established")
	s.device(t, "office")
	s.carries(t, "office", s.b().Inner4)
	s.types(t, 0, "ipsec-quick down office", "[#] ip ")
	s.leaves(t)
}

func oursUpByPath(t *testing.T, s *side) {
	s.a().WriteFile("/run/branch.toml", s.plain)
	s.before = s.a().Snapshot()
	s.types(t, 0, "cd /run && ipsec-quick up ./branch.toml", "other: established")
	s.device(t, "branch")
	s.carries(t, "branch", s.b().Inner4)
	s.types(t, 0, "cd /run && ipsec-quick down ./branch.toml")
	s.leaves(t)
	s.a().Run("rm", "/run/branch.toml")
}

func oursUpTwice(t *testing.T, s *side) {
	s.types(t, 0, "ipsec-quick up office")
	before := s.a().Snapshot()
	if again := s.types(t, 0, "ipsec-quick up office", "nothing was changed"); strings.Contains(again, "[#]") {
		t.Errorf("the second up changes something:\n%s", again)
	}
	s.a().Unchanged(before, "up of a tunnel that is up")
	s.carries(t, "office", s.b().Inner4)
	s.types(t, 0, "ipsec-quick down office")
	s.leaves(t)
}

func oursDownTwice(t *testing.T, s *side) {
	s.types(t, 0, "ipsec-quick up office")
	s.types(t, 0, "ipsec-quick down office")
	s.types(t, 0, "ipsec-quick down office", "office is not up; nothing was changed")
	s.leaves(t)
}

func oursHooks(t *testing.T, s *side) {
	names := []string{"pre_up", "post_up", "pre_down", "post_down"}
	hooks := "[hooks]\n"
	for _, name := range names {
		hooks += fmt.Sprintf("%s = [\"echo %s %%i >>%s\"]\n", name, name, ranFile)
	}
	s.write(s.plain + hooks)
	s.shows(t, "grep -A4 hooks /etc/ipsec-quick/office.toml")
	s.types(t, 0, "ipsec-quick up office", "[#] echo pre_up office >>"+ranFile, "[#] echo post_up office >>"+ranFile)
	s.types(t, 0, "ipsec-quick down office", "[#] echo pre_down office >>"+ranFile, "[#] echo post_down office >>"+ranFile)
	s.ran(t, ranFile, names...)
	s.leaves(t)

	s.write(s.plain + strings.Replace(hooks, `post_up = ["`, `post_up = ["false", "`, 1))
	s.shows(t, "grep post_up /etc/ipsec-quick/office.toml")
	s.types(t, 1, "ipsec-quick up office", "hook post_up: `false`: exit status 1")
	s.ran(t, ranFile, "pre_up", "pre_down", "post_down")
	s.leaves(t)
}

func oursDNS(t *testing.T, s *side) {
	s.resolvconf(t)
	s.write(ourFile(s.net, fmt.Sprintf("dns = [%q, %q]", s.b().Inner4, dnsDomain)))
	s.shows(t, "grep dns /etc/ipsec-quick/office.toml; cat /etc/resolv.conf")
	s.types(t, 0, "ipsec-quick up office", "resolvconf -a office")
	s.resolves(t)
	s.types(t, 0, "ipsec-quick down office", "resolvconf -d office")
	s.leaves(t)
}

func oursDefaultRoute(t *testing.T, s *side) {
	a := s.a()
	f := between(a, s.b())
	f.localTS, f.remoteTS = netip.Prefix{}, netip.Prefix{}
	f.device = fmt.Sprintf("[interface]\naddresses = [%q, %q]", device4, device6)
	f.more = fmt.Sprintf("local_ts = [%q, %q]\nremote_ts = [\"0.0.0.0/0\", \"::/0\"]", a.Net4, a.Net6)
	s.write(f.String())
	s.shows(t, "grep _ts /etc/ipsec-quick/office.toml")
	s.types(t, 0, "ipsec-quick up office")
	s.everything(t)
	s.types(t, 0, "ipsec-quick down office")
	s.leaves(t)
}

// newPeer is a section of a tunnel file.
func newPeer(we, they *harness.Host) string {
	return fmt.Sprintf("[[peer]]\nname = \"new\"\nid = \"%s.example\"\npsk = %q\nendpoint = %q\nlocal_ts = [%q]\nremote_ts = [%q]\n",
		they.Name, testPSK, they.Outer4, we.Net4, they.Net4)
}

func oursReload(t *testing.T, s *side) {
	c := s.net.Hosts[2]
	s.types(t, 0, "ipsec-quick up office")
	before := s.quick.Peer()
	s.write(s.plain + newPeer(s.a(), c))
	s.shows(t, "tail -n 7 /etc/ipsec-quick/office.toml")
	s.types(t, 0, "ipsec-quick reload office", "new: added")
	s.carries(t, "office", c.Inner4)
	s.carries(t, "office", s.b().Inner4)
	s.shows(t, "ip route show dev office", s.b().Net4.String(), c.Net4.String())
	after, _ := s.quick.Status()
	if len(after.Peers) != 2 || after.Peers[0].Children[0].SPIIn != before.Children[0].SPIIn {
		t.Errorf("the peer that stays has other SAs: %v, before %v", after.Peers, before)
	}
	s.types(t, 0, "ipsec-quick down office")
	s.leaves(t)
}

func oursSystemctl(t *testing.T, s *side) {
	c := s.net.Hosts[2]
	s.boots(t, fmt.Sprintf("dpkg -i %s\numask 077\ncat >%s <<'END'\n%sEND\n", packageOf(t, "deb"), s.file, s.plain))
	s.types(t, 0, "systemctl start ipsec-quick@office")
	(&machine{Systemd: s.systemd, t: t, host: s.a()}).wantEstablished(office)
	const show = "systemctl show --property ActiveState,SubState,StatusText " + office
	s.shows(t, show, "ActiveState=active")
	s.device(t, "office")
	s.carries(t, "office", s.b().Inner4)
	s.shows(t, fmt.Sprintf("cat >>%s <<'END'\n%sEND", s.file, newPeer(s.a(), c)))
	s.types(t, 0, "systemctl reload ipsec-quick@office")
	s.carries(t, "office", c.Inner4)
	s.shows(t, show, "2 of 2 peers established")
	s.types(t, 0, "systemctl stop ipsec-quick@office")
	s.shows(t, show, "ActiveState=inactive")
	s.leaves(t)
}

func oursCompletion(t *testing.T, s *side) {
	a := s.a()
	a.WriteFile("/etc/ipsec-quick/spare.toml", s.plain)
	s.types(t, 0, "ipsec-quick up --quiet office")
	s.completes(t, "source <(ipsec-quick completion bash)", "_ipsec_quick",
		[2]string{"ipsec-quick u", "up"},
		[2]string{"ipsec-quick up ", "office spare"},
		[2]string{"ipsec-quick down ", "office"},
	)
	s.types(t, 0, "ipsec-quick down --quiet office")
	a.Run("rm", "/etc/ipsec-quick/spare.toml")
	s.leaves(t)
}
