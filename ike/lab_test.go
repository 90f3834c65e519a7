package ike

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"ipsec-quick/ike/auth"
	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

// host is one end in a test: an endpoint, its data plane, and what it said.
type host struct {
	t                    testing.TB
	name                 string
	addr                 netip.Addr
	e                    *Endpoint
	cfg                  Config
	nextSPI              uint32
	in, out              map[uint32]ChildSA // installed, by SPI
	active               *ChildSA           // that the policies use
	saved                map[string][]byte  // the last snapshots, by peer
	said                 []Action           // Established, Lost, Closed, Report, Unclaimed
	failSPI, failInstall bool
	noResolve            bool
	mute                 bool // Resolve is not answered
	slow                 bool // answers come later, from late
	late                 []Event
	resolved             netip.Addr // of the peer, if it is not the other host's own
	keepalives           int
	// claim answers Unclaimed for an IKE_AUTH request: another tunnel adopted it.
	claim func(Claim) bool
	sent  map[sealedID][]byte
}

// network is two hosts, the datagrams under way and the time.
type network struct {
	t     testing.TB
	now   time.Time
	hosts []*host
	queue []Send
	// flowing: after each single action packets have to pass both ways.
	flowing bool
	trace   []string // what happened last
	// drop decides whether a datagram is lost; nil: none is.
	drop func(Send) bool
	// crash tells after each action whether the host's process ends here.
	crash func(h *host) bool
	// nat translates the source address of what leaves a host; nil: no NAT.
	nat map[netip.AddrPort]netip.AddrPort
}

