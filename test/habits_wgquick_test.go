//go:build lab

package lab_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ipsec-quick/test/harness"
)

const (
	wgPort = 51820
	// wgRan is where hooks write what they see.
	wgRan = "/etc/wireguard/ran"
)

// wgKeys are those of a host.
type wgKeys struct{ private, public string }

func newWgKeys(t *testing.T) wgKeys {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	base64 := base64.StdEncoding.EncodeToString
	return wgKeys{base64(key.Bytes()), base64(key.PublicKey().Bytes())}
}

// wgAbsent is why wg-quick does not run here. Where the kernel has no WireGuard it
// uses wireguard-go, if there is one.
func wgAbsent(userspace string) string {
	if _, err := exec.LookPath("wg-quick"); err != nil {
		return "wg-quick is not there (Debian package wireguard-tools)"
	}
	if _, err := os.Stat(userspace); err == nil {
		return ""
	}
	if err := exec.Command("unshare", "--net", "ip", "link", "add", "wg0", "type", "wireguard").Run(); err != nil {
		return "neither has the kernel WireGuard nor is there a wireguard-go (make bin/wireguard-go)"
	}
	return ""
}

// wireguardGo is the path of a wireguard-go, if there is one.
func wireguardGo(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("bin/wireguard-go")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// newWgQuick is the side of wg-quick: as newOurs.
func newWgQuick(t *testing.T) *side {
	t.Helper()
	userspace := wireguardGo(t)
	s := &side{program: wgProgram, file: "/etc/wireguard/office.conf", absent: wgAbsent(userspace),
		env: []string{"PATH=" + filepath.Dir(userspace) + ":" + os.Getenv("PATH")}, printed: map[string]bool{}}
	if s.absent != "" {
		return s
	}
	s.net = harness.NewNet(t, "a", "b", "c")
	a, b, c := s.net.A(), s.net.B(), s.net.Hosts[2]
	addEverywhere(b)
	a.Run("mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", "/etc/wireguard")
	keys := newWgKeys(t)
	s.keys = map[*harness.Host]string{}
	for _, o := range []*harness.Host{b, c} {
		theirs := newWgKeys(t)
		s.keys[o] = theirs.public
		o.WriteFile("/run/far.conf", wgInterface(theirs)+wgPeer(keys.public, a, fmt.Sprintf("%v, %v", a.Net4, a.Net6)))
		if r := o.ExecEnv(s.env, "wg-quick", "up", "/run/far.conf"); r.Err != nil {
			t.Fatalf("the far end: %s", r)
		}
		t.Cleanup(func() { o.KillAll(t) })
	}
	t.Cleanup(func() { a.KillAll(t) })
	s.plain = wgInterface(keys, "Address = "+device4) + wgPeer(s.keys[b], b, b.Net4.String())
	return s
}

// wgInterface is the first section of a file of wg-quick's.
func wgInterface(own wgKeys, more ...string) string {
	return fmt.Sprintf("[Interface]\nPrivateKey = %s\nListenPort = %d\n%s\n", own.private, wgPort, strings.Join(more, "\n"))
}

// wgPeer is a section for a peer.
func wgPeer(key string, o *harness.Host, allowed string) string {
	return fmt.Sprintf("[Peer]\nPublicKey = %s\nEndpoint = %v:%d\nAllowedIPs = %s\n", key, o.Outer4, wgPort, allowed)
}

func wgUpByName(t *testing.T, s *side) {
	s.shows(t, "cat /etc/wireguard/office.conf")
	s.types(t, 0, "wg-quick up office")
	s.device(t, "office")
	s.carries(t, "office", s.b().Inner4)
	s.types(t, 0, "wg-quick down office")
	s.leaves(t)
}

func wgUpByPath(t *testing.T, s *side) {
	s.a().WriteFile("/run/branch.conf", s.plain)
	s.before = s.a().Snapshot()
	s.types(t, 0, "cd /run && wg-quick up ./branch.conf")
	s.device(t, "branch")
	s.carries(t, "branch", s.b().Inner4)
	s.types(t, 0, "cd /run && wg-quick down ./branch.conf")
	s.leaves(t)
	s.a().Run("rm", "/run/branch.conf")
}

func wgUpTwice(t *testing.T, s *side) {
	s.types(t, 0, "wg-quick up office")
	s.types(t, 1, "wg-quick up office")
	s.carries(t, "office", s.b().Inner4)
	s.types(t, 0, "wg-quick down office")
	s.leaves(t)
}

func wgDownTwice(t *testing.T, s *side) {
	s.types(t, 0, "wg-quick up office")
	s.types(t, 0, "wg-quick down office")
	s.types(t, 1, "wg-quick down office")
	s.leaves(t)
}

func wgHooks(t *testing.T, s *side) {
	names := []string{"PreUp", "PostUp", "PreDown", "PostDown"}
	hooks := ""
	for _, name := range names {
		hooks += fmt.Sprintf("%s = echo %s %%i >>%s\n", name, name, wgRan)
	}
	s.write(strings.Replace(s.plain, "[Peer]", hooks+"[Peer]", 1))
	s.shows(t, "grep echo /etc/wireguard/office.conf")
	s.types(t, 0, "wg-quick up office")
	s.types(t, 0, "wg-quick down office")
	s.ran(t, wgRan, names...)
	s.leaves(t)

	s.write(strings.Replace(s.plain, "[Peer]", strings.Replace(hooks, "PostUp", "PostUp = false\nPostUp", 1)+"[Peer]", 1))
	s.shows(t, "grep PostUp /etc/wireguard/office.conf")
	s.types(t, 1, "wg-quick up office")
	s.ran(t, wgRan, "PreUp") // and no PostDown
	s.leaves(t)
}

func wgDNS(t *testing.T, s *side) {
	s.resolvconf(t)
	s.write(strings.Replace(s.plain, "[Peer]", fmt.Sprintf("DNS = %s, %s\n[Peer]", s.b().Inner4, dnsDomain), 1))
	s.shows(t, "grep DNS /etc/wireguard/office.conf; cat /etc/resolv.conf")
	s.types(t, 0, "wg-quick up office")
	s.resolves(t)
	s.types(t, 0, "wg-quick down office")
	s.leaves(t)
}

func wgDefaultRoute(t *testing.T, s *side) {
	text := strings.Replace(s.plain, s.b().Net4.String(), "0.0.0.0/0, ::/0", 1)
	s.write(strings.Replace(text, device4, device4+", "+device6, 1))
	s.shows(t, "grep IPs /etc/wireguard/office.conf")
	s.types(t, 0, "wg-quick up office")
	s.everything(t)
	s.types(t, 0, "wg-quick down office")
	s.leaves(t)
}

func wgReload(t *testing.T, s *side) {
	c := s.net.Hosts[2]
	s.types(t, 0, "wg-quick up office")
	s.write(s.plain + wgPeer(s.keys[c], c, c.Net4.String()))
	s.shows(t, "tail -n 4 /etc/wireguard/office.conf")
	s.types(t, 0, "wg syncconf office <(wg-quick strip office)")
	s.shows(t, "wg show office allowed-ips | sort -k 2", c.Net4.String())
	s.carries(t, "office", s.b().Inner4)
	s.shows(t, "ip route show dev office", s.b().Net4.String()) // not c's
	s.types(t, 0, "wg-quick down office")
	s.leaves(t)
}

func wgSystemctl(t *testing.T, s *side) {
	c := s.net.Hosts[2]
	s.boots(t, fmt.Sprintf("ln -s %s /usr/local/bin/\numask 077\ncat >%s <<'END'\n%sEND\n", wireguardGo(t), s.file, s.plain))
	s.types(t, 0, "systemctl start wg-quick@office")
	const show = "systemctl show --property ActiveState,SubState,StatusText wg-quick@office"
	s.shows(t, show, "ActiveState=active")
	s.device(t, "office")
	s.carries(t, "office", s.b().Inner4)
	s.shows(t, fmt.Sprintf("cat >>%s <<'END'\n%sEND", s.file, wgPeer(s.keys[c], c, c.Net4.String())))
	s.types(t, 0, "systemctl reload wg-quick@office")
	s.shows(t, "wg show office allowed-ips | sort -k 2", c.Net4.String())
	s.shows(t, "ip route show dev office", s.b().Net4.String()) // not c's
	s.types(t, 0, "systemctl stop wg-quick@office")
	s.shows(t, show, "ActiveState=inactive")
	s.leaves(t)
}

func wgCompletion(t *testing.T, s *side) {
	a := s.a()
	a.WriteFile("/etc/wireguard/spare.conf", s.plain)
	s.types(t, 0, "wg-quick up office")
	s.completes(t, "source /usr/share/bash-completion/completions/wg-quick", "_wg_quick_completion",
		[2]string{"wg-quick u", "up"},
		[2]string{"wg-quick up ", "office spare"},
		[2]string{"wg-quick down ", "office"},
	)
	s.types(t, 0, "wg-quick down office")
	a.Run("rm", "/etc/wireguard/spare.conf")
	s.leaves(t)
}
