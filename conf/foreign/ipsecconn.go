package foreign

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"ipsec-quick/conf"
)

// ipsecConn makes a tunnel of a connection.
func (im *importer) ipsecConn(t *tunnel, s *stanza, secrets []secret, libreswan bool) bool {
	b := block{im, "conn " + s.name + ": ", s.entries, s.at}
	if !b.servable() {
		return false
	}
	ours, theirs := im.orient(b)
	e := &ends{importer: im, tunnel: t, peer: &peer{name: peerName(s.name)}, secrets: secrets}
	e.addresses(b, ours, theirs, ours+"ikeport", theirs+"ikeport")
	e.ourID = e.sideID(b, ours, libreswan)
	e.theirID = e.sideID(b, theirs, libreswan)
	if v, at := b.get(theirs + "id"); strings.HasPrefix(v, "%any") {
		e.anyID(at, b.path+theirs+"id")
	}
	e.ipsecAuth(b, ours, theirs)
	e.peer.local = e.sideTS(b, ours)
	e.peer.remote = e.sideTS(b, theirs)
	e.virtualIP(b, ours, theirs, libreswan)
	if v, _ := b.get("type"); v == "transport" {
		e.mode = string(conf.ModeTransport)
	}
	switch v, _ := b.get("auto"); v {
	case "start", "up":
		e.start = string(conf.StartNow)
	case "route", "ondemand":
		e.start = string(conf.StartOnDemand)
	default:
		e.waits(b, "auto", v)
	}
	e.ipsecIKE(b, libreswan)
	e.ipsecESP(b, libreswan)
	e.ipsecLifetime(b, libreswan)
	e.ipsecDevice(b, ours)
	e.finish()
	b.rest(quietKeys, ipsecReasons)
	return true
}

// servable says whether a connection is one that a tunnel file can have at all.
func (b block) servable() bool {
	exchange, _ := b.get("keyexchange")
	version, _ := b.get("ikev2")
	kind, _ := b.get("type")
	authby, _ := b.get("authby")
	phase2, _ := b.get("phase2")
	switch {
	case exchange == "ikev1":
		b.remark("keyexchange", "%s", noIKEv1)
	case version == "no" || version == "never" || version == "permit":
		b.remark("ikev2", "%s", noIKEv1)
	case kind != "" && kind != "tunnel" && kind != "transport":
		b.remark("type", noMode, kind)
	case authby == "never":
		b.remark("authby", "a policy without a tunnel is not there; it was left out")
	case phase2 == "ah":
		b.remark("phase2", "%s", ipsecReasons["ah"])
	case b.entries.has("ah"):
		b.remark("ah", "%s", ipsecReasons["ah"])
	case strings.HasPrefix(authby, "xauth"):
		b.remark("authby", "XAuth is of IKEv1; %s", noIKEv1)
	default:
		return b.endsServable()
	}
	return false
}

// endsServable says so of its two ends.
func (b block) endsServable() bool {
	for _, side := range []string{"left", "right"} {
		host, _ := b.get(side)
		auth, _ := b.get(side + "auth")
		server, _ := b.get(side + "xauthserver")
		client, _ := b.get(side + "xauthclient")
		switch {
		case strings.HasPrefix(host, "%opportunistic") || host == "%group":
			b.remark(side, "opportunistic encryption is not there: a peer is one that is known")
			return false
		case strings.HasPrefix(auth, "xauth") || isYes(server) || isYes(client):
			b.remark(side, "XAuth is of IKEv1; %s", noIKEv1)
			return false
		}
	}
	return true
}

// virtualIP is about addresses that one end gives the other.
func (e *ends) virtualIP(b block, ours, theirs string, libreswan bool) {
	key := ours + "sourceip"
	if v, at := b.get(key); v != "" {
		if strings.HasPrefix(v, "%") || !libreswan {
			e.remark(at, b.path+key, "%s", noVirtualIP)
		} else {
			e.remark(at, b.path+key, "the source address of our own packets is the kernel's choice; give this one to [interface] addresses")
		}
	}
	key = theirs + "sourceip" // with libreswan the peer's own business
	if v, at := b.get(key); v != "" && !libreswan {
		e.remark(at, b.path+key, "%s", noPool)
	}
}

