package conf

import (
	"net/netip"
	"strings"
)

// readDNS reads and checks interface.dns: the servers, and domains.
func readDNS(t *table) (servers []netip.Addr, domains []string) {
	v, ok := t.get("dns")
	if !ok {
		return nil, nil
	}
	elements, _ := v.list(`["10.2.0.53", "corp.example.org"]`)
	wrong := false
	for _, e := range elements {
		s, ok := e.text(`"10.2.0.53"`)
		addr, err := netip.ParseAddr(s)
		switch {
		case !ok:
			wrong = true
		case err == nil && addr.Zone() == "":
			servers = append(servers, addr.Unmap())
		case s == allNames:
			domains = append(domains, s)
		case isDomain(s):
			domains = append(domains, strings.TrimSuffix(s, "."))
		default:
			e.wrong(`write a server's address or a domain: "10.2.0.53", "corp.example.org", or "~corp.example.org" if only its names are asked for`, "%q is neither", s)
			wrong = true
		}
	}
	if !wrong && len(servers) == 0 && len(domains) > 0 {
		v.wrong("add the address of one", "there are domains, and no server is asked for them")
	}
	return servers, domains
}

// allNames is the domain of all names.
const allNames = "~."

// isDomain reports whether s is one, with or without a ~ before it.
func isDomain(s string) bool {
	name := strings.TrimPrefix(s, "~")
	return checkHost(name) == nil && !looksLikeIPv4(name)
}
