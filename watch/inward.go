package watch

import (
	"net/netip"
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

	mu  sync.Mutex
	in  *inbox     // nil: the loop does not read
	esp *espRouter // nil: there is no loop yet
}

// receive takes an IKE message.
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
	_ = handTo(fd, w.dir, d)
}

// stray takes an ESP packet. Two tunnels between the same two hosts have sockets
// with the same addresses, and the kernel gives one of them all that comes.
func (w *inward) stray(local, remote netip.AddrPort, data []byte) bool {
	w.mu.Lock()
	esp := w.esp
	w.mu.Unlock()
	return esp != nil && esp.handOver(local, remote, data)
}

// to makes a loop's readers' inbox the one; nil: none.
func (w *inward) to(in *inbox) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.in = in
}

// routes makes a loop's router the one that other tunnels' packets go by.
func (w *inward) routes(esp *espRouter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.esp = esp
}
