package ike

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"ipsec-quick/ike/wire"
)

// Endpoint is our end of one tunnel: the IKE SAs with its peers. It is not safe
// for concurrent use.
type Endpoint struct {
	cfg   Config
	peers map[string]*Peer
	state state
	stats Stats

	now     time.Time  // of the Step that runs
	out     []Action   // of the Step that runs
	unsaved []string   // peers of whom that Step changed what has to survive a restart
	waiting []Initiate // new IKE SAs, until it is their turn
	parked  []wire.SPI // IKE SAs with a key exchange that waits for its turn

	next  time.Time // what NextDeadline has said
	asked bool      // since the last Step

	// halfOpen finds the IKE SA that an IKE_SA_INIT request made, when the
	// request comes again: it does not carry our SPI yet.
	halfOpen     map[initKey]wire.SPI
	halfOpenFrom map[netip.Addr]int // how many, by subnet
	cookies      cookieJar
	strangers    *rate.Limiter
	quotas       map[string]*quota // by peer
	leaving      map[string]bool   // peers that are in the configuration no more, until their SAs are gone
}

// state is what the endpoint knows of its IKE SAs and peers.
type state struct {
	SAs    map[wire.SPI]*ikeSA // by our SPI
	ByPeer map[string][]*ikeSA // oldest first; without those whose peer is not known yet
	Peers  map[string]*peerState
}

// New returns the endpoint of a tunnel that has no IKE SA yet.
func New(cfg Config) *Endpoint {
	e := &Endpoint{
		cfg:   cfg,
		peers: map[string]*Peer{},
		state: state{SAs: map[wire.SPI]*ikeSA{}, ByPeer: map[string][]*ikeSA{}, Peers: map[string]*peerState{}},

		halfOpen:     map[initKey]wire.SPI{},
		halfOpenFrom: map[netip.Addr]int{},
		strangers:    newStrangers(),
		quotas:       map[string]*quota{},
		leaving:      map[string]bool{},
	}
	for i := range cfg.Peers {
		p := &cfg.Peers[i]
		e.peers[p.Name] = p
		e.enter(p.Name)
	}
	return e
}

// Step takes one event in and returns what has to be done about it, in order.
// The events that answer an action (SPIAllocated, Installed, Initiate) go in
// after the list is carried out.
func (e *Endpoint) Step(now time.Time, ev Event) []Action {
	e.now, e.out = now, nil
	switch ev := ev.(type) {
	case Datagram:
		if !e.receive(ev) {
			return e.out // a flood costs no more than that
		}
	case Tick:
	case Recovered:
		e.recovered(ev.Present)
	case Initiate:
		e.initiate(ev)
	case PeerAddresses:
		if p := e.peers[ev.Peer]; p != nil {
			p.Addresses = ev.Addresses
		}
	case Acquire:
		e.acquire(ev.Peer)
	case Expire:
		e.expire(ev)
	case Mapping:
		e.mapping(ev)
	case RekeyChild:
		e.rekeyChildren(ev.Peer)
	case RekeyIKE:
		e.rekeyIKE(ev.Peer)
	case Close:
		for i := range e.cfg.Peers {
			if name := e.cfg.Peers[i].Name; ev.Peer == "" || ev.Peer == name {
				e.close(name)
			}
		}
	case Reconfigure:
		e.reconfigure(ev.Peers)
	case SPIAllocated:
		e.spiAllocated(ev)
	case Installed:
		e.installed(ev)
	case Adopt:
		e.adopt(ev.Claim)
	case Claimed:
		e.claimed(ev)
	}
	e.asked = false
	e.elapse()
	e.maintain()
	e.forgetLeft()
	// A snapshot is of what the whole Step led to. Before anything else it holds
	// for all of it, and one is enough.
	persist := make([]Action, 0, len(e.unsaved)+len(e.out))
	for _, peer := range e.unsaved {
		if e.state.Peers[peer] != nil {
			persist = append(persist, Persist{peer})
		}
	}
	e.unsaved = e.unsaved[:0]
	return append(persist, e.out...)
}

