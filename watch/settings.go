package watch

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"strings"

	"ipsec-quick/conf"
	"ipsec-quick/ike"
)

// An Effect is what a change of a key of the tunnel file asks for.
type Effect string

// Effects, from the least to the most that is done.
const (
	EffectNow       Effect = "now"         // what is next goes by it, and nothing stops for it
	EffectRekey     Effect = "rekey"       // the Child SA gets new keys, without a lost packet
	EffectNegotiate Effect = "negotiation" // the SAs with the peer end, and new ones are negotiated
)

// A setting is a key of the tunnel file as it holds for a peer.
type setting struct {
	key    string // as the tunnel file has it
	effect Effect
	value  func(*conf.Peer) string // two that are the same mean the same; it may be secret
}

// settings are all keys of a peer. Those that take new SAs are also what tells a
// loop that begins anew, perhaps with another version of this program, whether the
// SAs that it finds are by the tunnel file as it is now.
var settings = []setting{
	{"endpoint", EffectNegotiate, func(p *conf.Peer) string { return p.Endpoint.String() }},
	{"local.address", EffectNegotiate, func(p *conf.Peer) string { return p.Address.String() }},
	{"local.id", EffectNegotiate, func(p *conf.Peer) string { return idText(p.LocalID) }},
	{"id", EffectNegotiate, func(p *conf.Peer) string { return idText(p.RemoteID) }},
	{"local.key_file", EffectNegotiate, localKey},
	{"psk", EffectNegotiate, func(p *conf.Peer) string { return string(p.Local.PSK) + "\x00" + string(p.Remote.PSK) }},
	{"public_key", EffectNegotiate, func(p *conf.Peer) string { return publicKeys(p.Remote.Keys...) }},
	{"local_ts", EffectNegotiate, func(p *conf.Peer) string { return list(p.LocalTS) }},
	{"remote_ts", EffectNegotiate, func(p *conf.Peer) string { return list(p.RemoteTS) }},
	{"mode", EffectNegotiate, func(p *conf.Peer) string { return string(p.Mode) }},
	{"ike.proposals", EffectNegotiate, func(p *conf.Peer) string { return list(p.IKE.Proposals) }},
	{"ike.encap", EffectNegotiate, func(p *conf.Peer) string { return p.IKE.Encap }},
	{"ike.lifetime", EffectNow, func(p *conf.Peer) string { return fmt.Sprint(p.IKE.Soft, p.IKE.Hard) }},
	{"ike.dpd", EffectNow, func(p *conf.Peer) string { return p.IKE.DPD.String() }},
	{"ike.fragment", EffectNow, func(p *conf.Peer) string { return fmt.Sprint(p.IKE.Fragment) }},
	{"esp.proposals", EffectRekey, func(p *conf.Peer) string { return list(p.ESP.Proposals) }},
	{"esp.pfs", EffectRekey, func(p *conf.Peer) string { return p.ESP.PFS }},
	{"esp.esn", EffectRekey, func(p *conf.Peer) string { return fmt.Sprint(p.ESP.ESN) }},
	{"esp.replay_window", EffectRekey, func(p *conf.Peer) string { return fmt.Sprint(p.ESP.ReplayWindow) }},
	{"lifetime.time", EffectRekey, func(p *conf.Peer) string { return fmt.Sprint(p.Lifetime.SoftTime, p.Lifetime.HardTime) }},
	{"lifetime.use", EffectRekey, func(p *conf.Peer) string { return fmt.Sprint(p.Lifetime.SoftUse, p.Lifetime.HardUse) }},
	{"lifetime.bytes", EffectRekey, func(p *conf.Peer) string { return fmt.Sprint(p.Lifetime.SoftBytes, p.Lifetime.HardBytes) }},
	{"lifetime.packets", EffectRekey, func(p *conf.Peer) string { return fmt.Sprint(p.Lifetime.SoftPackets, p.Lifetime.HardPackets) }},
	{"lifetime.jitter", EffectNow, func(p *conf.Peer) string { return fmt.Sprint(p.Lifetime.Jitter) }},
	{"start", EffectNow, func(p *conf.Peer) string { return string(p.Start) }},
}

// idText tells identities apart; the empty one is the address used.
func idText(id conf.ID) string { return fmt.Sprint(id.Kind, " ", strings.ToLower(id.String())) }

func localKey(p *conf.Peer) string {
	if p.Local.Key == nil {
		return ""
	}
	return publicKeys(p.Local.Key.Public())
}

// publicKeys are keys in one string. One that has no encoding is none that a
// tunnel file can have.
func publicKeys(keys ...crypto.PublicKey) string {
	var b strings.Builder
	for _, k := range keys {
		der, _ := x509.MarshalPKIXPublicKey(k)
		fmt.Fprintf(&b, "%x,", der)
	}
	return b.String()
}

func list[T fmt.Stringer](values []T) string {
	var b strings.Builder
	for _, v := range values {
		b.WriteString(v.String() + ",")
	}
	return b.String()
}

// settingsOf are a peer's settings of one effect, for the core to compare.
func settingsOf(p *conf.Peer, effect Effect) ike.Settings {
	var out ike.Settings
	for _, s := range settings {
		if s.effect == effect {
			sum := sha256.Sum256([]byte(s.value(p)))
			out = append(out, ike.Setting{Name: s.key, Sum: binary.BigEndian.Uint64(sum[:])})
		}
	}
	return out
}

// A PeerChange is what a reload does about one peer.
type PeerChange struct {
	Peer    string   `json:"peer"`
	Added   bool     `json:"added,omitempty"`
	Removed bool     `json:"removed,omitempty"`
	Keys    []string `json:"keys,omitempty"`   // that changed
	Effect  Effect   `json:"effect,omitempty"` // of the one that asks for the most
}

// String is one line for people.
func (c PeerChange) String() string {
	switch {
	case c.Added:
		return c.Peer + ": added"
	case c.Removed:
		return c.Peer + ": removed"
	}
	how := map[Effect]string{
		EffectNow:       "nothing stops for it",
		EffectRekey:     "its Child SA gets new keys, without a lost packet",
		EffectNegotiate: "its SAs end, and new ones are negotiated",
	}[c.Effect]
	return fmt.Sprintf("%s: %s changed: %s", c.Peer, strings.Join(c.Keys, ", "), how)
}

// changesOf are the differences between the peers of two tunnel files.
func changesOf(before, now *conf.Tunnel) []PeerChange {
	old := map[string]*conf.Peer{}
	for i := range before.Peers {
		old[before.Peers[i].Name] = &before.Peers[i]
	}
	var out []PeerChange
	for i := range now.Peers {
		p := &now.Peers[i]
		was := old[p.Name]
		delete(old, p.Name)
		if was == nil {
			out = append(out, PeerChange{Peer: p.Name, Added: true})
		} else if c := compare(was, p); len(c.Keys) > 0 {
			out = append(out, c)
		}
	}
	for i := range before.Peers {
		if name := before.Peers[i].Name; old[name] != nil {
			out = append(out, PeerChange{Peer: name, Removed: true})
		}
	}
	return out
}

func compare(was, is *conf.Peer) PeerChange {
	c := PeerChange{Peer: is.Name, Effect: EffectNow}
	for _, s := range settings {
		if s.value(was) == s.value(is) {
			continue
		}
		c.Keys = append(c.Keys, s.key)
		if s.effect == EffectNegotiate || s.effect == EffectRekey && c.Effect == EffectNow {
			c.Effect = s.effect
		}
	}
	return c
}
