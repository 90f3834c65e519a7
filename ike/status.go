package ike

import (
	"net/netip"
	"time"

	"ipsec-quick/ike/wire"
)

// PeerStatus is what `status` shows of one peer. It holds no key.
type PeerStatus struct {
	Name          string
	State         string // "idle", "connecting", "established", "rekeying", "closing"
	Local, Remote netip.AddrPort
	NAT           bool
	SPIi, SPIr    wire.SPI
	Proposal      string // strongSwan's spelling; empty before the IKE SA is established
	Established   time.Time
	RekeyAt       time.Time
	Children      []ChildStatus
	Rekeys        Rekeys
	Expires       Expires
	LastError     string
}

// ChildStatus is one Child SA. Retiring ones only receive what is under way.
type ChildStatus struct {
	Child    ChildSA // keys removed
	Retiring bool
}

// Rekeys counts the finished rekeys of either side, and the failed ones of ours.
type Rekeys struct{ Child, IKE, Failed uint64 }

// Expires counts the limits that the data plane reported.
type Expires struct{ Soft, Hard uint64 }

// Stats counts what was dropped, by reason.
type Stats struct {
	Malformed, UnknownSPI, BadIntegrity, BadMessageID, Replayed, Unexpected, Flooded uint64
}
