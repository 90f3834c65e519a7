package ike

import (
	"net/netip"

	"ipsec-quick/ike/wire"
)

// Event is something that happened outside the core.
type Event interface{ event() }

// Ref ties the answer of the data plane to the action that asked.
type Ref struct {
	SA wire.SPI // our SPI of the IKE SA that asked
	N  uint64
}

type (
	// Datagram is an IKE message from the network, without the non-ESP marker.
	Datagram struct {
		Local, Remote netip.AddrPort
		NATT          bool // it came with a non-ESP marker (RFC 3948, Section 2.2)
		Data          []byte
	}
	// Tick says that the time of [Endpoint.NextDeadline] has come.
	Tick struct{}
	// Recovered comes once after [Restore]: the inbound and outbound SPIs of
	// ours that the data plane still has. Child SAs without them are replaced.
	Recovered struct{ Present map[ChildID]bool }
	// Initiate answers [Resolve]: connect to the peer between these addresses.
	// An unspecified remote address means that there is none for now; Err says why.
	// With Others there are addresses besides, so that this one is given up soon if
	// nobody answers.
	Initiate struct {
		Peer          string
		Local, Remote netip.AddrPort
		Others        bool
		Err           error
	}
	// PeerAddresses replaces the addresses that a peer may speak from.
	PeerAddresses struct {
		Peer      string
		Addresses []netip.Addr
	}
	// Acquire is a packet that a policy covers and no Child SA carries.
	Acquire struct{ Peer string }
	// Expire is a limit that the data plane saw reached on a Child SA.
	Expire struct {
		Child ChildID
		Hard  bool
	}
	// Mapping is a new source of ESP packets in UDP: a NAT changed its mind.
	Mapping struct {
		Child  ChildID
		Remote netip.AddrPort
	}
	// RekeyChild asks for new keys for the Child SAs of a peer.
	RekeyChild struct{ Peer string }
	// RekeyIKE asks for new keys for the IKE SA of a peer.
	RekeyIKE struct{ Peer string }
	// Close ends all that we have with a peer, or with all of them when it is
	// empty, and does not start over.
	Close struct{ Peer string }
	// Reconfigure replaces the peers of the tunnel: what is with peers that are
	// in the list no more is closed, which [Closed] tells, and what was
	// negotiated by other settings than a peer has now is made anew. A peer
	// whose settings are the same loses no packet.
	Reconfigure struct{ Peers []Peer }
	// SPIAllocated answers [AllocSPI].
	SPIAllocated struct {
		Ref Ref
		SPI uint32
		Err error
	}
	// Installed answers [InstallChild].
	Installed struct {
		Ref Ref
		Err error
	}
	// Adopt is the other end of [Unclaimed]: a negotiation that began at another
	// tunnel of this host. [Endpoint.Accepts] says beforehand whether it is ours.
	Adopt struct{ Claim Claim }
	// Claimed answers [Unclaimed]: whether another tunnel of this host adopted
	// the half-open IKE SA. If not, the peer is told that it is refused.
	Claimed struct {
		SA      wire.SPI
		Adopted bool
	}
)

func (Datagram) event()      {}
func (Tick) event()          {}
func (Recovered) event()     {}
func (Initiate) event()      {}
func (PeerAddresses) event() {}
func (Acquire) event()       {}
func (Expire) event()        {}
func (Mapping) event()       {}
func (RekeyChild) event()    {}
func (RekeyIKE) event()      {}
func (Close) event()         {}
func (Reconfigure) event()   {}
func (SPIAllocated) event()  {}
func (Installed) event()     {}
func (Adopt) event()         {}
func (Claimed) event()       {}
