package offload

import (
	"encoding/binary"
	"errors"

	"ipsec-quick/apply/userspace/packet"
)

// ErrMalformed: a packet is not what its Header says.
var ErrMalformed = errors.New("super-packet does not fit its virtio_net_hdr")

// maxHeaders is the room for IP and transport headers: 120 octets are the most
// of IPv4 and TCP; the rest is for extension headers of IPv6.
const maxHeaders = 256

// Splitter takes a super-packet apart in its own buffer. Each segment's headers
// are written right before its payload, over the tail of the segment before,
// which has been encrypted by then: the encryption that follows is the only
// copy. The zero value is ready for Reset.
type Splitter struct {
	b    []byte // the super-packet; its capacity goes on
	kind Kind
	ipv6 bool

	headers   [maxHeaders]byte // of the super-packet; each segment's are made of them
	transport int              // where the transport header begins
	payload   int              // and where it ends
	size      int              // payload of a segment
	next      int              // the next segment's payload begins here
	done      bool

	// Checksums without what differs between segments.
	ipSum, transportSum packet.Sum
}

// Reset takes the packet b, with headers and all, which h describes. Octets
// behind b, as far as its capacity goes, are left alone.
func (s *Splitter) Reset(h Header, b []byte) error {
	*s = Splitter{b: b, kind: h.Kind, done: true}
	if h.Kind == Single {
		if h.NeedsChecksum {
			if err := complete(b, int(h.ChecksumStart), int(h.ChecksumOffset)); err != nil {
				return err
			}
		}
		s.done = false
		return nil
	}
	if err := s.parse(h); err != nil {
		return err
	}
	s.next = s.payload
	s.done = false
	s.prepare()
	return nil
}

// complete fills in a checksum whose field holds the pseudo-header's.
func complete(b []byte, start, offset int) error {
	if start+offset+2 > len(b) {
		return ErrMalformed
	}
	sum := packet.Sum(0).Add(b[start:]).Checksum()
	if sum == 0 {
		sum = 0xffff // 0 is "none" to UDP, and the same number to all others
	}
	binary.BigEndian.PutUint16(b[start+offset:], sum)
	return nil
}

// parse finds the headers. The kernel's own idea of their length does not
// count: for a forwarded packet it may be that of the whole first segment.
func (s *Splitter) parse(h Header) error {
	b, t := s.b, int(h.ChecksumStart)
	if len(b) < ipv4Len || !h.NeedsChecksum || h.SegmentSize == 0 {
		return ErrMalformed
	}
	s.ipv6 = b[0]>>4 == 6
	switch {
	case h.Kind == TCP4 && s.ipv6, h.Kind == TCP6 && !s.ipv6,
		s.ipv6 && t < ipv6Len, !s.ipv6 && (b[0]>>4 != 4 || t < ipv4Len || t != int(b[0]&15)*4):
		return ErrMalformed
	}
	length, sum := udpLen, udpChecksum
	switch h.Kind {
	case TCP4, TCP6:
		if t+tcpLen > len(b) {
			return ErrMalformed
		}
		length, sum = int(b[t+tcpOffset]>>4)*4, tcpChecksum
		if length < tcpLen {
			return ErrMalformed
		}
	case UDP:
	default:
		return ErrMalformed
	}
	s.transport, s.payload, s.size = t, t+length, int(h.SegmentSize)
	if s.payload >= len(b) || s.payload > maxHeaders || int(h.ChecksumOffset) != sum {
		return ErrMalformed
	}
	return nil
}

