package userspace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
	"ipsec-quick/apply/userspace/esp"
	"ipsec-quick/apply/userspace/offload"
	"ipsec-quick/apply/userspace/outer"
	"ipsec-quick/apply/userspace/packet"
	"ipsec-quick/apply/userspace/tun"
)

// A wire is two planes with their workers' steps in the test's hands: what one
// seals the other one opens, by way of sockets on the loopback. The TUN devices
// are pairs of sockets.
type wire struct {
	t          testing.TB
	from, to   *Plane
	out        *outbound
	worker     *worker
	sent, got  *association
	back, into int // what is written to the TUN devices of from, of to
	buffer     []byte
	ike        []string
}

const wireSPI = 0xc0000001

// newWire makes one with an SA and its policy.
func newWire(t testing.TB, change func(*apply.SA)) *wire {
	t.Helper()
	w := &wire{t: t, buffer: make([]byte, 1<<17)}
	w.from, _ = openBench(t, t.TempDir())
	w.to, _ = openBench(t, t.TempDir())
	w.to.o.IKE = func(_, remote netip.AddrPort, data []byte) {
		w.ike = append(w.ike, remote.Addr().String()+" "+string(data))
	}

	sa := outSA(wireSPI)
	sa.Src, sa.Dst = netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	sa.Encap = &apply.Encap{SrcPort: freePort(t, sa.Src), DstPort: freePort(t, sa.Dst)}
	sa.ReplayWindow = 1024
	if change != nil {
		change(&sa)
	}
	w.sent = installed(t, w.from, sa)
	sa.Direction = apply.In
	w.got = installed(t, w.to, sa)
	policy := apply.Policy{Selector: inner, Action: apply.Protect, Local: sa.Src, Remote: sa.Dst, ReqID: sa.ReqID, SPI: wireSPI, Mode: sa.Mode}
	if sa.Mode == apply.Transport {
		policy.Selector = apply.Selector{Local: netip.PrefixFrom(sa.Src, 32), Remote: netip.PrefixFrom(sa.Dst, 32)}
	}
	must(t, w.from.SetPolicy(policy))
	policy.Selector.Local, policy.Selector.Remote = policy.Selector.Remote, policy.Selector.Local
	policy.Local, policy.Remote = policy.Remote, policy.Local
	policy.SPI++
	must(t, w.to.SetPolicy(policy))

	sender, receiver := w.workers(w.from), w.workers(w.to)
	var read int
	w.back, read = w.device()
	w.out = newOutbound(sender, tun.NewQueue(w.back))
	w.back = read
	w.into, read = w.device()
	w.worker = receiver.workers[0]
	receiver.queues = []*tun.Queue{tun.NewQueue(w.into)}
	w.into = read
	must(t, sender.attach(w.sent))
	must(t, receiver.attach(w.got))
	t.Cleanup(func() {
		w.out.rest()
		sender.detach(w.sent)
		receiver.detach(w.got)
	})
	return w
}

// workers are those of a plane, with nothing that runs.
func (w *wire) workers(p *Plane) *workers {
	ws := &workers{p: p, paths: map[pathName]*path{}, outer: outer.Offloads{Segment: true, Join: true}}
	ws.active.Store(1)
	ws.join.Store(&tun.Offloads{TCP: true, UDP: true})
	var err error
	ws.halted, err = newQuit()
	must(w.t, err)
	k, err := newWorker(ws, nil)
	must(w.t, err)
	ws.workers, ws.queues = []*worker{k}, []*tun.Queue{{}}
	w.t.Cleanup(func() { unix.Close(k.epoll); unix.Close(ws.halted.fd) })
	return ws
}

// device is a pair of sockets that keep packets apart.
func (w *wire) device() (write, read int) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	must(w.t, err)
	must(w.t, unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20))
	w.t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return fds[0], fds[1]
}

