//go:build lab

// Package bench_test measures tunnels whose ESP is done in user space: those of
// ipsec-quick, of wireguard-go and of strongSwan with kernel-libipsec, and the
// cable that all of them lie on. Each has two hosts of its own, all on this
// machine, and all are measured in turn, again and again, so that what else the
// machine does falls on all alike. `make bench` runs it.
package bench_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

var (
	runs     = flag.Int("runs", 5, "how often each is measured")
	span     = flag.Duration("span", 3*time.Second, "how long a measurement takes")
	only     = flag.String("only", ".", "the contestants, as a regular expression")
	what     = flag.String("what", ".", "what is measured, as a regular expression: tcp, udp, latency, memory")
	raw      = flag.String("raw", "", "a file for all figures, as JSON")
	esp      = flag.String("esp", "aes128gcm16", "the proposal of ipsec-quick and strongSwan")
	wgBinary = flag.String("wireguard", "bin/wireguard-go", "the program wireguard-go")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getuid() != 0 || os.Getenv("LAB") == "" {
		fmt.Fprintln(os.Stderr, "this needs a host to itself: make bench")
		os.Exit(1)
	}
	harness.Dataplane, harness.Libipsec = harness.Userspace, true
	os.Exit(m.Run())
}

// TestBench measures and prints the table.
func TestBench(t *testing.T) {
	var field []*contestant
	chosen, wanted := regexp.MustCompile(*only), regexp.MustCompile(*what)
	for _, c := range contestants {
		if chosen.MatchString(c.name) {
			c.start(t)
			field = append(field, c)
		}
	}
	results := newResults(field)
	defer results.print(os.Stdout)
	for run := range *runs {
		start := time.Now()
		for _, s := range steps {
			for _, c := range field {
				if !wanted.MatchString(s.name) {
					continue
				}
				for name, value := range s.measure(t, c) {
					results.add(name, c, value)
				}
			}
		}
		progress("run %d of %d: %.0f s, load average %s", run+1, *runs, time.Since(start).Seconds(), loadAverage())
	}
	if wanted.MatchString("memory") {
		for c, m := range memory(t, field) {
			results.add(memoryPeak, c, m.peak)
			results.add(memoryAfter, c, m.after)
		}
	}
	if *raw != "" {
		text, err := json.MarshalIndent(results.figures, "", "\t")
		if err == nil {
			err = os.WriteFile(*raw, append(text, '\n'), 0o644)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// progress says on stderr how far it is.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}
