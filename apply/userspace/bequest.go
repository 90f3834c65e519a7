package userspace

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply/userspace/outer"
	"ipsec-quick/apply/userspace/tun"
)

// A program that takes the place of this one in the same process goes on with the
// same descriptors: what comes meanwhile waits in the kernel's queues.

// Bequeath stops moving packets, and returns duplicates of the descriptors that
// they come by, for Options.Inherited of the next program. They are the caller's.
// If there is to be no next program, Resume goes on.
func (p *Plane) Bequeath() ([]int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.owner {
		return nil, nil
	}
	return p.carrier.bequeath()
}

// Resume takes a Bequeath back.
func (p *Plane) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.owner {
		p.carrier.resume()
	}
}

// bequeath is the carrier's.
func (w *workers) bequeath() ([]int, error) {
	w.leaveQueues()
	w.halt()
	var all []int
	if w.device != nil {
		for _, q := range w.queues[:w.active.Load()] {
			all = append(all, q.FD())
		}
	}
	for _, pa := range w.paths {
		all = append(all, pa.conn.FD())
	}
	var failed error
	for i, fd := range all {
		var err error
		if all[i], err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			failed = errors.Join(failed, os.NewSyscallError("dup", err))
		}
	}
	if failed != nil {
		closeAll(all)
		w.resume()
		return nil, failed
	}
	return all, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd) // of -1 it says so
	}
}

// resume is the carrier's.
func (w *workers) resume() {
	w.run()
	if w.device != nil {
		if err := w.readQueues(); err != nil {
			w.p.o.Log.Error("the TUN device is not read any more", "err", err)
		}
	}
}

// inherit sorts the descriptors of a program before this one. Those of no use are
// closed.
func (w *workers) inherit(fds []int) {
	w.inherited = map[pathName]*outer.Conn{}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
		if q := tun.Inherit(fd, w.p.o.Name); q != nil && len(w.queues) < cap(w.queues) {
			w.queues = append(w.queues, q)
			continue
		}
		c, err := outer.Inherit(fd, outer.Options{Mark: w.p.o.Mark, Offloads: w.outer})
		if err != nil {
			_ = unix.Close(fd)
			continue
		}
		w.inherited[pathName{c.Local, c.Remote, c.UDP()}] = c
	}
}

// disinherit closes the sockets to peers that there is no SA with any more.
func (w *workers) disinherit() {
	for _, c := range w.inherited {
		_ = c.Close()
	}
	w.inherited = nil
}
