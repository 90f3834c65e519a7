package rtnl

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Route is an entry of ip-route(8).
type Route struct {
	To     netip.Prefix
	Src    netip.Addr // preferred; not valid: none
	Table  int
	Device int    // its index; 0: unreachable
	Metric uint32 // of an unreachable route, which others come before
}

// LastMetric is the metric of a route that any other comes before.
const LastMetric = math.MaxUint32

// Add adds the route. The error wraps unix.EEXIST if there is one already for the
// same destination, in the same table and with the same metric.
func (e Route) Add() error { return e.failed("add", netlink.RouteAdd(e.netlink())) }

// Replace adds the route, or puts it in the place of one that differs from it in
// its source or device alone.
func (e Route) Replace() error { return e.failed("add", netlink.RouteReplace(e.netlink())) }

// Delete deletes the route. It returns whether it was there.
func (e Route) Delete() (bool, error) {
	err := netlink.RouteDel(e.netlink())
	if errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	return err == nil, e.failed("remove", err)
}

func (e Route) failed(verb string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s a route for %v: %w", verb, e.To, err)
}

func (e Route) netlink() *netlink.Route {
	r := &netlink.Route{Dst: ipNet(e.To), Table: e.Table, Protocol: Protocol}
	if e.Src.IsValid() {
		r.Src = e.Src.AsSlice()
	}
	if e.Device == 0 {
		r.Type, r.Priority, r.Scope = unix.RTN_UNREACHABLE, int(e.Metric), unix.RT_SCOPE_UNIVERSE
	} else {
		r.LinkIndex, r.Scope = e.Device, unix.RT_SCOPE_LINK
	}
	return r
}

// Routes returns those of all our tunnels.
func Routes() ([]Route, error) {
	list, err := Stable(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC, Protocol: Protocol},
			netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	out := make([]Route, 0, len(list))
	for _, r := range list {
		out = append(out, routeOf(r))
	}
	return out, nil
}

func routeOf(r netlink.Route) Route {
	e := Route{To: PrefixOf(r.Dst), Table: r.Table, Device: r.LinkIndex}
	if !e.To.IsValid() {
		e.To = Anywhere(r.Family == unix.AF_INET6)
	}
	if src, ok := netip.AddrFromSlice(r.Src); ok {
		e.Src = src.Unmap()
	}
	if r.Type == unix.RTN_UNREACHABLE {
		e.Device, e.Metric = 0, uint32(r.Priority) // IPv6 gives it the loopback
	}
	return e
}

// Command is what ip(8) is told; verb is "add", "replace" or "del", device the
// name of the route's.
func (e Route) Command(verb, device string) string {
	words := []string{ip(e.To.Addr().Is6()), "route", verb}
	if e.Device == 0 {
		words = append(words, "unreachable", e.To.String(), "metric", fmt.Sprint(e.Metric))
	} else {
		words = append(words, e.To.String(), "dev", device, "scope", "link")
	}
	if e.Src.IsValid() {
		words = append(words, "src", e.Src.String())
	}
	return strings.Join(append(words, "table", tableName(e.Table), "protocol", fmt.Sprint(Protocol)), " ")
}

// Stable repeats a listing that changed while it was read. When hundreds of tunnels
// come up at once, that happens.
func Stable[T any](list func() ([]T, error)) (got []T, err error) {
	for try := range 20 {
		if got, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
		time.Sleep(time.Duration(try) * time.Millisecond)
	}
	return got, err
}

// Anywhere is all of a family.
func Anywhere(ipv6 bool) netip.Prefix {
	if ipv6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

// PrefixOf is a prefix as this program has it; not valid: any, or none.
func PrefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits)
}

func ipNet(p netip.Prefix) *net.IPNet {
	if !p.IsValid() {
		return nil
	}
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func family(ipv6 bool) int {
	if ipv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func ip(ipv6 bool) string {
	if ipv6 {
		return "ip -6"
	}
	return "ip"
}

func tableName(table int) string {
	if table == unix.RT_TABLE_MAIN {
		return "main"
	}
	return fmt.Sprint(table)
}
