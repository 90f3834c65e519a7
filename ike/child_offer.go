package ike

import (
	"encoding/binary"
	"io"
	"slices"

	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

// ChildRequest is the initiator's half of making a Child SA, in IKE_AUTH or
// CREATE_CHILD_SA. It is of no use outside; its name is exported because
// encoding/gob, which carries it over a restart, passes over others.
type ChildRequest struct {
	Ref       uint64
	SPI       uint32 // our inbound one; 0 until allocated
	Offered   []suite.Proposal
	LocalTS   []wire.Selector
	RemoteTS  []wire.Selector
	Transport bool
	Settings  Settings
}

// allocate asks for an SPI and reports whether it is there already.
func (r *ChildRequest) allocate(e *Endpoint, sa *ikeSA) bool {
	if r.SPI != 0 {
		return true
	}
	ref := e.ref(sa)
	r.Ref = ref.N
	e.emit(AllocSPI{Ref: ref, Peer: sa.Peer, Local: sa.Local.Addr(), Remote: sa.Remote.Addr(), Transport: e.peers[sa.Peer].Transport})
	return false
}

// reference is what the data plane's answers carry.
func (r *ChildRequest) reference() uint64 { return r.Ref }

// spi is the SPI on our side of what it makes.
func (r *ChildRequest) spi() uint32 { return r.SPI }

// offer makes the payloads that propose a Child SA.
func (r *ChildRequest) offer(e *Endpoint, sa *ikeSA, proposals []suite.Proposal) []wire.Payload {
	p := e.peers[sa.Peer]
	r.Offered, r.Settings = proposals, p.ChildSettings
	if r.LocalTS == nil {
		r.LocalTS, r.RemoteTS = selectors(p.LocalTS, sa.Local.Addr()), selectors(p.RemoteTS, sa.Remote.Addr())
		r.Transport = p.Transport
	}
	spi := binary.BigEndian.AppendUint32(nil, r.SPI)
	ps := []wire.Payload{wire.SA{Proposals: offer(proposals, wire.ProtocolESP, spi)}}
	if r.Transport {
		ps = append(ps, wire.Notify{Kind: wire.NotifyUseTransportMode})
	}
	return append(ps,
		wire.TS{Selectors: r.LocalTS},
		wire.TS{Responder: true, Selectors: r.RemoteTS})
}

// accept takes the responder's choice and asks the data plane to install it.
func (r *ChildRequest) accept(e *Endpoint, sa *ikeSA, ps payloads, match suite.Match, ni, nr []byte, shared []suite.Secret) progress {
	answer, _ := ps.sa()
	local, _ := ps.ts(false)
	remote, _ := ps.ts(true)
	choice, err := suite.Accept(answer, r.Offered, wire.ProtocolESP, match)
	transport := ps.notify(wire.NotifyUseTransportMode) != nil
	switch {
	case err != nil:
	case !within(local, r.LocalTS) || !within(remote, r.RemoteTS):
		err = &PeerError{Exchange: wire.CreateChildSA, Kind: wire.NotifyTSUnacceptable, Detail: "it answered selectors that we did not offer"}
	case r.Transport != transport:
		err = errMode
	case len(choice.SPI) != 4 || binary.BigEndian.Uint32(choice.SPI) < minSPI:
		err = errSyntax
	}
	if err != nil {
		// The peer has the Child SA: it must not keep it.
		e.submitFirst(sa, &deleteTask{SPIs: []uint32{r.SPI}})
		e.childFailed(sa, err)
		return finished
	}
	c := e.newChild(sa, negotiated{
		choice: choice, spiIn: r.SPI, spiOut: binary.BigEndian.Uint32(choice.SPI), transport: transport,
		localTS: slices.Clone(local), remoteTS: slices.Clone(remote), settings: r.Settings, ni: ni, nr: nr, shared: shared,
	}, true)
	ref := e.ref(sa)
	r.Ref = ref.N
	e.save(sa.Peer)
	e.emit(InstallChild{Ref: ref, Child: c.ChildSA})
	return waiting
}

// minSPI is the first SPI that is not reserved (RFC 4303, Section 2.1).
const minSPI = 256

// espOffer is what we propose for ESP. In IKE_AUTH the Child SA has no key
// exchange of its own.
func (p *Peer) espOffer(inAuth bool) []suite.Proposal {
	list := make([]suite.Proposal, 0, len(p.ESP))
	for _, own := range p.ESP {
		ids := own.KE()
		switch {
		case inAuth || p.PFS == PFSNo:
			ids = nil
		case p.PFS == PFSAuto && len(ids) > 0 && !slices.Contains(ids, wire.KENone):
			ids = append(slices.Clone(ids), wire.KENone)
		}
		list = append(list, own.WithKE(ids...))
	}
	return list
}

// pending is a request of the peer that waits for the data plane or for the
// other tunnels of the host. It is not persistent: the peer asks again.
type pending struct {
	ref       uint64
	old       *child // that it replaces, if any
	lowest    []byte // nonce
	allocated func(uint32, error)
	installed func(error)
	claimed   func(adopted bool)
}

// waiter is a task that waits for the data plane.
type waiter interface {
	reference() uint64
	spi() uint32
	allocated(e *Endpoint, sa *ikeSA, spi uint32, err error)
	installed(e *Endpoint, sa *ikeSA, err error)
}

// making is the Child SA that a task of ours waits to see installed, or nil.
func (sa *ikeSA) making() *child {
	if w, ok := sa.Send.Active.(waiter); ok {
		if c := sa.Children[w.spi()]; c != nil && c.State == childInstalling {
			return c
		}
	}
	return nil
}

// spiAllocated takes an SPI to who asked for it.
func (e *Endpoint) spiAllocated(ev SPIAllocated) {
	sa := e.state.SAs[ev.Ref.SA]
	if sa == nil {
		return // the larval SA in the data plane goes by itself
	}
	if w, ok := sa.Send.Active.(waiter); ok && w.reference() == ev.Ref.N {
		w.allocated(e, sa, ev.SPI, ev.Err)
		return
	}
	if sa.pending != nil && sa.pending.ref == ev.Ref.N && sa.pending.allocated != nil {
		sa.pending.allocated(ev.SPI, ev.Err)
	}
}

// installed takes the data plane's verdict to who waits for it.
func (e *Endpoint) installed(ev Installed) {
	sa := e.state.SAs[ev.Ref.SA]
	if sa == nil {
		return
	}
	if w, ok := sa.Send.Active.(waiter); ok && w.reference() == ev.Ref.N {
		w.installed(e, sa, ev.Err)
		return
	}
	if sa.pending != nil && sa.pending.ref == ev.Ref.N && sa.pending.installed != nil {
		sa.pending.installed(ev.Err)
	}
}

// claimed goes on after the other tunnels of the host were asked.
func (e *Endpoint) claimed(ev Claimed) {
	if sa := e.state.SAs[ev.SA]; sa != nil && sa.pending != nil && sa.pending.claimed != nil {
		p := sa.pending
		sa.pending = nil
		p.claimed(ev.Adopted)
	}
}

// agree makes our half of a key exchange as the responder, and the secret.
func agree(group wire.TransformID, theirs []byte, rand io.Reader) (public []byte, shared suite.Secret, err error) {
	ke, err := suite.GenerateKE(group, rand)
	if err != nil {
		return nil, nil, err
	}
	defer ke.Wipe()
	shared, err = ke.Shared(theirs)
	return ke.Public, shared, err
}
