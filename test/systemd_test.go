//go:build lab

package lab_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// packageOf is the package of a format that `make packages` has made for this
// machine's kind.
func packageOf(t *testing.T, format string) string {
	t.Helper()
	arch := runtime.GOARCH
	if format == "rpm" {
		arch = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[arch]
	}
	found, err := filepath.Glob("bin/packages/*" + arch + "." + format)
	if err != nil || len(found) != 1 {
		t.Fatalf("bin/packages has not one %s for %s: %v, %v (make packages)", format, arch, found, err)
	}
	path, err := filepath.Abs(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return path
}

const (
	office = "ipsec-quick@office.service"
	annex  = "ipsec-quick@annex.service"
	both   = "ipsec-quick.target"

	exporter = "ipsec-quick-exporter.service"
)

// installScript installs a package on a machine, with tunnels of two files, one
// whose secret comes from systemd and one whose hooks may do what they like, and
// enables all units.
const installScript = `
dpkg -i %s
dropins=/etc/systemd/system/ipsec-quick@
mkdir ${dropins}office.service.d ${dropins}annex.service.d
printf '[Service]\nLoadCredential=b.psk:/etc/office.psk\n' >${dropins}office.service.d/secret.conf
cp examples/systemd/hooks.conf ${dropins}annex.service.d
umask 077
cd /etc/ipsec-quick
echo '%s' >office.toml
echo '%s' >annex.toml
echo '%s' >/etc/office.psk
systemctl enable ` + office + ` ` + annex + ` ` + exporter + `
`

// analysis wants systemd to find nothing wrong with the units.
const analysis = `
verified=$(systemd-analyze verify --man=no ` + office + ` ` + annex + ` ` + both + ` ` + exporter + ` 2>&1)
echo "$verified"
test -z "$verified"
systemd-analyze security --offline=true --threshold=39 ` + office + ` ` + exporter + ` >/dev/null
`

// leftovers prints what a package that was removed should not leave.
const leftovers = `find /usr /run/ipsec-quick -name '*ipsec-quick*' 2>/dev/null || true`

// A machine is a host with systemd, which has the package and two tunnels.
type machine struct {
	*harness.Systemd
	t      *testing.T
	host   *harness.Host
	before harness.Snapshot // before it was booted
}

// TestSystemd boots a machine with systemd and two tunnels whose peers are not
// there yet, and goes through what an operator and fate do to them. With the
// kernel's data plane it leaves out what is the same there: under emulation each
// command takes a second.
func TestSystemd(t *testing.T) {
	row := harness.NewRow("8. More", "systemd, two units of the deb package", "initiator")
	t.Parallel()
	row.Of(t)
	n := harness.NewNet(t, "a", "b", "c")
	a, b, c := n.A(), n.B(), n.Hosts[2]
	toB, toC := between(a, b), between(a, c)
	const hooks = `[hooks]
pre_up = ["echo %i >/etc/hooked"]`
	toB.psk, toB.more = noPSK, `psk_file = "credential:b.psk"`
	m := &machine{t: t, host: a, before: network(a)}
	capture := harness.StartCapture(t, n)
	deb := packageOf(t, "deb")
	booted := time.Now()
	script := fmt.Sprintf(installScript, deb, toB, toC.String()+hooks, testPSK)
	if inUserspace() {
		script += analysis
	}
	m.Systemd = harness.BootSystemd(t, a, script)

	// What the tunnels cover is blocked, and the units are ready although nobody
	// answers.
	within(t, harness.Timeout, "booted", func() bool {
		state := strings.TrimSpace(m.Exec("systemctl", "is-system-running").Stdout)
		if state == "degraded" {
			t.Fatalf("a unit has failed:\n%s", m.Run("systemctl", "--no-pager", "--failed"))
		}
		return state == "running"
	})
	ready := time.Since(booted)
	m.wantState("active", office, annex, exporter)
	if hooked := m.Run("cat", "/etc/hooked"); hooked != "annex" {
		t.Errorf("the hook has written %q", hooked)
	}
	if a.Ping(a.Inner4, b.Inner4, 1) != 0 {
		t.Error("an answer without a peer")
	}
	if text := m.Show(office, "StatusText"); !strings.HasPrefix(text, "0 of 1 peers established") {
		t.Errorf("status: %s", text)
	}

	for _, h := range []*harness.Host{b, c} {
		peer := between(h, a)
		peer.start = "passive"
		harness.NewQuick(t, h, "peer", peer.String()).Up()
	}
	m.wantEstablished(office, annex)
	m.wantMetrics("office", "annex")
	m.wantJournal()

	stream := harness.StartStream(t, a, a.Inner4, b, b.Inner4, soakRate())
	m.kill(office)
	there, back := stream.Stop()
	note := fmt.Sprintf("%d packets, %d lost", there.Sent+back.Sent, there.Lost+back.Lost)
	if !inUserspace() { // there what comes while no process is there is lost
		note = stream.Lossless("kill -9")
	}
	stream = harness.StartStream(t, a, a.Inner4, b, b.Inner4, soakRate())
	m.reload(office)
	if inUserspace() {
		m.upgrade(deb, office)
	}
	m.wantEstablished(office, annex)
	note += "; reload: " + stream.Lossless("reload")
	m.stopAndStart(office, annex) // the target has not been started itself
	capture.NothingClear()
	if inUserspace() {
		m.stopAndStart(office, annex)
		m.freeze(annex)
		m.byHand(annex)
		m.spoil(annex)
		m.remove("dpkg", "--remove", "ipsec-quick")
		m.Run("rpm", "--install", "--nodeps", packageOf(t, "rpm"))
		m.Run("systemctl", "start", office)
		m.wantEstablished(office)
		m.remove("rpm", "--erase", "ipsec-quick")
	}
	row.Notef("ready %.1f s after power on; kill -9: %s", ready.Seconds(), note)
}

// network is a snapshot of what a tunnel may touch but for processes and files:
// systemd has its own.
func network(h *harness.Host) harness.Snapshot {
	s := h.Snapshot()
	delete(s, "processes")
	delete(s, "files under /run")
	return s
}

// wantNothing wants the host's network to be as it was before it was booted.
func (m *machine) wantNothing(what string) {
	m.t.Helper()
	if diff := m.before.Diff(network(m.host)); len(diff) > 0 {
		m.t.Errorf("%s left something behind:\n%s", what, strings.Join(diff, "\n"))
	}
	if r := m.Exec("ls", "/run/ipsec-quick"); r.Err == nil {
		m.t.Errorf("%s: /run/ipsec-quick is there: %s", what, r)
	}
}

// wantState wants units to be in a state at this moment.
func (m *machine) wantState(state string, units ...string) {
	m.t.Helper()
	for _, unit := range units {
		if is := m.Show(unit, "ActiveState"); is != state {
			m.t.Errorf("%s is %s, not %s:\n%s", unit, is, state, m.Exec("systemctl", "status", "--no-pager", unit).Stdout)
		}
	}
}

// wantEstablished wants the peers of units to be established, and the units to
// say so.
func (m *machine) wantEstablished(units ...string) {
	m.t.Helper()
	for _, unit := range units {
		within(m.t, 30*time.Second, unit+" says that it is established", func() bool {
			return strings.HasPrefix(m.Show(unit, "StatusText"), "1 of 1 peers established")
		})
	}
	m.wantState("active", units...)
}

// wantMetrics wants the exporter to say that tunnels are up.
func (m *machine) wantMetrics(tunnels ...string) {
	m.t.Helper()
	metrics := m.Run("bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/9903; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; cat <&3`)
	for _, tunnel := range tunnels {
		if want := fmt.Sprintf("ipsec_up{tunnel=%q} 1", tunnel); !strings.Contains(metrics, want) {
			m.t.Errorf("no %s in %s", want, metrics)
		}
	}
}

// wantJournal wants the office's entries to have fields.
func (m *machine) wantJournal() {
	m.t.Helper()
	entries := m.Run("journalctl", "--no-pager", "--output=cat", "_SYSTEMD_UNIT="+office, "TUNNEL=office", "PEER=other", "PRIORITY=6")
	if !strings.Contains(entries, "\nother: established") || !strings.Contains(entries, "\nother: IKE_AUTH response") || strings.Contains(entries, "level=") {
		m.t.Errorf("the journal has\n%s", entries)
	}
}

// spi is our SPI of a tunnel's IKE SA.
func (m *machine) spi(unit string) string {
	m.t.Helper()
	name := strings.TrimSuffix(strings.TrimPrefix(unit, "ipsec-quick@"), ".service")
	var all []harness.Status
	err := json.Unmarshal([]byte(m.Run("ipsec-quick", "status", "--json", name)), &all)
	if err != nil || len(all) != 1 || len(all[0].Peers) != 1 {
		m.t.Fatalf("status of %s: %v, %v", name, all, err)
	}
	return all[0].Peers[0].IKE.SPIi
}

// kill kills a unit's process, and wants another one to go on with the tunnel.
func (m *machine) kill(unit string) {
	m.t.Helper()
	time.Sleep(500 * time.Millisecond) // there is traffic before
	pid, spi := m.Show(unit, "MainPID"), m.spi(unit)
	m.Run("kill", "-KILL", pid)
	within(m.t, 30*time.Second, "started again", func() bool {
		now := m.Show(unit, "MainPID")
		return now != "0" && now != pid && m.Show(unit, "ActiveState") == "active"
	})
	m.wantEstablished(unit)
	if now := m.spi(unit); now != spi {
		m.t.Errorf("after the kill the IKE SA is %s_i, before %s_i", now, spi)
	}
	if restarts := m.Show(unit, "NRestarts"); restarts != "1" {
		m.t.Errorf("%s restarts", restarts)
	}
}

// reload has a unit read its tunnel file again, which is the same.
func (m *machine) reload(unit string) {
	m.t.Helper()
	m.Run("systemctl", "reload", unit)
	said := m.Run("journalctl", "--no-pager", "--output", "cat", "--unit", unit, "--lines", "20")
	if !strings.Contains(said, "the tunnel file says what it said") {
		m.t.Errorf("reload says:\n%s", said)
	}
}

// upgrade installs the package once more, and wants the process of a unit to go
// on as the new program.
func (m *machine) upgrade(deb, unit string) {
	m.t.Helper()
	pid := m.Show(unit, "MainPID")
	r := m.Exec("dpkg", "-i", deb)
	if !strings.Contains(r.Stderr, ": process "+pid+" goes on with it") || m.Show(unit, "MainPID") != pid {
		m.t.Errorf("the upgrade has not restarted the loop, process %s: %s", pid, r)
	}
}

// stopAndStart stops the units by their target and starts them.
func (m *machine) stopAndStart(units ...string) {
	m.t.Helper()
	m.Run("systemctl", "stop", both) // which does not wait for what it takes along
	within(m.t, 20*time.Second, "stopped", func() bool {
		for _, unit := range units {
			if m.Show(unit, "ActiveState") != "inactive" {
				return false
			}
		}
		return true
	})
	m.wantNothing("systemctl stop")
	m.Run("systemctl", "start", both)
	m.wantEstablished(units...)
}

// freeze stops a unit's process where it is, and wants the watchdog to have it
// started again.
func (m *machine) freeze(unit string) {
	m.t.Helper()
	m.Run("sh", "-c", "printf '[Service]\nWatchdogSec=8s\nTimeoutAbortSec=1s\n' >/etc/systemd/system/"+unit+".d/watchdog.conf")
	m.Run("systemctl", "daemon-reload")
	m.Run("systemctl", "restart", unit)
	m.wantEstablished(unit)
	pid := m.Show(unit, "MainPID")
	m.Run("kill", "-STOP", pid)
	within(m.t, 40*time.Second, "started again by the watchdog", func() bool {
		now := m.Show(unit, "MainPID")
		return now != "0" && now != pid
	})
	m.wantEstablished(unit)
}

// byHand has a tunnel up that was not brought up by its unit, which leaves it alone.
func (m *machine) byHand(unit string) {
	m.t.Helper()
	m.Run("systemctl", "stop", unit)
	m.Run("ipsec-quick", "up", "annex")
	m.wantFailure(unit, exitRefused)
	m.Run("ipsec-quick", "down", "annex")
}

// wantFailure wants a unit to fail when it is started, and not to be started again.
func (m *machine) wantFailure(unit string, code int) {
	m.t.Helper()
	if r := m.Exec("systemctl", "start", unit); r.Err == nil {
		m.t.Errorf("%s is started", unit)
	}
	if result, want := m.Show(unit, "SubState")+" "+m.Show(unit, "ExecMainStatus"), fmt.Sprint("failed ", code); result != want {
		m.t.Errorf("%s is %s, not %s", unit, result, want)
	}
}

// spoil makes a unit's tunnel file wrong.
func (m *machine) spoil(unit string) {
	m.t.Helper()
	m.Run("sh", "-c", "echo 'endpiont = 1' >>/etc/ipsec-quick/annex.toml")
	m.wantFailure(unit, exitBadFile)
}

// remove removes the package while a tunnel is up, which takes it down.
func (m *machine) remove(how ...string) {
	m.t.Helper()
	m.Run(how...)
	m.wantNothing(strings.Join(how, " "))
	if left := m.Run("sh", "-c", leftovers); left != "" {
		m.t.Errorf("%s left files behind:\n%s", how, left)
	}
}