var (
	addrA = netip.MustParseAddr("192.0.2.1")
	addrB = netip.MustParseAddr("192.0.2.2")
	start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

func prefixTS(p string) []wire.Selector {
	prefix := netip.MustParsePrefix(p)
	last := prefix.Addr().AsSlice()
	for i := prefix.Bits(); i < len(last)*8; i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	to, _ := netip.AddrFromSlice(last)
	return []wire.Selector{{ToPort: 65535, From: prefix.Addr(), To: to}}
}

func proposal(t testing.TB, parse func(string) (suite.Proposal, error), s string) []suite.Proposal {
	t.Helper()
	p, err := parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return []suite.Proposal{p}
}

// defaultPeer is a peer with a pre-shared key.
func defaultPeer(t testing.TB, name string, psk string) Peer {
	return Peer{
		Name: name, Local: auth.Local{PSK: suite.Secret(psk)}, Remote: auth.Remote{PSK: suite.Secret(psk)},
		IKE: proposal(t, suite.ParseIKE, "aes256gcm16-prfsha256-x25519"), IKESoft: 4 * time.Hour, IKEHard: 5 * time.Hour,
		ESP: proposal(t, suite.ParseESP, "aes256gcm16-x25519-esn-noesn"),
		DPD: 30 * time.Second, Fragment: 1280,
		Soft: Limits{Time: 50 * time.Minute}, Hard: Limits{Time: time.Hour},
	}
}

// newNetwork makes two hosts: a initiates to b. change edits their configurations.
func newNetwork(t testing.TB, seed uint64, change func(a, b *Peer)) *network {
	pa, pb := defaultPeer(t, "b", "secret"), defaultPeer(t, "a", "secret")
	pa.Start, pb.Start = StartNow, StartPassive
	pa.LocalTS, pa.RemoteTS = prefixTS("10.1.0.0/16"), prefixTS("10.2.0.0/16")
	pb.LocalTS, pb.RemoteTS = prefixTS("10.2.0.0/16"), prefixTS("10.1.0.0/16")
	if change != nil {
		change(&pa, &pb)
	}
	n := &network{t: t, now: start}
	source := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	n.add("a", addrA, source, pa)
	n.add("b", addrB, source, pb)
	return n
}

func (n *network) add(name string, addr netip.Addr, source io.Reader, peers ...Peer) *host {
	h := &host{t: n.t, name: name, addr: addr, nextSPI: 0xc0000000 + uint32(len(n.hosts))<<16, in: map[uint32]ChildSA{}, out: map[uint32]ChildSA{}, sent: map[sealedID][]byte{}}
	h.cfg = Config{Peers: peers, Rand: source, NATPort: 4500}
	h.e = New(h.cfg)
	n.hosts = append(n.hosts, h)
	return h
}

func (n *network) a() *host { return n.hosts[0] }
func (n *network) b() *host { return n.hosts[1] }

// step gives an event to a host and carries out what it wants.
func (n *network) step(h *host, ev Event) {
	events := []Event{ev}
	for len(events) > 0 {
		actions := h.e.Step(n.now, events[0])
		events = events[1:]
		for _, a := range actions {
			if answer := h.do(n, a); answer != nil && h.slow {
				h.late = append(h.late, answer)
			} else if answer != nil {
				events = append(events, answer)
			}
			if n.flowing {
				n.mustFlow()
			}
			if n.crash != nil && n.crash(h) {
				n.restart(h)
				return
			}
		}
	}
}

// record remembers what happened, in one line an action, for a failing test.
func (n *network) record(h *host, a Action) {
	switch a.(type) {
	case Persist, AllocSPI, Send:
		return
	}
	n.trace = append(n.trace, fmt.Sprintf("%s %s: %s", n.now.Sub(start), h.name, actionText(a)))
	if len(n.trace) > 400 {
		n.trace = n.trace[1:]
	}
}

// actionText is an action in one line.
func actionText(a Action) string {
	switch a := a.(type) {
	case Report:
		return fmt.Sprintf("%s %s mid %d %s %v", a.SPIi, a.Exchange, a.MessageID, a.Text, a.Err)
	case InstallChild:
		return fmt.Sprintf("install in %08x out %08x", a.Child.SPIIn, a.Child.SPIOut)
	case SwitchOutbound:
		return fmt.Sprintf("switch to in %08x out %08x", a.Child.SPIIn, a.Child.SPIOut)
	case RemoveChild:
		return fmt.Sprintf("remove in %08x out %08x", a.Child.SPIIn, a.Child.SPIOut)
	}
	return fmt.Sprintf("%T", a)
}

// do carries out one action and checks that it makes sense.
func (h *host) do(n *network, a Action) Event {
	n.record(h, a)
	switch a := a.(type) {
	case Persist:
		b, err := h.e.Snapshot(a.Peer)
		if err != nil {
			h.t.Fatal(err)
		}
		if h.saved == nil {
			h.saved = map[string][]byte{}
		}
		h.saved[a.Peer] = b
	case AllocSPI:
		if h.failSPI {
			return SPIAllocated{Ref: a.Ref, Err: errors.New("no SPI")}
		}
		h.nextSPI++
		return SPIAllocated{Ref: a.Ref, SPI: h.nextSPI}
	case InstallChild:
		if h.failInstall {
			return Installed{Ref: a.Ref, Err: errors.New("no memory")}
		}
		if _, twice := h.in[a.Child.SPIIn]; twice {
			h.t.Fatalf("%s: SPI %08x installed twice", h.name, a.Child.SPIIn)
		}
		h.in[a.Child.SPIIn], h.out[a.Child.SPIOut] = cloneKeys(a.Child), cloneKeys(a.Child)
		return Installed{Ref: a.Ref}
	case SwitchOutbound:
		if _, ok := h.out[a.Child.SPIOut]; !ok {
			h.t.Fatalf("%s: switched to an SA %08x that is not there", h.name, a.Child.SPIOut)
		}
		c := a.Child
		h.active = &c
	case UpdateChild:
		h.in[a.New.SPIIn], h.out[a.New.SPIOut] = cloneKeys(a.New), cloneKeys(a.New)
	case RemoveChild:
		delete(h.in, a.Child.SPIIn)
		delete(h.out, a.Child.SPIOut)
	case RemovePolicies:
		h.active = nil
	case Send:
		h.sealedOnce(a.Data)
		n.queue = append(n.queue, a)
	case Keepalive:
		h.keepalives++
	case Resolve:
		if h.mute {
			return nil
		}
		if h.noResolve {
			return Initiate{Peer: a.Peer, Err: errors.New("no such host")}
		}
		remote := addrB
		if h.addr == addrB {
			remote = addrA
		}
		if h.resolved.IsValid() {
			remote = h.resolved
		}
		return Initiate{Peer: a.Peer, Local: netip.AddrPortFrom(h.addr, 500), Remote: netip.AddrPortFrom(remote, 500)}
	case Unclaimed:
		h.said = append(h.said, a)
		if len(a.Claim.SA) > 0 {
			return Claimed{SA: a.Claim.SPI, Adopted: h.claim != nil && h.claim(a.Claim)}
		}
	default:
		h.said = append(h.said, a)
	}
	return nil
}

// cloneKeys copies the keys, as a data plane does: the core may wipe its own.
func cloneKeys(c ChildSA) ChildSA {
	c.In = DirectionKeys{slices.Clone(c.In.Encr), slices.Clone(c.In.Integ)}
	c.Out = DirectionKeys{slices.Clone(c.Out.Encr), slices.Clone(c.Out.Integ)}
	return c
}

// settle delivers what is under way until nothing is.
func (n *network) settle() {
	for range 10000 {
		if len(n.queue) == 0 {
			return
		}
		s := n.queue[0]
		n.queue = n.queue[1:]
		n.deliver(s)
	}
	n.t.Fatal("the network does not come to rest")
}

func (n *network) deliver(s Send) {
	if n.drop != nil && n.drop(s) {
		return
	}
	from, to := s.Local, s.Remote
	if outer, ok := n.nat[from]; ok {
		from = outer
	}
	for inner, outer := range n.nat {
		if outer == to {
			to = inner
		}
	}
	if h := n.at(to.Addr()); h != nil {
		n.step(h, Datagram{Local: to, Remote: from, NATT: s.NATT, Data: slices.Clone(s.Data)})
	}
}

// at is the host with an address, if any.
func (n *network) at(a netip.Addr) *host {
	for _, h := range n.hosts {
		if h.addr == a {
			return h
		}
	}
	return nil
}

// run lets time pass, with all that it brings about.
func (n *network) run(d time.Duration) {
	end := n.now.Add(d)
	n.settle()
	for range 100000 {
		next := end
		for _, h := range n.hosts {
			if at := h.e.NextDeadline(); !at.IsZero() && at.Before(next) {
				next = at
			}
		}
		if next.After(n.now) {
			n.now = next
		}
		for _, h := range n.hosts {
			if at := h.e.NextDeadline(); !at.IsZero() && !n.now.Before(at) {
				n.step(h, Tick{})
			}
		}
		n.settle()
		if !n.now.Before(end) {
			return
		}
	}
	n.t.Fatalf("time does not pass: %s", n.now)
}

// up starts the hosts and lets them connect.
func (n *network) up() {
	for _, h := range n.hosts {
		n.step(h, Tick{})
	}
	n.run(time.Second)
}

// flows reports why a packet from a host does not reach the other; nil: it does.
func (n *network) flows(from, to *host) error {
	if from.active == nil {
		return fmt.Errorf("%s has no outbound SA", from.name)
	}
	out, ok := from.out[from.active.SPIOut]
	if !ok {
		return fmt.Errorf("%s uses an outbound SA %08x that is removed", from.name, from.active.SPIOut)
	}
	in, ok := to.in[out.SPIOut]
	if !ok {
		return fmt.Errorf("%s has no inbound SA %08x", to.name, out.SPIOut)
	}
	if !slices.Equal(in.In.Encr, out.Out.Encr) || !slices.Equal(in.In.Integ, out.Out.Integ) || len(in.In.Encr) == 0 {
		return fmt.Errorf("keys of %08x differ", out.SPIOut)
	}
	return nil
}

// mustFlow fails the test unless packets pass both ways.
func (n *network) mustFlow() {
	n.t.Helper()
	if err := errors.Join(n.flows(n.a(), n.b()), n.flows(n.b(), n.a())); err != nil {
		n.t.Fatalf("at %s: %v\n%s", n.now.Sub(start), err, n.log())
	}
}

// log is what happened last.
func (n *network) log() string { return strings.Join(n.trace, "\n") }

// said returns the last action of a type that a host said.
func said[A Action](h *host) (A, bool) {
	for _, a := range slices.Backward(h.said) {
		if a, ok := a.(A); ok {
			return a, true
		}
	}
	var none A
	return none, false
}

func ipPort(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, 500) }

func spiOctets(spi wire.SPI) []byte { return binary.BigEndian.AppendUint64(nil, uint64(spi)) }
