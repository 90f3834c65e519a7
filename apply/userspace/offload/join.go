package offload

import (
	"bytes"
	"encoding/binary"

	"ipsec-quick/apply/userspace/packet"
)

const (
	// maxJoined is the most packets in one super-packet: what UDP_SEGMENT and so
	// the receiver of a super-packet of UDP allows.
	maxJoined = 64

	// maxLen is the longest super-packet: its length stands in an IP header.
	maxLen = 65535
)

// Joiner makes super-packets of consecutive packets of a flow, as the kernel's
// generic receive offload does, and with its rules: what the kernel makes of a
// super-packet when it takes it apart is what was joined.
//
// A super-packet lies in one piece, and yet no payload is copied: a packet is
// decrypted into the room that Next returns, to where its payload then is in place.
type Joiner struct {
	TCP, UDP bool // which the TUN device takes

	buffer []byte           // a Header, the first packet, the other packets' payloads. Room for one more follows
	length int              // of what is in it
	lent   int              // how many octets of it are in the room that Next has returned
	saved  [maxHeaders]byte // those octets
	n      int              // packets
	first  shape
	next   uint32 // TCP: the sequence number that continues it
	flags  byte   // TCP: PSH and FIN of the last segment
	open   bool   // more may follow
	proven bool   // the first packet's checksums are right
}

// NewJoiner makes one that is empty.
func NewJoiner() *Joiner { return &Joiner{buffer: make([]byte, HeaderLen+2*maxLen)} }

// shape of a packet that can be part of a super-packet.
type shape struct {
	kind      Kind
	b         []byte
	transport int
	payload   int
	pseudo    packet.Sum // addresses and protocol
}

// Next is the room for the next packet: an empty slice, with a capacity for the
// longest one. Add, Keep, Take, or Next again end it.
//
// It begins in the payloads, as far before their end as the next one's headers are
// long, but never in the first packet's headers, with which they are compared.
func (j *Joiner) Next() []byte {
	j.reclaim()
	if j.n == 0 {
		j.length = HeaderLen
	} else if payloads := j.length - HeaderLen - j.first.payload; payloads >= j.first.payload && j.prove() {
		j.lent = j.first.payload
		copy(j.saved[:], j.buffer[j.length-j.lent:j.length])
	}
	at := j.length - j.lent
	return j.buffer[at:at]
}

// reclaim puts back what was in the room.
func (j *Joiner) reclaim() {
	copy(j.buffer[j.length-j.lent:], j.saved[:j.lent])
	j.lent = 0
}

// Keep moves a packet from the room to where it may stay until it is added, and those
// before are taken, and returns it. One that lies elsewhere stays there.
func (j *Joiner) Keep(b []byte) []byte {
	if j.lent == 0 {
		return b
	}
	kept := j.buffer[j.length : j.length+len(b)]
	copy(kept, b)
	j.reclaim()
	return kept
}

// Add takes a packet if it is the first or continues those before. If not, Keep and
// Take have to be called first. A packet that does not lie in the room is copied.
func (j *Joiner) Add(b []byte) bool {
	if j.n == 0 {
		j.begin(b)
		return true
	}
	if !j.open || len(b) <= j.first.payload || !j.continues(b) {
		return false
	}
	if j.first.kind != UDP {
		j.flags = b[j.first.transport+tcpFlags] & (flagPSH | flagFIN)
	}
	payload := b[j.first.payload:]
	j.reclaim() // over b's headers
	j.put(payload)
	j.next += uint32(len(payload))
	j.open = len(payload) == j.size() && j.n < maxJoined && j.flags == 0
	return true
}

// put puts octets behind those there are, unless they are there.
func (j *Joiner) put(b []byte) {
	if to := j.buffer[j.length:]; len(b) > 0 && &to[0] != &b[0] {
		copy(to, b)
	}
	j.length += len(b)
	j.n++
}

