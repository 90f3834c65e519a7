package tun

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply/userspace/offload"
)

// A Queue is one descriptor of the device. It does not block: unix.EAGAIN says
// that there is nothing to read.
type Queue struct {
	fd       int
	attached bool // by a program before us
}

// OpenQueue opens a descriptor that Attach gives to a device; again after the
// device was removed. So a process needs no right to open files by then.
func OpenQueue() (*Queue, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
	}
	return NewQueue(fd), nil
}

// NewQueue makes a queue of a descriptor.
func NewQueue(fd int) *Queue { return &Queue{fd: fd} }

// Inherit makes a queue of a descriptor that a program before this one in the
// same process had for a device; nil: it is none of that device.
func Inherit(fd int, name string) *Queue {
	ifr, err := unix.NewIfreq(name)
	if err != nil || unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr) != nil || ifr.Name() != name {
		return nil
	}
	return &Queue{fd: fd, attached: true}
}

// Attached tells whether an inherited queue is still to be taken up.
func (q *Queue) Attached() bool { return q.attached }

func (q *Queue) attach(name string) error {
	if q.attached {
		q.attached = false // if the device is removed it is as a new one
		return nil
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE)
	if err := unix.IoctlIfreq(q.fd, unix.TUNSETIFF, ifr); err != nil {
		return os.NewSyscallError("TUNSETIFF", err)
	}
	// The header's length is the device's and may be another's choice.
	err = unix.IoctlSetPointerInt(q.fd, unix.TUNSETVNETHDRSZ, offload.HeaderLen)
	return os.NewSyscallError("TUNSETVNETHDRSZ", err)
}

// Close closes the descriptor.
func (q *Queue) Close() error { return unix.Close(q.fd) }

// FD is the descriptor, to wait for.
func (q *Queue) FD() int { return q.fd }

// Read reads a packet with its offload.Header before it. A packet longer than
// b is cut off.
//
// The raw system calls of this package never block, so the scheduler need not
// be told of them.
func (q *Queue) Read(b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(q.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// Write writes a packet with its offload.Header before it.
func (q *Queue) Write(b []byte) error {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(q.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return errno
	}
	return nil
}
