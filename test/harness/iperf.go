//go:build linux

package harness

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Background runs a command in the host until the test's end.
func (h *Host) Background(t testing.TB, argv ...string) (pid int) {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	if err := h.Do(cmd.Start); err != nil {
		t.Fatalf("%s: %v", h.Name, err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// Iperf is what a run of iperf3 with TCP measured.
type Iperf struct {
	Bytes       float64 // received
	Rate        float64 // of that, in bits a second
	Back        float64 // with --bidir: the rate of the other direction
	Retransmits int     // segments that were sent again
}

// ServeIperf runs iperf3's server on an address of the host until the test's end.
func (h *Host) ServeIperf(t testing.TB, addr netip.Addr) {
	t.Helper()
	h.Background(t, "iperf3", "--server", "--bind", addr.String())
	listens := func() bool { return h.Exec("iperf3", "--client", addr.String(), "--bytes", "1").Err == nil }
	if !Poll(5*time.Second, listens) {
		t.Fatalf("%s: iperf3 does not listen on %v", h.Name, addr)
	}
}

// Iperf sends TCP from an address of the host to iperf3's server, for a time
// that is rounded up to seconds.
func (h *Host) Iperf(from, to netip.Addr, length time.Duration, flags ...string) (Iperf, error) {
	args := append([]string{"iperf3", "--json", "--bind", from.String(), "--client", to.String(),
		"--connect-timeout", "5000", "--time", fmt.Sprint(math.Ceil(length.Seconds()))}, flags...)
	var r Result
	// Between two tests the server closes its socket for a moment.
	Poll(5*time.Second, func() bool {
		r = h.Exec(args...)
		return !strings.Contains(r.Stdout, "Connection refused")
	})
	type sum struct {
		Bytes       float64 `json:"bytes"`
		Rate        float64 `json:"bits_per_second"`
		Retransmits int     `json:"retransmits"`
	}
	var report struct {
		Error string `json:"error"`
		End   struct {
			Sent     sum `json:"sum_sent"`
			Received sum `json:"sum_received"`
			Back     sum `json:"sum_received_bidir_reverse"`
		} `json:"end"`
	}
	err := json.Unmarshal([]byte(r.Stdout), &report)
	if err == nil && report.Error != "" {
		err = errors.New(report.Error)
	}
	if err != nil {
		return Iperf{}, fmt.Errorf("iperf3: %w: %s", err, r.Stderr)
	}
	return Iperf{
		Bytes: report.End.Received.Bytes, Rate: report.End.Received.Rate, Back: report.End.Back.Rate,
		Retransmits: report.End.Sent.Retransmits,
	}, nil
}
