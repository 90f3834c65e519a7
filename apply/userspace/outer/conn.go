// Package outer sends and receives ESP packets: in UDP (RFC 3948) or as they
// are. Equal packets go to the kernel, and come from it, as one train with one
// header and one system call (UDP_SEGMENT, UDP_GRO).
package outer

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Options of a Conn.
type Options struct {
	Mark     uint32 // SO_MARK; 0: none
	Offloads Offloads
}

// Offloads say which trains a Conn exchanges with the kernel.
type Offloads struct{ Segment, Join bool }

const (
	// sendBuffer and receiveBuffer are what the kernel queues, in octets. A
	// train of 64 KiB counts for more than its octets, and a burst of a fast
	// sender is some ten trains, until our reader is given a CPU.
	sendBuffer    = 1 << 20
	receiveBuffer = 8 << 20
)

// A Conn is a socket for one peer at one address and port. It does not block:
// unix.EAGAIN says that there is nothing to receive, or no room to send. One
// goroutine may receive while another one sends.
type Conn struct {
	Local, Remote netip.AddrPort // ports are 0 where there is no UDP

	fd      int
	ipv6    bool
	raw     bool
	segment atomic.Bool // UDP_SEGMENT, until the device turns out not to have it
	mtu     atomic.Int32
}

// DialUDP makes a socket for ESP in UDP and IKE with one peer. The local port
// may be shared with other sockets of this user that allow it.
func DialUDP(local, remote netip.AddrPort, o Options) (*Conn, error) {
	return dial(local, remote, unix.SOCK_DGRAM, 0, o)
}

// DialESP makes a socket for ESP without UDP. It gets the ESP packets of all
// SAs between the two addresses.
func DialESP(local, remote netip.Addr, o Options) (*Conn, error) {
	o.Offloads = Offloads{}
	return dial(netip.AddrPortFrom(local, 0), netip.AddrPortFrom(remote, 0), unix.SOCK_RAW, unix.IPPROTO_ESP, o)
}

func dial(local, remote netip.AddrPort, kind, protocol int, o Options) (*Conn, error) {
	if local.Addr().Is4() != remote.Addr().Is4() {
		return nil, fmt.Errorf("%v and %v are of different families", local, remote)
	}
	c := &Conn{Local: local, Remote: remote, ipv6: remote.Addr().Is6(), raw: kind == unix.SOCK_RAW}
	domain := unix.AF_INET
	if c.ipv6 {
		domain = unix.AF_INET6
	}
	var err error
	if c.fd, err = unix.Socket(domain, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol); err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := c.prepare(o); err != nil {
		return nil, errors.Join(fmt.Errorf("ESP between %v and %v: %w", local, remote, err), unix.Close(c.fd))
	}
	return c, nil
}

// Inherit makes a Conn of a socket that a program before this one in the same
// process had.
func Inherit(fd int, o Options) (*Conn, error) {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return nil, os.NewSyscallError("SO_TYPE", err)
	}
	local, lerr := unix.Getsockname(fd)
	remote, rerr := unix.Getpeername(fd)
	if err := errors.Join(lerr, rerr); err != nil {
		return nil, fmt.Errorf("an inherited socket: %w", err)
	}
	c := &Conn{Local: addrPort(local), Remote: addrPort(remote), fd: fd, raw: kind == unix.SOCK_RAW}
	c.ipv6 = c.Remote.Addr().Is6()
	if c.raw {
		c.Local, c.Remote = netip.AddrPortFrom(c.Local.Addr(), 0), netip.AddrPortFrom(c.Remote.Addr(), 0)
		o.Offloads = Offloads{}
	}
	if err := c.setOptions(o); err != nil {
		return nil, err
	}
	c.enable(o.Offloads)
	return c, nil
}

func (c *Conn) prepare(o Options) error {
	if err := c.setOptions(o); err != nil {
		return err
	}
	if err := unix.Bind(c.fd, sockaddr(c.Local)); err != nil {
		return os.NewSyscallError("bind", err)
	}
	remote := c.Remote
	if c.raw { // without a port getpeername says that it is not connected
		remote = netip.AddrPortFrom(remote.Addr(), unix.IPPROTO_ESP)
	}
	if err := unix.Connect(c.fd, sockaddr(remote)); err != nil {
		return os.NewSyscallError("connect", err)
	}
	c.enable(o.Offloads)
	return nil
}

// enable is for a socket that is connected.
func (c *Conn) enable(o Offloads) {
	c.segment.Store(o.Segment)
	if o.Join {
		// A kernel before 5.0 has it not, and delivers one by one.
		_ = unix.SetsockoptInt(c.fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1)
	}
	c.RefreshMTU()
}

type option struct {
	name                 string
	level, option, value int
}

func (c *Conn) setOptions(o Options) error {
	options := []option{
		{"SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, 1},
		{"IP_MTU_DISCOVER", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO},
		{"IP_RECVTOS", unix.IPPROTO_IP, unix.IP_RECVTOS, 1},
	}
	if c.ipv6 {
		options = append(options[:1],
			option{"IPV6_MTU_DISCOVER", unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO},
			option{"IPV6_RECVTCLASS", unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1})
	}
	if c.ipv6 && !c.raw { // a raw socket is for one family
		options = append(options, option{"IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1})
	}
	if o.Mark != 0 {
		options = append(options, option{"SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, int(o.Mark)})
	}
	for _, s := range options {
		if err := unix.SetsockoptInt(c.fd, s.level, s.option, s.value); err != nil {
			return os.NewSyscallError(s.name, err)
		}
	}
	// Without CAP_NET_ADMIN the buffers are as large as net.core allows.
	for _, b := range []struct{ force, option, size int }{
		{unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, sendBuffer}, {unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, receiveBuffer},
	} {
		if unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, b.force, b.size) != nil {
			if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, b.option, b.size); err != nil {
				return os.NewSyscallError("SO_SNDBUF or SO_RCVBUF", err)
			}
		}
	}
	return nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func addrPort(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// UDP reports whether it is ESP in UDP.
func (c *Conn) UDP() bool { return !c.raw }

// FD is the descriptor, to wait for.
func (c *Conn) FD() int { return c.fd }

// MaxPacket is the longest ESP packet that fits the path to the peer now.
func (c *Conn) MaxPacket() int { return int(c.mtu.Load()) - c.Overhead() }

// Overhead is what IP, and UDP where there is one, put before an ESP packet.
func (c *Conn) Overhead() int {
	n := 20
	if c.ipv6 {
		n = 40
	}
	if !c.raw {
		n += 8
	}
	return n
}

// RefreshMTU asks the kernel what it knows of the path by now, and reports
// whether that is something new.
func (c *Conn) RefreshMTU() bool {
	level, name, least := unix.IPPROTO_IP, unix.IP_MTU, 576
	if c.ipv6 {
		level, name, least = unix.IPPROTO_IPV6, unix.IPV6_MTU, 1280
	}
	if c.ipv6 && c.raw {
		// Such a socket goes by the route of the time when it was connected.
		_ = unix.Connect(c.fd, sockaddr(netip.AddrPortFrom(c.Remote.Addr(), unix.IPPROTO_ESP)))
	}
	mtu, err := unix.GetsockoptInt(c.fd, level, name)
	if err != nil { // the route is being looked up anew
		mtu = int(c.mtu.Load())
	}
	mtu = min(max(mtu, least), 65535)
	return c.mtu.Swap(int32(mtu)) != int32(mtu)
}

// Close closes the socket.
func (c *Conn) Close() error { return unix.Close(c.fd) }