// sideTS are the traffic selectors of a side.
func (e *ends) sideTS(b block, side string) []string {
	v, at := b.get(side + "subnet")
	key := b.path + side + "subnet"
	if many, manyAt := b.get(side + "subnets"); many != "" {
		v, at, key = strings.ReplaceAll(strings.Trim(many, "{} "), " ", ","), manyAt, b.path+side+"subnets"
		e.remark(at, key, "a peer has one Child SA here, with all these selectors, and the other end needs one with all of them too")
	}
	ports := e.protoport(b, side+"protoport")
	var list []string
	for _, one := range commas(v) {
		if strings.HasPrefix(one, "vhost:") || strings.HasPrefix(one, "vnet:") {
			e.remark(at, key, "%s is of IKEv1; it was left out", one)
			continue
		}
		one = selectorOf(one)
		if where, inner, ok := strings.Cut(one, "["); ok && inner == "]" {
			one = where
		}
		if !strings.Contains(one, "[") {
			one += ports
		}
		if one == "dynamic" {
			continue
		}
		list = e.selector(list, at, key, swanPorts(one))
	}
	if len(list) == 0 && ports != "" {
		list = e.selector(list, at, b.path+side+"protoport", "dynamic"+ports)
	}
	return list
}

// selectorOf writes a selector of an ipsec.conf as a tunnel file has it:
// libreswan has the protocol and port behind more slashes, and masks in dots.
func selectorOf(s string) string {
	s, isDynamic := strings.CutPrefix(s, "%dynamic")
	if isDynamic {
		return "dynamic" + s
	}
	parts := strings.Split(s, "/")
	if parts[0] == "0" {
		parts[0] = "0.0.0.0"
	}
	if len(parts) >= 2 {
		if mask, err := netip.ParseAddr(parts[1]); err == nil && mask.Is4() {
			bits := 0
			for _, octet := range mask.As4() {
				for ; octet&0x80 != 0; octet <<= 1 {
					bits++
				}
			}
			parts[1] = strconv.Itoa(bits)
		}
	}
	if len(parts) > 2 && !strings.Contains(s, "[") {
		return parts[0] + "/" + parts[1] + "[" + strings.Join(parts[2:], "/") + "]"
	}
	return strings.Join(parts, "/")
}

// protoport is "17/1701" in brackets; empty for all traffic.
func (e *ends) protoport(b block, key string) string {
	v, _ := b.get(key)
	protocol, port, _ := strings.Cut(v, "/")
	switch {
	case v == "" || v == "%any" || protocol == "%any" || protocol == "0":
		return ""
	case port == "" || port == "%any" || port == "0":
		return "[" + protocol + "]"
	}
	return "[" + protocol + "/" + port + "]"
}

// ipsecDevice makes the tunnel route-based where the source has it so.
func (e *ends) ipsecDevice(b block, ours string) {
	for _, key := range []string{"ipsec-interface", "mark", "vti-interface", "if_id_in", "if_id_out"} {
		if v, at := b.get(key); v != "" && v != "no" && v != "0" && v != "%no" {
			e.routed(at, b.path+key)
		}
	}
	for _, key := range []string{"interface-ip", ours + "interface-ip", ours + "vti"} {
		v, at := b.get(key)
		if v == "" {
			continue
		}
		if _, err := netip.ParsePrefix(v); err != nil {
			e.remark(at, b.path+key, "%q is no address with its network", v)
			continue
		}
		e.routed(at, b.path+key)
		e.tunnel.device = table{{"addresses", array([]string{v})}, {"table", `"off"`}}
	}
	b.get(flipped(ours) + "interface-ip") // the peer's own business
}