// prepare keeps the headers, and sums what is the same in all segments.
func (s *Splitter) prepare() {
	hdr := s.headers[:copy(s.headers[:], s.b[:s.payload])]
	be := binary.BigEndian
	if !s.ipv6 {
		be.PutUint16(hdr[ipv4Checksum:], 0)
		s.ipSum = packet.Sum(0).Add(hdr[:s.transport]).
			AddUint16(^be.Uint16(hdr[ipv4TotalLength:])).AddUint16(^be.Uint16(hdr[ipv4ID:]))
	}
	// The checksum's field holds the sum of the pseudo-header with the length
	// of the whole, so the length goes out of the sum again. Adding the
	// complement is subtraction.
	t := hdr[s.transport:]
	s.transportSum = packet.Sum(0).AddUint16(^uint16(len(s.b) - s.transport)).Add(t)
	if s.kind == UDP {
		s.transportSum = s.transportSum.AddUint16(^be.Uint16(t[udpLength:]))
		return
	}
	s.transportSum = s.transportSum.AddUint32(^be.Uint32(t[tcpSeq:])).AddUint16(^be.Uint16(t[tcpOffset:]))
}

// Len is how many segments there are in all.
func (s *Splitter) Len() int {
	if s.kind == Single {
		return 1
	}
	return (len(s.b) - s.payload + s.size - 1) / s.size
}

// Sizes are the lengths of the segments, and of the last one, with headers.
func (s *Splitter) Sizes() (each, last int) {
	if s.kind == Single {
		return len(s.b), len(s.b)
	}
	last = len(s.b) - (s.Len()-1)*s.size
	return min(s.payload+s.size, len(s.b)), last
}

// Next is the next segment, a complete packet, or nil after the last. It is
// valid until the next call; the octets behind it, as far as its capacity
// goes, are those of the segments to come.
func (s *Splitter) Next() []byte {
	if s.done {
		return nil
	}
	if s.kind == Single {
		s.done = true
		return s.b
	}
	end := min(s.next+s.size, len(s.b))
	segment := s.b[s.next-s.payload : end]
	copy(segment, s.headers[:s.payload])
	s.done = end == len(s.b)
	if s.ipv6 {
		binary.BigEndian.PutUint16(segment[ipv6PayloadLength:], uint16(len(segment)-ipv6Len))
	} else {
		s.putIPv4(segment)
	}
	if s.kind == UDP {
		s.putUDP(segment[s.transport:])
	} else {
		s.putTCP(segment[s.transport:])
	}
	s.next = end
	return segment
}

// putIPv4 gives the segment its length, the next ID and the checksum.
func (s *Splitter) putIPv4(b []byte) {
	be := binary.BigEndian
	id := be.Uint16(b[ipv4ID:]) + uint16((s.next-s.payload)/s.size)
	length := uint16(len(b))
	be.PutUint16(b[ipv4ID:], id)
	be.PutUint16(b[ipv4TotalLength:], length)
	be.PutUint16(b[ipv4Checksum:], s.ipSum.AddUint16(id).AddUint16(length).Checksum())
}

// putTCP gives the segment its sequence number, its flags (CWR on the first
// alone, FIN and PSH on the last) and the checksum.
func (s *Splitter) putTCP(t []byte) {
	be := binary.BigEndian
	seq := be.Uint32(t[tcpSeq:]) + uint32(s.next-s.payload)
	if s.next != s.payload {
		t[tcpFlags] &^= flagCWR
	}
	if !s.done {
		t[tcpFlags] &^= flagFIN | flagPSH
	}
	be.PutUint32(t[tcpSeq:], seq)
	sum := s.transportSum.AddUint16(uint16(len(t))).AddUint32(seq).AddUint16(be.Uint16(t[tcpOffset:]))
	be.PutUint16(t[tcpChecksum:], sum.Add(t[s.payload-s.transport:]).Checksum())
}

// putUDP gives the segment its length and checksum.
func (s *Splitter) putUDP(t []byte) {
	be := binary.BigEndian
	length := uint16(len(t))
	be.PutUint16(t[udpLength:], length)
	sum := s.transportSum.AddUint16(length).AddUint16(length).Add(t[udpLen:]).Checksum()
	if sum == 0 {
		sum = 0xffff // RFC 768
	}
	be.PutUint16(t[udpChecksum:], sum)
}
