package ike

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

// saState is how far an IKE SA is.
type saState uint8

const (
	initSent    saState = iota // we sent IKE_SA_INIT and wait for the answer
	halfOpen                   // keys are there, no end is authenticated
	established                // both are
	replaced                   // a rekey made another one; it waits for its DELETE
	deleting                   // we sent its DELETE
	contested                  // the peer's rekey made it while ours is under way; which one stays is open
)

// ikeSA is one IKE SA. The exported fields are its persistent state.
type ikeSA struct {
	Peer          string // empty while half open on the responder's side
	Original      bool   // we are the original initiator
	SPIi, SPIr    wire.SPI
	Local, Remote netip.AddrPort
	NATT          bool // messages carry a non-ESP marker, ESP goes in UDP
	NATHere       bool // there is a NAT before us
	NATThere      bool // there is a NAT before the peer, or it pretends so
	Forced        bool // ESP goes in UDP anyway: we pretend to be behind one
	State         saState
	Choice        suite.Choice
	Keys          suite.IKEKeys
	Fragmentation bool     // the peer takes fragments (RFC 7383)
	PeerHashes    []uint16 // hashes the peer takes in signatures (RFC 7427, Section 4)
	LowestNonce   []byte   // of the exchange that made it (RFC 7296, Section 2.8.1)
	Birth         birth    // of the first one, before all rekeys
	Settings      Settings // that one was negotiated by

	// Init is what the handshake needs until both ends are authenticated.
	Init *handshake

	Send     outgoing
	Recv     incoming
	Children children

	Created, Established time.Time
	SoftAt, HardAt       time.Time // rekey, delete; zero: never
	LastHeard, LastSent  time.Time

	// What can be made again from the rest.
	openCipher, sealCipher *suite.Cipher
	pending                *pending
	// A request and the response to ours may come at the same time.
	fragments struct{ request, response *reassembly }
}

// handshake is what an IKE SA keeps between IKE_SA_INIT and the end of IKE_AUTH.
type handshake struct {
	From                    netip.AddrPort // that the request came from; the IKE SA may float later
	OurMessage, PeerMessage []byte         // IKE_SA_INIT as sent and received, for AUTH
	OurNonce, PeerNonce     []byte
	KE                      *suite.PrivateKE
	Cookie                  []byte
	Group                   wire.TransformID // that the KE payload is for
	Restarts                int              // by COOKIE and INVALID_KE_PAYLOAD
	Others                  bool             // the peer has other addresses to try
	// Hint is an unauthenticated refusal. It ends the attempt only when no
	// better answer comes until GiveUp (RFC 7296, Section 2.21.1).
	Hint   *PeerError
	GiveUp time.Time
}

// local is the SPI on our side.
func (sa *ikeSA) local() wire.SPI {
	if sa.Original {
		return sa.SPIi
	}
	return sa.SPIr
}

// encap reports whether ESP goes in UDP.
func (sa *ikeSA) encap() bool { return sa.NATT && sa.wantsUDP() }

// wantsUDP reports whether ESP cannot or is not to go by itself.
func (sa *ikeSA) wantsUDP() bool { return sa.NATHere || sa.NATThere || sa.Forced }

// seal and open are the ciphers of the two directions, made when first used.
func (sa *ikeSA) seal() (*suite.Cipher, error) {
	var err error
	if sa.sealCipher == nil {
		encr, integ := sa.Keys.Ei, sa.Keys.Ai
		if !sa.Original {
			encr, integ = sa.Keys.Er, sa.Keys.Ar
		}
		sa.sealCipher, err = suite.NewCipher(sa.Choice, encr, integ)
	}
	return sa.sealCipher, err
}

func (sa *ikeSA) open() (*suite.Cipher, error) {
	var err error
	if sa.openCipher == nil {
		encr, integ := sa.Keys.Er, sa.Keys.Ar
		if !sa.Original {
			encr, integ = sa.Keys.Ei, sa.Keys.Ai
		}
		sa.openCipher, err = suite.NewCipher(sa.Choice, encr, integ)
	}
	return sa.openCipher, err
}

// idle reports whether nothing is going on that a rekey of the IKE SA would
// collide with (RFC 7296, Section 2.25.2).
func (sa *ikeSA) idle() bool {
	return sa.Send.Active == nil && len(sa.Send.Queue) == 0 && sa.pending == nil
}

// add remembers a new IKE SA.
func (e *Endpoint) add(sa *ikeSA) {
	e.state.SAs[sa.local()] = sa
	if sa.Peer != "" {
		e.assign(sa, sa.Peer)
	}
}

// assign says whose an IKE SA is.
func (e *Endpoint) assign(sa *ikeSA, peer string) {
	sa.Peer = peer
	list := append(e.state.ByPeer[peer], sa)
	slices.SortFunc(list, func(a, b *ikeSA) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.local(), b.local()))
	})
	e.state.ByPeer[peer] = list
}

// drop forgets an IKE SA and its keys. Its Child SAs must be gone or moved.
func (e *Endpoint) drop(sa *ikeSA) {
	delete(e.state.SAs, sa.local())
	e.state.ByPeer[sa.Peer] = slices.DeleteFunc(e.state.ByPeer[sa.Peer], func(o *ikeSA) bool { return o == sa })
	e.endHandshake(sa)
	sa.Keys.Wipe()
	sa.openCipher, sa.sealCipher, sa.pending = nil, nil, nil
}

// dismiss removes an IKE SA with all its Child SAs, and says why.
func (e *Endpoint) dismiss(sa *ikeSA, err error) {
	if sa.State == deleting {
		e.gone(sa) // whoever waits for it was told why, or waits for Closed
		return
	}
	e.removeChildren(sa)
	wasPeer, wasEstablished := sa.Peer, sa.State == established || sa.State == deleting
	for _, t := range sa.Send.tasks() {
		t.abort(e, sa)
	}
	e.drop(sa)
	e.save(wasPeer)
	if wasPeer != "" {
		e.lost(wasPeer, sa, err, wasEstablished)
	}
}
