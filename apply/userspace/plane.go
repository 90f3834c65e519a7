// Package userspace is the data plane in this process, for hosts whose kernel has
// no ESP: the SPD, the SAD and their limits here, the packets between a TUN device
// and sockets to the peers in the workers (outbound.go, inbound.go).
//
// It means the same by its methods, limits and events as the kernel's. What is
// installed outlives the process, in two files in the tunnel's run directory: the
// next one goes on with the same keys, sequence numbers and replay windows.
package userspace

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
	"ipsec-quick/apply/userspace/packet"
)

// Options are those of Open.
type Options struct {
	Dir      string // the tunnel's run directory, which is there
	Name     string // of the TUN device
	MTU      int    // of that device; 0: what the paths to the peers have room for
	Mark     uint32 // of IKE sockets and ESP (SO_MARK), which steering leaves alone
	Steering Steering
	Log      *slog.Logger

	// Change is told, as commands of ip(8), that the TUN device is made or deleted.
	Change func(command string)

	// Inherited are descriptors that a program before this one in the same process
	// got by Bequeath. They are the plane's, also if Open fails.
	Inherited []int

	// IKE gets the IKE messages that come to the sockets of ESP in UDP, without
	// the non-ESP marker (RFC 3948, Section 2.2). data is valid during the call,
	// which must not wait for anybody.
	IKE func(local, remote netip.AddrPort, data []byte)

	// Stray, if there is one, gets the ESP packets of no SA here that come to
	// these sockets: those of another tunnel with the same peer, which has sockets
	// for the same addresses and ports, and the kernel knows no difference. It
	// returns whether it took the packet, which is counted otherwise. As with IKE.
	Stray func(local, remote netip.AddrPort, data []byte) bool
}

// Steering brings the traffic that policies cover to the TUN device, and nowhere
// else.
type Steering interface {
	// Sync does so for these policies, which are all there are, and for no others
	// any more. The TUN device is there. Another process may have called it before.
	Sync([]apply.Policy) error
	// Refresh puts back what others took away of that.
	Refresh() error
}

// carrier is what moves packets: the workers, their TUN device and sockets. All
// but receive are called one at a time.
type carrier interface {
	// listen lets the workers begin: what was installed before is there.
	listen()
	// start makes or opens the TUN device, which the workers then read: there is a
	// policy.
	start() error
	// stop removes the TUN device.
	stop() error
	// attach gives an SA a path to its peer; it is new, or its place has changed.
	attach(*association) error
	// detach takes it from one that no table has any more.
	detach(*association)
	// fit gives the TUN device the MTU that all SAs have room for; with ask, what
	// the kernel knows of the paths to the peers is looked at anew.
	fit(ask bool) error
	// receive takes an ESP packet that came to an IKE socket.
	receive(local, remote netip.AddrPort, data []byte)
	// bequeath stops moving packets, and returns duplicates of the descriptors that
	// they come by; resume goes on.
	bequeath() ([]int, error)
	resume()
	// close ends the workers. The TUN device stays, and drops what comes to it.
	close()
}

// The files in the run directory.
const (
	fileSAD = "sad"
	fileSPD = "spd"
)

// Plane is an apply.Dataplane. One process at a time has it: another one that
// opens it meanwhile stands by, reads what is installed, and goes on with it as
// soon as the first has closed it or died.
type Plane struct {
	o       Options
	carrier carrier
	events  *events
	alarm   *alarm
	ended   chan struct{} // closed: the goroutine of the alarm
	tables  atomic.Pointer[tables]
	unknown atomic.Uint64 // packets of no SA

	mu     sync.Mutex
	dir    *os.File // locked while owner
	owner  bool
	closed bool
	sad    table[saRecord]
	spd    table[policyRecord]
	sas    map[apply.SAID]*association // reservations too
}

var _ apply.Dataplane = (*Plane)(nil)

// open opens the plane; newCarrier makes what moves the packets.
func open(o Options, newCarrier func(*Plane) (carrier, error)) (*Plane, error) {
	p := &Plane{
		o: o, events: newEvents(), ended: make(chan struct{}),
		sad: newTable[saRecord](filepath.Join(o.Dir, fileSAD)),
		spd: newTable[policyRecord](filepath.Join(o.Dir, fileSPD)),
	}
	p.tables.Store(&tables{})
	var err error
	if p.dir, err = os.OpenFile(o.Dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
		closeAll(o.Inherited)
		return nil, fmt.Errorf("data plane: %w", err)
	}
	if p.alarm, err = newAlarm(); err != nil {
		closeAll(o.Inherited)
		return nil, errors.Join(err, p.dir.Close())
	}
	go p.watchLifetimes()
	if p.carrier, err = newCarrier(p); err == nil {
		p.mu.Lock()
		err = p.own()
		p.mu.Unlock()
	}
	if err != nil && !errors.Is(err, errStandby) {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// name of the data plane.
const name = "userspace"

// Name is "userspace".
func (p *Plane) Name() string { return name }

// Events of all SAs and policies of the tunnel.
func (p *Plane) Events() <-chan apply.Event { return p.events.out }

// Unknown is apply.Dataplane's.
func (p *Plane) Unknown() uint64 { return p.unknown.Load() }

// ReceiveESP is apply.Dataplane's.
func (p *Plane) ReceiveESP(local, remote netip.AddrPort, data []byte) {
	p.carrier.receive(local, remote, data)
}

// PrepareSocket is apply.Dataplane's: what the socket sends goes by the main
// routing table. ESP in UDP comes to the sockets of the workers, or by ReceiveESP.
func (p *Plane) PrepareSocket(fd int, _ netip.Addr, _ bool) error {
	if p.o.Mark == 0 {
		return nil
	}
	return os.NewSyscallError("SO_MARK", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(p.o.Mark)))
}

// acquire reports that a packet met a policy without an SA.
func (p *Plane) acquire(e *entry, f *packet.Flow, now int64) {
	if e.mayAcquire(now) {
		p.events.tell(apply.Acquire{
			ReqID: e.policy.ReqID, Local: e.policy.Local, Remote: e.policy.Remote, Packet: packetSelector(*f),
		})
	}
}

// Close is apply.Dataplane's.
func (p *Plane) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	if p.carrier != nil {
		p.carrier.close()
	}
	err := errors.Join(p.disown(), p.dir.Close())
	p.events.close()
	p.alarm.close()
	p.mu.Unlock()
	<-p.ended
	return err
}

