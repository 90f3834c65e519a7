package userspace

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"

	"ipsec-quick/apply"
	"ipsec-quick/apply/userspace/outer"
)

// A path is a socket to one place of a peer, which all SAs share that go there.
type path struct {
	conn   *outer.Conn
	name   pathName
	worker *worker      // who reads it
	users  int          // SAs, under Plane.mu
	holds  atomic.Int32 // the users together, and workers that use the socket

	// turn is a worker's from its first sequence number of a batch until the batch
	// is sent. So sequence numbers leave in order: a peer's replay window may be
	// smaller than one super-packet.
	turn sync.Mutex
}

// pathName tells paths apart. Without UDP ports are 0.
type pathName struct {
	local, remote netip.AddrPort
	udp           bool
}

// pathOf names the path of an SA.
func pathOf(a *association) pathName {
	pl := a.place.Load()
	local, port := pl.src, uint16(0)
	if a.direction == apply.In {
		local = pl.dst
	}
	if e := pl.encap; e != nil {
		port = e.SrcPort
		if a.direction == apply.In {
			port = e.DstPort
		}
	}
	return pathName{netip.AddrPortFrom(local, port), pl.remote(a.direction), pl.encap != nil}
}

// hold keeps the socket open until release. It returns false if that is too
// late.
func (pa *path) hold() bool {
	for {
		n := pa.holds.Load()
		if n == 0 {
			return false
		}
		if pa.holds.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// release closes the socket if nobody holds it any more.
func (pa *path) release() {
	if pa.holds.Add(-1) == 0 {
		_ = pa.conn.Close()
	}
}

// attach is the carrier's.
func (w *workers) attach(a *association) error {
	name, old := pathOf(a), a.path.Load()
	if old != nil && old.name == name {
		return nil
	}
	pa := w.paths[name]
	if pa == nil {
		var err error
		if pa, err = w.open(name); err != nil {
			return err
		}
	}
	pa.users++
	// Who finds the old one closing looks again, and finds this one.
	a.path.Store(pa)
	w.leave(old)
	return w.fit(false)
}

// detach is the carrier's.
func (w *workers) detach(a *association) { w.leave(a.path.Swap(nil)) }

// open makes a path and listens to it.
func (w *workers) open(name pathName) (*path, error) {
	o := outer.Options{Mark: w.p.o.Mark, Offloads: w.outer}
	var conn *outer.Conn
	var err error
	if conn = w.inherited[name]; conn != nil {
		delete(w.inherited, name)
	} else if name.udp {
		conn, err = outer.DialUDP(name.local, name.remote, o)
	} else {
		conn, err = outer.DialESP(name.local.Addr(), name.remote.Addr(), o)
	}
	if err != nil {
		return nil, err
	}
	pa := &path{conn: conn, name: name, worker: w.idlest()}
	pa.holds.Store(1)
	if err := pa.worker.add(pa); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	w.paths[name] = pa
	if err := w.grow(); err != nil {
		w.p.o.Log.Warn("the TUN device gets no further queue", "err", err)
	}
	return pa, nil
}

// leave takes an SA from a path, which closes with the last one.
func (w *workers) leave(pa *path) {
	if pa == nil {
		return
	}
	if pa.users--; pa.users > 0 {
		return
	}
	delete(w.paths, pa.name)
	pa.worker.remove(pa)
	pa.release()
}

// idlest is the worker that reads the fewest paths, of those that do.
func (w *workers) idlest() *worker {
	readers := w.workers[len(w.workers)-len(w.queues):]
	best := readers[0]
	for _, k := range readers[1:] {
		if k.len() < best.len() {
			best = k
		}
	}
	return best
}
