package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"ipsec-quick/test/manual"
	"ipsec-quick/watch"
)

// testHost has a tunnel that is up, one whose loop has died, and one that is
// down.
func testHost() host {
	p := watch.PeerStatus{
		Name: "branch", State: "rekeying", IKE: watch.IKEStatus{Established: "2026-11-26T12:00:00Z"},
		Children: []watch.ChildStatus{{
			SPIIn: "c1a2b3c4", LocalTS: []string{"10.1.0.0/16", "10.3.0.0/16"}, RemoteTS: []string{"10.2.0.0/16"},
			BytesIn: 1536, BytesOut: 5 << 30, PacketsIn: 3, PacketsOut: 9_000_000, Dropped: watch.ESPDrops{Replayed: 7},
			Lifetime: watch.Lifetime{Time: watch.Seconds{Used: 900}},
		}},
		Rekeys:  watch.RekeyCount{Child: 3, IKE: 1, Failed: 2, Last: "2026-11-26T12:00:00Z"},
		Expires: watch.ExpireCount{Soft: 4},
	}
	p.IKE.Lifetime.Time.Used = 123
	return host{
		live:  func() ([]string, error) { return []string{"dead", "office"}, nil },
		files: func() (map[string]string, error) { return map[string]string{"office": "", "spare": ""}, nil },
		ask: func(name string) (*watch.Status, error) {
			if name != "office" {
				return nil, watch.ErrNoLoop
			}
			return &watch.Status{
				Tunnel: name, WatchPID: 812, Dropped: watch.Dropped{Flooded: 5},
				Peers: []watch.PeerStatus{p, {Name: "road", State: "idle"}},
			}, nil
		},
	}
}

func TestMetrics(t *testing.T) {
	expected, err := os.Open("testdata/metrics.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer expected.Close()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(testHost())
	if err := testutil.GatherAndCompare(registry, expected); err != nil {
		t.Error(err)
	}
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
}

// TestMetricsAreInTheManual: those that there are, with their labels, and no
// others; and so are the flags.
func TestMetricsAreInTheManual(t *testing.T) {
	page := manual.Read(t, "../../man/ipsec-quick-exporter.8")
	all := make(chan *prometheus.Desc, 100)
	testHost().Describe(all)
	close(all)
	var names []string
	for d := range all {
		_, rest, _ := strings.Cut(d.String(), `fqName: "`)
		name, rest, _ := strings.Cut(rest, `"`)
		names = append(names, name)
		_, rest, _ = strings.Cut(rest, "variableLabels: {")
		labels, _, _ := strings.Cut(rest, "}")
		for _, label := range strings.Split(labels, ",") {
			if !page.Names("Li", label) {
				t.Errorf("the label %s of %s is not in the manual", label, name)
			}
		}
	}
	said := page.Section("METRICS").Items("Li")
	slices.Sort(names)
	slices.Sort(said)
	if !slices.Equal(names, said) {
		t.Errorf("metrics: in code\n%q, in the manual\n%q", names, said)
	}
	var flags []string
	flagSet(io.Discard).VisitAll(func(f *flag.Flag) { flags = append(flags, f.Name) })
	if said := page.Section("DESCRIPTION").Items("Fl"); !slices.Equal(said, flags) {
		t.Errorf("flags: in code %q, in the manual %q", flags, said)
	}
}

// start serves until the test ends, or stop is called.
func start(t *testing.T, address string, from host) (stop func() error, said *bytes.Buffer) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	said = new(bytes.Buffer)
	go func() { ended <- serve(ctx, address, from, said) }()
	t.Cleanup(cancel)
	return func() error { cancel(); return <-ended }, said
}

// scrape gets a path by a socket.
func scrape(t *testing.T, socket, path string) (int, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", socket)
	}}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	r, err := client.Get("http://exporter" + path)
	for end := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(end); r, err = client.Get("http://exporter" + path) {
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(text)
}

func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.sock")
	stop, said := start(t, "unix:"+path, testHost())
	code, text := scrape(t, path, "/metrics")
	if code != http.StatusOK || !strings.Contains(text, "\nipsec_up{tunnel=\"spare\"} 0\n") {
		t.Errorf("%d, %s", code, text)
	}
	if code, _ := scrape(t, path, "/"); code != http.StatusNotFound {
		t.Errorf("another path: %d", code)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := serve(context.Background(), "unix:"+path, testHost(), io.Discard); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second one: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	if said.Len() > 0 {
		t.Errorf("%s", said)
	}

	// The socket of one that was killed is taken over; another's file is not.
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	_ = dead.Close()
	stop, _ = start(t, "unix:"+path, testHost())
	if code, _ := scrape(t, path, "/metrics"); code != http.StatusOK {
		t.Errorf("%d", code)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := serve(context.Background(), "unix:"+path, testHost(), io.Discard); err == nil {
		t.Error("it listens at a file")
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "mine" {
		t.Errorf("%q, %v", text, err)
	}
}

// TestScrapeFails: it is an error, and no tunnel seems to be down.
func TestScrapeFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.sock")
	from := testHost()
	from.live = func() ([]string, error) { return nil, os.ErrPermission }
	stop, said := start(t, "unix:"+path, from)
	if code, text := scrape(t, path, "/metrics"); code != http.StatusInternalServerError || strings.Contains(text, "ipsec_up{") {
		t.Errorf("%d, %s", code, text)
	}
	if err := stop(); err != nil || !strings.Contains(said.String(), "permission") {
		t.Errorf("%v, %s", err, said)
	}
}

func TestCommandLine(t *testing.T) {
	for want, lines := range map[int][]string{
		0:  {"--version", "--help"},
		64: {"--dance", "office"},
		1:  {"--listen=nowhere", "--listen=unix:/nowhere/at/all"},
	} {
		for _, line := range lines {
			var out bytes.Buffer
			if got := run([]string{line}, &out, &out); got != want || out.Len() == 0 {
				t.Errorf("%s: exit status %d: %s", line, got, &out)
			}
		}
	}
}
