package foreign

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"ipsec-quick/conf"
)

// Keys of a swanctl.conf that change nothing here, by where they stand.
var (
	quietConn = []string{
		"version", "aggressive", "pull", "childless", "send_certreq", "send_cert", "keyingtries", "unique", "dpd_timeout", "rand_time", "close_action",
	}
	quietAuth  = []string{"round", "certs", "cert", "cacerts", "cacert", "revocation", "cert_policy", "ca_id"}
	quietChild = []string{
		"hostaccess", "dpd_action", "close_action", "reqid", "policies_fwd_out", "hw_offload", "copy_df", "copy_ecn", "copy_dscp", "priority", "rand_time",
	}
)

// swanReasons is why keys of a swanctl.conf are not carried over, and what to do
// instead.
var swanReasons = map[string]string{
	"vips":           noVirtualIP,
	"pools":          noPool,
	"mobike":         noMOBIKE,
	"reauth_time":    "an IKE SA is rekeyed here, which loses no packet; authentication is not repeated",
	"dscp":           "IKE packets are not marked here",
	"ppk_id":         noPPK,
	"ppk_required":   noPPK,
	"mediation":      "there is no mediation of connections here",
	"mediated_by":    "there is no mediation of connections here",
	"mediation_peer": "there is no mediation of connections here",
	"ocsp":           noCertificates,
	"eap_id":         noEAP,
	"aaa_id":         noEAP,
	"xauth_id":       "XAuth is of IKEv1",
	"groups":         "groups are told by certificates or by EAP, which are not there yet",
	"ah_proposals":   "AH is not there; what ESP carries is authenticated too",
	"sha256_96":      "the truncation of a draft is not there; the peer needs SHA-256 with 128 bits",
	"updown":         noUpdown,
	"ipcomp":         "packets are not compressed here",
	"inactivity":     "a Child SA stays here while its peer does",
	"mark_in_sa":     noMark,
	"mark_in":        noMark,
	"mark_out":       noMark,
	"set_mark_in":    noMark,
	"set_mark_out":   noMark,
	"interface":      "policies are for all interfaces here",
	"label":          "there are no security labels here",
	"tfc_padding":    "packets are not padded against traffic analysis here",
	"policies":       "policies always come and go with a tunnel here",
	"per_cpu_sas":    "there is one pair of SAs for all processors here",
	"rand_bytes":     "jitter is one part of every limit here",
	"rand_packets":   "jitter is one part of every limit here",
}

// Reasons that several formats share.
const (
	noVirtualIP    = "an address that the peer assigns is not asked for; write the one that it would assign into [interface] addresses and local_ts, and have the peer know it as our network"
	noPool         = "addresses are not assigned to peers; give each peer a fixed one in remote_ts"
	noMOBIKE       = "MOBIKE is not there yet: when our address changes the tunnel is negotiated anew"
	noPPK          = "post-quantum pre-shared keys (RFC 8784) are not there yet"
	noCertificates = "certificates are not there yet: give both ends a raw public key (ipsec-quick genkey and pubkey), or a psk_file"
	noEAP          = "EAP is not there yet: give this peer a public_key or a psk_file"
	noUpdown       = "the script was not carried over; commands go into [hooks]"
	noMark         = "marks are not set on traffic: [interface] makes a tunnel that routes decide on"
	noRoutes       = "the addresses of the device and the routes to it are not in the source: write addresses, and a table if the routes are to be made"
)

// swanctl reads a swanctl.conf.
func (im *importer) swanctl(name, text string) ([]*tunnel, error) {
	root := &section{at: place{name, 1}}
	if err := im.parseSettings(root, name, text, 0); err != nil {
		return nil, err
	}
	if err := im.inherit(root); err != nil {
		return nil, err
	}
	for reason, sections := range map[string]string{noPool: "pools", noCertificates: "authorities"} {
		if s := root.below(sections); s != nil {
			im.remark(s.at, sections, "%s", reason)
		}
	}
	secrets := im.swanSecrets(root.below("secrets"))
	var list []*tunnel
	if conns := root.below("connections"); conns != nil {
		for _, c := range conns.sections {
			list = im.convert(list, c.name, c.at, func(t *tunnel) bool { return im.swanConn(t, c, secrets) })
		}
	}
	return list, nil
}

