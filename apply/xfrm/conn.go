package xfrm

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The request loop is our own because the buffers of a netlink library would
// keep the keys that a dump returns, and because the kernel's extended
// acknowledgements are worth reading.

// requestTimeout bounds a request. The kernel answers at once, unless it has to
// load modules for it.
const requestTimeout = 30 * time.Second

// socket is a netlink socket under the runtime's poller, so that Close wakes a
// reader and deadlines work.
type socket struct {
	file *os.File
	raw  syscall.RawConn
}

// openSocket opens NETLINK_XFRM and joins the multicast groups.
func openSocket(groups ...uint) (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_XFRM)
	if err != nil {
		if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, &NoESP{Options: []string{"CONFIG_XFRM_USER"}, Modules: []string{"xfrm_user"}}
		}
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), "netlink-xfrm")
	mask := uint32(0)
	for _, g := range groups {
		mask |= 1 << (g - 1)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: mask}); err != nil {
		_ = file.Close()
		if errors.Is(err, unix.EPERM) {
			return nil, &NoPermission{}
		}
		return nil, fmt.Errorf("binding a netlink socket: %w", err)
	}
	// An acknowledgement need not repeat the request, which may hold keys.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return &socket{file, raw}, nil
}

// send sends one datagram to the kernel.
func (s *socket) send(b []byte) error {
	var err error
	werr := s.raw.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		return !errors.Is(err, unix.EAGAIN)
	})
	return errors.Join(werr, err)
}

// receive reads one datagram of the kernel's into buf. With wait false it
// returns EAGAIN instead of waiting.
func (s *socket) receive(buf []byte, wait bool) (n int, err error) {
	for {
		var flags int
		var from unix.Sockaddr
		rerr := s.raw.Read(func(fd uintptr) bool {
			n, _, flags, from, err = unix.Recvmsg(int(fd), buf, nil, 0)
			return !wait || !errors.Is(err, unix.EAGAIN)
		})
		if rerr != nil {
			return 0, rerr
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
			continue // not the kernel
		}
		if flags&unix.MSG_TRUNC != 0 {
			clear(buf)
			return 0, fmt.Errorf("netlink message of more than %d octets", len(buf))
		}
		return n, nil
	}
}

func (s *socket) close() error { return s.file.Close() }

// conn sends requests, one at a time.
type conn struct {
	mu   sync.Mutex
	sock *socket
	seq  uint32
	buf  []byte
}

func openConn() (*conn, error) {
	s, err := openSocket()
	if err != nil {
		return nil, err
	}
	return &conn{sock: s, buf: make([]byte, maxMessage)}, nil
}

func (c *conn) close() error { return c.sock.close() }

// errInterrupted: the list changed while it was read (NLM_F_DUMP_INTR).
var errInterrupted = errors.New("the list changed while it was read")

// request sends one request and hands what is answered to visit, if that is not
// nil, until the acknowledgement. What visit gets is overwritten afterwards, and
// so is m. op says what is asked for, in errors.
func (c *conn) request(op string, kind, flags uint16, m *message, visit func(kind uint16, body []byte) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer m.wipe()
	c.seq++
	packet := &message{b: make([]byte, 0, unix.NLMSG_HDRLEN+len(m.b))}
	defer packet.wipe()
	packet.u32(uint32(unix.NLMSG_HDRLEN + len(m.b)))
	packet.u16(kind)
	packet.u16(unix.NLM_F_REQUEST | flags)
	packet.u32(c.seq)
	packet.u32(0)
	packet.bytes(m.b)
	if err := c.sock.send(packet.b); err != nil {
		return fmt.Errorf("%s: sending to the kernel: %w", op, err)
	}
	answer := answer{op: op, seq: c.seq, visit: visit}
	for !answer.done {
		n, err := c.receive()
		if err != nil {
			return fmt.Errorf("%s: no answer from the kernel: %w", op, err)
		}
		answer.read(c.buf[:n])
		clear(c.buf[:n])
	}
	return answer.err
}

// receive reads a datagram of the answer. As a rule the kernel has written it by
// the time that send returns, so no timer is set, which would wake an idle process
// up when it is over.
func (c *conn) receive() (int, error) {
	n, err := c.sock.receive(c.buf, false)
	if !errors.Is(err, unix.EAGAIN) {
		return n, err
	}
	if err := c.sock.file.SetReadDeadline(time.Now().Add(requestTimeout)); err != nil {
		return 0, err
	}
	return c.sock.receive(c.buf, true)
}

// answer collects what the kernel says to a request.
type answer struct {
	op    string
	seq   uint32
	visit func(kind uint16, body []byte) error
	err   error
	done  bool
}

// read takes one datagram.
func (a *answer) read(datagram []byte) {
	err := eachMessage(datagram, func(h header, body []byte) {
		if h.seq != a.seq || a.done {
			return // the late answer to a request that timed out
		}
		if h.flags&unix.NLM_F_DUMP_INTR != 0 && a.err == nil {
			a.err = errInterrupted
		}
		switch h.kind {
		case unix.NLMSG_NOOP:
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			a.done = true
			if err := parseAck(a.op, h, body); err != nil {
				a.err = err
			}
		default:
			if a.visit == nil || a.err != nil {
				return
			}
			if err := a.visit(h.kind, body); err != nil {
				a.err = fmt.Errorf("%s: %w", a.op, err)
			}
		}
	})
	if err != nil && a.err == nil {
		a.err, a.done = fmt.Errorf("%s: %w", a.op, err), true
	}
}

// header is a struct nlmsghdr.
type header struct {
	kind, flags uint16
	seq         uint32
}

// eachMessage splits a datagram.
func eachMessage(datagram []byte, visit func(header, []byte)) error {
	r := &reader{b: datagram}
	for len(r.b) > 0 && r.err == nil {
		length := r.u32()
		h := header{kind: r.u16(), flags: r.u16(), seq: r.u32()}
		r.skip(4) // port
		if length > maxMessage {
			return errShort
		}
		body := r.take(int(length) - unix.NLMSG_HDRLEN)
		if r.err != nil {
			break
		}
		visit(h, body)
		r.skip(min(-int(length)&3, len(r.b)))
	}
	return r.err
}

// parseAck reads a struct nlmsgerr, or the end of a dump, with the extended
// acknowledgement behind it; nil if all went well.
func parseAck(op string, h header, body []byte) error {
	const attrMsg = 1 // NLMSGERR_ATTR_MSG
	r := &reader{b: body}
	errno := unix.Errno(-int32(r.u32()))
	if r.err != nil {
		if h.kind == unix.NLMSG_DONE {
			return nil
		}
		return fmt.Errorf("%s: %w", op, r.err)
	}
	if errno == 0 {
		return nil
	}
	if h.kind == unix.NLMSG_ERROR {
		echoed := int(r.u32()) // nlmsg_len of the request
		if h.flags&unix.NLM_F_CAPPED != 0 {
			echoed = unix.NLMSG_HDRLEN
		}
		r.skip((echoed+3)&^3 - 4)
	}
	failed := &OpError{Op: op, Errno: errno}
	if h.flags&unix.NLM_F_ACK_TLVS != 0 {
		_ = r.attrs(func(kind uint16, value []byte) {
			if kind == attrMsg {
				failed.Detail = cString(value)
			}
		})
	}
	return failed
}

// cString is the text before the first NUL.
func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// family of an address, in a structure's u16.
const (
	familyIPv4 = uint16(unix.AF_INET)
	familyIPv6 = uint16(unix.AF_INET6)
)
