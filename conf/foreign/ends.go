package foreign

import (
	"cmp"
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"

	"ipsec-quick/conf"
	"ipsec-quick/ike/auth"
)

const noIKEv1 = "IKEv1 is not there and will not be: have the peer speak IKEv2"

const noMode = "%q is no mode of a tunnel; it was left out, for what no tunnel covers goes its way in clear"

// ends are the two ends of a connection on their way into a tunnel file.
type ends struct {
	*importer
	tunnel  *tunnel
	peer    *peer
	secrets []secret

	ourAddress, ourID     string
	theirAddress, theirID string // the address empty: any
	theirPort             string
	keyFile               string
	psk                   bool // that is how they prove who they are
	proof                 setting
	mode, start           string
}

// finish writes what is known into the tunnel file.
func (e *ends) finish() {
	e.tunnel.local.set("id", quote(e.ourID))
	e.tunnel.local.set("address", quote(e.ourAddress))
	e.tunnel.local.set("key_file", quote(e.keyFile))
	t := &e.peer.table
	t.set("endpoint", quote(e.endpoint()))
	t.set("id", quote(e.theirID))
	t.set(e.proof.key, e.proof.value)
	e.peer.rest.set("mode", quote(e.mode))
	if e.theirAddress != "" {
		e.peer.rest.set("start", quote(e.start))
	}
	e.tunnel.peers = append(e.tunnel.peers, *e.peer)
}

// endpoint is the peer's address with its port.
func (e *ends) endpoint() string {
	if e.theirPort == "" || e.theirAddress == "" {
		return e.theirAddress
	}
	if strings.Contains(e.theirAddress, ":") {
		return "[" + e.theirAddress + "]:" + e.theirPort
	}
	return e.theirAddress + ":" + e.theirPort
}

// isAny says whether an address stands for any.
func isAny(s string) bool {
	switch s {
	case "", "%any", "%any4", "%any6", "0.0.0.0", "::", "0.0.0.0/0", "::/0", "%defaultroute":
		return true
	}
	return false
}

// isRange says whether this is a range of addresses.
func isRange(s string) bool {
	from, to, _ := strings.Cut(s, "-")
	_, err1 := netip.ParseAddr(from)
	_, err2 := netip.ParseAddr(to)
	return err1 == nil && err2 == nil
}

// address takes the first of a list of addresses; empty for any.
func (im *importer) address(at place, key, value string, ours bool) string {
	list := commas(value)
	if len(list) > 1 {
		im.remark(at, key, "one address is used, %s; the others were left out", list[0])
	}
	if len(list) == 0 || isAny(list[0]) {
		return ""
	}
	one := list[0]
	_, err := netip.ParseAddr(one)
	switch {
	case strings.HasPrefix(one, "%") || strings.Contains(one, "/") || isRange(one):
		im.remark(at, key, "%s is no single address; any is what it became", one)
		return ""
	case err != nil && ours:
		im.remark(at, key, "%s is a name, and local.address is an address; the kernel chooses ours by the route", one)
		return ""
	}
	if _, err := conf.ParseEndpoint(one); err != nil {
		im.remark(at, key, "%v", err)
		return ""
	}
	return one
}

// addresses reads the outer addresses and ports of both ends.
func (e *ends) addresses(b block, ours, theirs, ourPort, theirPort string) {
	if v, at := b.get(ours); v != "" {
		e.ourAddress = e.address(at, b.path+ours, v, true)
	}
	if v, at := b.get(theirs); v != "" {
		e.theirAddress = e.address(at, b.path+theirs, v, false)
	}
	if v, _ := b.get(ourPort); v != "" && v != "500" && v != "4500" {
		if n, err := strconv.ParseUint(v, 10, 16); err == nil && n > 0 {
			e.tunnel.ports.set("port", v)
		} else {
			b.remark(ourPort, "%q is no port", v)
		}
	}
	switch v, _ := b.get(theirPort); v {
	case "", "500":
	case "4500":
		b.remark(theirPort, "IKE begins at port 500 here, and goes over to 4500 where there is a NAT")
	default:
		if _, err := conf.ParseEndpoint("192.0.2.1:" + v); err != nil {
			b.remark(theirPort, "%v", err)
			return
		}
		e.theirPort = v
	}
}