var (
	errClosed  = fmt.Errorf("data plane: %w", os.ErrClosed)
	errStandby = errors.New("another process has this tunnel's data plane")
)

const (
	// ownTimeout is how long a change waits for another process to close the
	// plane or to end.
	ownTimeout = 5 * time.Second
	ownPause   = 10 * time.Millisecond
)

// change makes a change, once this process has the plane.
func (p *Plane) change(do func() error) error {
	giveUp := time.Now().Add(ownTimeout)
	for {
		err := p.tryChange(do)
		if !errors.Is(err, errStandby) || time.Now().After(giveUp) {
			return err
		}
		time.Sleep(ownPause)
	}
}

func (p *Plane) tryChange(do func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.own(); err != nil {
		return err
	}
	return do()
}

// own takes the plane if nobody has it, and goes on with what is installed. The
// lock is on the directory: a file may come and go.
func (p *Plane) own() error {
	if p.closed {
		return errClosed
	}
	if p.owner {
		return nil
	}
	switch err := unix.Flock(int(p.dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return errStandby
	case err != nil:
		return os.NewSyscallError("flock", err)
	}
	p.owner = true
	err := p.load()
	if err != nil {
		err = errors.Join(err, p.disown())
	}
	return err
}

// disown lets another process have the plane. What is installed stays.
func (p *Plane) disown() error {
	if !p.owner {
		return nil
	}
	p.owner = false
	p.tables.Store(&tables{})
	for _, a := range p.sas {
		a.wipe()
		p.carrier.detach(a)
	}
	p.sas = nil
	return errors.Join(p.sad.close(), p.spd.close(), unix.Flock(int(p.dir.Fd()), unix.LOCK_UN))
}

// load takes up what is in the files. A file or record that cannot be read is
// dropped: the peers negotiate again.
func (p *Plane) load() error {
	p.sas = map[apply.SAID]*association{}
	for _, err := range []error{p.sad.open(), p.spd.open()} {
		if errors.Is(err, errLayout) {
			p.o.Log.Warn("starting without what was installed before", "err", err)
		} else if err != nil {
			return err
		}
	}
	p.loadSAs()
	p.loadPolicies()
	p.alarm.set(atOnce)
	t := p.tables.Load()
	if len(t.entries) > 0 {
		if err := p.carrier.start(); err != nil {
			return err
		}
	}
	// Not before: what comes would not be let through.
	p.carrier.listen()
	if len(t.entries) == 0 {
		return nil
	}
	return p.o.Steering.Sync(t.policies())
}

// loadSAs takes up the SAD. Of two records of one SA the newer counts.
func (p *Plane) loadSAs() {
	at := now()
	type name struct {
		spi, reqID uint32
		direction  apply.Direction
	}
	seen := map[name]*association{}
	for _, s := range p.sad.used() {
		larval := s.state.Load() != slotInstalled
		err := s.body.check(larval, at)
		var a *association
		if err == nil {
			a, err = p.newAssociation(s, larval)
		}
		if err != nil {
			p.o.Log.Warn("a record is dropped", "err", err)
			p.sad.recycle(s)
			continue
		}
		n := name{a.spi, a.reqID, a.direction}
		if old := seen[n]; old != nil {
			p.forget(old)
		}
		seen[n] = a
		if old := p.sas[a.id()]; old != nil {
			p.forget(old)
		}
		if err := p.admit(a); err != nil {
			p.o.Log.Warn("an SA has no way to its peer", "spi", fmt.Sprintf("%08x", a.spi), "err", err)
		}
	}
}

// loadPolicies takes up the SPD.
func (p *Plane) loadPolicies() {
	for _, s := range p.spd.used() {
		policy := s.body.policy()
		if err := policy.Check(); err != nil {
			p.o.Log.Warn("a record is dropped", "err", err)
			p.spd.recycle(s)
			continue
		}
		p.enter(policy, s)
	}
}
