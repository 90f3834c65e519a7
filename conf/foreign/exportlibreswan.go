package foreign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"ipsec-quick/conf"
	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

// libreswan is the far end's ipsec.conf, with the line for ipsec.secrets as a
// comment.
func (x *far) libreswan() (string, error) {
	p := x.peer
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n# For a file in /etc/ipsec.d, %s.conf.\n", x.heading(), x.name)
	own, ours := x.publicKeys()
	if ours == nil {
		secret := x.secret
		if secret == "" {
			secret = x.placeholder()
		}
		if !strings.HasPrefix(secret, "0s") && !strings.HasPrefix(secret, "0x") {
			if strings.Contains(secret, `"`) {
				secret = "0s" + base64.StdEncoding.EncodeToString([]byte(secret))
			} else {
				secret = `"` + secret + `"`
			}
		}
		fmt.Fprintf(&b, "# The secret goes into %s.secrets there, mode 0600:\n#\n# %s %s : PSK %s\n",
			x.name, libreswanID(x.ourID, "%any"), libreswanID(x.theirID, "%any"), secret)
		x.notes = append(x.notes, "the line for ipsec.secrets is a comment at the top: it is for a file of its own")
	}
	fmt.Fprintf(&b, "\nconn %s\n", x.name)
	set := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "    %s=%s\n", key, value)
		}
	}
	set("ikev2", "insist") // which keyexchange=ikev2 of version 5 has as another name
	left := "%defaultroute"
	if p.Endpoint.Addr.Is6() {
		left = p.Endpoint.Addr.String() // that route is the one of IPv4
	}
	set("left", left)
	set("leftid", libreswanID(x.ourID, ""))
	if err := x.libreswanSelectors(set, "left", p.RemoteTS); err != nil {
		return "", err
	}
	set("right", choose(x.endpoint == "", "%any", x.endpoint))
	set("rightid", libreswanID(x.theirID, ""))
	if err := x.libreswanSelectors(set, "right", p.LocalTS); err != nil {
		return "", err
	}
	if x.tunnel.Port != 500 {
		set("rightikeport", fmt.Sprint(x.tunnel.Port))
	}
	if ours == nil {
		set("authby", "secret")
	} else if err := x.libreswanKeys(set, own, ours); err != nil {
		return "", err
	}
	set("ike", strings.Join(libreswanProposals(p.IKE.Proposals, true), ","))
	set("esp", strings.Join(libreswanProposals(p.ESP.Proposals, false), ","))
	set("pfs", choose(p.ESP.PFS == conf.PFSNo, "no", "yes"))
	set("esn", choose(p.ESP.ESN, "either", "no"))
	set("type", string(p.Mode))
	if x.routed() {
		set("ipsec-interface", "yes")
		x.notes = append(x.notes, "traffic gets into the tunnel there by the device ipsec1 and its routes")
	}
	set("ikelifetime", seconds(p.IKE.Hard))
	if l := p.Lifetime; l.HardTime > 0 {
		set("salifetime", seconds(l.HardTime))
		set("rekeymargin", seconds(l.HardTime-l.SoftTime))
		set("rekeyfuzz", "0%")
	}
	set("ipsec-max-bytes", counted(p.Lifetime.HardBytes))
	set("ipsec-max-packets", counted(p.Lifetime.HardPackets))
	if p.IKE.DPD > 0 {
		set("dpddelay", seconds(p.IKE.DPD))
	}
	set("encapsulation", choose(p.IKE.Encap == conf.EncapYes, "yes", "auto"))
	set("fragmentation", choose(p.IKE.Fragment == 0, "no", "yes"))
	set("auto", choose(x.starts, "start", "add"))
	return b.String(), nil
}

func choose(first bool, one, other string) string {
	if first {
		return one
	}
	return other
}

// libreswanID is an identity as libreswan spells it: a name without an @ would be
// looked up.
func libreswanID(id conf.ID, empty string) string {
	switch id.Kind {
	case 0:
		return empty
	case wire.IDFQDN:
		return "@" + string(id.Data)
	default:
		return id.String()
	}
}

