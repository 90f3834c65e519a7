package userspace

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply/userspace/outer"
)

// A worker is a thread that waits for a queue of the TUN device, for the sockets
// of some peers, or for both, and moves what comes. Nobody else reads them.
type worker struct {
	in       *inbound
	out      *outbound // nil: it has no queue
	epoll    int
	receiver *outer.Receiver

	moderation moderation

	full    *path // has no room for what was read from the queue; nil: none
	awaited [2]unix.PollFd

	mu    sync.Mutex
	paths []*path

	sending sync.Mutex // for out and what follows
	reads   bool       // the queue
}

func newWorker(w *workers, out *outbound) (*worker, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	k := &worker{in: newInbound(w), out: out, epoll: fd, receiver: outer.NewReceiver()}
	k.in.stray = w.p.o.Stray
	if err := k.watch(w.halted.fd); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return k, nil
}

func (k *worker) watch(fd int) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(k.epoll, unix.EPOLL_CTL_ADD, fd, &event))
}

func (k *worker) unwatch(fd int) { _ = unix.EpollCtl(k.epoll, unix.EPOLL_CTL_DEL, fd, nil) }

// add begins to read a path.
func (k *worker) add(pa *path) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.watch(pa.conn.FD()); err != nil {
		return err
	}
	k.paths = append(k.paths, pa)
	return nil
}

// remove ends it.
func (k *worker) remove(pa *path) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.unwatch(pa.conn.FD())
	k.paths = slices.DeleteFunc(k.paths, func(p *path) bool { return p == pa })
}

func (k *worker) len() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.paths)
}

// take finds the path of a descriptor and holds it; nil: it has gone.
func (k *worker) take(fd int) *path {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, pa := range k.paths {
		if pa.conn.FD() == fd && pa.hold() {
			return pa
		}
	}
	return nil
}

// readQueue begins to read the queue, which the device has.
func (k *worker) readQueue() error {
	k.sending.Lock()
	defer k.sending.Unlock()
	if k.reads {
		return nil
	}
	err := k.watch(k.out.queue.FD())
	k.reads = err == nil
	return err
}

// leaveQueue ends it.
func (k *worker) leaveQueue() {
	k.sending.Lock()
	defer k.sending.Unlock()
	if !k.reads {
		return
	}
	if !k.out.send() {
		awaitRoom(new([2]unix.PollFd), k.out.path, -1)
	}
	k.dropQueue()
}

// dropQueue reads the queue no more. What has no room is lost.
func (k *worker) dropQueue() {
	k.unwatch(k.out.queue.FD())
	k.reads = false
	k.out.rest()
}

// awaitRoom waits until a socket has room, or another descriptor can be read, but
// not for long.
func awaitRoom(fds *[2]unix.PollFd, pa *path, other int) {
	fds[0] = unix.PollFd{Fd: int32(pa.conn.FD()), Events: unix.POLLOUT}
	fds[1] = unix.PollFd{Fd: int32(other), Events: unix.POLLIN}
	_, _ = unix.Poll(fds[:], sendTimeout/1e6) // who is interrupted looks again
}

// run works until the workers are halted.
func (k *worker) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	k.moderation.prepare()
	defer k.moderation.end()
	halted := int32(k.in.w.halted.fd)
	var events [16]unix.EpollEvent
	var last breath
	interrupted := false
	for {
		passed := last.take()
		n, err := k.wait(events[:], passed || interrupted)
		interrupted = errors.Is(err, unix.EINTR)
		if err != nil && !interrupted {
			k.in.w.p.o.Log.Error("packets of ESP are not waited for any more", "err", os.NewSyscallError("epoll_wait", err))
			return
		}
		for i := range max(n, 0) {
			if events[i].Fd == halted {
				return
			}
			if pa := k.take(int(events[i].Fd)); pa != nil {
				k.drain(pa)
				pa.release()
			}
			k.send() // also what answers a packet that came
		}
		if n == 0 {
			k.send()
		}
	}
}

// lull is how long a worker waits for more, in milliseconds, before it takes it that
// there will be nothing for long.
const lull = 100

// wait is epoll_wait(2). While a socket has no room it is waited for instead of the
// queue.
//
// Whoever begins to wait in the very moment in which Go's runtime stops the world can
// be overlooked by it: nothing in the process goes on then until the wait is over, or
// for a minute (Go 1.26: reentersyscall looks for a stop before it is in _Gsyscall,
// and preemptone leaves alone who is). It is some nanoseconds, but met by who comes
// from the scheduler or was interrupted, as by a loop that begins and stops the world
// for each right that it gives up. Such a worker is wary: it waits for a lull only,
// and for ever after that.
func (k *worker) wait(events []unix.EpollEvent, wary bool) (n int, err error) {
	if k.full != nil {
		awaitRoom(&k.awaited, k.full, k.epoll)
		return unix.EpollWait(k.epoll, events, 0)
	}
	if k.moderation.due {
		if n, err = unix.EpollWait(k.epoll, events, 0); n != 0 || err != nil {
			return n, err
		}
		k.moderation.pause()
	}
	if wary {
		n, err = unix.EpollWait(k.epoll, events, lull)
	}
	if n == 0 && err == nil {
		n, err = unix.EpollWait(k.epoll, events, -1)
	}
	return n, err
}

// send sends what the queue has.
func (k *worker) send() {
	if k.out == nil {
		return
	}
	k.sending.Lock()
	defer k.sending.Unlock()
	var full *path
	if k.reads {
		octets, err := k.out.serve()
		k.moderation.moved(octets, k.out.last)
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			k.in.w.p.o.Log.Error("the TUN device is not read any more", "err", os.NewSyscallError("read", err))
			k.dropQueue()
		}
		if k.out.waiting > 0 {
			full = k.out.path
		}
	}
	k.heed(full)
}

// heed notes which path has no room. Meanwhile the queue waits.
func (k *worker) heed(full *path) {
	if (full == nil) != (k.full == nil) && k.reads {
		event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(k.out.queue.FD())}
		if full != nil {
			event.Events = 0
		}
		_ = unix.EpollCtl(k.epoll, unix.EPOLL_CTL_MOD, k.out.queue.FD(), &event) // it is there
	}
	k.full = full
}

// drainRounds is how often one socket is read before others have their turn.
const drainRounds = 8

// drain reads what there is.
func (k *worker) drain(pa *path) {
	for range drainRounds {
		n, err := pa.conn.Receive(k.receiver)
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err != nil {
			continue // an ICMP error for something that was sent, reported once
		}
		k.in.begin()
		octets := 0
		for i := range n {
			m := pa.conn.Message(k.receiver, i)
			octets += len(m.Data)
			k.in.message(pa.conn.Local, &m, pa.name.udp)
		}
		k.in.flush()
		k.moderation.moved(octets, k.in.now)
		if !k.receiver.Full() {
			return // there may be more by now: epoll knows
		}
	}
}
