// Package apply is what a tunnel installs on this host: Security Associations
// (SAs) and policies, the events that come back from them, and a journal that
// can take all of it away again.
//
// The interface is Dataplane; the Linux kernel's is in apply/xfrm, a recorder
// for tests in apply/fake. Nothing here knows IKE: inbound and outbound, local
// and remote are relative to this host.
package apply

import (
	"errors"
	"net/netip"
	"time"
)

// Dataplane is where ESP is done (RFC 4301, Section 4.4: the SPD and the SAD).
// All methods may be called from several goroutines. Changes are done when the
// method returns; none is deferred.
type Dataplane interface {
	// Name is "kernel" or "userspace", for people.
	Name() string

	// AllocSPI reserves an SPI for the inbound SA of a pair: src is the peer's
	// outer address, dst ours. The reservation may lapse (the kernel's after
	// net.core.xfrm_acq_expires seconds) before InstallSA is called; InstallSA
	// copes with that.
	AllocSPI(reqID uint32, src, dst netip.Addr, mode Mode) (uint32, error)

	// InstallSA adds an SA: an inbound one takes the place of what AllocSPI
	// reserved. It fails with ErrExists if there is such an SA already. Keys
	// are not retained.
	InstallSA(SA) error

	// UpdateSA changes outer addresses, encapsulation ports and limits of an
	// installed SA, found by its SPI, ReqID and Direction. Sequence numbers,
	// replay window, counters and keys stay. The keys in the argument may be
	// left out; then they are the installed ones.
	UpdateSA(SA) error

	// RemoveSA removes an SA, or what AllocSPI reserved. If there is none it
	// says so by an error that wraps ErrAbsent.
	RemoveSA(SAID) error

	// SetPolicy adds a policy, or changes the one that has its selector and
	// its Guard: outbound, inbound, and in tunnel mode forwarded traffic.
	SetPolicy(Policy) error

	// RemovePolicy removes what SetPolicy made. If there is none it says so by
	// an error that wraps ErrAbsent.
	RemovePolicy(Policy) error

	// SwitchOutbound rewrites the outbound direction of a Protect policy alone,
	// so that the next packet leaves through the SA with p.SPI.
	SwitchOutbound(p Policy) error

	// Query reads the counters of an SA. If there is none the error wraps
	// ErrAbsent.
	Query(SAID) (Usage, error)

	// List returns all SAs and reservations with one of the ReqIDs. Events of
	// these ReqIDs are reported from then on (a restarted process tells the
	// data plane in this way what is its own).
	List(reqIDs []uint32) ([]Installed, error)

	// PrepareSocket exempts an IKE socket (a file descriptor, bound or about to
	// be bound to addr) from the policies; with encap it also receives ESP in
	// UDP (RFC 3948) where ESP is done by the kernel.
	PrepareSocket(fd int, addr netip.Addr, encap bool) error

	// ReceiveESP takes an ESP packet that came in UDP to an IKE socket: data
	// was sent from remote to local. Where the kernel does ESP it takes such
	// packets itself, and this does nothing.
	ReceiveESP(local, remote netip.AddrPort, data []byte)

	// Unknown counts the ESP packets that came since this Dataplane was opened
	// and are of no SA here.
	Unknown() uint64

	// Events reports what happens to the SAs and policies set through this
	// Dataplane. The channel is the same at each call; Close closes it. A
	// consumer that is too slow gets an Overrun.
	Events() <-chan Event

	// Close releases what this process holds. What is installed stays.
	Close() error
}

// ErrAbsent: what was to be removed, changed or read is not there.
var ErrAbsent = errors.New("not installed")

// ErrExists: what was to be added is there already.
var ErrExists = errors.New("already installed")

// Mark is what packets of IKE and ESP have on their way between the outer
// addresses (SO_MARK, and that of outbound SAs): routing rules tell them by it from
// what is to go into a tunnel. It is also to be given when the kernel is asked for a
// route to a peer.
const Mark = 0x49b50

// Direction of an SA, relative to this host.
type Direction uint8

// Directions.
const (
	In Direction = iota + 1
	Out
)

// String is "in" or "out".
func (d Direction) String() string {
	switch d {
	case In:
		return "in"
	case Out:
		return "out"
	}
	return "none"
}

// Mode of an SA (RFC 4301, Section 3.2).
type Mode uint8

// Modes. The zero value is tunnel mode.
const (
	Tunnel Mode = iota
	Transport
)

// String is "tunnel" or "transport".
func (m Mode) String() string {
	if m == Transport {
		return "transport"
	}
	return "tunnel"
}

// SAID names an SA (RFC 4301, Section 4.1); the protocol is always ESP.
type SAID struct {
	Dst netip.Addr
	SPI uint32
}

