package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"ipsec-quick/watch"
)

// shown is a tunnel of which there is something to say.
func shown() *watch.Status {
	now := time.Now()
	p := watch.PeerStatus{
		Name: "branch", State: "established", Local: "192.0.2.1:500", Remote: "198.51.100.7:500", NAT: true,
		IKE: watch.IKEStatus{
			SPIi: "0011223344556677", SPIr: "8899aabbccddeeff", Proposal: "aes256gcm16-prfsha384-x25519",
			Established: now.Add(-123500 * time.Millisecond).Format(time.RFC3339Nano), RekeyAt: now.Add(2 * time.Hour).Format(time.RFC3339),
		},
		Children: []watch.ChildStatus{{
			SPIIn: "c1a2b3c4", SPIOut: "c4b3a2c1", Proposal: "aes256gcm16", Mode: "tunnel",
			LocalTS: []string{"10.1.0.0/16"}, RemoteTS: []string{"10.2.0.0/16"}, BytesIn: 1536, BytesOut: 5 << 30,
			Dropped: watch.ESPDrops{Replayed: 3, Selectors: 1},
			Lifetime: watch.Lifetime{
				Time:    watch.Seconds{Soft: 3000, Hard: 3600, Used: 900},
				Bytes:   watch.Count{Soft: 90 << 30, Hard: 100 << 30, Used: 95 << 30},
				Packets: watch.Count{Soft: 3_000_000_000, Used: 1_500_000_000},
			},
		}},
		Rekeys:  watch.RekeyCount{Child: 3, Last: now.Add(-time.Hour - 500*time.Millisecond).Format(time.RFC3339Nano)},
		Expires: watch.ExpireCount{Soft: 3},
	}
	p.IKE.Lifetime.Time = watch.Seconds{Soft: 14400, Hard: 16200, Used: 123}
	return &watch.Status{
		Tunnel: "office", Dataplane: "kernel", WatchPID: 812, Version: "1.0", Peers: []watch.PeerStatus{p},
		Dropped: watch.Dropped{Flooded: 7, ESP: 2},
	}
}

const shownText = `tunnel: office
  data plane: kernel
  loop: process 812, version 1.0
  dropped: 7 over a limit, 2 of no ESP SA

peer: branch
  state: established, 2 minutes, 3 seconds ago
  endpoint: 198.51.100.7:500 from 192.0.2.1:500, NAT detected
  last rekey: 1 hour ago
  rekeys: 3 of Child SAs, 0 of IKE SAs, 0 failed
  expires: 3 soft, 0 hard
  ike: aes256gcm16-prfsha384-x25519
    spi: 0011223344556677 initiator, 8899aabbccddeeff responder
    time:    [................................|....] 2m3s of 4h soft, 4h30m hard
  child: aes256gcm16, tunnel mode
    spi: c1a2b3c4 in, c4b3a2c1 out
    selectors: 10.1.0.0/16 === 10.2.0.0/16
    transfer: 1.50 KiB received, 5.00 GiB sent
    dropped: 3 replayed, 1 outside the selectors
    time:    [#####...........|...] 15m of 50m soft, 1h hard
    bytes:   [##################|.] 95.00 GiB of 90.00 GiB soft, 100.00 GiB hard
    packets: [##########.........|] 1500000000 of 3000000000 soft
`

func TestShow(t *testing.T) {
	var b bytes.Buffer
	s := screen{Writer: &b, width: 80}
	showTunnel(s, shown())
	if b.String() != shownText {
		t.Errorf("%s", b.String())
	}
	b.Reset()
	s.color = true
	showTunnel(s, shown())
	if bare := regexp.MustCompile(`\x1b\[\d+m`).ReplaceAllString(b.String(), ""); bare != shownText || bare == b.String() {
		t.Errorf("with colours: %q", b.String())
	}
	dead := shown()
	dead.WatchPID = 0
	b.Reset()
	showTunnel(screen{Writer: &b, width: 80}, dead)
	if !strings.Contains(b.String(), "ipsec-quick up office") {
		t.Errorf("a dead loop: %s", b.String())
	}
}

// TestShowFits: no line with a bar is wider than the terminal, and where soft
// stands can always be seen.
func TestShowFits(t *testing.T) {
	for width := 45; width <= 200; width++ {
		var b bytes.Buffer
		showTunnel(screen{Writer: &b, width: width}, shown())
		bars := regexp.MustCompile(`(?m)^.*\[[#.|]*\].*$`).FindAllString(b.String(), -1)
		if len(bars) != 4 {
			t.Fatalf("%d columns: %q", width, b.String())
		}
		for _, line := range bars {
			if len(line) > width || strings.Count(line, "|") != 1 {
				t.Errorf("%d columns: %q", width, line)
			}
		}
	}
}

func TestBar(t *testing.T) {
	for want, l := range map[string]limit{
		"........|.": {used: 0, soft: 80, hard: 100},
		"####....|.": {used: 49, soft: 80, hard: 100},
		"########|.": {used: 85, soft: 80, hard: 100},
		"########|#": {used: 101, soft: 80, hard: 100},
		"#####....|": {used: 50, soft: 100},
		"#####.....": {used: 50, hard: 100},
		".........|": {used: 0, soft: 100, hard: 100},
	} {
		if got := l.bar(screen{}, len(want)); got != want {
			t.Errorf("%+v: %s, want %s", l, got, want)
		}
	}
}

func TestAgo(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "now", 0: "now", time.Second: "1 second ago", 123 * time.Second: "2 minutes, 3 seconds ago",
		49*time.Hour + time.Second: "2 days, 1 hour, 1 second ago",
	} {
		if got := ago(time.Now().Add(-d - time.Millisecond)); got != want {
			t.Errorf("%v: %s", d, got)
		}
	}
}

// TestScreen: what is no terminal has neither colours nor cursor movements.
func TestScreen(t *testing.T) {
	t.Setenv("COLUMNS", "")
	pipe, other, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	defer other.Close()
	if s := screenOf(other); s.terminal || s.color || s.width != usualWidth || s.height != 0 {
		t.Errorf("%+v", s)
	}
	t.Setenv("COLUMNS", "132")
	if s := screenOf(&bytes.Buffer{}); s.terminal || s.width != 132 {
		t.Errorf("%+v", s)
	}
}

func TestFrame(t *testing.T) {
	if got := frame("a\nb\n", 10); got != home+"a"+eraseLine+"\r\n"+"b"+eraseLine+eraseBelow {
		t.Errorf("%q", got)
	}
	if got := frame("a\nb\nc\nd\n", 3); !strings.Contains(got, "b"+eraseLine) || !strings.Contains(got, "(2 more lines)") || strings.Contains(got, "c") {
		t.Errorf("%q", got)
	}
}
