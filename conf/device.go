package conf

import (
	"fmt"
	"net/netip"
	"slices"
)

// The MTU of a device: the least that IPv4 allows (RFC 791), and the most
// that an IP packet is long.
const (
	minMTU = 68
	maxMTU = 65535
)

// minMTU6 is the least that IPv6 allows (RFC 8200, Section 5).
const minMTU6 = 1280

// readInterface reads and checks [interface].
func (d *decoder) readInterface(t *table) *Interface {
	if t == nil {
		return nil
	}
	dev := &Interface{
		Name: read(t, "name", func(v value) (string, bool) {
			s, ok := v.text(`"office"`)
			if ok && checkName(s) != nil {
				v.wrong("write 1 to 15 of the characters a-z A-Z 0-9 _ = + . -", "%q is no name of an interface", s)
				return "", false
			}
			return s, ok
		}).val,
		MTU:   read(t, "mtu", readMTU).val,
		Table: read(t, "table", readRoutingTable).val,
	}
	if v, ok := t.get("addresses"); ok {
		elements, _ := v.list(`["10.99.0.1/30"]`)
		for _, e := range elements {
			if s, ok := e.text(`"10.99.0.1/30"`); ok {
				dev.Addresses = append(dev.Addresses, e.deviceAddress(s))
			}
		}
	}
	dev.DNS, dev.Domains = readDNS(t)
	return dev
}

// checkInterface looks at what an interface and the peers must be together.
func (d *decoder) checkInterface(i *Interface, peers []Peer, mtu place) {
	ipv6 := slices.ContainsFunc(i.Addresses, func(a netip.Prefix) bool { return a.Addr().Is6() })
	for _, p := range peers {
		for _, ts := range p.RemoteTS {
			from, _ := ts.Bounds()
			ipv6 = ipv6 || from.Is6()
		}
	}
	if ipv6 && i.MTU > 0 && i.MTU < minMTU6 {
		d.add(mtu, fmt.Sprintf(`write "auto", or %d or more`, minMTU6), "IPv6 needs an MTU of %d", minMTU6)
	}
}

// deviceAddress is an address with its network, host bits and all.
func (v value) deviceAddress(s string) netip.Prefix {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		return netip.PrefixFrom(addr, addr.BitLen())
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		v.wrong(`write "10.99.0.1/30"`, "%q is no address with its network", s)
	}
	return prefix
}

func readMTU(v value) (int, bool) {
	if v.raw == "auto" {
		return 0, true
	}
	n, ok := v.whole(minMTU, maxMTU, `"auto" or a number such as 1400`)
	return int(n), ok
}

func readRoutingTable(v value) (int, bool) {
	switch v.raw {
	case "auto":
		return TableAuto, true
	case "off":
		return TableOff, true
	}
	n, ok := v.whole(1, 1<<31-1, `"auto", "off" or a number`)
	return int(n), ok
}
