//go:build lab

package lab_test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// A habit is something that users of wg-quick do, with either program.
type habit struct {
	name       string
	ours, them func(t *testing.T, s *side)
}

var habits = []habit{
	{"up by name", oursUpByName, wgUpByName},
	{"up by path", oursUpByPath, wgUpByPath},
	{"up twice", oursUpTwice, wgUpTwice},
	{"down twice", oursDownTwice, wgDownTwice},
	{"hooks", oursHooks, wgHooks},
	{"DNS", oursDNS, wgDNS},
	{"default route", oursDefaultRoute, wgDefaultRoute},
	{"reload with a new peer", oursReload, wgReload},
	{"systemctl start, reload, stop", oursSystemctl, wgSystemctl},
	{"completion", oursCompletion, wgCompletion},
}

const (
	ourProgram = "ipsec-quick"
	wgProgram  = "wg-quick"

	// The addresses of either's device.
	device4 = "10.1.9.9/32"
	device6 = "fd00:1::9:9/128"
)

// TestHabits does what users of wg-quick are used to do, with ipsec-quick and with
// wg-quick itself where that runs, and keeps what they see of both. What is printed
// and left behind is checked of ours only; of both the exit status, and that the
// tunnel carries packets, so that the comparison is with one that works.
//
// In the VM, where each command takes long, it is for who asks for the transcript.
func TestHabits(t *testing.T) {
	if os.Getenv("LAB") == "vm" && *transcriptFile == "" {
		t.Skip("long under emulation: -transcript FILE asks for it")
	}
	rows := make([]*harness.Row, len(habits))
	for i, h := range habits {
		rows[i] = harness.NewRow("9. Habits of wg-quick's users", h.name, "ours, wg-quick's")
	}
	t.Parallel()
	ours, wg := newOurs(t), newWgQuick(t)
	for i, h := range habits {
		t.Run(h.name, func(t *testing.T) {
			rows[i].Of(t)
			ours.play(t, h.ours)
			wg.play(t, h.them)
			scenes = append(scenes, scene{h.name, ours.text.String(), wg.text.String()})
			rows[i].Notef("exit status %s; %s", ours.statuses(), wg.statuses())
		})
	}
}

// A side is one of the two programs on hosts of its own, and what is seen of it at
// the first one.
type side struct {
	program string
	absent  string // why it does not run
	net     *harness.Net
	quick   *harness.Quick           // ours only
	keys    map[*harness.Host]string // wg-quick's peers have these
	file    string                   // of the tunnel office
	plain   string                   // what the file says before each habit
	env     []string

	before  harness.Snapshot
	systemd *harness.Systemd // where the habit is done, if that has been booted
	text    strings.Builder
	codes   []string
	printed map[string]bool // what lines have printed, which need not be shown again
}

func (s *side) a() *harness.Host { return s.net.A() }
func (s *side) b() *harness.Host { return s.net.B() }

// play does a habit, or tells why not.
func (s *side) play(t *testing.T, habit func(t *testing.T, s *side)) {
	s.text.Reset()
	s.codes = nil
	t.Run(s.program, func(t *testing.T) {
		if s.absent != "" {
			fmt.Fprintf(&s.text, "(not run: %s)\n", s.absent)
			t.Skip(s.absent)
		}
		s.net.Use(t)
		s.write(s.plain)
		s.before = s.snapshot()
		defer func() { s.systemd = nil }()
		habit(t, s)
	})
}

// snapshot is what a tunnel may touch.
func (s *side) snapshot() harness.Snapshot {
	if s.systemd != nil {
		return network(s.a())
	}
	return s.a().Snapshot()
}

// write changes the tunnel file.
func (s *side) write(text string) { s.a().WriteFile(s.file, text) }

// statuses are the exit statuses of the program's commands.
func (s *side) statuses() string {
	if s.absent != "" {
		return s.program + " not run: " + s.absent
	}
	return s.program + " " + strings.Join(s.codes, " ")
}

// types runs a line of the program as somebody would type it, shows it with what it
// prints, and wants an exit status and some texts.
func (s *side) types(t *testing.T, code int, line string, want ...string) string {
	t.Helper()
	r := s.shell(line)
	if s.codes = append(s.codes, fmt.Sprint(r.Code)); r.Code != 0 {
		fmt.Fprintf(&s.text, "(exit status %d)\n", r.Code)
	}
	if r.Code != code {
		t.Errorf("%s: exit status %d, not %d:\n%s", line, r.Code, code, r.Stdout)
	}
	wantTexts(t, line, r.Stdout, want)
	return r.Stdout
}

// shows runs another command, for what is there.
func (s *side) shows(t *testing.T, line string, want ...string) string {
	t.Helper()
	r := s.shell(line)
	if r.Err != nil {
		t.Errorf("%s: %s", line, r)
	}
	wantTexts(t, line, r.Stdout, want)
	return r.Stdout
}

