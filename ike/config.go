package ike

import (
	"fmt"
	"io"
	"net/netip"
	"time"

	"ipsec-quick/ike/auth"
	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

// Config is what an [Endpoint] is made of: one tunnel, one or more peers.
type Config struct {
	Peers []Peer
	// Rand is the source of nonces, SPIs, key exchange scalars and jitter.
	Rand io.Reader
	// NATPort is our UDP port for IKE after NAT detection (4500).
	NATPort uint16
}

// Start says who begins to negotiate with a peer, and when.
type Start uint8

const (
	StartNow      Start = iota // we, at once, and again whenever the peer is lost
	StartOnDemand              // we, at the first packet that the policy covers
	StartPassive               // the peer
)

// PFS says whether a CREATE_CHILD_SA exchange for a Child SA carries a key
// exchange of its own (RFC 7296, Section 1.3.1).
type PFS uint8

const (
	PFSAuto PFS = iota // offer one and NONE; as responder accept either
	PFSYes             // insist
	PFSNo              // never
)

// Peer is one [[peer]] of the tunnel file, with all defaults filled in.
type Peer struct {
	Name string
	// Addresses the peer may speak from; empty: any (a peer without endpoint).
	// [PeerAddresses] replaces them when a name was resolved.
	Addresses []netip.Addr
	Start     Start
	// LocalID and RemoteID are the identities of RFC 7296, Section 3.5; nil: the
	// address used on that side.
	LocalID, RemoteID *wire.ID
	Local             auth.Local
	Remote            auth.Remote

	IKE              []suite.Proposal
	IKESoft, IKEHard time.Duration // lifetime of the IKE SA
	DPD              time.Duration // silence after which the peer is asked; 0: never
	Encap            bool          // ESP in UDP even where there is no NAT
	Fragment         int           // largest IP packet of an IKE message in octets; 0: no limit

	ESP []suite.Proposal
	PFS PFS
	ESN bool // offer extended sequence numbers (both kinds are accepted)
	// LocalTS and RemoteTS are the traffic selectors; empty, or one without
	// addresses: the address used.
	LocalTS, RemoteTS []wire.Selector
	Transport         bool // transport mode instead of tunnel mode

	// IKESettings are what an IKE SA with the peer and the selectors of its
	// Child SAs depend on, ChildSettings what the rest of a Child SA does: SAs
	// that were negotiated by others do not stay, see [Reconfigure].
	IKESettings, ChildSettings Settings

	// Soft and Hard are the limits of a Child SA, kept by the data plane. Each
	// soft limit is drawn up to Jitter (0 to 1) of itself earlier.
	Soft, Hard Limits
	Jitter     float64
}

// Format writes the peer's name for every verb: a peer holds keys, which no print
// shows.
func (p Peer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, p.Name) }

// Limits bound the life of a Child SA; a zero field is no limit.
type Limits struct {
	Time    time.Duration // since it was added
	Use     time.Duration // since its first packet
	Bytes   uint64
	Packets uint64
}
