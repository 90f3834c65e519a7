//go:build lab

// These tests need a kernel with ESP. They are run in the lab:
//
//	CGO_ENABLED=0 go test -c -tags lab -o bin/xfrm.test ./apply/xfrm
//	test/lab/run bin/xfrm.test -test.v -test.run Lab
package xfrm

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
	"ipsec-quick/apply/applytest"
)

// TestLabDataplane is what the data planes have in common.
func TestLabDataplane(t *testing.T) {
	applytest.Run(t, func(string) (apply.Dataplane, error) { return New() })
}

// The preflight finds all we use, and leaves nothing.
func TestLabPreflight(t *testing.T) {
	enterNamespace(t)
	suites := append([]Suite{{Encryption: apply.AESCBC, KeyLen: 32, Integrity: apply.HMACSHA512}}, plain...)
	start := time.Now()
	k, err := New(suites...)
	must(t, err)
	t.Logf("New in %v (modules are loaded): %+v", time.Since(start), k.quirks)
	must(t, k.Close())
	for _, need := range [][]Suite{nil, suites} {
		start = time.Now()
		k, err = New(need...)
		must(t, err)
		t.Logf("New again, %d suites, in %v", len(need), time.Since(start))
		must(t, k.Close())
	}
	support, err := Probe(suites...)
	must(t, err)
	if !support.ESP4 || !support.ESP6 || len(support.Suites) != len(suites) {
		t.Errorf("%+v", support)
	}
	for s, ok := range support.Suites {
		if !ok {
			t.Errorf("no %+v", s)
		}
	}
	if left := ip(t, "xfrm state"); left != "" {
		t.Errorf("left:\n%s", left)
	}
}

// must ends the test if there is an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// samples are SAs of a pair that show all that there is to say of one.
func samples() (out, in apply.SA) {
	out = Suite{Encryption: apply.AESGCM16, KeyLen: 20}.sample(us)
	out.SPI, out.Direction, out.Dst, out.ReqID, out.ESN = 0xc0000002, apply.Out, peer, 77, true
	out.Encap = &apply.Encap{SrcPort: 4500, DstPort: 4500}
	out.Soft = apply.Limits{Time: time.Minute, Bytes: 1e6}
	out.Hard = apply.Limits{Time: time.Hour, Use: time.Hour, Packets: 5e9}
	in = out
	in.SPI, in.Direction, in.Src, in.Dst, in.ReplayWindow = 0xc0000001, apply.In, peer, us, 128
	return out, in
}

// An inbound SA is installed on an SPI that another process has reserved.
func TestLabForeignReservation(t *testing.T) {
	enterNamespace(t)
	k, err := New()
	must(t, err)
	defer k.Close()
	other := opened(t)
	_, in := samples()
	in.SPI, err = other.AllocSPI(77, peer, us, apply.Tunnel)
	must(t, err)
	must(t, k.InstallSA(in))
	list, err := k.List([]uint32{77})
	if err != nil || len(list) != 1 || list[0].Larval || list[0].Direction != apply.In {
		t.Errorf("%+v, %v", list, err)
	}
}

// What is printed can be pasted: it makes what we made, up to what ip cannot say.
func TestLabCommands(t *testing.T) {
	enterNamespace(t)
	k, err := New()
	must(t, err)
	defer k.Close()
	out, in := samples()
	out6 := Suite{Encryption: apply.AESCBC, KeyLen: 32, Integrity: apply.HMACSHA512}.sample(us6)
	out6.SPI, out6.Direction, out6.Dst, out6.ReqID, out6.Mode = 0xc0000004, apply.Out, peer6, 77, apply.Transport
	out6.Hard = apply.Limits{}
	port := apply.PortMask{Port: 7, Mask: 0xffff}
	one := apply.Selector{Local: netip.PrefixFrom(us6, 128), Remote: netip.PrefixFrom(peer6, 128), Protocol: unix.IPPROTO_UDP,
		LocalPort: port, RemotePort: port}
	out6.Selector = &one
	in6 := out6
	in6.SPI, in6.Direction, in6.Src, in6.Dst = 0xc0000003, apply.In, peer6, us6
	for _, c := range []struct {
		sa    apply.SA
		shows []string
	}{
		{out, []string{"spi 0xc0000002", "reqid 77(", "mode tunnel", "rfc4106(gcm(aes))", "encap type espinudp sport 4500 dport 4500", "af-unspec", "esn"}},
		{in, []string{"replay_window 128", "icmp"}},
		{out6, []string{"mode transport", "hmac(sha512)", "cbc(aes)", "sport 7"}},
		{in6, nil},
	} {
		must(t, k.InstallSA(c.sa))
		made := ip(t, "-s xfrm state")
		for _, want := range c.shows {
			if !strings.Contains(made, want) {
				t.Errorf("no %q in\n%s", want, made)
			}
		}
		made = normal(ip(t, "xfrm state"))
		must(t, k.RemoveSA(c.sa.ID()))

		command := strings.Replace(c.sa.InstallCommand(), " update ", " add ", 1)
		t.Log(command)
		for _, key := range []apply.Key{c.sa.Encryption.Key, c.sa.Integrity.Key} {
			command = strings.Replace(command, "<hidden>", fmt.Sprintf("0x%x", []byte(key)), 1)
		}
		shell(t, command)
		if pasted := normal(ip(t, "xfrm state")); pasted != made {
			t.Errorf("%s\nmakes\n%s\nwe made\n%s", c.sa.InstallCommand(), pasted, made)
		}
		shell(t, c.sa.ID().DeleteCommand())
	}
	for _, p := range []apply.Policy{
		{Selector: pair, Action: apply.Protect, Local: us, Remote: peer, ReqID: 77, SPI: 0xc0000002},
		{Selector: pair, Action: apply.Trap, Local: us, Remote: peer, ReqID: 5},
		{Selector: one, Action: apply.Protect, Mode: apply.Transport, Local: us6, Remote: peer6, ReqID: 77, SPI: 0xc0000002},
		{Selector: one, Action: apply.Trap, Mode: apply.Transport, Local: us6, Remote: peer6, ReqID: 5},
	} {
		must(t, k.SetPolicy(p))
		ours := normal(ip(t, "xfrm policy"))
		must(t, k.RemovePolicy(p))
		for _, c := range p.SetCommands() {
			shell(t, c)
		}
		if pasted := normal(ip(t, "xfrm policy")); pasted != ours {
			t.Errorf("%q\nmake\n%s\nwe made\n%s", p.SetCommands(), pasted, ours)
		}
		for _, c := range p.DeleteCommands() {
			shell(t, c)
		}
	}
}

func shell(t *testing.T, command string) {
	t.Helper()
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", command, err, out)
	}
}

// normal is a listing without times and the direction, which older ip cannot set.
func normal(list string) string {
	var lines []string
	for line := range strings.Lines(list) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "dir ") && !strings.Contains(line, "priority") ||
			strings.HasPrefix(line, "anti-replay") || strings.HasPrefix(line, "lastused") ||
			strings.HasPrefix(line, "seq-hi") || strings.HasPrefix(line, "replay_window") ||
			strings.HasPrefix(line, "00000000") || strings.HasPrefix(line, "mtimer") {
			continue
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}
