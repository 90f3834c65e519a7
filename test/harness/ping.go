//go:build linux

package harness

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pingEvery is the time between two echo requests.
	pingEvery = 30 * time.Millisecond
	// pingFor is how long the last one is waited for. ping(8) waits for twice as
	// long as an earlier one took, which on a busy machine is no time at all.
	pingFor = time.Second
)

// Ping sends count echo requests between two addresses and returns how many
// were answered.
func (h *Host) Ping(from, to netip.Addr, count int) int {
	h.t.Helper()
	protocol, request, reply, header := unix.IPPROTO_ICMP, byte(8), byte(0), 20
	family := unix.AF_INET
	if to.Is6() {
		protocol, request, reply, header = unix.IPPROTO_ICMPV6, 128, 129, 0
		family = unix.AF_INET6
	}
	var fd int
	err := h.Do(func() error {
		var err error
		fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
		return err
	})
	if err != nil {
		h.t.Fatalf("%s: ping: %v", h.Name, err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, sockaddr(from)); err != nil {
		h.t.Fatalf("%s: ping from %v: %v", h.Name, from, err)
	}
	packet := make([]byte, 64)
	packet[0] = request
	id := uint16(rand.Uint32())
	binary.BigEndian.PutUint16(packet[4:], id)
	seen := map[uint16]bool{}
	buf := make([]byte, 2048)
	for seq := range count {
		binary.BigEndian.PutUint16(packet[6:], uint16(seq))
		binary.BigEndian.PutUint16(packet[2:], 0)
		binary.BigEndian.PutUint16(packet[2:], checksum(packet)) // in IPv6 the kernel's task
		_ = unix.Sendto(fd, packet, 0, sockaddr(to))             // what is refused is not answered
		until := time.Now().Add(pingEvery)
		if seq == count-1 {
			until = time.Now().Add(pingFor)
		}
		for left := time.Until(until); left > 0 && len(seen) < count; left = time.Until(until) {
			wait := unix.NsecToTimeval(max(left, time.Millisecond).Nanoseconds())
			if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
				h.t.Fatalf("%s: ping: %v", h.Name, err)
			}
			n, err := unix.Read(fd, buf)
			if err != nil || n < header+8 {
				continue
			}
			if b := buf[header:n]; b[0] == reply && binary.BigEndian.Uint16(b[4:]) == id {
				seen[binary.BigEndian.Uint16(b[6:])] = true
			}
		}
	}
	return len(seen)
}

// sockaddr is the socket address of an IP address, without a port.
func sockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Addr: a.As16()}
}

// checksum is that of ICMP (RFC 1071) over an even number of octets.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
