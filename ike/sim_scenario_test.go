package ike

import (
	"io"
	"net/netip"
	"time"

	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

// profile is what a seed decides once.
type profile struct {
	lostEvents int // of the kernel, in a hundred
	failing    int // calls into the data plane and look-ups, in a hundred
	// taken: things happen that take the tunnel down. Without, it may never be.
	taken   bool
	mishaps int // how many things happen
}

var simNames = []string{"a", "b", "c"}

// begin makes the world. Endpoints draw from source.
func (w *world) begin(source io.Reader) {
	w.keys, w.sent, w.windows = map[string]bool{}, map[sentID]*datagram{}, map[windowID]*window{}
	pick := func(n ...int) int { return n[w.rand.IntN(len(n))] }
	w.conditions = conditions{
		loss: pick(0, 0, 5, 15, 30), duplicates: pick(0, 0, 10, 30),
		delay:    time.Duration(pick(1, 20, 200, 2000)) * time.Millisecond,
		delayESP: time.Duration(pick(1, 100, 2000)) * time.Millisecond,
	}
	w.profile = profile{
		lostEvents: pick(0, 0, 20, 60), failing: pick(0, 0, 0, 5, 20),
		taken: w.chance(30), mishaps: pick(4, 8, 16, 24),
	}
	count := pick(2, 2, 2, 3)
	for i := range count {
		w.addHost(simNames[i], netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), source)
	}
	for _, h := range w.hosts[1:] {
		w.pairUp(w.hosts[0], h)
	}
	for _, h := range w.hosts {
		w.after(w.within(2*time.Second), func() {
			if h.life == 0 {
				h.begin()
			}
		})
		if w.chance(10) {
			h.crashIn = w.rand.IntN(40) // while they connect
			w.troubleUntil = trouble
		}
	}
	for range w.profile.mishaps {
		w.after(w.within(trouble), w.mishap)
	}
	w.traffic()
}

// The suites of the simulation: one AEAD, and with Curve25519 the fastest key
// exchange.
var (
	simIKE   = mustSuite(suite.ParseIKE("aes128gcm16-prfsha256-x25519"))
	simESP   = mustSuite(suite.ParseESP("aes128gcm16-x25519-noesn"))
	simNoPFS = mustSuite(suite.ParseESP("aes128gcm16-noesn"))
)

func mustSuite(p suite.Proposal, err error) []suite.Proposal {
	if err != nil {
		panic(err)
	}
	return []suite.Proposal{p}
}

// pairUp configures a tunnel between a hub and a peer.
func (w *world) pairUp(hub, h *simHost) {
	w.pairs = append(w.pairs, &pair{hosts: [2]*simHost{hub, h}, down: true})
	p, q := w.peer(hub, h), w.peer(h, hub)
	switch w.rand.IntN(4) {
	case 0: // both
	case 1:
		p.Start = StartPassive
	case 2:
		q.Start = StartPassive
	case 3:
		p.Start, q.Start = StartOnDemand, StartPassive
	}
	pfs := []PFS{PFSAuto, PFSYes, PFSNo}[w.rand.IntN(3)]
	if pfs == PFSNo && w.chance(50) {
		p.ESP, q.ESP = simNoPFS, simNoPFS
	}
	p.PFS, q.PFS = pfs, pfs
	if w.chance(10) {
		p.Fragment, q.Fragment = 200, 200
	}
	hub.cfg.Peers, h.cfg.Peers = append(hub.cfg.Peers, p), append(h.cfg.Peers, q)
}

// peer is how a host sees another one.
func (w *world) peer(from, to *simHost) Peer {
	p := Peer{
		Name: to.name, Addresses: []netip.Addr{to.addr}, IKE: simIKE, ESP: simESP,
		LocalTS: simTS(from.index), RemoteTS: simTS(to.index), DPD: 10*time.Second + w.within(20*time.Second), Fragment: 1280,
	}
	p.Local.PSK, p.Remote.PSK = suite.Secret("secret"), suite.Secret("secret")
	seconds := func(from, to int) time.Duration { return time.Duration(from+w.rand.IntN(to-from)) * time.Second }
	// From the soft limit there is time enough to the hard one for an exchange over
	// a network as bad as it gets, or for the loop to find a lost event.
	if w.chance(40) {
		p.Soft.Time = seconds(8, 40)
		p.Hard.Time = p.Soft.Time + 80*time.Second
	}
	if w.chance(30) {
		p.Soft.Packets = uint64(20 + w.rand.IntN(200))
		p.Hard.Packets = p.Soft.Packets + 5000
	}
	if w.chance(20) {
		p.Soft.Bytes = packetSize * uint64(20+w.rand.IntN(200))
		p.Hard.Bytes = p.Soft.Bytes + 5000*packetSize
	}
	if w.chance(30) {
		p.IKESoft = seconds(10, 60)
		p.IKEHard = p.IKESoft + 100*time.Second
	}
	p.Jitter = w.rand.Float64() / 2
	return p
}