// libreswanSelectors sets the selectors of a side: one as every version takes it,
// several as a list, with the protocol and port behind each.
func (x *far) libreswanSelectors(set func(key, value string), side string, list []conf.TS) error {
	var subnets []string
	for _, ts := range list {
		ports := ""
		switch {
		case ts.Protocol == 0:
		case ts.FromPort == 0 && ts.ToPort == 65535:
			ports = fmt.Sprint(ts.Protocol)
		case ts.FromPort == ts.ToPort:
			ports = fmt.Sprintf("%d/%d", ts.Protocol, ts.FromPort)
		default:
			return fmt.Errorf("libreswan has no selector for %s: write single ports", ts)
		}
		subnet := ""
		if ts.Prefix.IsValid() {
			subnet = ts.Prefix.String()
		}
		switch {
		case !ts.Prefix.IsValid() && (!ts.Dynamic() || len(list) > 1):
			return fmt.Errorf("libreswan has no selector for %s: write networks or hosts", ts)
		case len(list) == 1:
			set(side+"subnet", subnet)
			if ports != "" && !strings.Contains(ports, "/") {
				ports += "/0" // version 4 wants a port; 0 is any
			}
			set(side+"protoport", ports)
			return nil
		case ports != "":
			subnet += "/" + ports
		}
		subnets = append(subnets, subnet)
	}
	if len(subnets) > 1 {
		x.notes = append(x.notes, fmt.Sprintf("the list %ssubnet needs libreswan 5", side))
	}
	set(side+"subnet", strings.Join(subnets, ","))
	return nil
}

// libreswanKeys sets the raw public keys.
func (x *far) libreswanKeys(set func(key, value string), own, ours crypto.PublicKey) error {
	for _, k := range []struct {
		side string
		key  crypto.PublicKey
	}{{"left", own}, {"right", ours}} {
		name, data, err := libreswanKey(k.key)
		if err != nil {
			return err
		}
		set(k.side+name, "0s"+base64.StdEncoding.EncodeToString(data))
	}
	return nil
}

// libreswanKey is a public key as an ipsec.conf has it, and the key for it without
// the side.
func libreswanKey(key crypto.PublicKey) (name string, data []byte, err error) {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		data, err = x509.MarshalPKIXPublicKey(key)
		return "pubkey", data, err
	case *rsa.PublicKey:
		return "rsasigkey", appendDNSRSA(nil, key), nil
	}
	return "", nil, errors.New("libreswan takes raw public keys of RSA and ECDSA only: give the peer such a key, or a psk_file")
}

// libreswanProposals are proposals in libreswan's spelling. The key exchange of
// ESP is that of IKE there when none is named.
func libreswanProposals(list []suite.Proposal, ike bool) []string {
	var texts []string
	for _, p := range list {
		var w words
		for word := range strings.SplitSeq(p.String(), "-") {
			w.add(word)
		}
		encr, hash := w.cbc, w.integ
		if len(w.aead) > 0 {
			encr, hash = w.aead, nil
			for _, prf := range w.prf {
				hash = append(hash, strings.TrimPrefix(prf, "prf"))
			}
		}
		parts := []string{strings.Join(respell(encr), "+")}
		if len(hash) > 0 {
			parts = append(parts, strings.Join(respell(hash), "+"))
		}
		if ike {
			parts = append(parts, strings.Join(respell(w.ke), "+"))
		}
		texts = append(texts, strings.Join(parts, "-"))
	}
	return texts
}

// respell writes strongSwan's keywords as libreswan does.
func respell(list []string) []string {
	var words []string
	for _, word := range list {
		if bits, ok := strings.CutSuffix(word, "gcm16"); ok {
			word = "aes_gcm" + strings.TrimPrefix(bits, "aes")
		}
		for theirs, ours := range exportedWords {
			if ours == word {
				word = theirs
			}
		}
		words = append(words, word)
	}
	return words
}

// exportedWords are libreswan's keywords for ours.
var exportedWords = map[string]string{
	"chacha20_poly1305": "chacha20poly1305", "sha2_256": "sha256", "sha2_384": "sha384", "sha2_512": "sha512",
	"dh14": "modp2048", "dh15": "modp3072", "dh16": "modp4096", "dh19": "ecp256", "dh20": "ecp384", "dh21": "ecp521", "dh31": "x25519",
}
