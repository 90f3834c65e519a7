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

// espQueue is how much of ESP may wait for another tunnel's process, in octets. A
// datagram socket would take no more than net.unix.max_dgram_qlen packets, 10.
const espQueue = 1 << 20

// acceptPause is how long after an error the next connection is looked for.
const acceptPause = 10 * time.Millisecond

// espExchange is how tunnels give each other ESP packets: each listens on a unix
// socket that keeps their bounds. A packet that a process cannot take is lost, as on
// the way.
type espExchange struct {
	dir     *dir
	receive func(local, remote netip.AddrPort, data []byte)

	mu       sync.Mutex
	closed   bool
	listener *net.UnixListener
	in       map[*net.UnixConn]bool
	out      map[string]*net.UnixConn // by tunnel
	done     sync.WaitGroup
}

// newESPExchange takes the place of a process before it.
func newESPExchange(d *dir, receive func(local, remote netip.AddrPort, data []byte)) (*espExchange, error) {
	path := d.file(fileESP)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("ESP socket: %w", err)
	}
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("ESP socket: %w", err)
	}
	listener.SetUnlinkOnClose(false) // it may be the next process's by then
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("ESP socket: %w", err), listener.Close())
	}
	e := &espExchange{dir: d, receive: receive, listener: listener, in: map[*net.UnixConn]bool{}, out: map[string]*net.UnixConn{}}
	e.done.Go(e.listen)
	return e, nil
}

func (e *espExchange) listen() {
	for {
		conn, err := e.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(acceptPause) // no descriptor is left, perhaps
			continue
		}
		e.mu.Lock()
		if e.closed {
			_ = conn.Close()
		} else {
			e.in[conn] = true
			e.done.Go(func() { e.read(conn) })
		}
		e.mu.Unlock()
	}
}

// read reads until the other tunnel's process has ended, or ours is to.
func (e *espExchange) read(conn *net.UnixConn) {
	buf := make([]byte, maxDatagram+128)
	for {
		n, err := conn.Read(buf)
		if err != nil || n == 0 {
			break
		}
		if d, err := parseHandover(buf[:n]); err == nil && len(d.Data) >= espHeaderLen {
			e.receive(d.Local, d.Remote, d.Data)
		}
	}
	_ = conn.Close()
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.in, conn)
}

// give gives a packet to another tunnel, without waiting.
func (e *espExchange) give(name string, d ike.Datagram) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return net.ErrClosed
	}
	conn := e.out[name]
	if conn == nil {
		path := newDir(e.dir.root, name).file(fileESP)
		var err error
		if conn, err = net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"}); err != nil {
			return err
		}
		_ = conn.SetWriteBuffer(espQueue)
		e.out[name] = conn
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		failed = unix.Send(int(fd), encodeHandover(d), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		return true
	})
	if err = errors.Join(err, failed); err != nil && !errors.Is(err, unix.EAGAIN) {
		_ = conn.Close() // that process has ended; there may be another
		delete(e.out, name)
	}
	return err
}

func (e *espExchange) close() {
	e.mu.Lock()
	e.closed = true
	_ = e.listener.Close()
	for conn := range e.in {
		_ = conn.Close()
	}
	for _, conn := range e.out {
		_ = conn.Close()
	}
	e.mu.Unlock()
	e.done.Wait()
}