// save makes the list of actions begin with Persist for a peer.
func (e *Endpoint) save(peer string) {
	if e.state.Peers[peer] != nil && !slices.Contains(e.unsaved, peer) {
		e.unsaved = append(e.unsaved, peer)
	}
}

// emit appends actions to the list that Step returns.
func (e *Endpoint) emit(actions ...Action) { e.out = append(e.out, actions...) }

// report tells the operator about an IKE SA.
func (e *Endpoint) report(sa *ikeSA, err error, format string, args ...any) {
	r := Report{Peer: sa.Peer, SPIi: sa.SPIi, SPIr: sa.SPIr, Text: fmt.Sprintf(format, args...), Err: err,
		Stranger: !sa.authenticated() && !sa.Original}
	e.emit(r)
}

// receive finds the IKE SA that a datagram is for. It returns false when there
// is none and nothing was kept.
func (e *Endpoint) receive(d Datagram) bool {
	h, err := wire.ParseHeader(d.Data)
	if err != nil {
		e.stats.Malformed++
		return false
	}
	if h.Exchange == wire.IKESAInit && !h.Response {
		return e.receiveInit(d, h, false)
	}
	sa := e.state.SAs[localSPI(h)]
	if sa == nil || sa.Original == h.Initiator {
		e.stats.UnknownSPI++
		return false
	}
	m, err := wire.Parse(d.Data)
	switch {
	case err != nil:
		e.stats.Malformed++
	case m.Exchange == wire.IKESAInit:
		e.receiveInitResponse(sa, d, m)
	case sa.SPIi != m.SPIi || sa.SPIr != m.SPIr || sa.Init != nil && sa.State == initSent:
		e.stats.UnknownSPI++
	default:
		e.receiveProtected(sa, d, m)
	}
	return true
}

// localSPI is the SPI of a received message that is ours: the I flag says that
// the sender is the original initiator (RFC 7296, Section 3.1).
func localSPI(h wire.Header) wire.SPI {
	if h.Initiator {
		return h.SPIr
	}
	return h.SPIi
}

// Owns reports whether one of our IKE SAs has this SPI on our side.
func (e *Endpoint) Owns(spi wire.SPI) bool { return e.state.SAs[spi] != nil }

// LocalSPIs are the SPIs on our side of all IKE SAs.
func (e *Endpoint) LocalSPIs() []wire.SPI {
	spis := make([]wire.SPI, 0, len(e.state.SAs))
	for spi := range e.state.SAs {
		spis = append(spis, spi)
	}
	return spis
}

// Stats counts what was dropped since the endpoint was made.
func (e *Endpoint) Stats() Stats { return e.stats }

// ref is a new reference for an action that is answered.
func (e *Endpoint) ref(sa *ikeSA) Ref {
	ps := e.state.Peers[sa.Peer]
	ps.NextRef++
	return Ref{SA: sa.local(), N: ps.NextRef}
}

// random draws n octets.
func (e *Endpoint) random(n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(e.cfg.Rand, b); err != nil {
		// The source of a process is its kernel's, which does not fail; a test's
		// that runs dry must not go on with zeros for keys.
		panic(fmt.Sprintf("ike: no randomness: %v", err)) //nolint:forbidigo // nothing from outside leads here
	}
	return b
}

// newSPI draws an SPI that none of our IKE SAs has (RFC 7296, Section 2.6).
func (e *Endpoint) newSPI() wire.SPI {
	for {
		spi := wire.SPI(binary.BigEndian.Uint64(e.random(8)))
		if spi != 0 && e.state.SAs[spi] == nil {
			return spi
		}
	}
}

// earlier draws a duration up to the part of d that jitter says before d.
func (e *Endpoint) earlier(d time.Duration, jitter float64) time.Duration {
	return d - time.Duration(float64(d)*jitter*e.fraction())
}

// fraction draws a number from 0 to below 1.
func (e *Endpoint) fraction() float64 {
	return float64(binary.BigEndian.Uint32(e.random(4))) / (1 << 32)
}

// expectedFrom reports whether a peer may speak from an address.
func (p *Peer) expectedFrom(a netip.Addr) bool {
	if len(p.Addresses) == 0 {
		return true
	}
	for _, allowed := range p.Addresses {
		if allowed == a {
			return true
		}
	}
	return false
}
