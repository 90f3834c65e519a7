package watch

import (
	"crypto/rand"
	"net/netip"

	"ipsec-quick/apply"
	"ipsec-quick/apply/xfrm"
	"ipsec-quick/conf"
	"ipsec-quick/ike"
	"ipsec-quick/ike/wire"
)

// coreConfig is the tunnel as the IKE core wants it. ESP in user space goes in
// UDP unless the peer or the tunnel file does not want it: the kernel passes trains
// of UDP packets on in one piece, and ESP one by one.
func coreConfig(t *conf.Tunnel, userspace bool) ike.Config {
	c := ike.Config{Rand: rand.Reader, NATPort: t.NATPort}
	for i := range t.Peers {
		p := corePeer(&t.Peers[i])
		encap := t.Peers[i].IKE.Encap
		p.Encap = encap == conf.EncapYes || userspace && encap != conf.EncapNo
		c.Peers = append(c.Peers, p)
	}
	return c
}

func corePeer(p *conf.Peer) ike.Peer {
	out := ike.Peer{
		Name:      p.Name,
		Start:     coreStart(p.Start),
		LocalID:   coreID(p.LocalID),
		RemoteID:  coreID(p.RemoteID),
		Local:     p.Local,
		Remote:    p.Remote,
		IKE:       p.IKE.Proposals,
		IKESoft:   p.IKE.Soft,
		IKEHard:   p.IKE.Hard,
		DPD:       p.IKE.DPD,
		Fragment:  p.IKE.Fragment,
		ESP:       p.ESP.Proposals,
		PFS:       corePFS(p.ESP.PFS),
		ESN:       p.ESP.ESN,
		LocalTS:   wireSelectors(p.LocalTS),
		RemoteTS:  wireSelectors(p.RemoteTS),
		Transport: p.Mode == conf.ModeTransport,
		Soft: ike.Limits{
			Time: p.Lifetime.SoftTime, Use: p.Lifetime.SoftUse,
			Bytes: p.Lifetime.SoftBytes, Packets: p.Lifetime.SoftPackets,
		},
		Hard: ike.Limits{
			Time: p.Lifetime.HardTime, Use: p.Lifetime.HardUse,
			Bytes: p.Lifetime.HardBytes, Packets: p.Lifetime.HardPackets,
		},
		Jitter: p.Lifetime.Jitter,

		IKESettings:   settingsOf(p, EffectNegotiate),
		ChildSettings: settingsOf(p, EffectRekey),
	}
	if p.Endpoint.Addr.IsValid() {
		out.Addresses = []netip.Addr{p.Endpoint.Addr}
	}
	return out
}

func coreStart(s conf.Start) ike.Start {
	switch s {
	case conf.StartOnDemand:
		return ike.StartOnDemand
	case conf.StartPassive:
		return ike.StartPassive
	case conf.StartNow:
	}
	return ike.StartNow
}

func corePFS(s string) ike.PFS {
	switch s {
	case conf.PFSYes:
		return ike.PFSYes
	case conf.PFSNo:
		return ike.PFSNo
	}
	return ike.PFSAuto
}

func coreID(id conf.ID) *wire.ID {
	if id.Empty() {
		return nil
	}
	w := id.Wire(false) // who initiates is decided per exchange
	return &w
}

// espNames are the data plane's names of ESP transforms (RFC 4106, RFC 7634,
// RFC 3602, RFC 4868).
var espNames = map[wire.TransformID]string{
	wire.EncrAESGCM16:         apply.AESGCM16,
	wire.EncrChaCha20Poly1305: apply.ChaCha20Poly1305,
	wire.EncrAESCBC:           apply.AESCBC,
}

var integrityNames = map[wire.TransformID]string{
	wire.AuthHMACSHA256_128: apply.HMACSHA256,
	wire.AuthHMACSHA384_192: apply.HMACSHA384,
	wire.AuthHMACSHA512_256: apply.HMACSHA512,
}

// saltLen is the salt that an AEAD's key has at its end (RFC 4106, Section 8.1;
// RFC 7634, Section 2).
const saltLen = 4

// needs are the algorithms that the data plane must have, those of the first ESP proposal of each peer: without it the data
// plane is of no use. Others may never be chosen.
func needs(t *conf.Tunnel) []xfrm.Suite {
	var out []xfrm.Suite
	seen := map[xfrm.Suite]bool{}
	for i := range t.Peers {
		if len(t.Peers[i].ESP.Proposals) == 0 {
			continue
		}
		var n xfrm.Suite
		for _, tr := range t.Peers[i].ESP.Proposals[0].Transforms {
			switch {
			case tr.Type == wire.TransformENCR && n.Encryption == "":
				n.Encryption, n.KeyLen = espNames[tr.ID], int(tr.KeyLength/8)
				if tr.ID == wire.EncrChaCha20Poly1305 {
					n.KeyLen = 32
				}
				if apply.IsAEAD(n.Encryption) {
					n.KeyLen += saltLen
				}
			case tr.Type == wire.TransformINTEG && n.Integrity == "":
				n.Integrity = integrityNames[tr.ID]
			}
		}
		if !seen[n] && n.Encryption != "" {
			seen[n] = true
			out = append(out, n)
		}
	}
	return out
}
