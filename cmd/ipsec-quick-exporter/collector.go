package main

import (
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ipsec-quick/conf"
	"ipsec-quick/watch"
)

// asking is how many loops are asked at once: those that hang take two seconds.
const asking = 32

// The metrics, under the names that exporters for other IKE daemons use where
// these have the same.
var (
	up = desc("up", "Whether the tunnel is up and its loop answers.", "tunnel")

	peerUp     = desc("peer_up", "Whether the peer is authenticated and has a Child SA.", peer...)
	ikeSAs     = desc("ike_sas", "Number of established IKE SAs.", peer...)
	ikeAge     = desc("ike_sa_established_seconds", "Seconds since the IKE SA was established, or got new keys.", peer...)
	rekeys     = desc("rekeys_total", "Number of finished rekeys of either side.", more(peer, "sa")...)
	failed     = desc("rekeys_failed_total", "Number of our rekeys that failed.", peer...)
	lastRekey  = desc("last_rekey_timestamp_seconds", "When the last rekey was finished, in seconds since the epoch.", peer...)
	expires    = desc("expires_total", "Number of limits that were reached by Child SAs.", more(peer, "limit")...)
	datagrams  = desc("dropped_datagrams_total", "Number of datagrams that came to nothing, since the loop began.", "tunnel", "reason")
	childSAs   = desc("child_sas", "Number of Child SAs, those that were replaced and still receive included.", peer...)
	bytesIn    = desc("child_sa_bytes_in", "Number of bytes received.", child...)
	bytesOut   = desc("child_sa_bytes_out", "Number of bytes sent.", child...)
	packetsIn  = desc("child_sa_packets_in", "Number of packets received.", child...)
	packetsOut = desc("child_sa_packets_out", "Number of packets sent.", child...)
	dropped    = desc("child_sa_packets_dropped", "Number of packets that came for the Child SA and were dropped.", more(child, "reason")...)
	childAge   = desc("child_sa_installed_seconds", "Seconds since the Child SA was installed.", child...)
)

var (
	peer  = []string{"tunnel", "peer"}
	child = more(peer, "spi_in", "local_ts", "remote_ts")
)

func more(labels []string, others ...string) []string {
	return append(labels[:len(labels):len(labels)], others...)
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("ipsec_"+name, help, labels, nil)
}

// host is where the tunnels are.
type host struct {
	live  func() ([]string, error)          // their names, those whose loop has died too
	files func() (map[string]string, error) // of those that there are, by name
	ask   func(name string) (*watch.Status, error)
}

// thisHost has the usual folders.
func thisHost() host {
	return host{
		live:  func() ([]string, error) { return watch.Tunnels("") },
		files: func() (map[string]string, error) { return conf.Files(conf.Dir) },
		ask:   func(name string) (*watch.Status, error) { return watch.Ask("", name) },
	}
}

// Describe lists the metrics.
func (h host) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		up, peerUp, ikeSAs, ikeAge, rekeys, failed, lastRekey, expires, datagrams,
		childSAs, bytesIn, bytesOut, packetsIn, packetsOut, dropped, childAge,
	} {
		out <- d
	}
}

// Collect asks each loop. A tunnel that is not up is one that is down.
func (h host) Collect(out chan<- prometheus.Metric) {
	live, err := h.live()
	if err != nil {
		out <- prometheus.NewInvalidMetric(up, err)
		return
	}
	files, err := h.files()
	if err != nil {
		out <- prometheus.NewInvalidMetric(up, err)
		return
	}
	all := map[string]*watch.Status{}
	for name := range files {
		all[name] = nil
	}
	var mu sync.Mutex
	var wait sync.WaitGroup
	tokens := make(chan struct{}, asking)
	for _, name := range live {
		tokens <- struct{}{}
		wait.Go(func() {
			defer func() { <-tokens }()
			s, _ := h.ask(name) // whatever keeps it from answering, it is not up
			mu.Lock()
			defer mu.Unlock()
			all[name] = s
		})
	}
	wait.Wait()
	for name, s := range all {
		gauge(out, up, truth(s != nil), name)
		if s != nil {
			collectTunnel(out, s)
		}
	}
}

func collectTunnel(out chan<- prometheus.Metric, s *watch.Status) {
	d := &s.Dropped
	for reason, n := range map[string]uint64{
		"malformed": d.Malformed, "unknown_spi": d.UnknownSPI, "bad_integrity": d.Integrity, "bad_message_id": d.MessageID,
		"replayed": d.Replayed, "unexpected": d.Unexpected, "flooded": d.Flooded, "esp": d.ESP, "handover": d.Handover,
	} {
		counter(out, datagrams, n, s.Tunnel, reason)
	}
	for i := range s.Peers {
		collectPeer(out, s.Tunnel, &s.Peers[i])
	}
}

func collectPeer(out chan<- prometheus.Metric, tunnel string, p *watch.PeerStatus) {
	established := p.State == "established" || p.State == "rekeying"
	gauge(out, peerUp, truth(established), tunnel, p.Name)
	gauge(out, ikeSAs, truth(p.IKE.Established != ""), tunnel, p.Name)
	if p.IKE.Established != "" {
		gauge(out, ikeAge, float64(p.IKE.Lifetime.Time.Used), tunnel, p.Name)
	}
	counter(out, rekeys, p.Rekeys.Child, tunnel, p.Name, "child")
	counter(out, rekeys, p.Rekeys.IKE, tunnel, p.Name, "ike")
	counter(out, failed, p.Rekeys.Failed, tunnel, p.Name)
	if t, err := time.Parse(time.RFC3339, p.Rekeys.Last); err == nil {
		gauge(out, lastRekey, float64(t.Unix()), tunnel, p.Name)
	}
	counter(out, expires, p.Expires.Soft, tunnel, p.Name, "soft")
	counter(out, expires, p.Expires.Hard, tunnel, p.Name, "hard")
	gauge(out, childSAs, float64(len(p.Children)), tunnel, p.Name)
	for i := range p.Children {
		c := &p.Children[i]
		labels := []string{tunnel, p.Name, c.SPIIn, strings.Join(c.LocalTS, ","), strings.Join(c.RemoteTS, ",")}
		gauge(out, bytesIn, float64(c.BytesIn), labels...)
		gauge(out, bytesOut, float64(c.BytesOut), labels...)
		gauge(out, packetsIn, float64(c.PacketsIn), labels...)
		gauge(out, packetsOut, float64(c.PacketsOut), labels...)
		gauge(out, childAge, float64(c.Lifetime.Time.Used), labels...)
		for reason, n := range map[string]uint64{
			"bad_integrity": c.Dropped.Integrity, "replayed": c.Dropped.Replayed,
			"malformed": c.Dropped.Malformed, "selectors": c.Dropped.Selectors,
		} {
			gauge(out, dropped, float64(n), more(labels, reason)...)
		}
	}
}

func gauge(out chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func counter(out chan<- prometheus.Metric, d *prometheus.Desc, n uint64, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