// Take returns what was added as one write to the TUN device, beginning with
// its Header, and empties the Joiner. It returns nil if nothing was added. The
// result is valid until the next call of Add or Next.
func (j *Joiner) Take() []byte {
	if j.n == 0 {
		return nil
	}
	j.reclaim()
	h := Header{}
	if j.n > 1 {
		h = j.finish()
	}
	h.Put(j.buffer)
	j.n = 0
	return j.buffer[:j.length]
}

// size is the payload of the first packet, and so of all but the last.
func (j *Joiner) size() int { return len(j.first.b) - j.first.payload }

func (j *Joiner) begin(b []byte) {
	j.length = HeaderLen
	j.put(b)
	j.first = shapeOf(j.buffer[HeaderLen:j.length])
	j.proven = false
	j.flags = 0
	switch j.first.kind {
	case TCP4, TCP6:
		t := b[j.first.transport:]
		j.next = binary.BigEndian.Uint32(t[tcpSeq:]) + uint32(j.size())
		j.flags = t[tcpFlags] & (flagPSH | flagFIN)
		j.open = j.TCP && j.flags == 0
	case UDP:
		j.open = j.UDP
	default:
		j.open = false
	}
}

// shapeOf tells whether something can be joined to a packet: it is TCP that has
// payload and no flag but ACK, ECE, PSH and FIN, or UDP with payload and checksum, and
// there is nothing unusual about its IP header. If not, the kind is Single.
func shapeOf(b []byte) shape {
	s := shape{b: b}
	if len(b) < ipv4Len {
		return s
	}
	var protocol byte
	switch {
	case b[0] == 4<<4|ipv4Len/4:
		const mayNotFragment = 0x4000
		if int(binary.BigEndian.Uint16(b[ipv4TotalLength:])) != len(b) ||
			binary.BigEndian.Uint16(b[ipv4Fragment:])&^mayNotFragment != 0 {
			return s
		}
		s.transport, protocol = ipv4Len, b[ipv4Protocol]
		s.pseudo = packet.PseudoHeader(b[ipv4Addresses:ipv4Len], protocol, 0)
	case b[0]>>4 == 6 && len(b) >= ipv6Len:
		if int(binary.BigEndian.Uint16(b[ipv6PayloadLength:]))+ipv6Len != len(b) {
			return s
		}
		s.transport, protocol = ipv6Len, b[ipv6NextHeader]
		s.pseudo = packet.PseudoHeader(b[ipv6Addresses:ipv6Len], protocol, 0)
	default:
		return s
	}
	t := b[s.transport:]
	switch {
	case protocol == protocolTCP && len(t) > tcpLen:
		length := int(t[tcpOffset]>>4) * 4
		if length < tcpLen || length >= len(t) || t[tcpFlags]&^(flagPSH|flagFIN|flagECE) != flagACK {
			return s
		}
		s.payload, s.kind = s.transport+length, TCP6
		if s.transport == ipv4Len {
			s.kind = TCP4
		}
	case protocol == protocolUDP && len(t) > udpLen:
		if int(binary.BigEndian.Uint16(t[udpLength:])) != len(t) || binary.BigEndian.Uint16(t[udpChecksum:]) == 0 {
			return s
		}
		s.payload, s.kind = s.transport+udpLen, UDP
	}
	return s
}

// continues tells whether the packet is what the kernel would make of the next
// part of the super-packet.
func (j *Joiner) continues(b []byte) bool {
	f := &j.first
	if len(b) > len(f.b) || j.length-HeaderLen+len(b)-f.payload > maxLen || !sameIP(f.b, b, j.n) {
		return false
	}
	t, ft := b[f.transport:f.payload], f.b[f.transport:f.payload]
	if f.kind == UDP {
		if !bytes.Equal(t[:udpLength], ft[:udpLength]) || int(binary.BigEndian.Uint16(t[udpLength:])) != len(b)-f.transport ||
			binary.BigEndian.Uint16(t[udpChecksum:]) == 0 {
			return false
		}
	} else if binary.BigEndian.Uint32(t[tcpSeq:]) != j.next || !sameTCP(t, ft) {
		return false
	}
	return j.prove() && f.intact(b)
}