// shell shows a line with what it prints, unless that is what it has printed before.
func (s *side) shell(line string) harness.Result {
	argv := []string{"bash", "-c", "exec 2>&1; cd /root; " + line}
	r := harness.Result{}
	if s.systemd != nil {
		r = s.systemd.Exec(argv...)
	} else {
		r = s.a().ExecEnv(s.env, argv...)
	}
	said := masked(r.Stdout)
	if long := strings.Count(said, "\n") > 4; long && s.printed[line+said] {
		said = "(as before)\n"
	}
	s.printed[line+said] = true
	fmt.Fprintf(&s.text, "# %s\n%s", masked(line), said)
	return r
}

func wantTexts(t *testing.T, line, got string, want []string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("%s: no %q in\n%s", line, w, got)
		}
	}
}

// carries wants an address to answer through a device: it might in clear.
func (s *side) carries(t *testing.T, device string, to netip.Addr) {
	t.Helper()
	received := func() string { return s.a().Run("cat", "/sys/class/net/"+device+"/statistics/rx_packets") }
	before := received()
	if !harness.Poll(20*time.Second, func() bool { return pings(s.a(), to) && received() != before }) {
		t.Errorf("%v does not answer through %s", to, device)
		return
	}
	fmt.Fprintf(&s.text, "(%v answers through %s)\n", to, device)
}

// pings says whether an address answers a socket that has no address of its own.
func pings(h *harness.Host, to netip.Addr) bool {
	return h.Exec("ping", "-n", "-c", "1", "-W", "1", to.String()).Err == nil
}

// device shows the tunnel's device, which has the same of both.
func (s *side) device(t *testing.T, name string) {
	t.Helper()
	s.shows(t, "ip -brief address show dev "+name, device4)
	s.shows(t, "ip route show dev "+name, s.b().Net4.String())
}

// dnsDomain has the names that b's name server knows, and nobody else.
const dnsDomain = "corp.example"

// resolvconf gives b a name server, and has resolvconf manage a's.
func (s *side) resolvconf(t *testing.T) {
	t.Helper()
	harness.StartNameServer(t, s.b(), s.b().Inner4).Set("intranet."+dnsDomain, s.b().Inner4)
	s.a().UseNameServer(s.net.Hosts[2].Outer4)
	s.a().Shell("resolvconf -a eth0 </etc/resolv.conf && mkdir /run/resolvconf/exclusive") // that of -x, which stays
	s.before = s.snapshot()
}

// resolves shows that the tunnel's name server is asked.
func (s *side) resolves(t *testing.T) {
	t.Helper()
	s.shows(t, "cat /etc/resolv.conf", "nameserver "+s.b().Inner4.String())
	s.shows(t, "getent hosts intranet", s.b().Inner4.String())
}

// everything shows how all of a host's traffic goes into the tunnel.
func (s *side) everything(t *testing.T) {
	t.Helper()
	s.shows(t, "ip rule && ip -6 rule")
	for _, addr := range everywhere {
		s.shows(t, "ip route get "+addr.String(), "dev office")
		s.carries(t, "office", addr)
	}
	s.shows(t, "ip route get "+s.b().Inner4.String(), "dev office")
}

// boots boots a host whose disk a script has prepared.
func (s *side) boots(t *testing.T, script string) {
	t.Helper()
	s.before = network(s.a())
	sd := harness.BootSystemd(t, s.a(), script)
	within(t, harness.Timeout, "booted", func() bool {
		return strings.TrimSpace(sd.Exec("systemctl", "is-system-running").Stdout) == "running"
	})
	s.systemd = sd
}

// ran shows which hooks have run, and forgets it.
func (s *side) ran(t *testing.T, path string, want ...string) {
	t.Helper()
	if got := s.shows(t, "cat "+path); got != strings.Join(want, " office\n")+" office\n" {
		t.Errorf("these hooks ran: %q, not %q", got, want)
	}
	s.a().Run("rm", path)
}

// completes has bash complete command lines, by a function that a script defines.
func (s *side) completes(t *testing.T, script, function string, lines ...[2]string) {
	t.Helper()
	for _, l := range lines {
		line, want := l[0], l[1]
		r := completed(s.a(), s.env, script, function, line)
		got := strings.Join(strings.Fields(r.Stdout), " ")
		fmt.Fprintf(&s.text, "# %s<TAB><TAB>\n%s\n", line, got)
		if r.Err != nil || got != want {
			t.Errorf("%q: %q, want %q: %s", line, got, want, r)
		}
	}
}

// leaves shows what is left behind, which has to be nothing of ours.
func (s *side) leaves(t *testing.T) {
	t.Helper()
	var diff []string
	if harness.Poll(2*time.Second, func() bool {
		diff = s.before.Diff(s.snapshot())
		return len(diff) == 0
	}) {
		fmt.Fprintln(&s.text, "(nothing is left behind)")
		return
	}
	fmt.Fprintf(&s.text, "(left behind: %s)\n", masked(strings.Join(diff, "; ")))
	if s.program == ourProgram {
		t.Errorf("left behind:\n%s", strings.Join(diff, "\n"))
	}
}
