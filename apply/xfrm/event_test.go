package xfrm

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"errors"
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

// FuzzNetlink takes what the kernel sends: as multicast events, and as the
// answer to a request, be it an acknowledgement or a list of SAs and policies.
func FuzzNetlink(f *testing.F) {
	f.Fuzz(func(t *testing.T, datagram []byte) {
		before := bytes.Clone(datagram)
		seq, octets := uint32(0), 0
		_ = eachMessage(datagram, func(h header, body []byte) {
			seq, octets = h.seq, octets+len(body)
			checkEvent(t, decodeEvent(h.kind, body))
		})
		if octets > len(datagram) {
			t.Errorf("%d octets of messages in %d", octets, len(datagram))
		}
		a := answer{op: "test", seq: seq, visit: func(kind uint16, body []byte) error {
			if kind == msgNewPolicy {
				_, err := readPolicy(body)
				return err
			}
			return checkState(t, body)
		}}
		a.read(datagram)
		var failed *OpError
		if errors.As(a.err, &failed) && (failed.Errno == 0 || strings.Contains(failed.Detail, "\x00")) {
			t.Errorf("%#v", failed)
		}
		if !bytes.Equal(datagram, before) {
			t.Error("reading changed the datagram")
		}
	})
}

func checkEvent(t *testing.T, ev apply.Event) {
	ok := true
	switch ev := ev.(type) {
	case apply.Expire:
		ok = ev.SPI != 0 && ev.Dst.IsValid()
	case apply.Acquire:
		ok = ev.Remote.IsValid()
	case apply.Mapping:
		ok = ev.New.IsValid() && ev.Dst.IsValid()
	}
	if !ok {
		t.Errorf("%T %+v", ev, ev)
	}
}

// checkState reads an SA and does to it what moving one does.
func checkState(t *testing.T, body []byte) error {
	s, err := readState(body, true)
	s.installed()
	s.secret.replay.skipAhead()
	for _, a := range s.secret.algorithms {
		a.redacted()
	}
	if s.larval != (len(s.secret.algorithms) == 0) {
		t.Errorf("larval %t with %d algorithms", s.larval, len(s.secret.algorithms))
	}
	s.secret.wipe()
	return err
}
