package foreign

import (
	"net/netip"
	"regexp"
	"strings"
)

var (
	awsTunnel = regexp.MustCompile(`^IPSec Tunnel #([0-9]{1,3})`)
	awsStep   = regexp.MustCompile(`^#([1-9]):`)
	awsValue  = regexp.MustCompile(`^-\s*([A-Za-z0-9 -]{1,60}?)\s*:\s*(.*)$`)
	awsList   = regexp.MustCompile(`^((?:Outside|Inside) IP Addresses):?$`)
	digits    = regexp.MustCompile(`[0-9]+`)
)

// aws reads the generic configuration text of a Site-to-Site VPN connection. Each
// of its tunnels is a connection "tunnelN".
func (im *importer) aws(name, text string) ([]*tunnel, error) {
	var blocks []*block
	b := (*block)(nil)
	where, list := "", ""
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if err := im.count(1); err != nil {
			return nil, refuse(place{name, i + 1}, "", "%v", err)
		}
		if m := awsTunnel.FindStringSubmatch(line); m != nil {
			b = &block{im: im, path: "tunnel" + m[1], at: place{name, i + 1}}
			blocks = append(blocks, b)
			where, list = "", ""
		} else if m := awsStep.FindStringSubmatch(line); m != nil {
			where, list = "#"+m[1]+": ", ""
		} else if m := awsList.FindStringSubmatch(line); m != nil {
			list = m[1] + ": "
		} else if m := awsValue.FindStringSubmatch(line); m != nil && b != nil {
			b.entries = append(b.entries, &entry{key: where + list + m[1], value: strings.TrimSpace(m[2]), at: place{name, i + 1}})
		}
	}
	var tunnels []*tunnel
	for _, b := range blocks {
		tunnels = im.convert(tunnels, b.path, b.at, func(t *tunnel) bool {
			return im.awsTunnel(t, block{im, b.path + " ", b.entries, b.at})
		})
	}
	return tunnels, nil
}

// awsTunnel makes a tunnel of one of the two.
func (im *importer) awsTunnel(t *tunnel, b block) bool {
	const outside, inside = "#3: Outside IP Addresses: ", "#3: Inside IP Addresses: "
	e := &ends{importer: im, tunnel: t, peer: &peer{name: "aws-" + t.name}, start: "now"}
	if v, _ := b.get("#1: IKE version"); v == "IKEv1" {
		b.remark("#1: IKE version", "IKEv1 is not there; AWS takes IKEv2 too, unless the tunnel's options say otherwise")
	}
	e.addresses(b, outside+"Customer Gateway", outside+"Virtual Private Gateway", "", "")
	if e.theirAddress == "" {
		im.remark(t.at, t.name, "there is no outside address of the gateway")
		return false
	}
	// Behind a NAT the outside address is not on this host.
	if e.ourAddress != "" {
		e.ourID, e.ourAddress = e.ourAddress, ""
		b.remark(outside+"Customer Gateway", "it is who we say we are; write it as local.address too if this host has it itself")
	}
	switch key, _ := b.get("#1: Pre-Shared Key"); {
	case key != "":
		e.proof = setting{"psk", quote(secretText(key))}
	default:
		im.remark(t.at, t.name, "there is no pre-shared key, and certificates are not there yet: put one into the file aws.psk beside the tunnel file, mode 0600")
		e.proof = setting{"psk_file", `"aws.psk"`}
	}
	e.peer.local, e.peer.remote = []string{"0.0.0.0/0"}, []string{"0.0.0.0/0"}
	t.device = table{}
	if v, at := b.get(inside + "Customer Gateway"); v != "" {
		if _, err := netip.ParsePrefix(v); err != nil {
			im.remark(at, b.path+inside+"Customer Gateway", "%q is no address with its network", v)
		} else {
			t.device.set("addresses", array([]string{v}))
		}
	}
	t.device.set("table", `"off"`)
	im.remark(t.at, t.name, "it makes no routes: a BGP daemon makes them, or write the VPC's networks into remote_ts and leave table out")
	e.awsProposals(b)
	for _, life := range []struct {
		key  string
		into *table
		name string
	}{{"#1: Lifetime", &e.peer.ike, "lifetime"}, {"#2: Lifetime", &e.peer.lifetime, "time"}} {
		v, _ := b.get(life.key)
		if d, ok := parseTime(strings.TrimSuffix(v, " seconds")); ok && v != "" {
			life.into.set(life.name, limits("", span(d)))
		}
	}
	if v, _ := b.get("#2: DPD Interval"); v != "" {
		if d, ok := parseTime(v); ok && d > 0 {
			e.peer.ike.set("dpd", span(d))
		}
	}
	e.finish()
	for _, key := range []string{"#4: Customer Gateway ASN", "#4: Virtual Private Gateway ASN", "#4: Neighbor IP Address"} {
		if v, at := b.get(key); v != "" {
			im.remark(at, b.path+key, "%s is for the BGP daemon", v)
		}
	}
	return true
}

// awsWords are the text's names of algorithms. What AWS names there is the least
// that it takes.
var awsWords = map[string]string{
	"aes-128-cbc": "aes128", "aes-256-cbc": "aes256", "aes128": "aes128", "aes256": "aes256",
	"aes-128-gcm-16": "aes128gcm16", "aes-256-gcm-16": "aes256gcm16", "aes128-gcm-16": "aes128gcm16", "aes256-gcm-16": "aes256gcm16",
	"sha2-256": "sha256", "sha2-384": "sha384", "sha2-512": "sha512", "sha-256": "sha256",
	"hmac-sha2-256": "sha256", "hmac-sha2-384": "sha384", "hmac-sha2-512": "sha512", "hmac-sha-256": "sha256",
}

// awsProposals sets both proposals.
func (e *ends) awsProposals(b block) {
	for _, step := range []struct {
		encr, integ, group string
		ike                bool
		into               *table
	}{
		{"#1: Encryption Algorithm", "#1: Authentication Algorithm", "#1: Diffie-Hellman", true, &e.peer.ike},
		{"#2: Encryption Algorithm", "#2: Authentication Algorithm", "#2: Perfect Forward Secrecy", false, &e.peer.esp},
	} {
		word := func(key, instead string) string {
			v, _ := b.get(key)
			if w := awsWords[strings.ToLower(v)]; w != "" {
				return w
			}
			b.remark(key, "%s is not there; %s is offered, which AWS takes too unless the tunnel's options say otherwise", v, instead)
			return instead
		}
		encr := word(step.encr, "aes128")
		integ := word(step.integ, "sha256")
		group := "modp2048"
		v, at := b.get(step.group)
		if w, ok := libreswanWords["dh"+digits.FindString(v)]; ok && len(w) == 1 && supportedKE(w[0]) {
			group = w[0]
		} else {
			b.remark(step.group, "%s is not there; group 14 is offered, which AWS takes too unless the tunnel's options say otherwise", v)
		}
		step.into.set("proposals", array(e.proposals(at, b.path+step.group, encr+"-"+integ+"-"+group, proposalKind{ike: step.ike})))
	}
}

func supportedKE(word string) bool {
	var w words
	return w.add(word) == "" && len(w.ke) == 1
}
