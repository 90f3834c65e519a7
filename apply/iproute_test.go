package apply

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// The lab tests of apply/xfrm run such commands; here is what they look like.
func TestCommands(t *testing.T) {
	us, peer := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.7")
	sa := SA{
		SPI: 0xc1a2b3c4, Direction: Out, Src: us, Dst: peer, ReqID: 3,
		Encryption: Algorithm{AESGCM16, make(Key, 20)},
		Soft:       Limits{Time: 50 * time.Minute, Packets: 3}, Hard: Limits{Time: time.Hour, Bytes: 1 << 30, Use: 1500 * time.Millisecond},
	}
	const out = "ip xfrm state add src 192.0.2.1 dst 198.51.100.7 proto esp spi 0xc1a2b3c4 reqid 3 mode tunnel " +
		"aead 'rfc4106(gcm(aes))' <hidden> 128 flag af-unspec limit time-soft 3000 limit time-hard 3600 " +
		"limit time-use-hard 2 limit byte-hard 1073741824 limit packet-soft 3"
	if got := sa.InstallCommand(); got != out {
		t.Errorf("got  %s\nwant %s", got, out)
	}
	sa.Direction, sa.ESN, sa.ReplayWindow, sa.Soft, sa.Hard = In, true, 64, Limits{}, Limits{}
	sa.Encryption, sa.Integrity = Algorithm{AESCBC, make(Key, 32)}, Algorithm{HMACSHA256, make(Key, 32)}
	sa.Encap = &Encap{4500, 1024}
	const in = "ip xfrm state update src 192.0.2.1 dst 198.51.100.7 proto esp spi 0xc1a2b3c4 reqid 3 mode tunnel " +
		"enc 'cbc(aes)' <hidden> auth-trunc 'hmac(sha256)' <hidden> 128 replay-window 64 flag af-unspec icmp esn " +
		"encap espinudp 4500 1024 0.0.0.0"
	if got := sa.InstallCommand(); got != in {
		t.Errorf("got  %s\nwant %s", got, in)
	}
	sa.IfID, sa.Mark = 0x1000007, Mark
	if got, want := sa.UpdateCommand(), in+" if_id 0x1000007 output-mark 0x49b50"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := sa.ID().DeleteCommand(); got != "ip xfrm state delete dst 198.51.100.7 proto esp spi 0xc1a2b3c4" {
		t.Error(got)
	}

	p := policy(Protect, false, "10.1.0.0/16", "10.2.0.0/16", 6, PortMask{443, 0xffff})
	p.Local, p.Remote, p.ReqID, p.SPI = us, peer, 3, 0xc1a2b3c4
	want := []string{
		"ip xfrm policy update src 10.2.0.0/16 dst 10.1.0.0/16 proto 6 sport 443 dir in priority 135328 tmpl src 198.51.100.7 dst 192.0.2.1 proto esp reqid 3 mode tunnel",
		"ip xfrm policy update src 10.2.0.0/16 dst 10.1.0.0/16 proto 6 sport 443 dir fwd priority 135328 tmpl src 198.51.100.7 dst 192.0.2.1 proto esp reqid 3 mode tunnel",
		"ip xfrm policy update src 10.1.0.0/16 dst 10.2.0.0/16 proto 6 dport 443 dir out priority 135328 tmpl src 192.0.2.1 dst 198.51.100.7 proto esp spi 0xc1a2b3c4 reqid 3 mode tunnel",
	}
	if got := p.SetCommands(); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := p.SwitchCommand(); got != want[2] {
		t.Error(got)
	}
	if got := p.DeleteCommands()[0]; got != "ip xfrm policy delete src 10.1.0.0/16 dst 10.2.0.0/16 proto 6 dport 443 dir out" {
		t.Error(got)
	}
	p.IfID = 0x1000007
	if got, want := p.SwitchCommand(), strings.Replace(want[2], " tmpl", " if_id 0x1000007 tmpl", 1); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := p.DeleteCommands()[2]; !strings.HasSuffix(got, " dir in if_id 0x1000007") {
		t.Error(got)
	}
	guard := Policy{Selector: p.Selector, Action: Block, Guard: true}
	for _, got := range append(guard.SetCommands(), guard.DeleteCommands()...) {
		if !strings.HasSuffix(got, " # guard") {
			t.Error(got)
		}
	}
	p.IfID, p.Mode, p.Selector.RemotePort = 0, Transport, PortMask{1024, 0xfc00}
	if got := p.DeleteCommands(); len(got) != 2 || !strings.HasSuffix(got[0], "proto 6 dir out # and dport 1024/0xfc00") {
		t.Error(got)
	}

	// An ICMP type and code are the same in both directions.
	echo := policy(Block, true, "10.1.0.0/16", "10.2.0.0/16", 1)
	echo.Selector.LocalPort, echo.Selector.RemotePort = PortMask{8, 0xffff}, PortMask{0, 0xffff}
	for _, c := range echo.SetCommands() {
		if !strings.Contains(c, "proto 1 type 8 code 0") || !strings.Contains(c, "action block") {
			t.Error(c)
		}
	}
	if got := AllocCommand(3, peer, us, Tunnel); got != "ip xfrm state allocspi src 198.51.100.7 dst 192.0.2.1 proto esp reqid 3 mode tunnel min 0xc0000000 max 0xcfffffff" {
		t.Error(got)
	}
}

func TestRoundingKeepsLimits(t *testing.T) {
	for _, d := range []time.Duration{1, time.Second - 1, time.Second, time.Second + 1, time.Hour - 1} {
		s, h := SoftSeconds(d), HardSeconds(d)
		if s < 1 || h < 1 || s > h || time.Duration(h)*time.Second < d {
			t.Errorf("%v: soft %d, hard %d", d, s, h)
		}
	}
	if SoftSeconds(0) != 0 || HardSeconds(0) != 0 || HardSeconds(-1) != 0 {
		t.Error("no limit became one")
	}
}