// identity is an identity as a tunnel file has it; empty for none.
func (im *importer) identity(at place, key, value string) string {
	if value == "" {
		return ""
	}
	if _, err := conf.ParseID(value); err != nil {
		im.remark(at, key, "%v; the address is the identity instead", err)
		return ""
	}
	return value
}

func (e *ends) localID(at place, key, value string) {
	if strings.HasPrefix(value, "%any") {
		value = ""
	}
	e.ourID = e.identity(at, key, value)
}

// remoteID reads who the peer is. An identity left open is any one in the source.
func (e *ends) remoteID(at place, key, value string) {
	if !strings.HasPrefix(value, "%any") && value != "*" {
		e.theirID = e.identity(at, key, value)
		return
	}
	e.anyID(at, key)
}

func (e *ends) anyID(at place, key string) {
	if e.theirAddress == "" {
		e.remark(at, key, "any identity was taken there; here each peer has its own: write its id, and a [[peer]] for each one")
		return
	}
	e.remark(at, key, "any identity was taken there; here the peer has to be %s: write its id if it is another", e.theirAddress)
}

// ownKey names the file for our private key.
func (e *ends) ownKey(at place, key, what string) {
	e.keyFile = "local.key"
	e.remark(at, key, "put %s into the file %s beside the tunnel file, in PEM, mode 0600", what, e.keyFile)
}

// publicKey reads the peer's raw public key from the file that is named, which is
// in folder or beside the source.
func (e *ends) publicKey(at place, key, value, folder string) {
	if list := commas(value); len(list) > 1 {
		e.remark(at, key, "one key is used, %s; the others were left out", list[0])
		value = list[0]
	}
	for _, name := range []string{path.Join(folder, value), value} {
		name = e.below(at.file, name)
		if name == "" {
			continue
		}
		text, err := e.peek(name)
		if err != nil {
			continue
		}
		public, err := auth.ParsePublicKey(strings.TrimSpace(text))
		if err != nil {
			e.remark(at, key, "%s: %v", name, err)
			return
		}
		e.proof = setting{"public_key", quote(auth.FormatPublicKey(public))}
		return
	}
	e.remark(at, key, "%s was not found below this folder: write the peer's public_key, as its PEM or as ipsec-quick pubkey prints it", value)
}

// findPSK looks for the pre-shared key of the two ends.
func (e *ends) findPSK(at place, key string, alike bool) {
	if !e.psk {
		return
	}
	if !alike {
		e.remark(at, key, "both ends prove who they are in the same way here: both by the pre-shared key")
	}
	best, found := 0, secret{}
	for _, s := range e.secrets {
		if n := s.fits([]string{e.ourID, e.ourAddress}, []string{e.theirID, e.theirAddress}); n > best {
			best, found = n, s
		}
	}
	// Connections with one peer have one secret.
	file := peerName(cmp.Or(strings.TrimLeft(e.theirID, "@"), e.theirAddress, e.peer.name)) + ".psk"
	switch {
	case best > 0 && found.key != "":
		e.proof = setting{"psk", quote(found.key)}
		return
	case best > 0:
		e.remark(found.at, "", "this secret is empty: put one into the file %s beside the tunnel file, mode 0600", file)
	default:
		e.remark(at, key, "the secret of these two ends is not in the source: put it into the file %s beside the tunnel file, mode 0600", file)
	}
	e.proof = setting{"psk_file", quote(file)}
}

// A secret is a pre-shared key, as a tunnel file spells it, and whose it is.
type secret struct {
	owners []string
	key    string
	at     place
}

