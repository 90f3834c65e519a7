package ike

import "slices"

// reload changes what a host's configuration says of a peer, or takes the peer out
// and back in again.
func (w *world) reload(h, o *simHost) {
	if h.frozen || h.closing != nil || h.e == nil {
		return
	}
	peers := slices.Clone(h.cfg.Peers)
	i := slices.IndexFunc(peers, func(p Peer) bool { return p.Name == o.name })
	p := &peers[i]
	changed := func() Settings { return Settings{{Name: "key", Sum: w.rand.Uint64()}} }
	switch n := w.rand.IntN(4); {
	case n == 0 && w.profile.taken:
		p.IKESettings = changed()
	case n == 1 && w.profile.taken && h.alive:
		w.cause(h, o.name)
		h.happens(Reconfigure{slices.Delete(slices.Clone(peers), i, i+1)})
	case n == 2:
		p.DPD += w.within(w.delay) // nothing that was negotiated
	default:
		p.ChildSettings = changed()
	}
	h.cfg.Peers = peers // a process that begins anew reads it
	h.outdated()
	h.happens(Reconfigure{slices.Clone(peers)})
}

// outdated lets those tunnels go down whose IKE SAs the configuration has ended.
func (h *simHost) outdated() {
	if h.e == nil {
		return
	}
	for _, p := range h.cfg.Peers {
		for _, sa := range h.e.ofPeer(p.Name) {
			if !sa.Settings.fits(p.IKESettings) {
				h.w.cause(h, p.Name)
			}
		}
	}
}

// unfitting is a peer with whom there is what other settings than its own made.
func (h *simHost) unfitting() string {
	for _, p := range h.cfg.Peers {
		for _, sa := range h.e.ofPeer(p.Name) {
			for _, c := range sa.Children {
				if !sa.Settings.fits(p.IKESettings) || !c.Settings.fits(p.ChildSettings) {
					return p.Name
				}
			}
		}
	}
	return ""
}
