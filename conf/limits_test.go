package conf

import (
	"testing"
	"time"
)

func TestPairs(t *testing.T) {
	for _, c := range []struct {
		text       string
		soft, hard uint64
	}{
		{"{ soft = 100 }", 100, 110},
		{"{ soft = 1 }", 1, 2},
		{"{ soft = 9_223_372_036_854_775_807 }", 1<<63 - 1, 1<<63 - 1 + 922337203685477581},
		{"{ hard = 100 }", 90, 100},
		{"{ hard = 5 }", 4, 5},
		{"{ hard = 2 }", 1, 2},
		{"{ soft = 1, hard = 2 }", 1, 2},
		{`"off"`, 0, 0},
	} {
		tunnel, err := parseText(t, "lifetime.jitter = \"0%\"\nlifetime.packets = "+c.text+"\n[[peer]]\nname = \"a\"\npsk_file = \"office.psk\"\n")
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if l := tunnel.Peers[0].Lifetime; l.SoftPackets != c.soft || l.HardPackets != c.hard {
			t.Errorf("%s: %d and %d", c.text, l.SoftPackets, l.HardPackets)
		}
	}
}

func TestDraw(t *testing.T) {
	l := Lifetime{
		SoftTime: 100 * time.Second, HardTime: 110 * time.Second, SoftUse: time.Second, HardUse: 2 * time.Second,
		SoftBytes: 1 << 62, HardBytes: 1 << 63, SoftPackets: 10, HardPackets: 11, Jitter: 0.1,
	}
	for _, c := range []struct {
		r       float64
		time    time.Duration
		packets uint64
	}{{0, 100 * time.Second, 10}, {0.5, 95 * time.Second, 9}, {1, 90 * time.Second, 9}, {7, 90 * time.Second, 9}, {-1, 100 * time.Second, 10}} {
		d := l.Draw(c.r)
		if d.SoftTime != c.time || d.SoftPackets != c.packets || d.SoftUse != time.Second || d.SoftBytes > l.SoftBytes || d.SoftBytes < l.SoftBytes/10*9 {
			t.Errorf("Draw(%v) = %+v", c.r, d)
		}
		if d.HardTime != l.HardTime || d.HardBytes != l.HardBytes || d.HardPackets != l.HardPackets {
			t.Errorf("Draw(%v) changed a hard limit: %+v", c.r, d)
		}
	}
	if (Lifetime{Jitter: 0.5}).Draw(1) != (Lifetime{Jitter: 0.5}) {
		t.Error("no limit became one")
	}
}

// A default jitter that would leave nothing of a limit is not used.
func TestDefaultJitterYields(t *testing.T) {
	for text, want := range map[string]float64{
		"": 0.1, "lifetime.packets = { soft = 1 }": 0, "lifetime.time = { soft = \"1s\", hard = \"10s\" }": 0,
		"lifetime.time = { soft = \"2s\", hard = \"10s\" }": 0.1,
	} {
		tunnel, err := parseText(t, text+"\n[[peer]]\nname = \"a\"\npsk_file = \"office.psk\"\n")
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := tunnel.Peers[0].Lifetime.Jitter; got != want {
			t.Errorf("%s: jitter %v", text, got)
		}
	}
}
