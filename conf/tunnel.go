package conf

import (
	"net/netip"
	"time"

	"ipsec-quick/ike/auth"
	"ipsec-quick/ike/suite"
)

// The values of Tunnel.Dataplane.
const (
	DataplaneAuto      = "auto"      // the kernel where it has ESP, else this process
	DataplaneKernel    = "kernel"    // XFRM
	DataplaneUserspace = "userspace" // ESP in this process
)

// The values of IKE.Encap.
const (
	EncapAuto = "auto" // where there is a NAT; ESP in this process always asks for it
	EncapYes  = "yes"  // always
	EncapNo   = "no"   // only where there is a NAT
)

// The values of ESP.PFS.
const (
	PFSAuto = "auto" // as responder either, as initiator a key exchange is offered and not demanded
	PFSYes  = "yes"  // a rekey without a key exchange is refused
	PFSNo   = "no"   // no key exchange in a rekey
)

// A Mode is how ESP carries packets (RFC 4301, Section 3.2).
type Mode string

// The modes.
const (
	ModeTunnel    Mode = "tunnel"    // whole packets inside, for networks
	ModeTransport Mode = "transport" // between the two hosts themselves
)

// A Start says what brings a peer's Child SA up.
type Start string

// The values of Peer.Start.
const (
	StartNow      Start = "now"       // at once; the default of a peer with an endpoint
	StartOnDemand Start = "on-demand" // at the first packet
	StartPassive  Start = "passive"   // the peer does; the default of a peer without an endpoint
)

// A Tunnel is one valid tunnel file. All that it says about its peers is in
// Peers, with defaults and overrides resolved.
type Tunnel struct {
	Name      string   // from the file's name
	Path      string   // as given to Load
	Files     []string // with keys, that it names; relative if Path is
	Dataplane string   // DataplaneAuto, DataplaneKernel or DataplaneUserspace
	Local     Local
	Interface *Interface // nil: policy-based
	Hooks     *Hooks     // nil: none
	Peers     []Peer     // at least one, in the file's order
	Port      uint16     // our UDP port for IKE, 500
	NATPort   uint16     // our UDP port for IKE and ESP behind a NAT, 4500

	// Warnings are remarks on a file that is valid, by position.
	Warnings []Error
}

// Local is this end of a tunnel.
type Local struct {
	ID      ID         // empty: the address used
	Address netip.Addr // zero: the kernel's choice for the route
}

// Interface is the device of a route-based tunnel.
type Interface struct {
	Name      string
	Addresses []netip.Prefix // the device's own addresses; host bits are kept
	MTU       int            // 0: found out
	DNS       []netip.Addr   // servers that are asked through the tunnel
	Domains   []string       // to search; with ~, that they are asked for and for no others
	Table     int            // routing table; TableAuto, TableOff or a number
}

// Values of Interface.Table that are no table's number.
const (
	TableAuto = 0  // the main table, or policy routing for a default route
	TableOff  = -1 // no routes
)

// A Peer is one other end, with everything resolved: defaults filled in and
// the peer's own [peer.ike], [peer.esp] and [peer.lifetime] over the tunnel's.
type Peer struct {
	Name     string
	Endpoint Endpoint
	Address  netip.Addr // our outer address; zero: the kernel's choice for the route
	LocalID  ID         // empty: our address, once it is known
	RemoteID ID         // empty: the peer's address, once it is known
	Local    auth.Local // how we prove who we are
	Remote   auth.Remote
	LocalTS  []TS // empty: our own address
	RemoteTS []TS // empty: the peer's address
	Mode     Mode
	Start    Start
	IKE      IKE
	ESP      ESP
	Lifetime Lifetime
}

// String is the peer's name: a peer holds keys, which no print shows.
func (p Peer) String() string { return p.Name }

// GoString is the peer's name, so %#v shows no key either.
func (p Peer) GoString() string { return p.Name }

// MarshalText is the peer's name, in JSON and in logs.
func (p Peer) MarshalText() ([]byte, error) { return []byte(p.Name), nil }

// An Endpoint is where a peer is reached.
type Endpoint struct {
	Host string     // name or address as written, without port and brackets; empty: any address, we only answer
	Addr netip.Addr // set when Host is an address
	Port uint16     // 500 unless written
}

// IKE is how the IKE SA with a peer is made and kept.
type IKE struct {
	Proposals []suite.Proposal // in order of preference, never empty
	Soft      time.Duration    // rekey after this
	Hard      time.Duration    // delete after this, above Soft
	DPD       time.Duration    // silence after which the peer is asked for a sign of life; 0: never
	Encap     string           // ESP in UDP: EncapAuto, EncapYes or EncapNo
	Fragment  int              // largest IKE packet in octets, IP header included; 0: never fragment
}

// ESP is how Child SAs are made.
type ESP struct {
	// Proposals is in order of preference and never empty. Unless PFS is
	// PFSNo, each proposal has a key exchange: its own, or those of the IKE
	// proposals. Each has the choice of ESN that ESN says.
	Proposals    []suite.Proposal
	PFS          string // PFSAuto, PFSYes or PFSNo
	ESN          bool   // offer and accept extended sequence numbers, besides plain ones
	ReplayWindow uint32 // packets; 0: no replay protection
}

// Lifetime is how long each ESP SA lives. A zero is no limit. Where a soft
// limit is set its hard one is too and lies above it; durations are whole
// seconds, as the kernel counts.
type Lifetime struct {
	SoftTime, HardTime       time.Duration // since the SA was added
	SoftUse, HardUse         time.Duration // since its first packet
	SoftBytes, HardBytes     uint64
	SoftPackets, HardPackets uint64

	// Jitter is the part, 0 to below 1, by which each soft limit may be
	// drawn earlier. No limit above becomes zero by it.
	Jitter float64
}
