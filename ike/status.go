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
	RekeyAt       time.Time // the soft limit; zero: none, or it is being rekeyed
	ExpireAt      time.Time // the hard limit; zero: none
	Children      []ChildStatus
	Rekeys        Rekeys
	Expires       Expires
	LastError     string
}

// ChildStatus is one Child SA. Retiring ones only receive what is under way; of
// those that are being rekeyed a soft limit is no news.
type ChildStatus struct {
	Child              ChildSA // keys removed
	Retiring, Rekeying bool
}

// Rekeys counts the finished rekeys of either side, and the failed ones of ours.
type Rekeys struct {
	Child, IKE, Failed uint64
	Last               time.Time // when one was finished; zero: none was
}

// Expires counts the limits that the data plane reported.
type Expires struct{ Soft, Hard uint64 }

// Stats counts what was dropped, by reason.
type Stats struct {
	Malformed, UnknownSPI, BadIntegrity, BadMessageID, Replayed, Unexpected, Flooded uint64
}

// Status describes all peers in the order of the configuration.
func (e *Endpoint) Status() []PeerStatus {
	list := make([]PeerStatus, 0, len(e.cfg.Peers))
	for i := range e.cfg.Peers {
		list = append(list, e.peerStatus(e.cfg.Peers[i].Name))
	}
	return list
}

func (e *Endpoint) peerStatus(name string) PeerStatus {
	ps := e.state.Peers[name]
	s := PeerStatus{Name: name, State: "idle", Rekeys: ps.Rekeys, Expires: ps.Expires, LastError: ps.LastError}
	sas := e.ofPeer(name)
	for _, sa := range sas {
		for _, c := range sa.sorted() {
			s.Children = append(s.Children, ChildStatus{
				Child: c.ChildSA.withoutKeys(), Retiring: c.State != childLive, Rekeying: c.Rekeying || c.ReplacedBy != 0,
			})
		}
	}
	sa := e.current(name)
	switch {
	case sa != nil && ps.Outbound != 0:
		s.State = "established"
		if e.rekeyQueued(sa) || sa.rekeyingChild() {
			s.State = "rekeying"
		}
	case len(sas) > 0:
		s.State = "connecting"
		if ps.Closed {
			s.State = "closing"
		}
		sa = sas[len(sas)-1]
	}
	if sa == nil {
		return s
	}
	s.Local, s.Remote, s.NAT = sa.Local, sa.Remote, sa.NATHere || sa.NATThere
	s.SPIi, s.SPIr = sa.SPIi, sa.SPIr
	if sa.State != initSent {
		s.Proposal = sa.Choice.String()
	}
	s.Established, s.RekeyAt, s.ExpireAt = sa.Established, sa.SoftAt, sa.HardAt
	return s
}

// rekeyingChild reports whether a rekey of ours is under way.
func (sa *ikeSA) rekeyingChild() bool {
	for _, c := range sa.Children {
		if c.Rekeying {
			return true
		}
	}
	return false
}
