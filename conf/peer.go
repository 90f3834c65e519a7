package conf

import (
	"crypto"
	"fmt"
	"net/netip"
	"regexp"

	"ipsec-quick/ike/auth"
	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

// peerNames are those that fit on a command line and in a line of a log.
var peerNames = regexp.MustCompile(`^[a-zA-Z0-9_=+.-]{1,63}$`)

// A spot is where the parts of a peer stand, for errors that need two peers.
type spot struct {
	peer, name, endpoint, id, auth place
	localTS, remoteTS              []place // of each selector
}

// peers reads every [[peer]] and then what they must not be together.
func (d *decoder) peers(t *Tunnel, root *table) {
	const example = "[[peer]], with two brackets, for each peer"
	v, ok := root.get("peer")
	if !ok {
		d.add(place{key: "peer", pos: root.at.pos}, "write [[peer]] with a name, an endpoint and a psk_file", "there is no peer to talk to")
		return
	}
	if _, single := v.raw.(map[string]any); single {
		v.wrong("write "+example, "peers are a list of tables")
		return
	}
	elements, ok := v.filled(example)
	if !ok {
		return
	}
	var spots []spot
	for _, e := range elements {
		if pt, ok := e.table(example, keys["peer"]); ok {
			peer, s := d.peer(pt)
			t.Peers = append(t.Peers, peer)
			spots = append(spots, s)
		}
	}
	d.together(t.Peers, spots)
	if d.key.set && len(d.errors) == 0 {
		for _, p := range t.Peers {
			if p.Local.Key != nil {
				return
			}
		}
		d.warn(d.key.at, "leave it out, or give a peer's public_key", "no peer has a public key, so ours is not used")
	}
}

// peer reads one [[peer]] and checks it by itself.
func (d *decoder) peer(t *table) (Peer, spot) {
	p := Peer{Address: d.local.Address, LocalID: d.local.ID}
	s := spot{peer: t.at, name: t.where("name"), endpoint: t.where("endpoint"), id: t.where("id")}
	p.Name = d.readPeerName(t)
	endpoint := read(t, "endpoint", func(v value) (Endpoint, bool) {
		text, ok := v.text(`"branch.example.org"`)
		if !ok {
			return Endpoint{}, false
		}
		e, err := ParseEndpoint(text)
		if err != nil {
			v.wrong("", "%v", err)
		}
		return e, err == nil
	})
	p.Endpoint = endpoint.or(Endpoint{Port: ikePort})
	p.RemoteID = d.remoteID(t, p.Endpoint)
	d.authentication(t, &p, &s)
	p.LocalTS, s.localTS = readTS(t, "local_ts")
	p.RemoteTS, s.remoteTS = readTS(t, "remote_ts")
	p.Mode = read(t, "mode", func(v value) (Mode, bool) {
		w, ok := v.word(string(ModeTunnel), string(ModeTransport))
		return Mode(w), ok
	}).or(ModeTunnel)
	if d.routed && p.Mode == ModeTransport {
		d.add(t.where("mode"), `write mode = "tunnel", or leave [interface] out`, "what is routed to an interface is carried in tunnel mode")
	}
	p.Start = d.readStart(t, endpoint.set)
	if _, written := t.get("endpoint"); endpoint.set || !written {
		d.checkPeer(&p, &s)
	}

	ike := readIKE(d.override(t, "ike")).over(d.ike)
	p.IKE = ike.resolve()
	p.ESP = readESP(d.override(t, "esp")).over(d.esp).resolve(d.problems, p.IKE.Proposals)
	p.Lifetime = readLifetime(d.override(t, "lifetime")).over(d.lifetime).resolve(d.problems)
	return p, s
}

// override is a peer's own [peer.ike], [peer.esp] or [peer.lifetime].
func (d *decoder) override(t *table, name string) *table {
	v, ok := t.get(name)
	if !ok {
		return nil
	}
	section, _ := v.table("[peer."+name+"]", keys["peer."+name])
	return section
}

func (d *decoder) readPeerName(t *table) string {
	if _, ok := t.get("name"); !ok {
		d.add(place{join(t.at.key, "name"), t.at.pos}, `write name = "branch"`, "this peer has no name")
		return ""
	}
	return read(t, "name", func(v value) (string, bool) {
		s, ok := v.text(`"branch"`)
		if ok && !peerNames.MatchString(s) {
			v.wrong("write 1 to 63 of the characters a-z A-Z 0-9 _ = + . -", "%q is no peer name", s)
			return "", false
		}
		return s, ok
	}).val
}

// remoteID is the peer's identity: the endpoint unless the file says another.
func (d *decoder) remoteID(t *table, e Endpoint) ID {
	id := read(t, "id", readID)
	switch {
	case id.set || e.Host == "":
		return id.val
	case e.Addr.IsValid():
		return IDOf(e.Addr)
	}
	// A host name, and so a valid one.
	derived, _ := idOfKind(wire.IDFQDN, e.Host)
	return derived
}

// readStart defaults to what the endpoint allows.
func (d *decoder) readStart(t *table, reachable bool) Start {
	start := read(t, "start", func(v value) (Start, bool) {
		w, ok := v.word(string(StartNow), string(StartOnDemand), string(StartPassive))
		return Start(w), ok
	})
	_, written := t.get("endpoint")
	if start.set && start.val != StartPassive && !written {
		d.add(start.at, `write an endpoint, or start = "passive"`, "start is %q, and there is no endpoint to start with", start.val)
	}
	if reachable {
		return start.or(StartNow)
	}
	return start.or(StartPassive)
}

// authentication reads how the two ends prove who they are: a pre-shared key
// for both, or our private key and the peer's public one.
func (d *decoder) authentication(t *table, p *Peer, s *spot) {
	psk := read(t, "psk", d.readPSK)
	pskFile := read(t, "psk_file", d.readPSKFile)
	public := read(t, "public_key", readPublicKey)
	ca := read(t, "ca_file", func(v value) (string, bool) { return v.text(`"ca.crt"`) })
	if ca.set {
		d.unserved(ca.at, "leave it out and pin the peer's raw public_key", "a certificate authority")
	}
	var given []string
	for _, key := range []string{"psk", "psk_file", "public_key"} {
		if _, ok := t.get(key); ok {
			given = append(given, key)
			s.auth = t.where(key)
		}
	}
	_, caGiven := t.get("ca_file")
	switch {
	case len(given) > 1:
		d.add(s.auth, "leave one of them out", "%s and %s are both here; a peer proves who it is in one way", given[0], given[1])
	case len(given) == 0 && !caGiven:
		d.add(s.peer, `write psk_file = "office.psk" or public_key = "ed25519:..."`, "this peer has nothing to prove who it is with")
	case psk.set || pskFile.set:
		key := psk.over(pskFile).val
		p.Local, p.Remote = auth.Local{PSK: key}, auth.Remote{PSK: append(suite.Secret(nil), key...)}
	case public.set:
		p.Local, p.Remote = auth.Local{Key: d.key.val}, auth.Remote{Keys: []crypto.PublicKey{public.val}}
		if d.key.at.key == "" {
			d.add(public.at, `write key_file = "hq.key" in [local]; make one with: ipsec-quick genkey`, "the peer has a public key, and we have no private key to sign with")
		}
	}
}

// maxTS is how many selectors a payload counts (RFC 7296, Section 3.13), less
// the one of the packet that started the negotiation.
const maxTS = 254

// readTS is a list of selectors with the place of each.
func readTS(t *table, key string) ([]TS, []place) {
	const example = `["10.1.0.0/16"]`
	v, ok := t.get(key)
	if !ok {
		return nil, nil
	}
	if s, isText := v.raw.(string); isText {
		v.wrong(fmt.Sprintf("write [%q]", s), "this is a text, not a list of them")
		return nil, nil
	}
	elements, _ := v.filled(example)
	if len(elements) > maxTS {
		v.wrong("write wider networks, or share them out among peers", "%d selectors are more than the %d of a message", len(elements), maxTS)
		return nil, nil
	}
	var list []TS
	var places []place
	for _, e := range elements {
		s, ok := e.text(`"10.1.0.0/16"`)
		if !ok {
			continue
		}
		ts, err := ParseTS(s)
		if err != nil {
			e.wrong("", "%v", err)
			continue
		}
		list, places = append(list, ts), append(places, e.at)
	}
	return list, places
}

// familyOf is 4, 6, or 0 for an address that is not known.
func familyOf(addr netip.Addr) int {
	switch {
	case addr.Is4():
		return 4
	case addr.Is6():
		return 6
	}
	return 0
}
