//go:build lab

package lab_test

import (
	"fmt"
	"net/netip"
	"strings"

	"ipsec-quick/test/harness"
)

// A quickFile is a tunnel file with one PSK peer, for tests that are not about
// what is agreed on. Its zero values are left out of the file.
type quickFile struct {
	id, peerID        string
	peer              string // endpoint
	psk               string // noPSK for none
	localTS, remoteTS netip.Prefix
	start             string
	ike, esp          string // proposals
	lifetime          string // lines of [lifetime]
	more              string // lines of [[peer]]
	ikeMore           string // lines of [ike]
	device            string // [interface] and its lines
}

const noPSK = "-"

func (f quickFile) String() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("dataplane = %q\n[local]\nid = %q", harness.Dataplane, f.id)
	ike, esp := f.ike, f.esp
	if ike == "" {
		ike = "aes256gcm16-prfsha384-x25519"
	}
	if esp == "" {
		esp = "aes256gcm16"
	}
	line("[ike]\nproposals = [%q]\n%s", ike, f.ikeMore)
	line("[esp]\nproposals = [%q]", esp)
	if f.lifetime != "" {
		line("[lifetime]\njitter = \"0%%\"\n%s", f.lifetime)
	}
	line("%s", f.device)
	line("[[peer]]\nname = \"other\"\nid = %q", f.peerID)
	if f.psk == "" {
		f.psk = testPSK
	}
	if f.psk != noPSK {
		line("psk = %q", f.psk)
	}
	if f.peer != "" {
		line("endpoint = %q", f.peer)
	}
	if f.localTS.IsValid() {
		line("local_ts = [%q]\nremote_ts = [%q]", f.localTS, f.remoteTS)
	}
	if f.start != "" {
		line("start = %q", f.start)
	}
	line("%s", f.more)
	return b.String()
}

// between is the tunnel file of a host towards another.
func between(we, they *harness.Host) quickFile {
	return quickFile{
		id: we.Name + ".example", peerID: they.Name + ".example", peer: they.Outer4.String(),
		localTS: we.Net4, remoteTS: they.Net4,
	}
}

// swanBetween is the same for strongSwan.
func swanBetween(we, they *harness.Host) harness.Conn {
	return harness.Conn{
		Name: "gw", Local: we.Outer4.String(), Remote: they.Outer4.String(),
		LocalID: we.Name + ".example", RemoteID: they.Name + ".example", Secret: testPSK,
		Proposals: "aes256gcm16-prfsha384-x25519", Extra: "mobike = no\n",
		Child: harness.Child{
			LocalTS: we.Net4.String(), RemoteTS: they.Net4.String(), ESP: "aes256gcm16",
			Extra: "rekey_time = 0\n",
		},
	}
}