// prove verifies the first packet, once. A wrong checksum must stay wrong: the kernel
// takes that of a super-packet for granted. A sender's own network may have garbled
// what ESP protects.
func (j *Joiner) prove() bool {
	if j.open && !j.proven {
		j.proven = j.first.intact(j.first.b)
		j.open = j.proven
	}
	return j.open
}

// sameIP compares IP headers, n packets after the first. IDs of IPv4 count up,
// but where fragments are ruled out they mean nothing (RFC 6864).
func sameIP(first, b []byte, n int) bool {
	if first[0]>>4 == 6 {
		const length, hop = ipv6PayloadLength, ipv6NextHeader
		return [4]byte(b[:length]) == [4]byte(first[:length]) &&
			int(binary.BigEndian.Uint16(b[length:]))+ipv6Len == len(b) &&
			bytes.Equal(b[hop:ipv6Len], first[hop:ipv6Len])
	}
	const mayNotFragment = 0x40
	be := binary.BigEndian
	return [2]byte(b[:ipv4TotalLength]) == [2]byte(first[:ipv4TotalLength]) &&
		int(be.Uint16(b[ipv4TotalLength:])) == len(b) &&
		[4]byte(b[ipv4Fragment:ipv4Checksum]) == [4]byte(first[ipv4Fragment:ipv4Checksum]) &&
		[8]byte(b[ipv4Addresses:ipv4Len]) == [8]byte(first[ipv4Addresses:ipv4Len]) &&
		(b[ipv4Fragment] == mayNotFragment || be.Uint16(b[ipv4ID:]) == be.Uint16(first[ipv4ID:])+uint16(n))
}

// sameTCP compares TCP headers with options; the sequence number aside.
func sameTCP(t, first []byte) bool {
	return [4]byte(t[:tcpSeq]) == [4]byte(first[:tcpSeq]) &&
		[5]byte(t[tcpAck:tcpFlags]) == [5]byte(first[tcpAck:tcpFlags]) &&
		(t[tcpFlags]^first[tcpFlags])&^(flagPSH|flagFIN) == 0 &&
		[2]byte(t[tcpWindow:tcpChecksum]) == [2]byte(first[tcpWindow:tcpChecksum]) &&
		bytes.Equal(t[tcpUrgent:], first[tcpUrgent:])
}

// intact verifies the checksums of a packet of this shape.
func (s *shape) intact(b []byte) bool {
	if s.transport == ipv4Len && packet.Sum(0).Add(b[:ipv4Len]).Fold() != 0xffff {
		return false
	}
	t := b[s.transport:]
	return s.pseudo.AddUint16(uint16(len(t))).Add(t).Fold() == 0xffff
}

// finish makes the first packet's headers those of the whole.
func (j *Joiner) finish() Header {
	f := &j.first
	be := binary.BigEndian
	length := j.length - HeaderLen - f.transport
	if f.transport == ipv4Len {
		be.PutUint16(f.b[ipv4TotalLength:], uint16(j.length-HeaderLen))
		be.PutUint16(f.b[ipv4Checksum:], 0)
		be.PutUint16(f.b[ipv4Checksum:], packet.Sum(0).Add(f.b[:ipv4Len]).Checksum())
	} else {
		be.PutUint16(f.b[ipv6PayloadLength:], uint16(length))
	}
	t := f.b[f.transport:]
	checksum := tcpChecksum
	if f.kind == UDP {
		checksum = udpChecksum
		be.PutUint16(t[udpLength:], uint16(length))
	} else {
		t[tcpFlags] |= j.flags
	}
	be.PutUint16(t[checksum:], f.pseudo.AddUint16(uint16(length)).Fold())
	return Header{
		NeedsChecksum:  true,
		Kind:           f.kind,
		HeaderLen:      uint16(f.payload),
		SegmentSize:    uint16(j.size()),
		ChecksumStart:  uint16(f.transport),
		ChecksumOffset: uint16(checksum),
	}
}
