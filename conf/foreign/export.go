package foreign

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ipsec-quick/conf"
	"ipsec-quick/ike/auth"
	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

// IPsecQuick is another value of ExportOptions.To, with StrongSwan (its
// swanctl.conf) and Libreswan (its ipsec.conf).
const IPsecQuick = "ipsec-quick"

// ExportOptions say what to write of a peer.
type ExportOptions struct {
	To       string // StrongSwan, Libreswan or IPsecQuick
	Endpoint string // where the peer reaches us; empty: the tunnel file's local.address
	Secret   bool   // write the pre-shared key too, in place of where it is to be put
}

// Export writes the peer's own configuration of the tunnel. The notes are what is
// left to do with it.
func Export(t *conf.Tunnel, p *conf.Peer, o ExportOptions) (text string, notes []string, err error) {
	x, err := mirror(t, p, o)
	if err != nil {
		return "", nil, err
	}
	switch o.To {
	case StrongSwan:
		text, err = x.swanctl()
	case Libreswan:
		text, err = x.libreswan()
	case IPsecQuick:
		text = x.quick()
	default:
		err = fmt.Errorf("%q is no program to export to: there are %s, %s and %s", o.To, StrongSwan, Libreswan, IPsecQuick)
	}
	return text, x.notes, err
}

// A far is the far end of a tunnel, as it sees itself: what is local is the
// peer's.
type far struct {
	tunnel   *conf.Tunnel
	peer     *conf.Peer
	name     string
	endpoint string  // ours; empty: not known
	ourID    conf.ID // the far end's; empty: its address, which is not known
	theirID  conf.ID // ours; empty likewise
	starts   bool    // the far end does
	secret   string  // in a tunnel file's spelling; empty: not to be written
	notes    []string
}

// mirror turns a peer round.
func mirror(t *conf.Tunnel, p *conf.Peer, o ExportOptions) (*far, error) {
	x := &far{tunnel: t, peer: p, name: t.Name, endpoint: o.Endpoint, ourID: p.RemoteID, theirID: p.LocalID, starts: p.Start == conf.StartPassive}
	if x.endpoint != "" {
		e, err := conf.ParseEndpoint(x.endpoint)
		if err != nil {
			return nil, err
		}
		x.endpoint = e.Host
	} else if p.Address.IsValid() {
		x.endpoint = p.Address.String()
	}
	if x.theirID.Empty() && p.Address.IsValid() {
		x.theirID = conf.IDOf(p.Address)
	}
	switch {
	case x.endpoint == "" && x.starts:
		return nil, fmt.Errorf("peer %s starts the tunnel, and the tunnel file does not say at which address of ours: write local.address, or give --endpoint", p.Name)
	case x.endpoint == "":
		x.notes = append(x.notes, "our address is not in the tunnel file: the far end takes the tunnel from any address, and cannot start it; --endpoint gives it one")
	}
	if x.theirID.Empty() && x.endpoint != "" {
		if addr, err := netip.ParseAddr(x.endpoint); err == nil {
			x.theirID = conf.IDOf(addr)
		}
	}
	if o.Secret && len(p.Local.PSK) > 0 {
		x.secret = secretText(string(p.Local.PSK))
	} else if len(p.Local.PSK) > 0 {
		x.notes = append(x.notes, fmt.Sprintf("the pre-shared key is not in it: put that of peer %s there, or give --with-secret", p.Name))
	}
	return x, nil
}

// routed says whether the far end needs a device too: its policies would take all
// that it sends else.
func (x *far) routed() bool {
	return x.tunnel.Interface != nil && slices.ContainsFunc(x.peer.LocalTS, func(ts conf.TS) bool { return ts.Prefix.IsValid() && ts.Prefix.Bits() == 0 })
}

// heading is the comment at the top of an exported file.
func (x *far) heading() string {
	return fmt.Sprintf("The far end of the tunnel %s, peer %s, by ipsec-quick export.", x.tunnel.Name, x.peer.Name)
}

// placeholder stands where the pre-shared key belongs.
func (x *far) placeholder() string {
	return "PUT-THE-PRE-SHARED-KEY-OF-" + x.peer.Name + "-HERE"
}

