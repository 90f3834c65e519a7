package offload

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// joined writes what a Joiner makes of packets: each write's octets. Of three packets
// two are made in its room, and one that comes after them is lost.
func joined(tcp, udp bool, packets [][]byte) [][]byte {
	j := NewJoiner()
	j.TCP, j.UDP = tcp, udp
	var writes [][]byte
	take := func() {
		if b := j.Take(); b != nil {
			writes = append(writes, bytes.Clone(b))
		}
	}
	for i, p := range packets {
		if i%3 > 0 {
			p = append(j.Next(), p...)
		}
		if !j.Add(p) {
			p = j.Keep(p)
			take()
			j.Add(p)
		}
		if i%3 == 2 {
			_ = append(j.Next(), fill(2000)...)
		}
	}
	take()
	return writes
}

func clones(packets [][]byte) [][]byte {
	var all [][]byte
	for _, p := range packets {
		all = append(all, bytes.Clone(p))
	}
	return all
}

func TestJoinIsWhatTheKernelSplits(t *testing.T) {
	for name, s := range specs {
		s.flags &^= flagCWR
		for _, size := range []int{400, 1000, 1448, len(s.payload) - 1} {
			h, want := s.super(size)
			writes := joined(true, true, s.segments(size))
			if len(writes) != 1 {
				t.Errorf("%s by %d: %d writes", name, size, len(writes))
				continue
			}
			if got := ParseHeader(writes[0]); got != h {
				t.Errorf("%s by %d: %+v, want %+v", name, size, got, h)
			}
			if got := writes[0][HeaderLen:]; !bytes.Equal(got, want) {
				t.Errorf("%s by %d:\n%x, want\n%x", name, size, got[:80], want[:80])
			}
		}
	}
}

// Octets that headers have lain over are those that were there before.
func TestJoinPutsBack(t *testing.T) {
	s := spec{options: 12, flags: flagACK, payload: bytes.Repeat([]byte{0xff}, 40_000)}
	_, want := s.super(1000)
	if got := joined(true, true, s.segments(1000)); len(got) != 1 || !bytes.Equal(got[0][HeaderLen:], want) {
		t.Errorf("%d writes, or other octets", len(got))
	}
}

// Of payloads shorter than the headers, too: a packet must not be made over the
// headers that it is compared with.
func TestJoinShortPayloads(t *testing.T) {
	for name, s := range specs {
		s.flags &^= flagCWR
		s.payload = fill(60)
		for _, size := range []int{1, 7, 20, 50} {
			_, want := s.super(size)
			if got := joined(true, true, s.segments(size)); len(got) != 1 || !bytes.Equal(got[0][HeaderLen:], want) {
				t.Errorf("%s by %d: %d writes, or other octets", name, size, len(got))
			}
		}
	}
}

func TestJoinLeavesSinglesAlone(t *testing.T) {
	for name, s := range specs {
		p := s.build()
		writes := joined(true, true, [][]byte{bytes.Clone(p)})
		if len(writes) != 1 || !bytes.Equal(writes[0], append(make([]byte, HeaderLen), p...)) {
			t.Errorf("%s: a single packet was changed", name)
		}
	}
	if NewJoiner().Take() != nil {
		t.Error("nothing was added and something taken")
	}
}

func TestJoinSwitchedOff(t *testing.T) {
	for name, s := range specs {
		want := s.segments(1000)
		if got := joined(s.udp, !s.udp, clones(want)); len(got) != len(want) {
			t.Errorf("%s: %d writes, want %d", name, len(got), len(want))
		}
	}
}

