package watch

import (
	"net/netip"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"ipsec-quick/ike"
)

// inward takes what a data plane tells besides its events.
//
// IKE messages come to its own sockets: ESP in UDP has the same ports (RFC 3948,
// Section 2.2), and the kernel gives a socket that is connected to a peer all that
// comes from there. While the loop reads they are as if read from its sockets. Else
// they wait in the handover socket, like other tunnels' datagrams, for the process
// that has it next.
type inward struct {
	dir    *dir
	change func(command string) // changes to this host; in the goroutine that asked for them

	mu sync.Mutex
	in *inbox // nil: the loop does not read
}

// receive is an IKEReceiver.
func (w *inward) receive(local, remote netip.AddrPort, data []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := ike.Datagram{Local: local, Remote: remote, NATT: true, Data: data}
	if w.in != nil {
		w.in.offer(d)
		return
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return // lost, as on the way; the peer sends it again
	}
	defer unix.Close(fd)
	_ = handTo(fd, w.dir.root, w.dir.name, encodeHandover(kindIKENATT, d))
}

// to makes a loop's readers' inbox the one; nil: none.
func (w *inward) to(in *inbox) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.in = in
}

// handTo gives a message to a tunnel's handover socket, without waiting for it.
func handTo(fd int, root, name string, message []byte) error {
	to := &unix.SockaddrUnix{Name: filepath.Join(root, name, fileHandover)}
	return unix.Sendto(fd, message, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, to)
}
