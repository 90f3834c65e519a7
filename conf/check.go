package conf

import (
	"crypto"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// checkPeer looks for what a peer's keys say against each other.
func (d *decoder) checkPeer(p *Peer, s *spot) {
	outer := familyOf(p.Endpoint.Addr)
	if local := familyOf(p.Address); local != 0 {
		if outer != 0 && outer != local {
			d.add(s.endpoint, "write two addresses of one family", "the endpoint %s is IPv%d, and local.address %s is IPv%d", p.Endpoint.Addr, outer, p.Address, local)
			return
		}
		outer = local
	}
	if p.Address.IsValid() && p.Endpoint.Addr == p.Address {
		d.add(s.endpoint, "write the peer's address", "the endpoint is local.address %s, our own", p.Address)
	}
	d.checkDuplicates(p.LocalTS, s.localTS)
	d.checkDuplicates(p.RemoteTS, s.remoteTS)
	d.checkFamilies(p.LocalTS, s.localTS, p.RemoteTS, "remote_ts", outer)
	d.checkFamilies(p.RemoteTS, s.remoteTS, p.LocalTS, "local_ts", outer)
	if p.Mode == ModeTransport {
		d.checkTransport(p.LocalTS, s.localTS)
		d.checkTransport(p.RemoteTS, s.remoteTS)
	}
}

func (d *decoder) checkDuplicates(list []TS, at []place) {
	for i, ts := range list {
		if slices.Contains(list[:i], ts) {
			d.add(at[i], "leave one out", "%s is here twice", ts)
		}
	}
}

// checkFamilies sees that each selector of one end has one of its family at
// the other: a packet's two addresses are of one family. outer is the family
// of dynamic selectors, 0 if it is not known.
func (d *decoder) checkFamilies(list []TS, at []place, others []TS, other string, outer int) {
	families := []int{}
	for _, ts := range ResolveTS(others, netip.Addr{}) {
		f := outer
		if from, _ := ts.Bounds(); from.IsValid() {
			f = familyOf(from)
		}
		families = append(families, f)
	}
	if slices.Contains(families, 0) {
		return
	}
	for i, ts := range list {
		from, _ := ts.Bounds()
		f := familyOf(from)
		if f == 0 || slices.Contains(families, f) {
			continue
		}
		spelled := make([]string, len(others))
		for j, o := range others {
			spelled[j] = o.String()
		}
		what := fmt.Sprintf("%s (%s) has none of that", other, strings.Join(spelled, ", "))
		if len(others) == 0 {
			what = fmt.Sprintf("%s, left out, is an address of IPv%d", other, outer)
		}
		d.add(at[i], fmt.Sprintf("write a network of IPv%d in %s too, or leave this one out", f, other), "%s is IPv%d, and %s", ts, f, what)
	}
}

// checkTransport sees that there is but one host at an end.
func (d *decoder) checkTransport(list []TS, at []place) {
	hosts := map[int]netip.Addr{}
	for i, ts := range list {
		from, to := ts.Bounds()
		switch f := familyOf(from); {
		case ts.Dynamic():
		case from != to:
			d.add(at[i], `write mode = "tunnel", or the address of one host, or leave it out for the address used`,
				`%s is more than one host, and mode is "transport"`, ts)
		case hosts[f].IsValid() && hosts[f] != from:
			d.add(at[i], `write mode = "tunnel", or one host`, `%s and %s are two hosts, and mode is "transport"`, hosts[f], from)
		default:
			hosts[f] = from
		}
	}
}

// together looks for peers that get into each other's way.
func (d *decoder) together(peers []Peer, spots []spot) {
	for i := range peers {
		for j := range i {
			a, b := &peers[j], &peers[i]
			if a.Name == b.Name && b.Name != "" {
				d.add(spots[i].name, "give each its own", "the peer on line %d is named %q too", spots[j].peer.pos.line, b.Name)
			}
			d.checkSelectors(a, b, &spots[i])
			d.checkIdentities(a, b, &spots[i])
		}
	}
}

// checkSelectors refuses two peers that claim the same traffic, and remarks on
// two of which neither claims the narrower part.
func (d *decoder) checkSelectors(a, b *Peer, s *spot) {
	for i, bl := range orDynamic(b.LocalTS) {
		for _, al := range orDynamic(a.LocalTS) {
			if x, y := local(al, a), local(bl, b); x != y && !overlap(x, y) {
				continue
			}
			for j, br := range orDynamic(b.RemoteTS) {
				at := s.peer
				if len(b.RemoteTS) > 0 {
					at = s.remoteTS[j]
				} else if len(b.LocalTS) > 0 {
					at = s.localTS[i]
				}
				for _, ar := range orDynamic(a.RemoteTS) {
					d.checkTraffic(at, flow{al, ar, a}, flow{bl, br, b})
				}
			}
		}
	}
}

// local is a selector of our end, with our address for a dynamic one if it is
// known.
func local(ts TS, p *Peer) TS {
	if p.Address.IsValid() {
		return ResolveTS([]TS{ts}, p.Address)[0]
	}
	return ts
}

// A flow is the traffic of one pair of a peer's selectors.
type flow struct {
	local, remote TS
	peer          *Peer
}

func (f flow) String() string { return f.local.String() + " - " + f.remote.String() }

// concrete is the flow with known addresses in the place of dynamic ones. Two
// peers at addresses that are not known are taken for different ones, unless
// their endpoints have one name.
func (f flow) concrete() flow {
	f.local = local(f.local, f.peer)
	if f.peer.Endpoint.Addr.IsValid() {
		f.remote = ResolveTS([]TS{f.remote}, f.peer.Endpoint.Addr)[0]
	}
	return f
}

func (d *decoder) checkTraffic(at place, a, b flow) {
	x, y := a.concrete(), b.concrete()
	sameHost := x.peer.Endpoint.Host != "" && strings.EqualFold(x.peer.Endpoint.Host, y.peer.Endpoint.Host)
	if x.local == y.local && x.remote == y.remote && (!x.remote.Dynamic() || sameHost) {
		d.add(at, "give each its own networks, or one of them a narrower one",
			"peers %q and %q both have the traffic %s", a.peer.Name, b.peer.Name, b)
		return
	}
	if crosses(x, y) {
		d.warn(at, "write networks of which one holds the other",
			"peers %q (%s) and %q (%s) share traffic, and neither has the narrower part", a.peer.Name, a, b.peer.Name, b)
	}
}

// crosses reports whether there is traffic of both flows and neither holds the
// other. Dynamic selectors count as apart.
func crosses(a, b flow) bool {
	if !overlap(a.local, b.local) || !overlap(a.remote, b.remote) {
		return false
	}
	aHoldsB := holds(a.local, b.local) && holds(a.remote, b.remote)
	bHoldsA := holds(b.local, a.local) && holds(b.remote, a.remote)
	return !aHoldsB && !bHoldsA
}

func overlap(a, b TS) bool {
	if a.Dynamic() || b.Dynamic() {
		return false
	}
	af, at := a.Bounds()
	bf, bt := b.Bounds()
	return af.Is4() == bf.Is4() && af.Compare(bt) <= 0 && bf.Compare(at) <= 0 &&
		(a.Protocol == 0 || b.Protocol == 0 || a.Protocol == b.Protocol) &&
		a.FromPort <= b.ToPort && b.FromPort <= a.ToPort
}

// holds reports whether all of b is in a.
func holds(a, b TS) bool {
	af, at := a.Bounds()
	bf, bt := b.Bounds()
	return af.Compare(bf) <= 0 && bt.Compare(at) <= 0 &&
		(a.Protocol == 0 || a.Protocol == b.Protocol) && a.FromPort <= b.FromPort && b.ToPort <= a.ToPort
}

// checkIdentities refuses two peers of which a request cannot tell which it is
// from, and that prove themselves by different keys.
func (d *decoder) checkIdentities(a, b *Peer, s *spot) {
	anywhere := a.Endpoint.Host == "" || b.Endpoint.Host == "" || strings.EqualFold(a.Endpoint.Host, b.Endpoint.Host)
	if !anywhere || !a.RemoteID.Equal(b.RemoteID) || sameProof(a, b) {
		return
	}
	if b.RemoteID.Empty() {
		d.add(s.peer, "give each an id", "peers %q and %q have no endpoint and no id to tell them apart by", a.Name, b.Name)
		return
	}
	d.add(s.id, "give each its own id", "peers %q and %q have the id %s and different keys", a.Name, b.Name, b.RemoteID)
}

func sameProof(a, b *Peer) bool {
	if len(a.Remote.Keys) == 0 || len(b.Remote.Keys) == 0 {
		return len(a.Remote.Keys) == len(b.Remote.Keys) && a.Remote.PSK.Equal(b.Remote.PSK)
	}
	type equaler interface{ Equal(crypto.PublicKey) bool }
	for i, k := range a.Remote.Keys {
		e, ok := k.(equaler)
		if !ok || i >= len(b.Remote.Keys) || !e.Equal(b.Remote.Keys[i]) {
			return false
		}
	}
	return true
}
