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

// debPackage is the package that `make packages` has made for this machine's kind.
func debPackage(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob("bin/packages/*_" + runtime.GOARCH + ".deb")
	if err != nil || len(found) != 1 {
		t.Fatalf("bin/packages has not one deb for this machine: %v, %v (make packages)", found, err)
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
)

// installScript installs the package on a machine, with a tunnel to b whose
// secret comes from systemd and one to c, and enables both.
const installScript = `
dpkg -i %[1]s
mkdir /etc/systemd/system/%[5]s.d
printf '[Service]\nLoadCredential=b.psk:/etc/office.psk\n' >/etc/systemd/system/%[5]s.d/secret.conf
umask 077
cd /etc/ipsec-quick
cat >office.toml <<'END'
%[2]s
END
cat >annex.toml <<'END'
%[3]s
END
echo '%[4]s' >/etc/office.psk
systemctl enable ipsec-quick@office ipsec-quick@annex ipsec-quick-exporter
systemd-analyze verify --man=no %[5]s %[6]s ipsec-quick-exporter.service
systemd-analyze security --offline=true --threshold=39 %[5]s ipsec-quick-exporter.service >/dev/null
`

// leftovers prints what a package that was removed should not leave.
const leftovers = `find /usr /run/ipsec-quick -name '*ipsec-quick*' 2>/dev/null || true`

// TestSystemd boots a machine with systemd and two tunnels whose peers are not
// there yet, and goes through what an operator and fate do to them.
func TestSystemd(t *testing.T) {
	row := harness.NewRow("8. More", "systemd, two units of the deb package", "initiator")
	t.Parallel()
	row.Of(t)
	n := harness.NewNet(t, "a", "b", "c")
	a, b, c := n.A(), n.B(), n.Hosts[2]
	before := network(a)
	toB, toC := between(a, b), between(a, c)
	toB.psk, toB.more = noPSK, `psk_file = "credential:b.psk"`
	capture := harness.StartCapture(t, n)
	deb := debPackage(t)
	booted := time.Now()
	s := harness.BootSystemd(t, a, fmt.Sprintf(installScript, deb, toB, toC, testPSK, office, both))

	// What the tunnels cover is blocked before the host is online, and the units
	// are ready although nobody answers.
	within(t, 30*time.Second, "booted", func() bool {
		state := strings.TrimSpace(s.Exec("systemctl", "is-system-running").Stdout)
		if state == "degraded" {
			t.Fatalf("a unit has failed:\n%s", s.Run("systemctl", "--no-pager", "--failed"))
		}
		return state == "running"
	})
	ready := time.Since(booted)
	wantActive(t, s, "active", office, annex)
	if a.Ping(a.Inner4, b.Inner4, 1) != 0 {
		t.Error("an answer without a peer")
	}
	if status := s.Show(office, "StatusText"); !strings.Contains(status, "0 of 1 peers established") {
		t.Errorf("status: %s", status)
	}
	peer := between(b, a)
	peer.start = "passive"
	harness.NewQuick(t, b, "peer", peer.String()).Up()
	peer = between(c, a)
	peer.start = "passive"
	harness.NewQuick(t, c, "peer", peer.String()).Up()
	wantEstablished(t, s, office, annex)
	metrics := s.Run("bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/9903; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; cat <&3`)
	for _, tunnel := range []string{"office", "annex"} {
		if want := fmt.Sprintf("ipsec_up{tunnel=%q} 1", tunnel); !strings.Contains(metrics, want) {
			t.Errorf("no %s in %s", want, metrics)
		}
	}
	entries := s.Run("journalctl", "--no-pager", "--output=cat", "_SYSTEMD_UNIT="+office, "TUNNEL=office", "PEER=other", "PRIORITY=6")
	if !strings.Contains(entries, "\nother: established") || !strings.Contains(entries, "\nother: IKE_AUTH response") || strings.Contains(entries, "level=") {
		t.Errorf("the journal has\n%s", entries)
	}

	// Killed, it is started again, and the tunnel is the same.
	stream := harness.StartStream(t, a, a.Inner4, b, b.Inner4, soakRate())
	time.Sleep(500 * time.Millisecond)
	first, spi := s.Show(office, "MainPID"), tunnelOf(t, s, "office").Peers[0].IKE.SPIi
	s.Run("kill", "-KILL", first)
	within(t, 20*time.Second, "started again", func() bool {
		pid := s.Show(office, "MainPID")
		return pid != "0" && pid != first && s.Show(office, "ActiveState") == "active"
	})
	wantEstablished(t, s, office, annex)
	if now := tunnelOf(t, s, "office").Peers[0].IKE.SPIi; now != spi {
		t.Errorf("after the kill the IKE SA is %s_i, before %s_i", now, spi)
	}
	if restarts := s.Show(office, "NRestarts"); restarts != "1" {
		t.Errorf("%s restarts", restarts)
	}
	there, back := stream.Stop()
	note := fmt.Sprintf("%d packets, %d lost", there.Sent+back.Sent, there.Lost+back.Lost)
	if !inUserspace() { // there what comes while no process is there is lost
		note = stream.Lossless("kill -9")
	}

	if out := s.Run("systemctl", "reload", office); out != "" || s.Show(office, "ActiveState") != "active" {
		t.Errorf("reload: %s", out)
	}
	said := s.Run("journalctl", "--no-pager", "--output", "cat", "--unit", office, "--lines", "20")
	if !strings.Contains(said, "the tunnel file says what it said") {
		t.Errorf("reload says:\n%s", said)
	}

	// An upgrade lets the loop go on as the new program.
	stream = harness.StartStream(t, a, a.Inner4, b, b.Inner4, soakRate())
	pid := s.Show(office, "MainPID")
	r := s.Exec("dpkg", "-i", deb)
	if !strings.Contains(r.Stderr, "office: process "+pid+" goes on with it") || s.Show(office, "MainPID") != pid {
		t.Errorf("the upgrade has not restarted the loop, process %s: %s", pid, r)
	}
	wantEstablished(t, s, office, annex)
	note += "; an upgrade: " + stream.Lossless("an upgrade")

	// The target takes both along.
	for range 2 {
		s.Run("systemctl", "stop", both) // which does not wait for what it takes along
		within(t, 10*time.Second, "both stopped", func() bool {
			return s.Show(office, "ActiveState") == "inactive" && s.Show(annex, "ActiveState") == "inactive"
		})
		if diff := before.Diff(network(a)); len(diff) > 0 {
			t.Errorf("systemctl stop left something behind:\n%s", strings.Join(diff, "\n"))
		}
		if r := s.Exec("ls", "/run/ipsec-quick"); r.Err == nil {
			t.Errorf("/run/ipsec-quick is there: %s", r)
		}
		s.Run("systemctl", "start", both)
		wantEstablished(t, s, office, annex)
	}
	capture.NothingClear()

	// What cannot work is not tried again and again.
	s.Run("systemctl", "stop", annex)
	s.Run("sh", "-c", "echo 'endpiont = 1' >>/etc/ipsec-quick/annex.toml")
	if r := s.Exec("systemctl", "start", annex); r.Err == nil {
		t.Error("a wrong tunnel file is started")
	}
	if result := s.Show(annex, "SubState") + ", " + s.Show(annex, "ExecMainStatus"); result != "failed, 78" {
		t.Errorf("with a wrong tunnel file the unit is %s", result)
	}

	// Removing the package takes down what is up.
	wantRemoved := func(how ...string) {
		t.Helper()
		s.Run(how...)
		if diff := before.Diff(network(a)); len(diff) > 0 {
			t.Errorf("%s left something behind:\n%s", how, strings.Join(diff, "\n"))
		}
		if left := s.Run("sh", "-c", leftovers); left != "" {
			t.Errorf("%s left files behind:\n%s", how, left)
		}
	}
	wantRemoved("dpkg", "-r", "ipsec-quick")
	row.Notef("ready %.1f s after power on, kill -9: %s", ready.Seconds(), note)
}

// network is a snapshot of what a tunnel may touch but for processes and files:
// systemd has its own.
func network(h *harness.Host) harness.Snapshot {
	s := h.Snapshot()
	delete(s, "processes")
	delete(s, "files under /run")
	return s
}

// wantActive wants units to be in a state at this moment.
func wantActive(t *testing.T, s *harness.Systemd, state string, units ...string) {
	t.Helper()
	for _, unit := range units {
		if is := s.Show(unit, "ActiveState"); is != state {
			t.Errorf("%s is %s, not %s:\n%s", unit, is, state, s.Exec("systemctl", "status", "--no-pager", unit).Stdout)
		}
	}
}

// wantEstablished wants the peers of units to be established, and the units to
// say so.
func wantEstablished(t *testing.T, s *harness.Systemd, units ...string) {
	t.Helper()
	for _, unit := range units {
		within(t, 20*time.Second, unit+" says that it is established", func() bool {
			return strings.HasPrefix(s.Show(unit, "StatusText"), "1 of 1 peers established")
		})
	}
	wantActive(t, s, "active", units...)
}

// tunnelOf is the status of a tunnel.
func tunnelOf(t *testing.T, s *harness.Systemd, name string) harness.Status {
	t.Helper()
	var all []harness.Status
	if err := json.Unmarshal([]byte(s.Run("ipsec-quick", "status", "--json", name)), &all); err != nil || len(all) != 1 || len(all[0].Peers) != 1 {
		t.Fatalf("status of %s: %v, %v", name, all, err)
	}
	return all[0]
}
