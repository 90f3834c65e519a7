package userspace

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
	"ipsec-quick/apply/userspace/outer"
	"ipsec-quick/apply/userspace/packet"
	"ipsec-quick/apply/userspace/tun"
)

// Open opens the data plane of a tunnel, and takes up what another process has
// installed in it. It needs the rights to make TUN devices and to set up
// interfaces.
func Open(o Options) (*Plane, error) { return open(o, newWorkers(procs())) }

const (
	maxQueues = 8 // of the TUN device

	// leastMTU is what IPv6 needs (RFC 8200, Section 5), and what the TUN device
	// begins with.
	leastMTU = 1280

	// switchOff names the environment variable with the offloads that are not
	// to be used: some of tso, uso (super-packets of TCP and UDP at the TUN
	// device), gso, gro (trains at the sockets), or all.
	switchOff = "IPSEC_QUICK_NO_OFFLOADS"
)

// workers are the carrier. Each worker has its descriptors and buffers, allocates
// nothing, and hands nothing to another: what is too much waits in the kernel's
// queues, which drop.
//
// There is a worker for each processor, at most maxQueues, to read a queue of the
// TUN device; it has as many queues as there are paths. With one or two processors
// these read the sockets, too: to wake up another thread costs more than what it
// could do meanwhile. With more processors others do, as many again.
type workers struct {
	p     *Plane
	tun   tun.Offloads
	outer outer.Offloads

	queues  []*tun.Queue
	active  atomic.Int32 // queues that the device has
	workers []*worker    // those with a queue first
	device  *tun.Device  // nil: stopped
	mtu     int
	join    atomic.Pointer[tun.Offloads] // what the device takes

	paths     map[pathName]*path
	inherited map[pathName]*outer.Conn // sockets of a program before us

	runs    bool // the workers
	halted  *quit
	running sync.WaitGroup

	receiving sync.Mutex // for receive
	closed    bool       // under receiving: the descriptors are
	received  *inbound
}

// fewProcs is with how many processors a worker does both directions.
const fewProcs = 2

// procs is how many processors this process may use. As each worker has a thread,
// and keeps it in system calls that do not block, the scheduler gets threads to
// spare: nobody waits for it to take one away.
var procs = sync.OnceValue(func() int {
	n := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(n + 2*min(n, maxQueues))
	return n
})

// newWorkers makes those for a number of processors.
func newWorkers(procs int) func(*Plane) (carrier, error) {
	return func(p *Plane) (carrier, error) {
		w := &workers{p: p, paths: map[pathName]*path{}}
		w.join.Store(&tun.Offloads{})
		w.active.Store(1)
		w.chooseOffloads(os.Getenv(switchOff))
		if err := w.prepare(procs); err != nil {
			w.close()
			return nil, err
		}
		return w, nil
	}
}

// prepare opens all descriptors that are not a peer's, and makes the workers:
// later the process may not open files any more.
func (w *workers) prepare(procs int) error {
	n := min(procs, maxQueues)
	w.queues = make([]*tun.Queue, 0, n)
	w.inherit(w.p.o.Inherited) // first, since they are ours whatever fails
	var err error
	if w.halted, err = newQuit(); err != nil {
		return err
	}
	for len(w.queues) < n {
		q, err := tun.OpenQueue()
		if err != nil {
			return err
		}
		w.queues = append(w.queues, q)
	}
	count := n
	if procs > fewProcs {
		count += n
	}
	for i := range count {
		var out *outbound
		if i < n {
			out = newOutbound(w, w.queues[i])
		}
		k, err := newWorker(w, out)
		if err != nil {
			return err
		}
		w.workers = append(w.workers, k)
	}
	w.received = newInbound(w)
	return nil
}

// chooseOffloads leaves out those that are switched off and, of trains, those
// that do harm here.
func (w *workers) chooseOffloads(off string) {
	is := func(name string) bool {
		return strings.Contains(","+off+",", ","+name+",") || off == "all"
	}
	w.tun = tun.Offloads{TCP: !is("tso"), UDP: !is("uso")}
	wanted := outer.Offloads{Segment: !is("gso"), Join: !is("gro")}
	var err error
	if w.outer, err = outer.Probe(wanted); err != nil {
		w.p.o.Log.Debug("offloads of sockets could not be tried", "err", err)
	} else if w.outer != wanted {
		w.p.o.Log.Warn("an offload of sockets does harm with this kernel, and is not used", "used", fmt.Sprintf("%+v", w.outer))
	}
}

