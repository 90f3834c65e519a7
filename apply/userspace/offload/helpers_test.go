package offload

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// A spec describes a packet of the tests.
type spec struct {
	ipv6, udp bool
	options   int // octets of TCP options
	id        uint16
	mayFrag   bool
	seq       uint32
	flags     byte
	payload   []byte
}

// build makes the packet with all lengths and checksums.
func (s spec) build() []byte {
	be := binary.BigEndian
	var ip, l4 []byte
	protocol := byte(protocolTCP)
	if s.udp {
		protocol = protocolUDP
		l4 = make([]byte, udpLen)
		be.PutUint16(l4[4:], uint16(udpLen+len(s.payload)))
	} else {
		l4 = make([]byte, tcpLen+s.options)
		be.PutUint32(l4[4:], s.seq)
		be.PutUint32(l4[8:], 0x01020304)
		l4[12] = byte(len(l4)/4) << 4
		l4[13] = s.flags
		be.PutUint16(l4[14:], 502)
		for i := range s.options {
			l4[20+i] = byte(i + 1)
		}
	}
	be.PutUint16(l4[0:], 5201)
	be.PutUint16(l4[2:], 40000)
	l4 = append(l4, s.payload...)
	if s.ipv6 {
		ip = make([]byte, ipv6Len)
		be.PutUint32(ip, 6<<28|0x22<<20|0x12345)
		be.PutUint16(ip[4:], uint16(len(l4)))
		ip[6], ip[7] = protocol, 64
		for i := range 32 {
			ip[8+i] = byte(0x20 + i)
		}
	} else {
		ip = make([]byte, ipv4Len)
		ip[0], ip[1] = 0x45, 0x22
		be.PutUint16(ip[2:], uint16(ipv4Len+len(l4)))
		be.PutUint16(ip[4:], s.id)
		if !s.mayFrag {
			ip[6] = 0x40
		}
		ip[8], ip[9] = 64, protocol
		copy(ip[12:], []byte{10, 1, 0, 1, 10, 2, 0, 1})
		be.PutUint16(ip[10:], ^slowSum(ip))
	}
	b := append(ip, l4...)
	putTransportChecksum(b, ^slowSum(pseudo(b, len(l4)), l4))
	return b
}

func transportOf(b []byte) (t []byte, udp bool) {
	if b[0]>>4 == 6 {
		return b[ipv6Len:], b[6] == protocolUDP
	}
	return b[ipv4Len:], b[9] == protocolUDP
}

func putTransportChecksum(b []byte, sum uint16) {
	t, udp := transportOf(b)
	if udp {
		if sum == 0 {
			sum = 0xffff
		}
		binary.BigEndian.PutUint16(t[6:], sum)
		return
	}
	binary.BigEndian.PutUint16(t[16:], sum)
}

// pseudo is the pseudo-header, octet by octet.
func pseudo(b []byte, length int) []byte {
	addresses, protocol := b[12:20], b[9]
	if b[0]>>4 == 6 {
		addresses, protocol = b[8:40], b[6]
	}
	p := append([]byte(nil), addresses...)
	p = binary.BigEndian.AppendUint32(p, uint32(length))
	return append(p, 0, 0, 0, protocol)
}

// slowSum is RFC 1071, Section 4.1, over pieces of even length and the last.
func slowSum(pieces ...[]byte) uint16 {
	sum := uint32(0)
	for _, b := range pieces {
		for i, v := range b {
			if i&1 == 0 {
				sum += uint32(v) << 8
			} else {
				sum += uint32(v)
			}
		}
		for sum>>16 != 0 {
			sum = sum&0xffff + sum>>16
		}
	}
	return uint16(sum)
}

// right tells whether lengths and checksums of a packet without IP options are
// right, by this file's own reckoning.
func right(b []byte) bool {
	if b[0]>>4 == 6 {
		if int(binary.BigEndian.Uint16(b[4:])) != len(b)-ipv6Len {
			return false
		}
	} else if int(binary.BigEndian.Uint16(b[2:])) != len(b) || slowSum(b[:ipv4Len]) != 0xffff {
		return false
	}
	t, udp := transportOf(b)
	if udp && int(binary.BigEndian.Uint16(t[4:])) != len(t) {
		return false
	}
	return slowSum(pseudo(b, len(t)), t) == 0xffff
}

// super makes a super-packet as the kernel hands it over: the headers of the
// whole, and the pseudo-header's sum for a checksum.
func (s spec) super(size int) (Header, []byte) {
	b := s.build()
	t, udp := transportOf(b)
	h := Header{NeedsChecksum: true, Kind: TCP4, SegmentSize: uint16(size), ChecksumStart: uint16(len(b) - len(t)), ChecksumOffset: tcpChecksum}
	switch {
	case udp:
		h.Kind, h.ChecksumOffset = UDP, udpChecksum
	case s.ipv6:
		h.Kind = TCP6
	}
	h.HeaderLen = uint16(len(b) - len(s.payload))
	putTransportChecksum(b, slowSum(pseudo(b, len(t))))
	return h, b
}

// segments are what a super-packet should become.
func (s spec) segments(size int) [][]byte {
	var all [][]byte
	for at := 0; at < len(s.payload); at += size {
		one := s
		one.payload = s.payload[at:min(at+size, len(s.payload))]
		one.seq += uint32(at)
		one.id += uint16(len(all))
		if at > 0 {
			one.flags &^= flagCWR
		}
		if at+size < len(s.payload) {
			one.flags &^= flagFIN | flagPSH
		}
		all = append(all, one.build())
	}
	return all
}

// split collects copies of the segments.
func split(t testing.TB, h Header, b []byte) [][]byte {
	t.Helper()
	var s Splitter
	if err := s.Reset(h, b); err != nil {
		t.Fatalf("%+v: %v", h, err)
	}
	var all [][]byte
	for segment := s.Next(); segment != nil; segment = s.Next() {
		all = append(all, bytes.Clone(segment))
	}
	return all
}

func fill(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

var specs = map[string]spec{
	"TCP4":         {seq: 0xffffff00, id: 0xfffe, flags: flagACK | flagPSH, payload: fill(4000)},
	"TCP4 options": {seq: 7, options: 12, flags: flagACK | flagFIN | flagPSH | flagCWR, payload: fill(3001)},
	"TCP6":         {ipv6: true, seq: 1, options: 12, flags: flagACK | flagECE, payload: fill(5000)},
	"UDP4":         {udp: true, id: 9, mayFrag: true, payload: fill(4000)},
	"UDP6":         {ipv6: true, udp: true, payload: fill(2999)},
}
