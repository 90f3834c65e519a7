package watch

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"ipsec-quick/ike"
	"ipsec-quick/ike/wire"
)

const (
	// maxDatagram is the largest UDP payload.
	maxDatagram = 65535
	// maxStranger is the largest one that is taken for no IKE SA of ours: what a
	// flood keeps in memory is this times strangerQueue.
	maxStranger = 8 << 10
)

// nonESP is what tells IKE from ESP on the NAT port (RFC 3948, Section 2.2).
var nonESP = []byte{0, 0, 0, 0}

// traffic counts what the readers drop.
type traffic struct {
	esp    atomic.Uint64 // ESP in UDP that there is no SA for
	runt   atomic.Uint64 // too short for anything
	noAddr atomic.Uint64 // without the address that it was sent to
	flood  atomic.Uint64 // from strangers, faster than the loop takes them
}

// inbox is where the readers put IKE messages. Those for IKE SAs of ours and from
// the addresses of our peers have a queue of their own, so that a flood of requests
// for new IKE SAs, which anybody can send, does not keep them waiting.
type inbox struct {
	known     chan ike.Datagram // for an IKE SA of ours the readers wait while it is full
	strangers chan ike.Datagram // what comes while it is full is dropped
	spis      set[wire.SPI]     // of our IKE SAs
	peers     set[netip.Addr]   // addresses of endpoints
	esp       *espRouter        // nil: the kernel takes ESP before anybody reads it
	stop      chan struct{}     // closed: nobody takes them any more
	drops     traffic
	done      sync.WaitGroup
}

func newInbox() inbox {
	return inbox{
		known: make(chan ike.Datagram, datagramQueue), strangers: make(chan ike.Datagram, strangerQueue),
		stop: make(chan struct{}),
	}
}

// set is what the readers ask for. The loop alone changes it.
type set[K comparable] struct {
	mu  sync.RWMutex
	all map[K]bool
}

func (s *set[K]) has(k K) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.all[k]
}

func (s *set[K]) add(k K) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[K]bool{}
	}
	s.all[k] = true
}

func (s *set[K]) replace(all map[K]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = all
}

func (s *set[K]) remove(k K) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, k)
}

// readAll starts a reader for each socket.
func (s *sockets) readAll(in *inbox) {
	for i, conn := range s.conns {
		if conn == nil {
			continue
		}
		port := s.ports[0]
		if slot(i).nat() {
			port = s.ports[1]
		}
		in.done.Go(func() { in.read(conn, port, slot(i).nat()) })
	}
}

// read reads until the socket has a deadline or is closed.
func (in *inbox) read(conn *net.UDPConn, port uint16, nat bool) {
	buf, control := make([]byte, maxDatagram), make([]byte, 256)
	for {
		n, nc, _, from, err := conn.ReadMsgUDPAddrPort(buf, control)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			continue // an ICMP error for something sent before
		}
		data := buf[:n]
		if nat {
			switch {
			case n == 1 && data[0] == 0xff: // a keepalive (RFC 3948, Section 2.3)
				continue
			case n < len(nonESP):
				in.drops.runt.Add(1)
				continue
			case !bytes.HasPrefix(data, nonESP):
				in.receiveESP(netip.AddrPortFrom(destination(control[:nc]), port), from, data)
				continue
			}
			data = data[len(nonESP):]
		}
		remote := plain(from)
		queue, waits := in.queueFor(remote.Addr(), data)
		if !waits && (len(data) > maxStranger || len(queue) == cap(queue)) {
			in.drops.flood.Add(1) // before it has cost any memory
			continue
		}
		local := destination(control[:nc])
		if !local.IsValid() {
			in.drops.noAddr.Add(1)
			continue
		}
		d := ike.Datagram{
			Local:  netip.AddrPortFrom(local, port),
			Remote: remote,
			NATT:   nat,
			Data:   bytes.Clone(data),
		}
		if !in.put(queue, d, waits) {
			return
		}
	}
}

// queueFor is where a message belongs, and whether it is worth waiting for.
func (in *inbox) queueFor(remote netip.Addr, data []byte) (queue chan ike.Datagram, waits bool) {
	waits = in.isKnown(data)
	if waits || in.peers.has(remote) {
		return in.known, waits
	}
	return in.strangers, false
}

// offer takes a message without waiting, and copies it if it does.
func (in *inbox) offer(d ike.Datagram) {
	queue, _ := in.queueFor(d.Remote.Addr(), d.Data)
	if len(d.Data) > maxStranger || len(queue) == cap(queue) {
		in.drops.flood.Add(1)
		return
	}
	d.Data = bytes.Clone(d.Data)
	in.put(queue, d, false)
}

// espHeaderLen is the SPI and the sequence number (RFC 4303, Section 2).
const espHeaderLen = 8

// receiveESP takes an ESP packet that came to the NAT port.
func (in *inbox) receiveESP(local, remote netip.AddrPort, data []byte) {
	switch {
	case !local.Addr().IsValid():
		in.drops.noAddr.Add(1)
	case len(data) < espHeaderLen:
		in.drops.runt.Add(1)
	case in.esp == nil || !in.esp.route(local, plain(remote), data):
		in.drops.esp.Add(1)
	}
}

// plain is an address as all the rest has it.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// isKnown reports whether a datagram is for an IKE SA of ours.
func (in *inbox) isKnown(data []byte) bool {
	h, err := wire.ParseHeader(data)
	return err == nil && in.spis.has(ourSPI(h))
}

// put gives a datagram to the loop. With waits it does so: what the loop does not
// get to, the kernel queues and then drops. It returns false when nobody takes it
// any more.
func (in *inbox) put(queue chan<- ike.Datagram, d ike.Datagram, waits bool) bool {
	if !waits {
		select {
		case queue <- d:
		default:
			in.drops.flood.Add(1)
		}
		return true
	}
	select {
	case queue <- d:
		return true
	case <-in.stop:
		return false
	}
}

// destination is the address that a datagram was sent to (ip(7) IP_PKTINFO,
// ipv6(7) IPV6_RECVPKTINFO).
func destination(control []byte) netip.Addr {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			return netip.AddrFrom4([4]byte(m.Data[8:12])) // struct in_pktinfo: ipi_addr
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			return netip.AddrFrom16([16]byte(m.Data[:16])) // struct in6_pktinfo: ipi6_addr
		}
	}
	return netip.Addr{}
}

// sourceControl makes the kernel send from an address.
func sourceControl(local netip.Addr) []byte {
	switch {
	case !local.IsValid() || local.IsUnspecified():
		return nil
	case local.Is4():
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: local.As4()})
	}
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: local.As16()})
}
