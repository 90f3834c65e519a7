package ike

import (
	"net/netip"
	"time"

	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

// Action is something that the caller of [Endpoint.Step] has to do. The order
// of a list of actions is a contract: what is persisted comes before what is
// installed, and that before what is sent.
type Action interface{ action() }

// ChildID names one direction of a Child SA on this host: ESP, the destination
// address and the SPI (RFC 4301, Section 4.1).
type ChildID struct {
	Dst netip.Addr
	SPI uint32
}

// ChildSA is a pair of ESP SAs and what they protect. In and out are relative
// to us.
type ChildSA struct {
	Peer              string
	SPIIn, SPIOut     uint32
	Choice            suite.Choice
	In, Out           DirectionKeys
	Local, Remote     netip.AddrPort // outer addresses; the ports matter with Encap
	Encap             bool           // ESP in UDP (RFC 3948)
	Transport         bool
	LocalTS, RemoteTS []wire.Selector
	Soft, Hard        Limits // the jitter is drawn
	Created           time.Time
}

// DirectionKeys are the keys of one direction. The key of an AEAD has its salt
// at the end (RFC 4106, Section 8.1).
type DirectionKeys struct{ Encr, Integ suite.Secret }

// InID and OutID name the two directions of the Child SA.
func (c *ChildSA) InID() ChildID  { return ChildID{c.Local.Addr(), c.SPIIn} }
func (c *ChildSA) OutID() ChildID { return ChildID{c.Remote.Addr(), c.SPIOut} }

type (
	// Persist: write [Endpoint.Snapshot] of the peer where it survives this
	// process.
	Persist struct{ Peer string }
	// AllocSPI: reserve an SPI for an inbound ESP SA, answer with [SPIAllocated].
	AllocSPI struct {
		Ref           Ref
		Peer          string
		Local, Remote netip.Addr
		Transport     bool
	}
	// InstallChild: add the inbound SA (on the SPI allocated), then the outbound
	// one; answer with [Installed]. No packet uses the outbound SA before
	// [SwitchOutbound]. On an error nothing of it stays.
	InstallChild struct {
		Ref   Ref
		Child ChildSA
	}
	// SwitchOutbound: the policies of the Child SA's selectors are in place and
	// its outbound SA is the one they use.
	SwitchOutbound struct{ Child ChildSA }
	// UpdateChild: the outer addresses or ports of an installed Child SA changed
	// from those in Old.
	UpdateChild struct{ Old, New ChildSA }
	// RemoveChild: both SAs go. One that is gone already is no error.
	RemoveChild struct{ Child ChildSA }
	// RemovePolicies: no Child SA covers these selectors any more; what guards
	// them against leaving in clear stays.
	RemovePolicies struct{ Child ChildSA }
	// Send: one UDP datagram; with NATT a non-ESP marker goes before it.
	Send struct {
		Local, Remote netip.AddrPort
		NATT          bool
		Data          []byte
	}
	// Keepalive: the one octet 0xFF that keeps a NAT mapping (RFC 3948, Section 4).
	Keepalive struct{ Local, Remote netip.AddrPort }
	// Resolve: find the addresses for a peer now, answer with [Initiate].
	Resolve struct{ Peer string }
	// Unclaimed: a request that is for none of our peers; another tunnel of this
	// host may want it.
	Unclaimed struct{ Claim Claim }
	// Established: the peer is authenticated and a Child SA carries its traffic.
	Established struct{ Peer string }
	// Lost: what was established or being tried is no more. Err is the reason;
	// Retry when (if ever) the next attempt starts.
	Lost struct {
		Peer  string
		Err   error
		Retry time.Time
	}
	// Closed: [Close] is done.
	Closed struct{ Peer string }
	// Report: a line for the operator.
	Report struct {
		Peer       string
		SPIi, SPIr wire.SPI
		Exchange   wire.ExchangeType
		MessageID  uint32
		Text       string
		Err        error
		// Stranger: a message made it whose sender is not authenticated.
		Stranger bool
	}
)

func (Persist) action()        {}
func (AllocSPI) action()       {}
func (InstallChild) action()   {}
func (SwitchOutbound) action() {}
func (UpdateChild) action()    {}
func (RemoveChild) action()    {}
func (RemovePolicies) action() {}
func (Send) action()           {}
func (Keepalive) action()      {}
func (Resolve) action()        {}
func (Unclaimed) action()      {}
func (Established) action()    {}
func (Lost) action()           {}
func (Closed) action()         {}
func (Report) action()         {}

// Claim is a message that none of our peers answers to, and with an IKE_AUTH
// request the half-open IKE SA that it belongs to (gob, with keys: it may only
// travel between processes of the same owner).
type Claim struct {
	Datagram Datagram
	Known    bool     // the sender of an IKE_SA_INIT request showed a cookie
	SPI      wire.SPI // our SPI of that IKE SA; zero with an IKE_SA_INIT request
	SA       []byte   // empty for an IKE_SA_INIT request
	Request  []byte   // with SA: the payloads of the IKE_AUTH request, decrypted
	First    wire.PayloadType
}