// start is the carrier's.
func (w *workers) start() error {
	if w.device != nil {
		return nil
	}
	n := min(max(len(w.paths), 1), len(w.queues))
	for n < len(w.queues) && w.queues[n].Attached() {
		n++ // inherited
	}
	device, err := tun.Attach(w.p.o.Name, w.queues[:n], w.tun)
	if err != nil {
		return err
	}
	w.active.Store(int32(n))
	if device.New {
		w.p.o.Change(tun.AddCommand(w.p.o.Name))
	}
	if device.Offloads != w.tun {
		w.p.o.Log.Info("an offload of the TUN device is not used with this kernel", "used", fmt.Sprintf("%+v", device.Offloads))
	}
	w.device, w.mtu = device, 0
	w.join.Store(&device.Offloads)
	if err := w.readQueues(); err != nil {
		w.device = nil
		return err
	}
	return w.fit(false)
}

// listen is the carrier's.
func (w *workers) listen() {
	w.disinherit()
	w.run()
}

// run lets the workers begin.
func (w *workers) run() {
	if w.runs {
		return
	}
	w.runs = true
	for _, k := range w.workers {
		w.running.Go(k.run)
	}
}

// halt ends them.
func (w *workers) halt() {
	if w.halted != nil {
		w.halted.give()
		w.running.Wait()
		w.halted.take()
		w.runs = false
	}
}

// readQueues begins to send.
func (w *workers) readQueues() error {
	for _, k := range w.workers[:w.active.Load()] {
		if err := k.readQueue(); err != nil {
			return err
		}
	}
	return nil
}

// leaveQueues ends it.
func (w *workers) leaveQueues() {
	for _, k := range w.workers[:min(len(w.queues), len(w.workers))] {
		k.leaveQueue()
	}
}

// grow gives the TUN device one more queue if there are more paths than queues.
// What goes to one peer is sent by one worker at a time, so more would wait for
// each other.
func (w *workers) grow() error {
	n := int(w.active.Load())
	if w.device == nil || n >= len(w.paths) || n == len(w.queues) {
		return nil
	}
	if err := w.device.Add(w.queues[n]); err != nil {
		return err
	}
	w.active.Store(int32(n + 1))
	return w.workers[n].readQueue()
}

// stop is the carrier's.
func (w *workers) stop() error {
	w.leaveQueues()
	w.device = nil
	removed, err := tun.Remove(w.p.o.Name)
	if removed {
		w.p.o.Change("ip link delete " + w.p.o.Name)
	}
	return err
}

// close is the carrier's.
func (w *workers) close() {
	w.leaveQueues()
	w.halt()
	w.receiving.Lock()
	w.closed = true
	w.receiving.Unlock()
	w.disinherit()
	for _, a := range w.p.sas {
		w.detach(a)
	}
	for _, k := range w.workers {
		_ = unix.Close(k.epoll)
	}
	for _, q := range w.queues {
		_ = q.Close()
	}
	if w.halted != nil {
		_ = unix.Close(w.halted.fd)
	}
}

// receive is the carrier's.
func (w *workers) receive(local, remote netip.AddrPort, data []byte) {
	w.receiving.Lock()
	defer w.receiving.Unlock()
	if w.closed {
		return
	}
	w.received.begin()
	w.received.message(local, &outer.Message{Data: data, Size: len(data), From: remote}, true)
	w.received.flush()
}

// fit is the carrier's. So TCP makes segments that fit.
func (w *workers) fit(ask bool) error {
	if w.device == nil {
		return nil
	}
	room, segments := maxPacket, outer.MaxTrain
	for _, a := range w.p.sas {
		pa := a.path.Load()
		if a.direction != apply.Out || pa == nil {
			continue
		}
		if ask {
			pa.conn.RefreshMTU()
		}
		longest := pa.conn.MaxPacket()
		room = min(room, a.header()+a.transform.MaxPayload(longest))
		segments = min(segments, outer.MaxTrainOctets/longest)
	}
	mtu := max(room, w.leastMTU())
	if room == maxPacket { // there is no SA
		mtu = max(w.mtu, leastMTU)
	}
	if w.p.o.MTU > 0 {
		mtu = w.p.o.MTU
	}
	if mtu == w.mtu {
		return nil
	}
	if room < mtu {
		w.p.o.Log.Warn("the path is too short for the device's MTU: ESP is sent in fragments, or the sender told", "mtu", mtu, "room", room)
	}
	w.mtu = mtu
	return w.device.SetMTU(mtu, segments)
}

// leastMTU is what the policies' families need.
func (w *workers) leastMTU() int {
	for _, e := range w.p.tables.Load().entries {
		if e.in.ipv6 {
			return leastMTU
		}
	}
	return 576 // what each host reassembles (RFC 1122, Section 3.3.2)
}

// header is how long the IP header is that the SA's packets leave behind: that
// of transport mode.
func (a *association) header() int {
	switch {
	case a.mode == apply.Tunnel:
		return 0
	case a.place.Load().src.Is6():
		return packet.IPv6Len
	}
	return packet.IPv4Len
}
