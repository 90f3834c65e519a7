//go:build linux

package harness

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Kind is what a packet on an outer link is.
type Kind int

// The kinds of packets. All but KindClear are what a tunnel may show.
const (
	KindClear     Kind = iota // anything else
	KindIKE                   // UDP 500, or 4500 with the non-ESP marker
	KindESP                   // IP protocol 50
	KindESPinUDP              // ESP in UDP 4500
	KindKeepalive             // one byte 0xff in UDP 4500
	KindNeighbour             // ARP, neighbour discovery, multicast listeners
	KindICMPError             // unreachable, too big, time exceeded
	KindFragment              // a later fragment of an outer packet
	kinds
)

func (k Kind) String() string {
	return [...]string{"clear", "IKE", "ESP", "ESP in UDP", "keepalive", "neighbour",
		"ICMP error", "fragment"}[k]
}

// Capture counts the packets that hosts send to the middle of a Net.
type Capture struct {
	t    testing.TB
	fd   int
	stop chan struct{}
	done chan struct{}
	once sync.Once

	mu      sync.Mutex
	counts  [kinds]int
	clear   []string       // the first clear packets
	from    map[string]int // clear packets by host
	largest int            // of IKE, in bytes with IP header
	drops   uint32

	sequences *Sequences
}

// StartCapture captures on all ports of the net's middle, what comes in from
// the hosts. Stop it before its counts are final.
func StartCapture(t testing.TB, n *Net) *Capture {
	t.Helper()
	c := &Capture{t: t, stop: make(chan struct{}), done: make(chan struct{}), from: map[string]int{}}
	ports := map[int]string{}
	err := n.Middle.Do(func() error {
		for i := range n.Hosts {
			ifi, err := net.InterfaceByName(portName(i))
			if err != nil {
				return err
			}
			ports[ifi.Index] = n.Hosts[i].Name
		}
		var err error
		c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
		return err
	})
	if err == nil {
		// A host may hand packets of one size to its link as one: what it is to be
		// split into is in the header.
		err = unix.SetsockoptInt(c.fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1)
	}
	if err != nil {
		t.Fatalf("capture: %v", err)
	}
	if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20); err != nil {
		t.Fatalf("capture: %v", err)
	}
	if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}); err != nil {
		t.Fatalf("capture: %v", err)
	}
	go c.run(ports)
	t.Cleanup(func() { c.Stop() })
	return c
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// run reads packets until Stop, and then those that are queued.
func (c *Capture) run(ports map[int]string) {
	defer close(c.done)
	const vnetHeader, etherHeader = 10, 14
	buf := make([]byte, 1<<17)
	for {
		n, from, err := unix.Recvfrom(c.fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			select {
			case <-c.stop:
				return
			default:
				continue
			}
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		if err != nil || !ok || n < vnetHeader+etherHeader || ll.Pkttype == unix.PACKET_OUTGOING || ports[ll.Ifindex] == "" {
			continue
		}
		packet := buf[vnetHeader+etherHeader : n]
		kind, what := classify(htons(ll.Protocol), packet)
		c.mu.Lock()
		if kind == KindESP || kind == KindESPinUDP {
			c.esp(packet, kind, buf[:vnetHeader])
		} else {
			c.counts[kind]++
		}
		if kind == KindIKE {
			c.largest = max(c.largest, len(packet))
		}
		if kind == KindClear {
			c.from[ports[ll.Ifindex]]++
		}
		if kind == KindClear && len(c.clear) < 10 {
			c.clear = append(c.clear, fmt.Sprintf("%s from %s: %s, %d bytes",
				time.Now().Format(clock), ports[ll.Ifindex], what, len(packet)))
		}
		c.mu.Unlock()
	}
}

// esp counts the ESP packets that were handed over as one (struct virtio_net_hdr).
func (c *Capture) esp(packet []byte, kind Kind, vnet []byte) {
	const udpSegments = 5 // VIRTIO_NET_HDR_GSO_UDP_L4
	data := packet[espOffset(packet, kind):]
	size := len(data)
	if vnet[1] == udpSegments {
		size = int(binary.NativeEndian.Uint16(vnet[4:]))
	}
	for ; len(data) > 0; data = data[min(size, len(data)):] {
		c.counts[kind]++
		if c.sequences != nil {
			c.sequences.add(data[:min(size, len(data))])
		}
	}
}

// espOffset is where ESP begins in a packet that was classified as such.
func espOffset(packet []byte, kind Kind) int {
	start := 40
	if packet[0]>>4 == 4 {
		start = int(packet[0]&15) * 4
	}
	if kind == KindESPinUDP {
		start += 8
	}
	return start
}

// Stop ends the capture. Packets that were sent before it are counted.
func (c *Capture) Stop() {
	c.once.Do(func() {
		close(c.stop)
		<-c.done
		if st, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			c.drops = st.Drops
		}
		unix.Close(c.fd)
	})
}