// Limits of an SA's life (RFC 4301, Section 4.4.2.1). Zero: no limit.
type Limits struct {
	Bytes, Packets uint64
	Time           time.Duration // since the SA was added
	Use            time.Duration // since its first packet
}

// Algorithm of an SA with its key. Names are those of algorithm.go.
type Algorithm struct {
	Name string
	Key  Key // for an AEAD with the salt at its end (RFC 4106, Section 8.1)
}

// Encap are the ports of ESP in UDP (RFC 3948), source and destination as in
// the SA's own packets.
type Encap struct{ SrcPort, DstPort uint16 }

// SA is a Security Association as it is installed.
type SA struct {
	SPI       uint32
	Direction Direction
	Src, Dst  netip.Addr // outer addresses, in the direction of its packets
	ReqID     uint32     // ties it to the policies; below 1<<31
	Mode      Mode

	Encryption   Algorithm
	Integrity    Algorithm // empty for an AEAD
	ESN          bool      // extended sequence numbers (RFC 4303, Section 2.2.1)
	ReplayWindow uint32    // packets; counts for an inbound SA only
	Encap        *Encap    // nil: no encapsulation
	Selector     *Selector // transport mode: what the SA may carry; nil: anything
	IfID         uint32    // of the xfrm interface that it belongs to; 0: none
	Mark         uint32    // of its packets, outbound; 0: that of what they carry

	Soft, Hard Limits
}

// ID of the SA.
func (s SA) ID() SAID { return SAID{Dst: s.Dst, SPI: s.SPI} }

// Action of a policy (RFC 4301, Section 4.4.1).
type Action uint8

// Actions.
const (
	Protect Action = iota + 1 // what an established Child SA covers
	Block                     // drop: the fail-closed guard of a configured pair
	Trap                      // drop, but an outbound packet raises an Acquire
	Bypass                    // pass in clear, e.g. IPv6 neighbour discovery
)

// String names the action as the type's constants do, in lower case.
func (a Action) String() string {
	switch a {
	case Protect:
		return "protect"
	case Block:
		return "block"
	case Trap:
		return "trap"
	case Bypass:
		return "bypass"
	}
	return "none"
}

// Policy is one entry of the SPD, in all its directions.
type Policy struct {
	Selector      Selector
	Action        Action
	Mode          Mode       // tunnel mode: forwarded traffic too
	Local, Remote netip.Addr // outer addresses (Protect, Trap)
	ReqID         uint32     // Protect, Trap; below 1<<31
	SPI           uint32     // of the outbound SA (Protect)
	IfID          uint32     // of the xfrm interface whose traffic alone it is about; 0: none

	// Guard marks a policy that is always there and yields to the others of
	// the same or a narrower selector. It is a policy of its own: setting and
	// removing a Protect with the same selector leaves the guard as it is.
	Guard bool
}

// Usage is what an SA has carried so far, and its limits.
type Usage struct {
	Bytes, Packets uint64
	Added          time.Time
	Used           time.Time // first use; zero: never
	LastUsed       time.Time // last use; zero: never, or not known here
	Soft, Hard     Limits
	Drops          Drops
}

// Drops counts, by cause, packets that came for an SA and were not let through.
type Drops struct {
	Forged    uint64 // the ICV is wrong
	Replayed  uint64 // seen before, or older than the replay window
	Malformed uint64 // authentic, but its padding or next header is none there is
	Selectors uint64 // outside what was negotiated (RFC 4301, Section 5.2)
}

// Installed is an SA as it was found.
type Installed struct {
	SAID
	Src       netip.Addr
	ReqID     uint32
	Direction Direction
	Mode      Mode
	Usage
	Larval bool // only reserved, by AllocSPI or by a packet that raised an Acquire
}

// Event is one of Expire, Acquire, Mapping, Overrun.
type Event interface{ event() }

// Expire: an SA has reached its soft limit (rekey it) or its hard limit (it is
// gone).
type Expire struct {
	SAID
	ReqID uint32
	Hard  bool
}

// Acquire: an outbound packet met a policy that has no SA.
type Acquire struct {
	ReqID         uint32
	Local, Remote netip.Addr // outer addresses of the policy
	Packet        Selector   // what the packet was
}

// Mapping: an inbound SA's encapsulated packets come from a new address or
// port, which a NAT gave them (RFC 3948, Section 4). The packet was authentic.
type Mapping struct {
	SAID
	ReqID uint32
	New   netip.AddrPort
}

// Overrun: events were lost. Whoever gets it has to List and compare: what is
// absent has hard-expired, what is over its soft limit is due.
type Overrun struct{}

func (Expire) event()  {}
func (Acquire) event() {}
func (Mapping) event() {}
func (Overrun) event() {}