// ipsecLifetime sets [lifetime], and that of [ike].
func (e *ends) ipsecLifetime(b block, libreswan bool) {
	margin, fuzz := 9*time.Minute, 100.0
	if d, ok := b.firstTime("margintime", "rekeymargin"); ok {
		margin = d
	}
	if v, _ := b.get("rekeyfuzz"); v != "" {
		f, err := strconv.ParseFloat(strings.TrimSuffix(v, "%"), 64)
		if err != nil || !(f >= 0) || f > 1e6 {
			b.remark("rekeyfuzz", "%q was not understood as a percentage; it was left out", v)
		} else {
			fuzz = f
		}
	}
	if v, _ := b.get("rekey"); isNo(v) {
		b.remark("rekey", "SAs are always rekeyed here before their end")
	}
	if d, ok := b.firstTime("ikelifetime"); ok && d > 0 {
		e.peer.ike.set("lifetime", lifetime(d, margin))
	}
	if d, ok := b.firstTime("lifetime", "keylife", "salifetime", "ipsec-lifetime"); ok && d > 0 {
		e.peer.lifetime.set("time", lifetime(d, margin))
		if soft := d - margin; soft >= time.Second {
			e.jitter(time.Duration(float64(margin)*fuzz/100), soft)
		}
	}
	for _, unit := range []string{"bytes", "packets"} {
		key := "life" + unit
		if libreswan {
			key = "ipsec-max-" + unit
		}
		hard, before := b.number(key), b.number("margin"+unit)
		if hard > 1 && before < hard && before > 0 {
			e.peer.lifetime.set(unit, limits(counted(hard-before), counted(hard)))
		} else if hard > 1 {
			e.peer.lifetime.set(unit, limits("", counted(hard)))
		}
	}
}

// lifetime is a pair of limits by the hard one and the time of a rekey before it.
func lifetime(hard, margin time.Duration) string {
	if margin < time.Second || hard-margin < time.Second {
		if hard < 2*time.Second {
			return ""
		}
		return limits("", span(hard))
	}
	return limits(span(hard-margin), span(hard))
}

// firstTime is the duration of the first of these keys that is there.
func (b block) firstTime(keys ...string) (time.Duration, bool) {
	for _, key := range keys {
		if b.entries.has(key) {
			return b.time(key)
		}
	}
	return 0, false
}

// ipsecIKE sets [ike].
func (e *ends) ipsecIKE(b block, libreswan bool) {
	if v, at := b.get("ike"); v != "" {
		e.peer.ike.set("proposals", array(e.proposals(at, b.path+"ike", v, proposalKind{true, libreswan})))
		e.lenient(at, b.path+"ike", v, libreswan)
	}
	if v, _ := b.get("dpdaction"); v == "none" && !libreswan {
		e.peer.ike.set("dpd", `"off"`)
		b.get("dpddelay") // without effect there
	} else {
		e.dpd(b, "dpddelay")
	}
	for _, key := range []string{"forceencaps", "encapsulation"} {
		switch v, _ := b.get(key); {
		case isYes(v):
			e.peer.ike.set("encap", `"yes"`)
		case v == "no" && key == "encapsulation":
			e.peer.ike.set("encap", `"no"`)
		}
	}
	if v, _ := b.get("fragmentation"); isNo(v) || v == "accept" {
		e.peer.ike.set("fragment", "0")
	}
}

// lenient says what strongSwan does where a list of proposals has no "!" behind.
func (e *ends) lenient(at place, key, value string, libreswan bool) {
	if !libreswan && !strings.HasSuffix(value, "!") {
		e.remark(at, key, "without a ! strongSwan adds its defaults to these; here they are all there is")
	}
}

// ipsecESP sets [esp].
func (e *ends) ipsecESP(b block, libreswan bool) {
	for _, key := range []string{"esp", "phase2alg"} {
		if v, at := b.get(key); v != "" {
			e.esp(at, b.path+key, v, libreswan)
			e.lenient(at, b.path+key, v, libreswan)
			break
		}
	}
	if v, _ := b.get("pfs"); isNo(v) {
		e.peer.esp.set("pfs", `"no"`)
	}
	if v, _ := b.get("esn"); isNo(v) {
		e.peer.esp.set("esn", "false")
	}
	for _, key := range []string{"replay_window", "replay-window"} {
		if v, at := b.get(key); v != "" && v != "-1" {
			e.window(at, b.path+key, v)
		}
	}
}