// swanConn makes a tunnel of a connection.
func (im *importer) swanConn(t *tunnel, c *section, secrets []secret) bool {
	path := "connections." + c.name + "."
	b := block{im, path, c.entries, c.at}
	if v, at := b.get("version"); v == "1" {
		im.remark(at, path+"version", noIKEv1)
		return false
	}
	e := &ends{importer: im, tunnel: t, peer: &peer{name: peerName(c.name)}, secrets: secrets}
	e.addresses(b, "local_addrs", "remote_addrs", "local_port", "remote_port")
	e.swanAuth(c, path)
	children := c.below("children")
	if children == nil || len(children.sections) == 0 {
		im.remark(c.at, path+"children", "there is no child: a tunnel here always has one, so this one is between the two hosts")
	} else if !e.swanChildren(children, path+"children.") {
		return false
	}
	e.swanIKE(b)
	e.finish()
	b.rest(quietConn, swanReasons)
	for _, s := range c.sections {
		if s.name != "children" && !strings.HasPrefix(s.name, "local") && !strings.HasPrefix(s.name, "remote") {
			im.remark(s.at, path+s.name, "this section is not known here, and was left out")
		}
	}
	return true
}

// swanIKE sets [ike].
func (e *ends) swanIKE(b block) {
	if v, at := b.get("proposals"); v != "" {
		e.peer.ike.set("proposals", array(e.proposals(at, b.path+"proposals", v, proposalKind{ike: true})))
	}
	soft, ok := b.time("rekey_time")
	over, _ := b.time("over_time")
	switch {
	case ok && soft == 0:
		b.remark("rekey_time", "an IKE SA is always rekeyed here; the default stands")
	case ok && over > 0:
		e.peer.ike.set("lifetime", limits(span(soft), span(soft+over)))
	case ok:
		e.peer.ike.set("lifetime", limits(span(soft), ""))
	case over > 0:
		b.remark("over_time", "the default lifetime stands; write one with a hard limit to change it")
	}
	e.dpd(b, "dpd_delay")
	if v, _ := b.get("encap"); isYes(v) {
		e.peer.ike.set("encap", `"yes"`)
	}
	if v, _ := b.get("fragmentation"); v == "no" || v == "accept" {
		e.peer.ike.set("fragment", "0")
	}
	e.device(b)
}

// swanAuth reads how both ends prove who they are.
func (e *ends) swanAuth(c *section, path string) {
	methods := map[string]string{}
	for _, side := range []string{"local", "remote"} {
		rounds := 0
		for _, s := range c.sections {
			if !strings.HasPrefix(s.name, side) {
				continue
			}
			b := block{e.importer, path + s.name + ".", s.entries, s.at}
			if rounds++; rounds > 1 {
				e.remark(s.at, path+s.name, "a second round of authentication is not there; it was left out")
				continue
			}
			method, at := b.get("auth")
			methods[side] = method
			if at.line == 0 {
				at = s.at
			}
			id, idAt := b.get("id")
			keys, _ := b.get("pubkeys")
			switch {
			case side == "local":
				e.localID(idAt, b.path+"id", id)
			case id == "":
				e.anyID(s.at, b.path+"id")
			default:
				e.remoteID(idAt, b.path+"id", id)
			}
			switch kind, _, _ := strings.Cut(method, "-"); {
			case method == "psk":
				e.psk = true
			case kind == "eap" || kind == "xauth":
				e.remark(at, b.path+"auth", noEAP)
			case keys != "" && side == "local":
				e.ownKey(at, b.path+"pubkeys", "the private key of "+keys)
			case keys != "":
				e.publicKey(at, b.path+"pubkeys", keys, "pubkey")
			default:
				e.remark(at, b.path+"auth", noCertificates)
			}
			b.rest(append([]string{"auth", "pubkeys"}, quietAuth...), swanReasons)
		}
		if rounds == 0 {
			e.remark(c.at, path+side, "without this section strongSwan uses certificates; %s", noCertificates)
		}
	}
	e.findPSK(c.at, path+"local.auth", methods["local"] == methods["remote"])
}