// simTS are the selectors of a host.
func simTS(index int) []wire.Selector { return prefixTS(simPrefixes[index]) }

var simPrefixes = []string{"10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"}

// traffic sends packets now and then, beside those after each action.
func (w *world) traffic() {
	for _, p := range w.pairs {
		w.packet(p, p.hosts[0])
		w.packet(p, p.hosts[1])
	}
	w.after(w.within(2*time.Second), w.traffic)
}

// trouble bounds how much may go wrong at once: whoever is frozen or crashes
// comes back, and what he missed is done, before the next one does.
func (w *world) trouble() { w.troubleUntil = w.now + 40*time.Second }

// mishap is one thing that happens to a pair, or to both its ends within the time
// that a datagram takes.
func (w *world) mishap() {
	if w.kind {
		return
	}
	p := w.pairs[w.rand.IntN(len(w.pairs))]
	i := w.rand.IntN(2)
	h, o := p.hosts[i], p.hosts[1-i]
	soon := func(h *simHost, ev Event) { w.after(w.within(w.delay), func() { h.happens(ev) }) }
	softly := func(h, o *simHost) {
		if sa := h.outbound(o); sa != nil {
			soon(h, Expire{Child: sa.id})
		}
	}
	switch w.rand.IntN(16) {
	case 0:
		soon(h, RekeyChild{o.name})
	case 1:
		soon(h, RekeyIKE{o.name})
	case 2, 3:
		soon(h, RekeyChild{o.name})
		soon(o, RekeyChild{h.name})
	case 4:
		soon(h, RekeyIKE{o.name})
		soon(o, RekeyIKE{h.name})
	case 5:
		soon(h, RekeyIKE{o.name})
		soon(o, RekeyChild{h.name})
	case 6:
		soon(h, RekeyChild{o.name})
		soon(h, RekeyIKE{o.name})
		soon(o, RekeyChild{h.name})
		soon(o, RekeyIKE{h.name})
	case 7:
		softly(h, o)
		softly(o, h)
	case 8:
		by := time.Duration(1+w.rand.IntN(3600)) * time.Second
		if w.chance(50) {
			by = -by
		}
		h.clockSteps(by)
	case 9, 10:
		w.crash(p, h, o)
	case 11:
		if w.now >= w.troubleUntil && h.alive {
			w.trouble()
			h.freeze(w.within(12 * time.Second))
			soon(o, RekeyChild{h.name})
		}
	case 12, 13:
		w.after(w.within(w.delay), func() { w.reload(h, o) })
	default:
		if w.profile.taken {
			w.takeDown(p, h, o)
		}
	}
}

// crash lets one process or both end soon, with something to do meanwhile.
func (w *world) crash(p *pair, h, o *simHost) {
	if w.now < w.troubleUntil {
		return
	}
	w.trouble()
	arm := func(h *simHost) {
		if h.alive {
			h.crashSoon(w.rand.IntN(20))
		}
	}
	arm(h)
	if w.chance(30) {
		arm(o)
	}
	for _, end := range p.hosts {
		for _, p := range end.cfg.Peers {
			switch w.rand.IntN(4) {
			case 0, 1:
				end.happens(RekeyChild{p.Name})
			case 2:
				end.happens(RekeyIKE{p.Name})
			}
		}
	}
}

// takeDown does what takes a tunnel down.
func (w *world) takeDown(p *pair, h, o *simHost) {
	switch w.rand.IntN(4) {
	case 0:
		if h.alive && !h.frozen && h.closing == nil {
			h.close()
		}
	case 1:
		h.reboot(3 * time.Second)
	case 2:
		if sa := h.outbound(o); sa != nil {
			w.cause(h, o.name)
			h.hardExpires(sa)
		}
	case 3:
		if w.now >= w.troubleUntil && h.alive && !h.frozen {
			away := 30*time.Second + w.within(60*time.Second)
			w.troubleUntil = w.now + away + 40*time.Second
			for _, p := range w.pairs {
				if p.has(h) {
					p.mayLose = w.troubleUntil
				}
			}
			h.freeze(away)
		}
	}
}

// calm ends all trouble.
func (w *world) calm() {
	w.kind = true
	w.note(nil, "from now on all is well")
	for _, h := range w.hosts {
		h.crashIn = -1
		h.thaw()
	}
}
