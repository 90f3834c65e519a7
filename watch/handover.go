package watch

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/ike"
)

// handoverDrops counts datagrams for other tunnels that they could not be given.
type handoverDrops struct{ sent, dropped uint64 }

// handover is the unix datagram socket by which other tunnels hand us what is
// ours, and one to hand them what is theirs.
type handover struct {
	conn *net.UnixConn
	out  int // a descriptor that never blocks
	in   chan ike.Datagram
	stop chan struct{}
	once sync.Once
	done sync.WaitGroup
}

func listenHandover(path string) (*net.UnixConn, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	return conn, os.Chmod(path, 0o600)
}

func newHandover(conn *net.UnixConn) (*handover, error) {
	out, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("handover socket: %w", err)
	}
	return &handover{conn: conn, out: out, in: make(chan ike.Datagram, datagramQueue), stop: make(chan struct{})}, nil
}

// start begins to read.
func (h *handover) start() {
	h.done.Go(func() {
		buf := make([]byte, maxDatagram+128)
		for {
			n, err := h.conn.Read(buf)
			if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			if err != nil {
				continue
			}
			d, err := parseHandover(append([]byte(nil), buf[:n]...))
			if err != nil {
				continue // only root can write here; a version of ours that differs
			}
			select {
			case h.in <- d:
			case <-h.stop:
				return
			}
		}
	})
}

// stopReading leaves what is queued to whoever has the socket next.
func (h *handover) stopReading() { _ = h.conn.SetReadDeadline(time.Unix(1, 0)) }

// resume lets start begin again.
func (h *handover) resume() { _ = h.conn.SetReadDeadline(time.Time{}) }

func (h *handover) close() {
	h.once.Do(func() {
		close(h.stop)
		_ = h.conn.Close()
		_ = unix.Close(h.out)
	})
}

// handOver gives a datagram to another tunnel. If that one does not keep up, or
// has died, the datagram is lost; its sender sends it again.
func (l *loop) handOver(name string, d ike.Datagram) {
	if err := handTo(l.hand.out, newDir(l.dir.root, name), d); err != nil {
		l.drops.dropped++
		l.log.Debug("hand over", "to", name, "err", err)
		return
	}
	l.drops.sent++
}

// handTo gives a datagram to a tunnel without waiting for it.
func handTo(fd int, d *dir, message ike.Datagram) error {
	to := &unix.SockaddrUnix{Name: d.file(fileHandover)}
	return unix.Sendto(fd, encodeHandover(message), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, to)
}

// encodeHandover writes: one octet for NATT, the two addresses each after an
// octet with its length, the message.
func encodeHandover(d ike.Datagram) []byte {
	natt := byte(0)
	if d.NATT {
		natt = 1
	}
	b := []byte{natt}
	for _, a := range []netip.AddrPort{d.Local, d.Remote} {
		text := a.String()
		b = append(append(b, byte(len(text))), text...)
	}
	return append(b, d.Data...)
}

func parseHandover(b []byte) (ike.Datagram, error) {
	var d ike.Datagram
	if len(b) < 1 || b[0] > 1 {
		return d, errors.New("handover: no datagram")
	}
	d.NATT, b = b[0] == 1, b[1:]
	for _, a := range []*netip.AddrPort{&d.Local, &d.Remote} {
		if len(b) < 1 || len(b) < 1+int(b[0]) {
			return d, errors.New("handover: cut short")
		}
		n := int(b[0])
		parsed, err := netip.ParseAddrPort(string(b[1 : 1+n]))
		if err != nil || parsed.Addr().Zone() != "" {
			return d, errors.New("handover: no address")
		}
		*a, b = parsed, b[1+n:]
	}
	d.Data = b
	return d, nil
}