// What must not be joined: each change of the second of three packets.
func TestJoinRefuses(t *testing.T) {
	fix := func(b []byte) {
		if b[0]>>4 == 4 {
			binary.BigEndian.PutUint16(b[10:], 0)
			binary.BigEndian.PutUint16(b[10:], ^slowSum(b[:ipv4Len]))
		}
		l4, udp := transportOf(b)
		if udp {
			binary.BigEndian.PutUint16(l4[6:], 0)
		} else {
			binary.BigEndian.PutUint16(l4[16:], 0)
		}
		putTransportChecksum(b, ^slowSum(pseudo(b, len(l4)), l4))
	}
	for _, c := range []struct {
		name, spec string
		at         int
		value      byte
		bad        bool // do not put checksums right
	}{
		{"DSCP", "TCP4", 1, 0x26, false}, {"CE", "TCP4", 1, 0x23, false}, {"TTL", "TCP4", 8, 63, false},
		{"source", "TCP4", 15, 9, false}, {"may be fragmented", "TCP4", 6, 0, false}, {"fragment", "TCP4", 7, 1, false},
		{"port", "TCP4", 20, 1, false}, {"sequence", "TCP4", 27, 1, false}, {"ack", "TCP4", 31, 9, false},
		{"SYN", "TCP4", 33, flagACK | flagSYN, false}, {"RST", "TCP4", 33, flagACK | flagRST, false},
		{"CWR", "TCP4", 33, flagACK | flagCWR, false}, {"no ACK", "TCP4", 33, 0, false}, {"ECE", "TCP4", 33, flagACK | flagECE, false},
		{"window", "TCP4", 35, 1, false}, {"urgent", "TCP4", 39, 1, false}, {"options", "TCP4 options", 45, 99, false},
		{"garbled payload", "TCP4", 100, 99, true}, {"garbled IP header", "TCP4", 10, 99, true}, {"garbled checksum", "TCP6", 57, 99, true},
		{"flow label", "TCP6", 3, 0x46, false}, {"hop limit", "TCP6", 7, 63, false}, {"address", "TCP6", 39, 1, false}, {"traffic class", "TCP6", 0, 0x63, false},
		{"ID", "UDP4", 5, 99, false}, {"port", "UDP4", 22, 1, false}, {"port", "UDP6", 40, 1, false}, {"garbled payload", "UDP6", 100, 1, true},
	} {
		packets := specs[c.spec].segments(900)[:3]
		packets[1][c.at] = c.value
		if !c.bad {
			fix(packets[1])
		}
		got := joined(true, true, clones(packets))
		if len(got) != 3 {
			t.Errorf("%s of %s: %d writes, want 3", c.name, c.spec, len(got))
			continue
		}
		for i := range packets {
			if !bytes.Equal(got[i][HeaderLen:], packets[i]) {
				t.Errorf("%s of %s: packet %d was changed", c.name, c.spec, i)
			}
		}
	}
}

// UDP without a checksum stays without one.
func TestJoinUDPWithoutChecksum(t *testing.T) {
	for _, first := range []int{0, 1} {
		packets := specs["UDP4"].segments(900)[:2]
		binary.BigEndian.PutUint16(packets[first][26:], 0)
		if got := joined(false, true, clones(packets)); len(got) != 2 {
			t.Errorf("packet %d without checksum: %d writes, want 2", first, len(got))
		}
	}
}

func TestJoinEnds(t *testing.T) {
	tcp := spec{flags: flagACK, payload: fill(4000)}
	push := tcp
	push.flags |= flagPSH
	for name, c := range map[string]struct {
		packets [][]byte
		writes  int
	}{
		"after a short one":      {append(tcp.segments(1500), spec{flags: flagACK, seq: 4000, payload: fill(1000)}.build()), 2},
		"after PSH":              {append(push.segments(1000), spec{flags: flagACK, seq: 4000, payload: fill(1000)}.build()), 2},
		"first has PSH":          {[][]byte{spec{flags: flagACK | flagPSH, payload: fill(10)}.build(), spec{flags: flagACK, seq: 10, payload: fill(10)}.build()}, 2},
		"before a longer one":    {[][]byte{spec{flags: flagACK, payload: fill(10)}.build(), spec{flags: flagACK, seq: 10, payload: fill(11)}.build()}, 2},
		"at 64 packets":          {spec{flags: flagACK, payload: fill(6500)}.segments(100), 2},
		"at 65535 octets":        {append(spec{flags: flagACK, payload: fill(65495 - 95)}.segments(1400), spec{seq: 65400, flags: flagACK, payload: fill(1400)}.build()), 2},
		"ACKs are no part":       {[][]byte{spec{flags: flagACK}.build(), spec{flags: flagACK}.build()}, 2},
		"not after too little":   {[][]byte{{0x45}, {0x45}, nil, {0x60}}, 4},
		"options, as a stranger": {[][]byte{append([]byte{0x46}, tcp.build()[1:]...), append([]byte{0x46}, tcp.build()[1:]...)}, 2},
	} {
		if got := joined(true, true, c.packets); len(got) != c.writes {
			t.Errorf("%s: %d writes, want %d", name, len(got), c.writes)
		}
	}
}

func BenchmarkJoin(b *testing.B) {
	s := spec{options: 12, flags: flagACK, payload: fill(44 * 1368)}
	original := s.segments(1368)
	packets := clones(original)
	j := NewJoiner()
	j.TCP = true
	b.SetBytes(int64(44 * 1420))
	b.ReportAllocs()
	for b.Loop() {
		copy(packets[0][:60], original[0])
		for _, p := range packets {
			j.Next()
			if !j.Add(p) {
				b.Fatal("not joined")
			}
		}
		j.Take()
	}
}
