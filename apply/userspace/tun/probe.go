package tun

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply/userspace/offload"
)

// probe writes a super-packet of each kind to the device, and switches off what
// the kernel does not take: some releases refuse sound ones with EINVAL. The
// packets go no further than the IP layer's first check, for the IP header's
// checksum is wrong.
func (d *Device) probe() error {
	works := func(kind offload.Kind) (bool, error) {
		err := d.queues[0].Write(probePacket(kind))
		if errors.Is(err, unix.EINVAL) {
			return false, nil
		}
		return err == nil, err
	}
	var err4, err6, errUDP error
	if d.Offloads.TCP {
		var four, six bool
		four, err4 = works(offload.TCP4)
		six, err6 = works(offload.TCP6)
		d.Offloads.TCP = four && six
	}
	if d.Offloads.UDP {
		d.Offloads.UDP, errUDP = works(offload.UDP)
	}
	return errors.Join(err4, err6, errUDP)
}

// probePacket is a super-packet of two segments, between unspecified addresses.
func probePacket(kind offload.Kind) []byte {
	const size, ipv4, ipv6, tcp, udp = 100, 20, 40, 20, 8
	h := offload.Header{
		NeedsChecksum: true, Kind: kind, SegmentSize: size,
		ChecksumStart: ipv4, ChecksumOffset: 16, HeaderLen: ipv4 + tcp,
	}
	switch kind {
	case offload.TCP6:
		h.ChecksumStart, h.HeaderLen = ipv6, ipv6+tcp
	case offload.UDP:
		h.ChecksumOffset, h.HeaderLen = 6, ipv4+udp
	default:
	}
	p := make([]byte, offload.HeaderLen+int(h.HeaderLen)+2*size)
	b := p[offload.HeaderLen:]
	be := binary.BigEndian
	t := b[h.ChecksumStart:]
	if kind == offload.TCP6 {
		b[0], b[6], b[7] = 6<<4, unix.IPPROTO_TCP, 1
		be.PutUint16(b[4:], uint16(len(t)))
	} else {
		b[0], b[8], b[9] = 4<<4|ipv4/4, 1, unix.IPPROTO_TCP
		be.PutUint16(b[2:], uint16(len(b)))
		be.PutUint16(b[10:], 0xdead)
	}
	if kind == offload.UDP {
		b[9] = unix.IPPROTO_UDP
		be.PutUint16(t[4:], uint16(len(t)))
	} else {
		t[12], t[13] = tcp/4<<4, 0x10 // no options; ACK
	}
	h.Put(p)
	return p
}
