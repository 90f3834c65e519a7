package xfrm

import (
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"ipsec-quick/apply"
)

//go:embed testdata/events-x86_64.txt
var capturedEvents string

// Messages as the kernel sent them.
func TestDecodeEvents(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the messages are from a little-endian machine")
	}
	in := apply.SAID{Dst: us, SPI: 0xcd2d2b6e}
	out := apply.SAID{Dst: peer, SPI: 0xcfd626d6}
	want := map[string]apply.Event{
		"mapping":         apply.Mapping{SAID: in, ReqID: 77, New: netip.MustParseAddrPort("192.0.2.2:4501")},
		"expire-soft-in":  apply.Expire{SAID: in, ReqID: 77},
		"expire-soft-out": apply.Expire{SAID: out, ReqID: 77},
		"expire-hard-in":  apply.Expire{SAID: in, ReqID: 77, Hard: true},
		"expire-hard-out": apply.Expire{SAID: out, ReqID: 77, Hard: true},
		"acquire": apply.Acquire{ReqID: 77, Local: us, Remote: peer, Packet: apply.Selector{
			Local: netip.MustParsePrefix("10.1.0.1/32"), Remote: netip.MustParsePrefix("10.2.0.1/32"), Protocol: 17,
			LocalPort: apply.PortMask{Port: 7, Mask: 0xffff}, RemotePort: apply.PortMask{Port: 7, Mask: 0xffff},
		}},
	}
	seen := 0
	for line := range strings.Lines(capturedEvents) {
		name, text, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || name == "#" {
			continue
		}
		datagram, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		err = eachMessage(datagram, func(h header, body []byte) {
			seen++
			if got := decodeEvent(h.kind, body); got != want[name] {
				t.Errorf("%s: %+v, want %+v", name, got, want[name])
			}
			for n := range body { // cut short: nothing, and no panic
				if ev := decodeEvent(h.kind, body[:n:n]); ev != nil && n < len(body)-12 {
					t.Errorf("%s: %+v of %d octets", name, ev, n)
				}
			}
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if seen != len(want) {
		t.Errorf("%d messages, want %d", seen, len(want))
	}
}

func FuzzEvent(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = eachMessage(b, func(h header, body []byte) {
			switch ev := decodeEvent(h.kind, body).(type) {
			case apply.Expire:
				if ev.SPI == 0 || !ev.Dst.IsValid() {
					t.Errorf("%+v", ev)
				}
			case apply.Acquire:
				if !ev.Remote.IsValid() {
					t.Errorf("%+v", ev)
				}
			case apply.Mapping:
				if !ev.New.IsValid() {
					t.Errorf("%+v", ev)
				}
			}
			_ = parseAck("test", h, body)
		})
	})
}

func FuzzState(f *testing.F) {
	m, err := newSA(testSA(), quirks{direction: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m.b)
	f.Fuzz(func(_ *testing.T, b []byte) {
		s, _ := readState(b, true)
		s.installed()
		s.secret.replay.skipAhead()
		for _, a := range s.secret.algorithms {
			a.redacted()
		}
		s.secret.wipe()
		_, _ = readPolicy(b)
	})
}
