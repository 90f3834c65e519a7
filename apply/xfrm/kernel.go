// Package xfrm is the data plane in the Linux kernel: SAs, policies and events
// over NETLINK_XFRM (include/uapi/linux/xfrm.h, net/xfrm/xfrm_user.c).
//
// No sysctl is changed. In particular net.core.xfrm_acq_expires stays what it
// is: where an SPI's reservation lapses before its SA is installed, InstallSA
// adds the SA anew under the same SPI.
package xfrm

import (
	"errors"
	"os"
	"sync"

	"ipsec-quick/apply"
)

// Kernel is an apply.Dataplane.
type Kernel struct {
	conn   *conn
	quirks quirks
	events *eventReader
	stats  *statistics

	mu       sync.Mutex
	ours     map[uint32]bool     // ReqIDs whose events are reported
	reserved map[apply.SAID]bool // by AllocSPI, until it lapses or is installed
	noProof  map[bool]bool       // address families (IPv6 or not) whose ESP is not proved
}

var _ apply.Dataplane = (*Kernel)(nil)

// New opens the kernel's data plane. It fails with *NoPermission, *NoESP, or
// *NoAlgorithm for the first of need that is missing.
func New(need ...Suite) (*Kernel, error) {
	k, err := open()
	if err != nil {
		return nil, err
	}
	if err := k.preflight(need); err != nil {
		_ = k.Close()
		return nil, err
	}
	k.makeRoom()
	return k, nil
}

// open does without the preflight: policies and SPIs work without ESP.
func open() (*Kernel, error) {
	c, err := openConn()
	if err != nil {
		return nil, err
	}
	k := &Kernel{
		conn:     c,
		quirks:   quirks{direction: true}, // an older kernel ignores it
		ours:     make(map[uint32]bool),
		reserved: make(map[apply.SAID]bool),
	}
	if k.events, err = startEvents(k.filter); err != nil {
		_ = c.close()
		return nil, err
	}
	k.stats = openStatistics()
	return k, nil
}

// Name is "kernel".
func (k *Kernel) Name() string { return "kernel" }

// Events of the ReqIDs that this Kernel was told about.
func (k *Kernel) Events() <-chan apply.Event { return k.events.out }

// Close ends the events and closes the sockets.
func (k *Kernel) Close() error {
	err := errors.Join(k.events.close(), k.conn.close(), k.stats.close())
	if errors.Is(err, os.ErrClosed) {
		return nil // closed before
	}
	return err
}

// own makes events of a ReqID be reported.
func (k *Kernel) own(reqIDs ...uint32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, id := range reqIDs {
		k.ours[id] = true
	}
}

func (k *Kernel) setReserved(id apply.SAID, yes bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if yes {
		k.reserved[id] = true
	} else {
		delete(k.reserved, id)
	}
}

func (k *Kernel) isReserved(id apply.SAID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.reserved[id]
}

// filter passes on what concerns our ReqIDs, and hides what is the kernel's own
// business: traps' ReqIDs, and reservations that lapse.
func (k *Kernel) filter(ev apply.Event) (apply.Event, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch ev := ev.(type) {
	case apply.Expire:
		if ev.Hard && k.reserved[ev.SAID] {
			delete(k.reserved, ev.SAID)
			return nil, false
		}
		return ev, k.ours[ev.ReqID]
	case apply.Acquire:
		ev.ReqID &^= apply.TrapBit
		return ev, k.ours[ev.ReqID]
	case apply.Mapping:
		return ev, k.ours[ev.ReqID]
	}
	return ev, true
}