// Count returns how many packets of a kind have been seen.
func (c *Capture) Count(k Kind) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[k]
}

// LargestIKE returns the length of the largest IKE packet, with its IP header.
func (c *Capture) LargestIKE() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.largest
}

// Reset forgets what has been counted.
func (c *Capture) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts, c.clear, c.from, c.largest = [kinds]int{}, nil, map[string]int{}, 0
}

// NothingClear stops the capture and fails the test when a packet was seen that
// should have been encrypted, or when the capture was not complete.
func (c *Capture) NothingClear() {
	c.t.Helper()
	c.nothingClear(func() int { return c.counts[KindClear] })
}

// NothingClearFrom is NothingClear for what one host sent.
func (c *Capture) NothingClearFrom(h *Host) {
	c.t.Helper()
	c.nothingClear(func() int { return c.from[h.Name] })
}

// ClearFrom returns how many packets in clear a host has sent so far, and the first
// ones of all hosts.
func (c *Capture) ClearFrom(h *Host) (n int, first []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.from[h.Name], slices.Clone(c.clear)
}

func (c *Capture) nothingClear(count func() int) {
	c.t.Helper()
	c.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := count(); n > 0 {
		c.t.Errorf("%d packets in clear, the first of all hosts:\n  %s", n, strings.Join(c.clear, "\n  "))
	}
	if c.drops > 0 {
		c.t.Errorf("the capture missed %d packets", c.drops)
	}
}

// String shows the counts.
func (c *Capture) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var parts []string
	for k, n := range c.counts {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%v %d", Kind(k), n))
		}
	}
	return strings.Join(parts, ", ")
}

// classify says what a packet (without link header) of an EtherType is.
func classify(etherType uint16, p []byte) (Kind, string) {
	switch {
	case etherType == unix.ETH_P_ARP:
		return KindNeighbour, "ARP"
	case etherType == unix.ETH_P_IP && len(p) >= 20:
		ihl := int(p[0]&15) * 4
		what := fmt.Sprintf("%v → %v, protocol %d", netip.AddrFrom4([4]byte(p[12:16])),
			netip.AddrFrom4([4]byte(p[16:20])), p[9])
		if len(p) < ihl {
			return KindClear, what
		}
		// Which flow a later fragment belongs to cannot be seen; the first
		// fragment is counted as what it is.
		if binary.BigEndian.Uint16(p[6:])&0x1fff != 0 {
			return KindFragment, what
		}
		kind, more := transport(p[9], p[ihl:])
		return kind, what + more
	case etherType == unix.ETH_P_IPV6 && len(p) >= 40:
		what := fmt.Sprintf("%v → %v", netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40])))
		next, rest := p[6], p[40:]
		for next == unix.IPPROTO_HOPOPTS && len(rest) >= 8 && len(rest) >= int(rest[1])*8+8 {
			next, rest = rest[0], rest[int(rest[1])*8+8:]
		}
		if next == unix.IPPROTO_FRAGMENT && len(rest) >= 8 {
			if binary.BigEndian.Uint16(rest[2:])&^7 != 0 {
				return KindFragment, what
			}
			next, rest = rest[0], rest[8:]
		}
		kind, more := transport(next, rest)
		return kind, fmt.Sprintf("%s, protocol %d%s", what, next, more)
	}
	return KindClear, fmt.Sprintf("EtherType %#04x", etherType)
}

// transport classifies what is above IP, and names the ports.
func transport(protocol byte, p []byte) (Kind, string) {
	switch {
	case protocol == unix.IPPROTO_ESP:
		return KindESP, ""
	case protocol == unix.IPPROTO_ICMP && len(p) > 0:
		if t := p[0]; t == 3 || t == 11 || t == 12 {
			return KindICMPError, ""
		}
	case protocol == unix.IPPROTO_ICMPV6 && len(p) > 0:
		t := p[0]
		if t < 128 {
			return KindICMPError, ""
		}
		if t >= 130 && t <= 137 || t == 143 {
			return KindNeighbour, ""
		}
	case protocol == unix.IPPROTO_UDP && len(p) >= 8:
		src, dst := binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:])
		data := p[8:]
		switch {
		case src == 500 || dst == 500:
			return KindIKE, ""
		case src != 4500 && dst != 4500:
			return KindClear, fmt.Sprintf(", ports %d → %d", src, dst)
		case len(data) == 1 && data[0] == 0xff:
			return KindKeepalive, ""
		case len(data) >= 4 && binary.BigEndian.Uint32(data) == 0:
			return KindIKE, ""
		case len(data) >= 8:
			return KindESPinUDP, ""
		}
	}
	return KindClear, ""
}
