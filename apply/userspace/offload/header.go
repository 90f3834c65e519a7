// Package offload takes super-packets of a TUN device apart and makes them:
// up to 64 KiB of one TCP or UDP flow behind one header, which the kernel hands
// over, and takes, in one system call. That is most of what makes ESP in user
// space fast. A payload that lies where it was asked for is not copied. The package
// is pure.
package offload

import "encoding/binary"

// HeaderLen is the length of a Header before each packet of a TUN device that
// was opened with IFF_VNET_HDR.
const HeaderLen = 10

// Header is a struct virtio_net_hdr (include/uapi/linux/virtio_net.h), in the
// machine's byte order. The zero value says nothing of its packet.
type Header struct {
	NeedsChecksum  bool
	Kind           Kind
	HeaderLen      uint16 // octets of IP and transport header; a hint
	SegmentSize    uint16 // octets of payload in each segment but the last
	ChecksumStart  uint16 // where the transport header begins
	ChecksumOffset uint16 // where in it the checksum stands
}

// Kind of a super-packet.
type Kind uint8

// Kinds, as virtio_net_hdr.gso_type has them.
const (
	Single Kind = 0
	TCP4   Kind = 1
	TCP6   Kind = 4
	UDP    Kind = 5 // over IPv4 or IPv6
)

const (
	flagNeedsChecksum = 1    // VIRTIO_NET_HDR_F_NEEDS_CSUM
	kindECN           = 0x80 // VIRTIO_NET_HDR_GSO_ECN: CWR is set
)

// ParseHeader reads a header; b has HeaderLen octets at least.
func ParseHeader(b []byte) Header {
	_ = b[HeaderLen-1]
	return Header{
		NeedsChecksum:  b[0]&flagNeedsChecksum != 0,
		Kind:           Kind(b[1] &^ kindECN),
		HeaderLen:      binary.NativeEndian.Uint16(b[2:]),
		SegmentSize:    binary.NativeEndian.Uint16(b[4:]),
		ChecksumStart:  binary.NativeEndian.Uint16(b[6:]),
		ChecksumOffset: binary.NativeEndian.Uint16(b[8:]),
	}
}

// Put writes the header; b has HeaderLen octets at least.
func (h Header) Put(b []byte) {
	_ = b[HeaderLen-1]
	b[0] = 0
	if h.NeedsChecksum {
		b[0] = flagNeedsChecksum
	}
	b[1] = uint8(h.Kind)
	binary.NativeEndian.PutUint16(b[2:], h.HeaderLen)
	binary.NativeEndian.PutUint16(b[4:], h.SegmentSize)
	binary.NativeEndian.PutUint16(b[6:], h.ChecksumStart)
	binary.NativeEndian.PutUint16(b[8:], h.ChecksumOffset)
}

// Octets of headers, and where in them the fields stand that differ between
// the segments of a super-packet (RFC 791, 8200, 9293, 768).
const (
	ipv4Len         = 20
	ipv4TotalLength = 2
	ipv4ID          = 4
	ipv4Fragment    = 6
	ipv4Protocol    = 9
	ipv4Checksum    = 10
	ipv4Addresses   = 12

	ipv6Len           = 40
	ipv6PayloadLength = 4
	ipv6NextHeader    = 6
	ipv6Addresses     = 8

	tcpLen      = 20
	tcpSeq      = 4
	tcpAck      = 8
	tcpOffset   = 12
	tcpFlags    = 13
	tcpWindow   = 14
	tcpChecksum = 16
	tcpUrgent   = 18

	udpLen      = 8
	udpLength   = 4
	udpChecksum = 6
)

const (
	protocolTCP = 6
	protocolUDP = 17
)

// TCP's flags.
const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	flagPSH
	flagACK
	flagURG
	flagECE
	flagCWR
)