// swanChildren makes one Child SA of the children, as far as their selectors are
// those of one.
func (e *ends) swanChildren(children *section, path string) bool {
	var first block
	var local, remote []string
	for i, s := range children.sections {
		b := block{e.importer, path + s.name + ".", s.entries, s.at}
		mode, _ := b.get("mode")
		if mode = strings.ToLower(mode); mode != "" && mode != "tunnel" && mode != "transport" {
			b.remark("mode", noMode, mode)
			continue
		}
		if b.entries.has("ah_proposals") {
			b.remark("ah_proposals", "%s", swanReasons["ah_proposals"])
			continue
		}
		l, r := e.swanTS(b, "local_ts"), e.swanTS(b, "remote_ts")
		switch {
		case first.path == "":
			first, local, remote = b, l, r
			continue
		case sameSettings(first, b) && slices.Equal(local, l):
			remote = appendNew(remote, r)
		case sameSettings(first, b) && slices.Equal(remote, r):
			local = appendNew(local, l)
		default:
			e.remark(s.at, path+s.name, "a peer has one Child SA here, and this one's selectors or settings do not fit into that of %s; it was left out", children.sections[0].name)
			continue
		}
		e.remark(children.sections[i].at, path+s.name, "a peer has one Child SA here: this child's selectors are in that of %s, and the other end needs one child with all of them too", strings.TrimSuffix(strings.TrimPrefix(first.path, path), "."))
	}
	if first.path == "" {
		return false
	}
	e.peer.local, e.peer.remote = local, remote
	e.swanChild(first)
	return true
}

// sameSettings says whether two children differ in their selectors alone.
func sameSettings(a, b block) bool {
	settings := func(b block) (list []string) {
		for _, e := range b.entries {
			if e.key != "local_ts" && e.key != "remote_ts" {
				list = append(list, e.key+"="+e.value)
			}
		}
		slices.Sort(list)
		return list
	}
	return slices.Equal(settings(a), settings(b))
}

// swanTS is a list of selectors; empty for the end's own address.
func (e *ends) swanTS(b block, key string) []string {
	v, at := b.get(key)
	var list []string
	for _, ts := range commas(v) {
		if ts == "dynamic" {
			continue
		}
		list = e.selector(list, at, b.path+key, swanPorts(ts))
	}
	return list
}

var icmpPort = regexp.MustCompile(`^(.*\[(?:icmp|icmpv6|ipv6-icmp|1|58)/)([0-9]+)\]$`)

// swanPorts writes what strongSwan takes for a port of ICMP, type and code in one
// number, as a range, which is not taken for a type alone.
func swanPorts(ts string) string { return icmpPort.ReplaceAllString(ts, "$1$2-$2]") }

// swanChild sets what a child says beside its selectors.
func (e *ends) swanChild(b block) {
	if v, _ := b.get("mode"); strings.EqualFold(v, "transport") {
		e.mode = string(conf.ModeTransport)
	}
	if v, at := b.get("esp_proposals"); v != "" {
		e.esp(at, b.path+"esp_proposals", v, false)
	}
	if v, at := b.get("replay_window"); v != "" {
		e.window(at, b.path+"replay_window", v)
	}
	switch v, _ := b.get("start_action"); v {
	case "start", "trap|start", "start|trap":
		e.start = string(conf.StartNow)
	case "trap":
		e.start = string(conf.StartOnDemand)
	default:
		e.waits(b, "start_action", v)
	}
	e.swanLifetime(b)
	e.device(b)
	b.rest(quietChild, swanReasons)
}

// swanLifetime sets [lifetime].
func (e *ends) swanLifetime(b block) {
	soft, softOK := b.time("rekey_time")
	hard, hardOK := b.time("life_time")
	random, randomOK := b.time("rand_time")
	switch {
	case softOK && soft == 0 && hard == 0:
		e.peer.lifetime.set("time", `"off"`)
	case soft > 0 && hard > soft:
		e.peer.lifetime.set("time", limits(span(soft), span(hard)))
	case soft > 0:
		e.peer.lifetime.set("time", limits(span(soft), ""))
		if hardOK {
			b.remark("life_time", "this hard limit is not above rekey_time; a tenth more than that is")
		}
	case hard > time.Second:
		e.peer.lifetime.set("time", limits("", span(hard)))
	}
	for _, unit := range []string{"bytes", "packets"} {
		soft, hard := b.number("rekey_"+unit), b.number("life_"+unit)
		if soft > 0 && hard > 0 && hard <= soft {
			b.remark("life_"+unit, "this hard limit is not above rekey_%s; a tenth more than that is", unit)
			hard = 0
		}
		e.peer.lifetime.set(unit, limits(counted(soft), counted(hard)))
	}
	if randomOK && soft > 0 {
		e.jitter(random, soft)
	}
}
