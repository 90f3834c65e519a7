package offload

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// FuzzSplit: whatever a header says of whatever octets, nothing outside the
// packet is written, and segments are what they were made of. A super-packet
// that is sound becomes packets that are, and joined again it is the same.
func FuzzSplit(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		const room = 32
		if len(data) < HeaderLen || len(data) > 65535 {
			return
		}
		h := ParseHeader(data)
		original := data[HeaderLen:]
		buffer := bytes.Repeat([]byte{0xa5}, room+len(original)+room)
		b := buffer[room : room+copy(buffer[room:], original)]
		var s Splitter
		err := s.Reset(h, b)
		var got [][]byte
		for segment := s.Next(); segment != nil; segment = s.Next() {
			got = append(got, bytes.Clone(segment))
		}
		for i := range room {
			if buffer[i] != 0xa5 || buffer[len(buffer)-1-i] != 0xa5 {
				t.Fatal("written outside the packet")
			}
		}
		if err != nil {
			if len(got) > 0 {
				t.Fatal("segments of a super-packet that was refused")
			}
			return
		}
		if len(got) != s.Len() {
			t.Fatalf("%d segments, announced %d", len(got), s.Len())
		}
		each, last := s.Sizes()
		for i, segment := range got {
			if want := each; len(segment) != want && i < len(got)-1 || i == len(got)-1 && len(segment) != last {
				t.Fatalf("segment %d has %d octets; announced %d, last %d", i, len(segment), each, last)
			}
		}
		checkSplit(t, h, original, got)
	})
}

// checkSplit compares segments with their super-packet.
func checkSplit(t *testing.T, h Header, original []byte, got [][]byte) {
	t.Helper()
	if h.Kind == Single {
		if !h.NeedsChecksum && !bytes.Equal(got[0], original) {
			t.Fatal("a packet as it is was changed")
		}
		return
	}
	headers := len(original)
	for _, segment := range got {
		headers -= len(segment)
	}
	headers = -headers / max(len(got)-1, 1) // they are repeated in all but one
	if len(got) == 1 {
		headers = int(h.ChecksumStart) + udpLen
		if h.Kind != UDP {
			headers = int(h.ChecksumStart) + int(original[h.ChecksumStart+tcpOffset]>>4)*4
		}
	}
	var payload []byte
	for _, segment := range got {
		payload = append(payload, segment[headers:]...)
	}
	if !bytes.Equal(payload, original[headers:]) {
		t.Fatal("payload differs")
	}
	// Is it what a kernel hands over? Then it must come out right.
	protocol := original[9]
	if original[0]>>4 == 6 {
		protocol = original[6]
	}
	if int(h.ChecksumStart) != ipv4Len && original[0]>>4 == 4 || int(h.ChecksumStart) != ipv6Len && original[0]>>4 == 6 ||
		protocol != protocolTCP && h.Kind != UDP || protocol != protocolUDP && h.Kind == UDP {
		return
	}
	l4, _ := transportOf(original)
	if binary.BigEndian.Uint16(l4[h.ChecksumOffset:]) != slowSum(pseudo(original, len(l4))) {
		return
	}
	for i, segment := range got {
		if !right(segment) {
			t.Fatalf("segment %d has a wrong length or checksum:\n%x", i, segment)
		}
	}
}

// FuzzJoin: whatever packets are joined, the kernel (here the Splitter) makes
// the same packets of it again, and no other octets are written. Only IDs of
// IPv4 packets that may not be fragmented may differ.
func FuzzJoin(f *testing.F) {
	f.Fuzz(func(t *testing.T, script []byte) {
		packets := scripted(script)
		var again [][]byte
		for _, w := range joined(true, true, clones(packets)) {
			var s Splitter
			if err := s.Reset(ParseHeader(w), w[HeaderLen:]); err != nil {
				t.Fatalf("what was joined is malformed: %v", err)
			}
			for segment := s.Next(); segment != nil; segment = s.Next() {
				again = append(again, bytes.Clone(segment))
			}
		}
		if len(again) != len(packets) {
			t.Fatalf("%d packets became %d", len(packets), len(again))
		}
		for i, p := range packets {
			if !bytes.Equal(withoutID(p), withoutID(again[i])) {
				t.Fatalf("packet %d was\n%x, is\n%x", i, p, again[i])
			}
		}
	})
}

// scripted makes packets of flows that go on, four octets each: the flow and
// what is done to the packet, its length, an octet's place, its value.
func scripted(script []byte) [][]byte {
	flows := []spec{specs["TCP4"], specs["TCP4 options"], specs["TCP6"], specs["UDP4"], specs["UDP6"], {mayFrag: true}}
	for i := range flows {
		flows[i].flags = flagACK
	}
	var packets [][]byte
	for ; len(script) >= 4 && len(packets) < 300; script = script[4:] {
		op, length, at, value := script[0], int(script[1])*8, int(script[2]), script[3]
		flow := &flows[int(op&7)%len(flows)]
		flow.payload = fill(length)
		p := flow.build()
		flow.seq += uint32(length)
		flow.id++
		if at > 0 && at < len(p) {
			p[at] = value
		}
		if op&0x10 != 0 {
			p = p[:min(len(p), int(value))]
		}
		if op&8 != 0 && len(p) >= ipv6Len+tcpLen && (p[0] == 0x45 || p[0]>>4 == 6) { // changed, and right again
			if p[0] == 0x45 {
				binary.BigEndian.PutUint16(p[10:], 0)
				binary.BigEndian.PutUint16(p[10:], ^slowSum(p[:ipv4Len]))
			}
			l4, _ := transportOf(p)
			putTransportChecksum(p, 0)
			putTransportChecksum(p, ^slowSum(pseudo(p, len(l4)), l4))
		}
		packets = append(packets, p)
	}
	return packets
}

// withoutID is a packet without what may change: the ID where it means nothing,
// and so the header's checksum, and one's complement's second zero.
func withoutID(p []byte) []byte {
	p = bytes.Clone(p)
	if len(p) < ipv4Len || !rightIfAny(p) {
		return p
	}
	if p[0]>>4 == 4 && p[6]&0x40 != 0 {
		clear(p[4:6])
	}
	if p[0]>>4 == 4 {
		clear(p[10:12])
	}
	l4, udp := transportOf(p)
	at := tcpChecksum
	if udp {
		at = udpChecksum
	}
	if sum := l4[at : at+2]; sum[0]&sum[1] == 0xff {
		clear(sum)
	}
	return p
}

// rightIfAny is right for packets that may be anything.
func rightIfAny(p []byte) bool {
	switch {
	case p[0] == 0x45 && len(p) >= ipv4Len+udpLen && p[9] == protocolUDP,
		p[0] == 0x45 && len(p) >= ipv4Len+tcpLen && p[9] == protocolTCP,
		p[0]>>4 == 6 && len(p) >= ipv6Len+udpLen && p[6] == protocolUDP,
		p[0]>>4 == 6 && len(p) >= ipv6Len+tcpLen && p[6] == protocolTCP:
		return right(p)
	}
	return false
}
