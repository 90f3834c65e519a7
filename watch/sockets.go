package watch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
)

// A slot is one of our UDP sockets: the port for IKE or the one for IKE and ESP
// behind a NAT (RFC 7296, Section 2.23), for IPv4 or IPv6.
type slot int

const (
	slotIKE4 slot = iota
	slotNAT4
	slotIKE6
	slotNAT6
	slotCount
)

func (s slot) nat() bool  { return s == slotNAT4 || s == slotNAT6 }
func (s slot) ipv6() bool { return s == slotIKE6 || s == slotNAT6 }

func slotOf(ipv6, nat bool) slot {
	s := slotIKE4
	if ipv6 {
		s = slotIKE6
	}
	if nat {
		s++
	}
	return s
}

// sockets are the UDP sockets of a loop. One of a family that the kernel does
// not have is nil.
type sockets struct {
	conns [slotCount]*net.UDPConn
	ports [2]uint16 // for IKE, for NAT
}

// bindSockets binds the ports on all addresses, shared with our other tunnels.
func bindSockets(port, natPort uint16) (*sockets, error) {
	s := &sockets{ports: [2]uint16{port, natPort}}
	for i := range slotCount {
		p := port
		if i.nat() {
			p = natPort
		}
		conn, err := bind(i.ipv6(), p)
		switch {
		case err == nil:
			s.conns[i] = conn
		case i.ipv6() && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)):
			// no IPv6 on this host
		default:
			s.close()
			switch {
			case errors.Is(err, unix.EADDRINUSE):
				return nil, portHeld(p)
			case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
				return nil, fmt.Errorf("bind UDP port %d: %w (CAP_NET_BIND_SERVICE is needed)", p, err)
			}
			return nil, fmt.Errorf("bind UDP port %d: %w", p, err)
		}
	}
	return s, nil
}

func bind(ipv6 bool, port uint16) (*net.UDPConn, error) {
	network, address := "udp4", "0.0.0.0"
	if ipv6 {
		network, address = "udp6", "::"
	}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = setOptions(int(fd), ipv6) })
		return errors.Join(err, failed)
	}}
	conn, err := config.ListenPacket(context.Background(), network, net.JoinHostPort(address, fmt.Sprint(port)))
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

// receiveBuffer is what the kernel queues on a socket, in octets: a burst, until
// our reader is given a CPU.
const receiveBuffer = 4 << 20

// setOptions shares the port, asks for the address that each datagram was sent
// to, and lets routers fragment what is larger than a path: a lost
// fragmentation-needed message must not end a negotiation.
func setOptions(fd int, ipv6 bool) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return os.NewSyscallError("SO_REUSEPORT", err)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		// Without CAP_NET_ADMIN it is as much as net.core.rmem_max allows.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer); err != nil {
			return os.NewSyscallError("SO_RCVBUF", err)
		}
	}
	if ipv6 {
		// The standard library sets IPV6_V6ONLY.
		return os.NewSyscallError("IPV6_RECVPKTINFO", unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1))
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT); err != nil {
		return os.NewSyscallError("IP_MTU_DISCOVER", err)
	}
	return os.NewSyscallError("IP_PKTINFO", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1))
}

// inodes tell the sockets from others, as /proc/net/udp does.
func (s *sockets) inodes() []uint64 {
	var out []uint64
	for _, conn := range s.conns {
		if conn == nil {
			continue
		}
		raw, err := conn.SyscallConn()
		if err != nil {
			continue // it is closed
		}
		var st unix.Stat_t
		var failed error
		if err := raw.Control(func(fd uintptr) { failed = unix.Fstat(int(fd), &st) }); err == nil && failed == nil {
			out = append(out, st.Ino)
		}
	}
	return out
}

// prepare exempts the sockets from the policies, and makes those on the NAT port
// receive ESP in UDP where the kernel does ESP.
func (s *sockets) prepare(dp apply.Dataplane) error {
	for i, conn := range s.conns {
		if conn == nil {
			continue
		}
		if err := prepareConn(dp, conn, slot(i).ipv6(), slot(i).nat()); err != nil {
			return err
		}
	}
	return nil
}

func prepareConn(dp apply.Dataplane, conn syscall.Conn, ipv6, encap bool) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return prepareRaw(dp, raw, ipv6, encap)
}

func prepareRaw(dp apply.Dataplane, raw syscall.RawConn, ipv6, encap bool) error {
	any := netip.IPv4Unspecified()
	if ipv6 {
		any = netip.IPv6Unspecified()
	}
	var failed error
	err := raw.Control(func(fd uintptr) { failed = dp.PrepareSocket(int(fd), any, encap) })
	return errors.Join(err, failed)
}

// send sends one datagram from a local address and port. It does not wait: a
// full queue is a lost datagram, which retransmission makes up for.
func (s *sockets) send(local, remote netip.AddrPort, data []byte) error {
	ipv6 := remote.Addr().Is6()
	conn := s.conns[slotOf(ipv6, local.Port() == s.ports[1])]
	if conn == nil {
		return fmt.Errorf("send to %v: %w", remote, unix.EAFNOSUPPORT)
	}
	_, _, err := conn.WriteMsgUDPAddrPort(data, sourceControl(local.Addr()), remote)
	return err
}

// stopReading makes the readers return; what is queued in the kernel stays for
// whoever has the sockets next.
func (s *sockets) stopReading() {
	for _, conn := range s.conns {
		if conn != nil {
			_ = conn.SetReadDeadline(time.Unix(1, 0))
		}
	}
}

// resumeReading lets readers begin again.
func (s *sockets) resumeReading() {
	for _, conn := range s.conns {
		if conn != nil {
			_ = conn.SetReadDeadline(time.Time{})
		}
	}
}

func (s *sockets) close() {
	for _, conn := range s.conns {
		if conn != nil {
			_ = conn.Close()
		}
	}
}