func freePort(t testing.TB, addr netip.Addr) uint16 {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	must(t, err)
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

// put gives the outbound worker a packet with its header, and sends what it makes
// of it.
func (w *wire) put(h offload.Header, b []byte) {
	super := make([]byte, offload.HeaderLen+len(b), offload.HeaderLen+len(b)+esp.MaxTrailer)
	h.Put(super)
	copy(super[offload.HeaderLen:], b)
	w.out.superPacket(super)
	w.out.send()
}

// read is the next packet that was written to a TUN device; nil: there is none.
func (w *wire) read(fd int) (offload.Header, []byte) {
	n, err := unix.Read(fd, w.buffer)
	if errors.Is(err, unix.EAGAIN) {
		return offload.Header{}, nil
	}
	must(w.t, err)
	return offload.ParseHeader(w.buffer), bytes.Clone(w.buffer[offload.HeaderLen:n])
}

// take lets the peer receive, and is the next packet that comes out.
func (w *wire) take() (offload.Header, []byte) {
	w.worker.drain(w.got.path.Load())
	return w.read(w.into)
}

// seal is the ESP packet of a payload, as the sender would make it.
func (w *wire) seal(payload []byte, next uint8) []byte {
	first, _ := w.sent.reserve(1, 1, 1, now())
	return w.sealOn(wireSPI, first, payload, next)
}

// sealOn is seal for another SA, with the same key.
func (w *wire) sealOn(spi uint32, seq uint64, payload []byte, next uint8) []byte {
	src := append(bytes.Clone(payload), make([]byte, esp.MaxTrailer)...)[:len(payload)]
	return w.sent.transform.Seal(&w.out.scratch, make([]byte, 0, w.sent.transform.Len(len(payload))), spi, seq, src, next)
}

// datagram sends the peer a datagram as it is.
func (w *wire) datagram(b []byte, tos uint8) {
	w.t.Helper()
	batch := outer.NewBatch()
	batch.Add(copy(batch.Next()[:len(b)], b), tos, false)
	must(w.t, w.sent.path.Load().conn.Send(batch))
}

// drops are the receiver's counters.
func (w *wire) drops() apply.Drops {
	w.t.Helper()
	u, err := w.to.Query(w.got.id())
	must(w.t, err)
	return u.Drops
}

// flow4 is a packet of one of the pair's flows, IPv4, with all checksums.
func flow4(f packet.Flow, tos uint8, payload []byte) []byte {
	be := binary.BigEndian
	headers := 20
	if f.Protocol == unix.IPPROTO_UDP {
		headers = 8
	}
	t := make([]byte, headers+len(payload))
	be.PutUint16(t, f.SrcPort)
	be.PutUint16(t[2:], f.DstPort)
	if headers == 8 {
		be.PutUint16(t[4:], uint16(len(t)))
	} else {
		t[12], t[13] = 5<<4, 0x10
	}
	copy(t[headers:], payload)
	b := make([]byte, packet.IPv6Len+len(t))
	n := packet.PutHeader(b, f, tos, len(t))
	b = b[:n+copy(b[n:], t)]
	setChecksum(b)
	return b
}

// setChecksum makes the transport's checksum right.
func setChecksum(b []byte) {
	h, err := packet.Parse(b)
	if err != nil {
		panic(err)
	}
	packet.SetChecksum(b, &h)
}

// super4 makes of a packet of TCP a super-packet with segments of size octets.
func super4(f packet.Flow, size, octets int) (offload.Header, []byte) {
	payload := make([]byte, octets)
	for i := range payload {
		payload[i] = byte(i * 3)
	}
	b := flow4(f, 0, payload)
	t := b[20:]
	binary.BigEndian.PutUint16(t[16:], packet.PseudoHeader(b[12:20], unix.IPPROTO_TCP, len(t)).Fold())
	return offload.Header{
		NeedsChecksum: true, Kind: offload.TCP4, HeaderLen: 40, SegmentSize: uint16(size), ChecksumStart: 20, ChecksumOffset: 16,
	}, b
}