// fits says how well a secret is that of two ends; 0: not at all.
func (s secret) fits(ours, theirs []string) int {
	if len(s.owners) == 0 {
		return 1
	}
	one := func(end []string) int {
		n := 0
		for _, owner := range s.owners {
			if isAny(owner) {
				n = max(n, 1)
			}
			for _, id := range end {
				if id != "" && sameID(owner, id) {
					n = 2
				}
			}
		}
		return n
	}
	mine, their := one(ours), one(theirs)
	if mine+their == 0 || mine+their == 1 && len(s.owners) > 1 {
		return 0
	}
	return 1 + mine + their
}

func sameID(a, b string) bool {
	x, err1 := conf.ParseID(a)
	y, err2 := conf.ParseID(b)
	return err1 == nil && err2 == nil && x.Equal(y)
}

// selector adds a traffic selector to a list.
func (im *importer) selector(list []string, at place, key, ts string) []string {
	parsed, err := conf.ParseTS(ts)
	if err != nil {
		// strongSwan takes a host for its network.
		where, ports, _ := strings.Cut(ts, "[")
		if prefix, perr := netip.ParsePrefix(where); perr == nil {
			if ports != "" {
				ports = "[" + ports
			}
			parsed, err = conf.ParseTS(prefix.Masked().String() + ports)
		}
	}
	if err != nil {
		// Without it its traffic would go its way in clear.
		im.remark(at, key, "%v; it stands there as it is, for you to change", err)
		return appendNew(list, []string{ts})
	}
	return appendNew(list, []string{parsed.String()})
}

// waits is for a connection that nothing begins.
func (e *ends) waits(b block, key, value string) {
	if e.theirAddress == "" {
		return
	}
	e.start = string(conf.StartPassive)
	if value == "" {
		value = "none"
	}
	b.remark(key, "%s: nothing began it but a command or the peer; ipsec-quick up only listens with start = \"passive\", and connects with \"now\"", value)
}

// window sets the replay window.
func (e *ends) window(at place, key, value string) {
	n, err := strconv.ParseUint(value, 10, 32)
	switch {
	case err != nil:
		e.remark(at, key, "%q is no number of packets", value)
	case n > 4096:
		e.peer.esp.set("replay_window", "4096")
		e.remark(at, key, "4096 packets is the widest window")
	case n == 0:
		e.peer.esp.set("esn", "false")
		e.peer.esp.set("replay_window", "0")
	default:
		e.peer.esp.set("replay_window", strconv.FormatUint(n, 10))
	}
}

// dpd sets dead peer detection.
func (e *ends) dpd(b block, key string) {
	d, ok := b.time(key)
	switch {
	case !ok:
	case d == 0:
		e.peer.ike.set("dpd", `"off"`)
	default:
		e.peer.ike.set("dpd", span(d))
	}
}

// device makes the tunnel route-based where the source has an interface ID.
func (e *ends) device(b block) {
	for _, key := range []string{"if_id_in", "if_id_out"} {
		if v, at := b.get(key); v != "" && v != "0" {
			e.routed(at, b.path+key)
		}
	}
}

// routed makes the tunnel one with a device, and without routes of its own.
func (e *ends) routed(at place, key string) {
	if e.tunnel.device == nil {
		e.tunnel.device = table{{"table", `"off"`}}
		e.remark(at, key, "the tunnel has a device of its own, [interface]; %s", noRoutes)
	}
}

// commas are the elements of a list.
func commas(s string) []string {
	var list []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}

func isYes(s string) bool {
	switch strings.ToLower(s) {
	case "yes", "true", "1", "enabled", "force":
		return true
	}
	return false
}

func isNo(s string) bool {
	switch strings.ToLower(s) {
	case "no", "false", "0", "disabled":
		return true
	}
	return false
}

// counted is a limit in TOML; empty for none.
func counted(n uint64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