// publicKeys are those of the far end and of ours; nil with a pre-shared key.
func (x *far) publicKeys() (own, peers crypto.PublicKey) {
	if x.peer.Local.Key == nil || len(x.peer.Remote.Keys) == 0 {
		return nil, nil
	}
	return x.peer.Remote.Keys[0], x.peer.Local.Key.Public()
}

// selectors are the far end's traffic selectors in a spelling, empty for its own
// address.
func selectors(list []conf.TS, spell func(conf.TS) string) []string {
	var words []string
	for _, ts := range list {
		words = append(words, spell(ts))
	}
	return words
}

// proposals are spelled as strongSwan does.
func proposals(list []suite.Proposal) []string {
	var words []string
	for _, p := range list {
		words = append(words, p.String())
	}
	return words
}

// pemLines is a public key in PEM.
func pemLines(key crypto.PublicKey) ([]string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	return strings.Split(strings.TrimSpace(string(text)), "\n"), nil
}

// quick is the far end's tunnel file.
func (x *far) quick() string {
	p := x.peer
	t := &tunnel{head: []string{x.heading()}}
	t.local.set("id", quote(spellID(x.ourID)))
	out := peer{name: x.name}
	if x.endpoint != "" {
		endpoint := conf.Endpoint{Host: x.endpoint, Port: x.tunnel.Port}
		endpoint.Addr, _ = netip.ParseAddr(x.endpoint)
		out.table.set("endpoint", quote(endpoint.String()))
	}
	out.table.set("id", quote(spellID(x.theirID)))
	_, ours := x.publicKeys()
	switch {
	case ours != nil:
		t.local.set("key_file", quote(x.name+".key"))
		out.table.set("public_key", quote(auth.FormatPublicKey(ours)))
		x.notes = append(x.notes, fmt.Sprintf("%s.key is the private key of peer %s, which only that one has", x.name, p.Name))
	case x.secret != "":
		out.table.set("psk", quote(x.secret))
	default:
		out.table.set("psk_file", quote(x.name+".psk"))
	}
	out.local, out.remote = selectors(p.RemoteTS, conf.TS.String), selectors(p.LocalTS, conf.TS.String)
	out.rest.set("mode", quote(string(p.Mode)))
	if x.endpoint != "" && !x.starts {
		out.rest.set("start", quote(string(conf.StartPassive)))
	}
	if p.Endpoint.Port != 500 {
		t.ports.set("port", fmt.Sprint(p.Endpoint.Port))
	}
	out.ike.set("proposals", array(proposals(p.IKE.Proposals)))
	out.ike.set("lifetime", limits(span(p.IKE.Soft), span(p.IKE.Hard)))
	out.ike.set("encap", quote(p.IKE.Encap))
	out.esp.set("proposals", array(proposals(p.ESP.Proposals)))
	out.esp.set("pfs", quote(p.ESP.PFS))
	out.esp.set("esn", fmt.Sprint(p.ESP.ESN))
	out.lifetime = quickLifetime(p.Lifetime)
	t.peers = []peer{out}
	if x.routed() {
		t.device = table{{"table", `"off"`}}
		x.notes = append(x.notes, "the far end has a device without addresses and routes: write addresses there, and our networks into its remote_ts if it is to make the routes")
	}
	return t.String()
}

// quickLifetime is [lifetime].
func quickLifetime(l conf.Lifetime) table {
	var t table
	times := func(key string, soft, hard time.Duration) {
		if hard > 0 {
			t.set(key, limits(span(soft), span(hard)))
		}
	}
	times("time", l.SoftTime, l.HardTime)
	if l.HardTime == 0 {
		t.set("time", `"off"`)
	}
	times("use", l.SoftUse, l.HardUse)
	t.set("bytes", limits(counted(l.SoftBytes), counted(l.HardBytes)))
	t.set("packets", limits(counted(l.SoftPackets), counted(l.HardPackets)))
	return t
}

// spellID is an identity in strongSwan's spelling, which is that of a tunnel file.
func spellID(id conf.ID) string {
	s := id.String()
	if again, err := conf.ParseID(s); err == nil && again.Equal(id) || s == "" {
		return s
	}
	if id.Kind == wire.IDRFC822Addr {
		return "email:" + s
	}
	return "fqdn:" + s
}
