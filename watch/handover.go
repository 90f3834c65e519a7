package watch

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
	"ipsec-quick/ike"
)

// handoverDrops counts datagrams for other tunnels that they could not be given.
type handoverDrops struct{ sent, dropped uint64 }

// The kinds of datagrams that are handed over.
const (
	kindIKE     = iota // to the port for IKE
	kindIKENATT        // to the NAT port
	kindESP            // ESP in UDP
)

// handover is the unix datagram socket by which other tunnels hand us what is
// ours, and one to hand them what is theirs.
type handover struct {
	dp   apply.Dataplane
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

func newHandover(conn *net.UnixConn, dp apply.Dataplane) (*handover, error) {
	out, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("handover socket: %w", err)
	}
	return &handover{dp: dp, conn: conn, out: out, in: make(chan ike.Datagram, datagramQueue), stop: make(chan struct{})}, nil
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
			kind, d, err := parseHandover(buf[:n])
			if err != nil {
				continue // only root can write here; a version of ours that differs
			}
			if kind == kindESP {
				h.dp.ReceiveESP(d.Local, d.Remote, d.Data)
				continue
			}
			d.Data = bytes.Clone(d.Data)
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
	kind := byte(kindIKE)
	if d.NATT {
		kind = kindIKENATT
	}
	if err := handTo(l.hand.out, l.dir.root, name, encodeHandover(kind, d)); err != nil {
		l.drops.dropped++
		l.log.Debug("hand over", "to", name, "err", err)
		return
	}
	l.drops.sent++
}

// encodeHandover writes: one octet for the kind, the two addresses each after an
// octet with its length, the message.
func encodeHandover(kind byte, d ike.Datagram) []byte {
	b := []byte{kind}
	for _, a := range []netip.AddrPort{d.Local, d.Remote} {
		text := a.String()
		b = append(append(b, byte(len(text))), text...)
	}
	return append(b, d.Data...)
}

// parseHandover reads that; d.Data is a part of b.
func parseHandover(b []byte) (kind byte, d ike.Datagram, err error) {
	if len(b) < 1 || b[0] > kindESP {
		return 0, d, errors.New("handover: no datagram")
	}
	kind, b = b[0], b[1:]
	d.NATT = kind == kindIKENATT
	for _, a := range []*netip.AddrPort{&d.Local, &d.Remote} {
		if len(b) < 1 || len(b) < 1+int(b[0]) {
			return 0, d, errors.New("handover: cut short")
		}
		n := int(b[0])
		parsed, err := netip.ParseAddrPort(string(b[1 : 1+n]))
		if err != nil || parsed.Addr().Zone() != "" {
			return 0, d, errors.New("handover: no address")
		}
		*a, b = parsed, b[1+n:]
	}
	d.Data = b
	if kind == kindESP && len(b) < espHeaderLen {
		return 0, d, errors.New("handover: no ESP")
	}
	return kind, d, nil
}
