package xfrm

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
)

// Socket options that golang.org/x/sys/unix does not have
// (include/uapi/linux/in.h, in6.h, udp.h).
const (
	optIPXfrmPolicy   = 17
	optIPv6XfrmPolicy = 35
	optUDPEncap       = 100
)

// PrepareSocket is apply.Dataplane's. The socket gets apply.Mark. It needs the kernel to do ESP if encap is
// set: UDP_ENCAP without ESP swallows the datagrams silently. A New that
// succeeded is the proof.
//
// An IPv6 socket holds one policy a direction, and that of one address family;
// so it has to be IPV6_V6ONLY, or bound to an IPv4-mapped address.
func (k *Kernel) PrepareSocket(fd int, addr netip.Addr, encap bool) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("IKE socket: %w", err)
	}
	level, option, fam := unix.IPPROTO_IP, optIPXfrmPolicy, familyIPv4
	if domain == unix.AF_INET6 {
		level, option = unix.IPPROTO_IPV6, optIPv6XfrmPolicy
		if !addr.Is4() && !addr.Is4In6() {
			fam = familyIPv6
			if only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY); err != nil || only == 0 {
				return errors.New("IKE socket for IPv6 must be IPV6_V6ONLY: it cannot bypass the policies of both families")
			}
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, apply.Mark); err != nil {
		return permission(fmt.Errorf("IKE socket: %w", os.NewSyscallError("SO_MARK", err)))
	}
	for _, dir := range []uint8{policyIn, policyOut} {
		policy := bypass(fam, dir)
		if err := unix.SetsockoptString(fd, level, option, string(policy)); err != nil {
			return permission(fmt.Errorf("IKE socket: bypass policy: %w", err))
		}
	}
	if !encap {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, optUDPEncap, encapESPinUDP); err != nil {
		return fmt.Errorf("IKE socket: receiving ESP in UDP: %w", err)
	}
	return nil
}

// permission makes an EPERM one that says what is needed.
func permission(err error) error {
	if errors.Is(err, unix.EPERM) {
		return &NoPermission{}
	}
	return err
}

// bypass is a struct xfrm_userpolicy_info that lets everything pass.
func bypass(fam uint16, dir uint8) []byte {
	m := newMessage()
	m.pad(40)
	m.u16(fam)
	m.pad(sizeSelector - 42)
	m.limits(apply.Limits{}, apply.Limits{})
	m.pad(sizeLifetimeCur + 8) // priority, index
	m.u8(dir)
	m.u8(policyAllow)
	m.pad(6)
	return m.b
}
