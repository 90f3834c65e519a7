package outer

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchMessages are received with one system call at most, and of long ones
	// as many as cachedOctets hold: more would push each other out of the CPU's
	// cache before they are opened.
	batchMessages = 16
	messageOctets = 1 << 16
	cachedOctets  = 4 * messageOctets
)

// A Receiver has the buffers of one goroutine for what it receives.
type Receiver struct {
	buffer   []byte
	headers  [batchMessages]mmsghdr
	pieces   [batchMessages]unix.Iovec
	names    [batchMessages]unix.RawSockaddrInet6
	controls [batchMessages]control
	asked    int // messages of the last Receive, and how many came
	came     int
}

// NewReceiver makes one.
func NewReceiver() *Receiver {
	r := &Receiver{buffer: make([]byte, batchMessages*messageOctets), asked: batchMessages}
	for i := range r.headers {
		r.pieces[i].Base = &r.buffer[i*messageOctets]
		r.pieces[i].SetLen(messageOctets)
		h := &r.headers[i].header
		h.Iov = &r.pieces[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Control = &r.controls[i].octets[0]
	}
	return r
}

// A Message is what came as one: a datagram, or a train of them.
type Message struct {
	Data []byte         // valid until the next Receive; its owner may change it
	Size int            // of each datagram in Data, the last one may be shorter
	TOS  uint8          // type of service, or traffic class
	From netip.AddrPort // port 0 where there is no UDP
}

// Receive receives messages, and returns how many.
func (c *Conn) Receive(r *Receiver) (int, error) {
	r.adapt()
	for i := range r.asked {
		h := &r.headers[i].header
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(len(r.controls[i].octets))
	}
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(c.fd), uintptr(unsafe.Pointer(&r.headers)), uintptr(r.asked), 0, 0, 0)
		switch errno {
		case 0:
			r.came = int(n)
			return r.came, nil
		case unix.EINTR:
		default:
			r.came = 0
			return 0, errno
		}
	}
}

// adapt asks for as many messages of the length of the last ones as the cache
// holds.
func (r *Receiver) adapt() {
	if r.came == 0 {
		return
	}
	octets := 0
	for i := range r.came {
		octets += int(r.headers[i].len)
	}
	r.asked = min(max(cachedOctets*r.came/max(octets, 1), 1), batchMessages)
}

// Full tells whether the last Receive returned as many messages as it asked for,
// so that more may wait.
func (r *Receiver) Full() bool { return r.came == r.asked }

// Message is the i-th of those that the last Receive returned. A malformed one
// has no Data.
func (c *Conn) Message(r *Receiver, i int) Message {
	h := &r.headers[i]
	at := i * messageOctets
	m := Message{Data: r.buffer[at : at+int(h.len) : at+messageOctets], From: r.from(i)}
	k := &r.controls[i]
	k.used = min(int(h.header.Controllen), len(k.octets))
	m.readControl(k.octets[:k.used])
	if h.header.Flags&unix.MSG_TRUNC != 0 {
		m.Data = nil
	}
	if c.raw && !c.ipv6 {
		m.stripIPv4()
	}
	if m.Size <= 0 {
		m.Size = len(m.Data)
	}
	return m
}

func (r *Receiver) from(i int) netip.AddrPort {
	name := &r.names[i]
	switch name.Family {
	case unix.AF_INET:
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), ntohs(v4.Port))
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(name.Addr), ntohs(name.Port))
	}
	return netip.AddrPort{}
}

func ntohs(v uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], v)
	return binary.BigEndian.Uint16(b[:])
}

// readControl reads what the kernel says beside the data.
func (m *Message) readControl(b []byte) {
	for len(b) >= unix.CmsgLen(0) {
		h, data, rest, err := unix.ParseOneSocketControlMessage(b)
		if err != nil {
			return
		}
		switch {
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			m.Size = int(int32(binary.NativeEndian.Uint32(data)))
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_TOS && len(data) >= 1:
			m.TOS = data[0]
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_TCLASS && len(data) >= 4:
			m.TOS = uint8(binary.NativeEndian.Uint32(data))
		}
		b = rest
	}
}

// stripIPv4 takes off the IP header, which a raw socket for IPv4 delivers.
func (m *Message) stripIPv4() {
	b := m.Data
	if len(b) < 20 || int(b[0]&15)*4 > len(b) {
		m.Data = nil
		return
	}
	m.TOS = b[1]
	m.Data = b[int(b[0]&15)*4:]
}
