package steer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// changeRule adds or deletes a rule.
func changeRule(change func(*netlink.Rule) error, e rule) error {
	r := netlink.NewRule()
	r.Family, r.Priority, r.Protocol, r.Table = family(e.ipv6), e.pref, protocol, e.table
	r.Src, r.Dst, r.IPProto, r.Mark = ipNet(e.from), ipNet(e.to), int(e.protocol), e.mark
	if e.sport != (ports{}) {
		r.Sport = netlink.NewRulePortRange(e.sport.from, e.sport.to)
	}
	if e.dport != (ports{}) {
		r.Dport = netlink.NewRulePortRange(e.dport.from, e.dport.to)
	}
	if e.local {
		r.IifName = "lo"
	}
	switch {
	case e.skip:
		r.Goto = prefEnd
	case e.pref == prefEnd:
		r.Type = nl.FR_ACT_NOP
	default:
		r.Type = nl.FR_ACT_TO_TBL
	}
	return change(r)
}

// listRules returns those of all our tunnels.
func listRules() ([]rule, error) {
	var out []rule
	for _, ipv6 := range []bool{false, true} {
		list, err := stable(func() ([]netlink.Rule, error) { return netlink.RuleList(family(ipv6)) })
		if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list rules: %w", err)
		}
		for _, r := range list {
			if r.Protocol != protocol || r.Table < tableBase {
				continue
			}
			e := rule{
				ipv6: ipv6, pref: r.Priority, from: prefixOf(r.Src), to: prefixOf(r.Dst), protocol: uint8(r.IPProto),
				mark: r.Mark, local: r.IifName != "", skip: r.Goto > 0, table: r.Table,
			}
			if r.Sport != nil {
				e.sport = ports{r.Sport.Start, r.Sport.End}
			}
			if r.Dport != nil {
				e.dport = ports{r.Dport.Start, r.Dport.End}
			}
			out = append(out, e)
		}
	}
	return out, nil
}

// netlink is the route in a table.
func (e route) netlink(table, device int) *netlink.Route {
	r := &netlink.Route{Dst: ipNet(e.to), Table: table, Protocol: protocol, Scope: unix.RT_SCOPE_LINK, LinkIndex: device}
	if e.src.IsValid() {
		r.Src = e.src.AsSlice()
	}
	if e.unreachable {
		r.Type, r.Priority, r.Scope, r.LinkIndex = unix.RTN_UNREACHABLE, math.MaxUint32, unix.RT_SCOPE_UNIVERSE, 0
	}
	return r
}

// listRoutes returns those of all our tunnels.
func listRoutes() ([]netlink.Route, error) {
	list, err := stable(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC, Protocol: protocol},
			netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var out []netlink.Route
	for _, r := range list {
		if r.Table >= tableBase {
			out = append(out, r)
		}
	}
	return out, nil
}

func routeOf(r netlink.Route) route {
	e := route{to: prefixOf(r.Dst), unreachable: r.Type == unix.RTN_UNREACHABLE}
	if !e.to.IsValid() {
		e.to = anywhere(r.Family == unix.AF_INET6)
	}
	if src, ok := netip.AddrFromSlice(r.Src); ok {
		e.src = src.Unmap()
	}
	return e
}

// stable repeats a listing that changed while it was read.
func stable[T any](list func() ([]T, error)) (got []T, err error) {
	for range 5 {
		if got, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return got, err
}

// strictReversePath reports whether the kernel drops IPv4 packets that come by
// another device than the answer would leave by (net.ipv4.conf.*.rp_filter, of
// which the larger one of "all" and the device counts). It asks by netlink: a
// loop that is confined has no /proc.
func strictReversePath() (bool, error) {
	const strict, attrRPFilter, headerLen = 1, 3, 4 // NETCONFA_RP_FILTER; struct netconfmsg, padded
	request := nl.NewNetlinkRequest(unix.RTM_GETNETCONF, unix.NLM_F_DUMP)
	request.AddRawData([]byte{unix.AF_INET, 0, 0, 0})
	replies, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNETCONF)
	if err != nil {
		return false, fmt.Errorf("read rp_filter: %w", err)
	}
	for _, b := range replies {
		if len(b) < headerLen {
			continue
		}
		attrs, err := nl.ParseRouteAttr(b[headerLen:])
		if err != nil {
			return false, fmt.Errorf("read rp_filter: %w", err)
		}
		for _, a := range attrs {
			if a.Attr.Type == attrRPFilter && len(a.Value) >= 4 && binary.NativeEndian.Uint32(a.Value) == strict {
				return true, nil
			}
		}
	}
	return false, nil
}

// command is what ip-rule(8) is told.
func (e rule) command(verb string) string {
	words := []string{ipCommand(e.ipv6), "rule", verb, "pref", fmt.Sprint(e.pref)}
	word := func(name string, value any) { words = append(words, name, fmt.Sprint(value)) }
	if e.from.IsValid() {
		word("from", e.from)
	}
	if e.to.IsValid() {
		word("to", e.to)
	}
	if e.mark != 0 {
		word("fwmark", fmt.Sprintf("%#x", e.mark))
	}
	if e.local {
		word("iif", "lo")
	}
	if e.protocol != 0 {
		word("ipproto", e.protocol)
	}
	if e.sport != (ports{}) {
		word("sport", e.sport)
	}
	if e.dport != (ports{}) {
		word("dport", e.dport)
	}
	word("table", e.table)
	word("protocol", protocol)
	switch {
	case e.skip:
		word("goto", prefEnd)
	case e.pref == prefEnd:
		words = append(words, "nop")
	}
	return strings.Join(words, " ")
}

// String is as ip-rule(8) has it.
func (p ports) String() string { return fmt.Sprintf("%d-%d", p.from, p.to) }

// command is what ip-route(8) is told.
func (e route) command(verb, device string, table int) string {
	words := []string{ipCommand(e.to.Addr().Is6()), "route", verb}
	if e.unreachable {
		words = append(words, "unreachable", e.to.String(), "metric", fmt.Sprint(uint32(math.MaxUint32)))
	} else {
		words = append(words, e.to.String(), "dev", device, "scope", "link")
	}
	if e.src.IsValid() {
		words = append(words, "src", e.src.String())
	}
	return strings.Join(append(words, "table", fmt.Sprint(table), "protocol", fmt.Sprint(protocol)), " ")
}

func ipCommand(ipv6 bool) string {
	if ipv6 {
		return "ip -6"
	}
	return "ip"
}
