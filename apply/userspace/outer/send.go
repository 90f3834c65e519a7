package outer

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is the struct of sendmmsg(2) and recvmmsg(2).
type mmsghdr struct {
	header unix.Msghdr
	len    uint32
}

// messages are the arguments of sendmmsg(2), kept so that nothing is allocated.
type messages struct {
	headers  [batchTrains]mmsghdr
	pieces   [batchTrains]unix.Iovec
	controls [batchTrains]control
}

// Send sends a batch and empties it. After unix.EAGAIN the rest is still there:
// wait until the socket can be written to and call it again. Another error
// tells of packets that were dropped, the first of them; unix.EMSGSIZE: they are
// too long for the path as it is now, see MaxPacket.
func (c *Conn) Send(b *Batch) error {
	var failure error
	retried := false
	for b.sent < b.n {
		segment := c.segment.Load()
		n, errno := 0, unix.Errno(0)
		if t := &b.trains[b.sent]; t.fragment && t.size > c.MaxPacket() {
			n, errno = c.sendFragments(b)
		} else {
			n, errno = c.sendmmsg(b, b.n, segment)
		}
		if n > 0 {
			b.advance(n)
			retried = false
			continue
		}
		t := &b.trains[b.sent]
		switch {
		case errno == unix.EAGAIN:
			return errno
		case errno == unix.EINTR:
			continue
		case segment && (errno == unix.EIO || errno == unix.EINVAL && retried):
			// The device cannot do checksums, or the kernel not UDP_SEGMENT.
			c.segment.Store(false)
			continue
		case errno == unix.EMSGSIZE, errno == unix.EINVAL:
			if c.RefreshMTU() && t.fragment {
				continue
			}
		}
		// An ICMP error that came in meanwhile is reported once, whatever is
		// sent then; so it is tried again.
		if !retried && t.size <= c.MaxPacket() {
			retried = true
			continue
		}
		if failure == nil {
			failure = errno
		}
		b.at = t.end
		b.sent++
		retried = false
	}
	b.Reset()
	return failure
}

// advance notes that n messages have left. The trains lie one behind the other.
func (b *Batch) advance(n int) {
	for i := range n {
		b.at += int(b.messages.pieces[i].Len)
		if b.at == b.trains[b.sent].end {
			b.sent++
		}
	}
}

// sendFragments sends a train one by one, with leave to fragment.
func (c *Conn) sendFragments(b *Batch) (int, unix.Errno) {
	level, name, may, must := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT, unix.IP_PMTUDISC_DO
	if c.ipv6 {
		level, name, may, must = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT, unix.IPV6_PMTUDISC_DO
	}
	_ = unix.SetsockoptInt(c.fd, level, name, may) // it worked when the socket was made
	n, errno := c.sendmmsg(b, b.sent+1, false)
	_ = unix.SetsockoptInt(c.fd, level, name, must)
	return n, errno
}

// sendmmsg hands the trains before end to the kernel, or their packets, and
// returns how many it took.
func (c *Conn) sendmmsg(b *Batch, end int, segment bool) (int, unix.Errno) {
	m := &b.messages
	n := 0
	for i, at := b.sent, b.at; i < end && n < batchTrains; n++ {
		t := &b.trains[i]
		until := t.end
		if !segment {
			until = min(at+t.size, until)
		}
		m.pieces[n].Base = &b.buffer[at]
		m.pieces[n].SetLen(until - at)
		h := &m.headers[n].header
		h.Iov = &m.pieces[n]
		h.SetIovlen(1)
		k := &m.controls[n]
		k.used = 0
		if until-at > t.size {
			k.putUint16(unix.IPPROTO_UDP, unix.UDP_SEGMENT, uint16(t.size))
		}
		if t.tos != 0 {
			if c.ipv6 {
				k.putInt(unix.IPPROTO_IPV6, unix.IPV6_TCLASS, int32(t.tos))
			} else {
				k.putInt(unix.IPPROTO_IP, unix.IP_TOS, int32(t.tos))
			}
		}
		h.Control = nil
		if k.used > 0 {
			h.Control = &k.octets[0]
		}
		h.SetControllen(k.used)
		if at = until; at == t.end {
			i++
		}
	}
	r, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(c.fd), uintptr(unsafe.Pointer(&m.headers)), uintptr(n), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), 0
}

// control is the room for a message's ancillary data, aligned as a cmsghdr is.
type control struct {
	_      [0]unix.Cmsghdr
	octets [96]byte
	used   int
}

// put appends the header of a control message and returns where its data go.
func (k *control) put(level, kind int32, length int) []byte {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&k.octets[k.used]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(length))
	data := k.octets[k.used+unix.CmsgLen(0):]
	k.used += unix.CmsgSpace(length)
	return data
}

func (k *control) putUint16(level, kind int32, v uint16) {
	binary.NativeEndian.PutUint16(k.put(level, kind, 2), v)
}

func (k *control) putInt(level, kind int32, v int32) {
	binary.NativeEndian.PutUint32(k.put(level, kind, 4), uint32(v))
}
