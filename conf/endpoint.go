package conf

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// String is the endpoint as a tunnel file spells it, without the usual port.
func (e Endpoint) String() string {
	host := e.Host
	switch {
	case host == "":
		return "any"
	case e.Port == ikePort:
		return host
	case e.Addr.Is6():
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(int(e.Port))
}

// ParseEndpoint reads "host", "host:port", an address with or without a port,
// and IPv6 with one as "[2001:db8::1]:500".
func ParseEndpoint(s string) (Endpoint, error) {
	if strings.Contains(s, "://") {
		return Endpoint{}, fmt.Errorf("%q is a URL; write the host alone, \"branch.example.org\"", s)
	}
	host, port, hasPort := s, "", false
	if inner, ok := strings.CutPrefix(s, "["); ok {
		var rest string
		host, rest, ok = strings.Cut(inner, "]")
		port, hasPort = strings.CutPrefix(rest, ":")
		if !ok || rest != "" && !hasPort || !strings.Contains(host, ":") {
			return Endpoint{}, fmt.Errorf("%q is no address in brackets; write \"[2001:db8::1]:500\"", s)
		}
	} else if strings.Count(s, ":") == 1 {
		host, port, hasPort = strings.Cut(s, ":")
	}
	e := Endpoint{Host: host, Port: ikePort}
	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return Endpoint{}, fmt.Errorf("%q is no port; write 1 to 65535, or leave it out for %d", port, ikePort)
		}
		e.Port = uint16(n)
	}
	switch {
	case host == "%any" || host == "*" || host == "any":
		return Endpoint{}, errors.New("any address is what an endpoint left out means; leave it out")
	case strings.Contains(host, ":") || looksLikeIPv4(host):
		addr, err := parseHostAddr(host)
		if err != nil {
			return Endpoint{}, err
		}
		e.Addr = addr
		return e, nil
	}
	return e, checkHost(host)
}

// parseHostAddr reads an outer address: one that a single host has.
func parseHostAddr(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return netip.Addr{}, fmt.Errorf("%q is no address; write \"192.0.2.1\" or \"2001:db8::1\"", s)
	case addr.Zone() != "":
		return netip.Addr{}, fmt.Errorf("%q has a zone, which no SA can say; write an address without", s)
	case addr.Is4In6():
		return netip.Addr{}, fmt.Errorf("%q is an IPv4 address in IPv6 spelling; write %q", s, addr.Unmap())
	case addr.IsUnspecified():
		return netip.Addr{}, fmt.Errorf("%q is no host's address; leave it out for any", s)
	case addr.IsMulticast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return netip.Addr{}, fmt.Errorf("%q is the address of many hosts; write that of one", s)
	}
	return addr, nil
}

// checkHost sees that a name can be asked for (RFC 1035, Section 2.3; RFC
// 1123, Section 2.1), with the underscore that is found in the wild.
func checkHost(host string) error {
	for _, label := range strings.Split(strings.TrimSuffix(host, "."), ".") {
		if label == "" || len(label) > 63 || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return fmt.Errorf("%q is no host name; write \"branch.example.org\" or an address", host)
		}
		for _, r := range label {
			if r >= 0x80 {
				return fmt.Errorf("%q is not ASCII; write the name in its xn-- form", host)
			}
			if !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_') {
				return fmt.Errorf("%q has a %q, which is in no host name; write \"branch.example.org\", with a port behind \":\" if it is not %d", host, r, ikePort)
			}
		}
	}
	if len(host) > 253 {
		return fmt.Errorf("a host name of %d characters is longer than 253", len(host))
	}
	return nil
}
