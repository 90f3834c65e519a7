// Package tun is the TUN device of a tunnel whose ESP is done in user space:
// several queues, each with super-packets (package offload), and persistent, so
// that it stays when the process dies and drops what is routed to it.
package tun

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Offloads that golang.org/x/sys/unix does not have (include/uapi/linux/if_tun.h).
const (
	offloadChecksum = 0x01 // TUN_F_CSUM
	offloadTSO4     = 0x02 // TUN_F_TSO4
	offloadTSO6     = 0x04 // TUN_F_TSO6
	offloadTSOECN   = 0x08 // TUN_F_TSO_ECN
	offloadUSO4     = 0x20 // TUN_F_USO4
	offloadUSO6     = 0x40 // TUN_F_USO6

	offloadTCP = offloadChecksum | offloadTSO4 | offloadTSO6 | offloadTSOECN
	offloadUDP = offloadUSO4 | offloadUSO6
)

// queueLen is how many packets wait in a queue of the device until our reader is
// given a CPU: at 200,000 a second 20 ms, what a busy scheduler takes. With 1,000 a
// stream of UDP loses packets at a quarter of that rate.
const queueLen = 4000

// Offloads says which super-packets a device exchanges with this process.
type Offloads struct{ TCP, UDP bool }

// A Device is a TUN device that is open.
type Device struct {
	New bool // it was not there before
	// Offloads are those wanted that the kernel has and that work.
	Offloads Offloads

	link   netlink.Link
	queues []*Queue
}

// Attach makes the device, or takes one that a process of ours has left, sets
// it up, and gives it its queues. It stays when they are closed. After an
// error they are to be closed.
func Attach(name string, queues []*Queue, want Offloads) (*Device, error) {
	d := &Device{queues: slices.Clone(queues)}
	var absent netlink.LinkNotFoundError
	if _, err := netlink.LinkByName(name); errors.As(err, &absent) {
		d.New = true
	}
	for _, q := range queues {
		err := q.attach(name)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBUSY) {
			err = fmt.Errorf("there is another interface of this name: rename it, or the tunnel file: %w", err)
		}
		if err != nil {
			return nil, fmt.Errorf("TUN device %s: %w", name, err)
		}
	}
	if err := d.prepare(name, want); err != nil {
		return nil, fmt.Errorf("TUN device %s: %w", name, err)
	}
	return d, nil
}

func (d *Device) prepare(name string, want Offloads) error {
	fd := d.queues[0].fd
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return os.NewSyscallError("TUNSETPERSIST", err)
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	d.link = link
	// No address of its own making, so no router solicitation into the tunnel.
	// A host without IPv6 has nothing to switch off.
	const none = 1 // IN6_ADDR_GEN_MODE_NONE
	_ = netlink.LinkSetIP6AddrGenMode(link, none)
	if err := netlink.LinkSetTxQLen(link, queueLen); err != nil {
		return fmt.Errorf("queue length: %w", err)
	}
	if link.Attrs().Flags&net.FlagUp == 0 {
		// The device's own queues hold what waits. Without this the kernel makes
		// another one in front of each, of 256 that there could be: 25 MB, and half
		// of the time of `up`. A kernel without qdiscs does not.
		_ = netlink.QdiscReplace(&netlink.GenericQdisc{
			QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Parent: netlink.HANDLE_ROOT}, QdiscType: "noqueue",
		})
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	return d.setOffloads(want)
}

// Add gives the device one more queue.
func (d *Device) Add(q *Queue) error {
	if err := q.attach(d.link.Attrs().Name); err != nil {
		return fmt.Errorf("TUN device %s: %w", d.link.Attrs().Name, err)
	}
	d.queues = append(d.queues, q)
	return nil
}

// setOffloads asks for those that are wanted, and keeps those that work.
func (d *Device) setOffloads(want Offloads) error {
	flags := 0
	if want.TCP {
		flags = offloadTCP
	}
	set := func(flags int) error { return unix.IoctlSetInt(d.queues[0].fd, unix.TUNSETOFFLOAD, flags) }
	if want.UDP && set(flags|offloadChecksum|offloadUDP) == nil { // since Linux 6.2
		d.Offloads.UDP = true
	} else if err := set(flags); err != nil {
		return os.NewSyscallError("TUNSETOFFLOAD", err)
	}
	d.Offloads.TCP = want.TCP
	return d.probe()
}

// SetMTU sets the longest IP packet, and how many segments of it a super-packet
// may have: one that makes one train of datagrams is one system call on the
// other side, too.
func (d *Device) SetMTU(mtu, segments int) error {
	if err := netlink.LinkSetMTU(d.link, mtu); err != nil {
		return fmt.Errorf("TUN device %s: MTU %d: %w", d.link.Attrs().Name, mtu, err)
	}
	// What TCP leaves out of its reckoning for headers (MAX_TCP_HEADER).
	const headers = 400
	octets := min(segments*mtu+headers, 65536)
	// A kernel that cannot limit them makes longer ones, which are two trains.
	_ = netlink.LinkSetGSOMaxSegs(d.link, segments)
	_ = netlink.LinkSetGSOMaxSize(d.link, octets)
	_ = netlink.LinkSetGSOIPv4MaxSize(d.link, octets)
	return nil
}

// AddCommand is the command of ip(8) that makes such a device. Attach also sets it
// up.
func AddCommand(name string) string {
	return "ip tuntap add dev " + name + " mode tun multi_queue vnet_hdr"
}

// Remove deletes the device of that name, and returns whether there was one. What is
// not of our kind is left alone.
func Remove(name string) (removed bool, err error) {
	link, err := netlink.LinkByName(name)
	var absent netlink.LinkNotFoundError
	switch {
	case errors.As(err, &absent):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("TUN device %s: %w", name, err)
	case !ours(link):
		return false, nil
	}
	if err := netlink.LinkDel(link); err != nil {
		return false, fmt.Errorf("TUN device %s: %w", name, err)
	}
	return true, nil
}

// ours reports whether a device is such as Attach makes. Before Linux 4.18 the
// kernel tells no flags.
func ours(link netlink.Link) bool {
	const flags = netlink.TUNTAP_NO_PI | netlink.TUNTAP_VNET_HDR | netlink.TUNTAP_MULTI_QUEUE
	t, ok := link.(*netlink.Tuntap)
	return ok && (t.Flags == 0 || t.Mode == netlink.TUNTAP_MODE_TUN && t.Flags&flags == flags)
}
