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

// A listener waits for the sockets of some peers, each of which only it reads.
type listener struct {
	in       *inbound
	epoll    int
	receiver *outer.Receiver
	octets   int // received since it last slept

	mu    sync.Mutex
	paths []*path
}

func newListener(w *workers) (*listener, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	l := &listener{in: newInbound(w), epoll: fd, receiver: outer.NewReceiver()}
	l.in.stray = w.p.o.Stray
	if err := l.watch(w.silenced.fd); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return l, nil
}

func (l *listener) watch(fd int) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &event))
}

// add begins to read a path.
func (l *listener) add(pa *path) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.watch(pa.conn.FD()); err != nil {
		return err
	}
	l.paths = append(l.paths, pa)
	return nil
}

// remove ends it.
func (l *listener) remove(pa *path) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, pa.conn.FD(), nil)
	l.paths = slices.DeleteFunc(l.paths, func(p *path) bool { return p == pa })
}

func (l *listener) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.paths)
}

// take finds the path of a descriptor and holds it; nil: it has gone.
func (l *listener) take(fd int) *path {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, pa := range l.paths {
		if pa.conn.FD() == fd && pa.hold() {
			return pa
		}
	}
	return nil
}

// run works until the workers are closed.
func (l *listener) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	silenced := int32(l.in.w.silenced.fd)
	var events [16]unix.EpollEvent
	var last breath
	for {
		last.take(l.in.now)
		n, err := l.wait(events[:])
		if err != nil && !errors.Is(err, unix.EINTR) {
			l.in.w.p.o.Log.Error("the sockets of ESP are not read any more", "err", os.NewSyscallError("epoll_wait", err))
			return
		}
		for i := range max(n, 0) {
			if events[i].Fd == silenced {
				return
			}
			if pa := l.take(int(events[i].Fd)); pa != nil {
				l.drain(pa)
				pa.release()
			}
		}
	}
}

const (
	// lingerFor is how long a listener goes on looking before it sleeps, in
	// nanoseconds, once at least lingerAfter octets have come. That much is the work
	// of a stream, the next part of which is on its way: to wake up a CPU for it
	// takes as long, and the stream waits meanwhile.
	lingerFor   = 30e3
	lingerAfter = 60000
)

// wait is epoll_wait(2).
func (l *listener) wait(events []unix.EpollEvent) (int, error) {
	if l.octets >= lingerAfter {
		for until := now() + lingerFor; now() < until; {
			if n, err := unix.EpollWait(l.epoll, events, 0); n != 0 || err != nil {
				return n, err
			}
		}
	}
	l.octets = 0
	return unix.EpollWait(l.epoll, events, -1)
}

// drainRounds is how often one socket is read before others have their turn.
const drainRounds = 64

// drain reads what there is.
func (l *listener) drain(pa *path) {
	for range drainRounds {
		n, err := pa.conn.Receive(l.receiver)
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err != nil {
			continue // an ICMP error for something that was sent, reported once
		}
		l.in.begin()
		for i := range n {
			m := pa.conn.Message(l.receiver, i)
			l.octets += len(m.Data)
			l.in.message(pa.conn.Local, &m, pa.name.udp)
		}
		l.in.flush()
		if !l.receiver.Full() {
			return // there may be more by now: epoll knows
		}
	}
}
