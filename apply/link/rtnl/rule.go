// Package rtnl is what this program has in the kernel's routing: rules
// (ip-rule(8)) and routes (ip-route(8)) as values that can be compared, listed,
// changed and printed. It knows whose a rule or route is by its protocol number
// alone; which tunnel's by its table, or for an unreachable route by its metric.
package rtnl

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// Protocol marks our rules and routes (rtm_protocol): ESP's number.
	Protocol = 50
	// Group (ip link set DEV group) is that of all our devices: the guards of one
	// tunnel let what another one has decrypted pass.
	Group = 50
)

// Preferences of our rules lie between the table of local addresses (0) and the
// main table (32766): first those that steer by selectors, then those of routes
// that a peer's own address lies in. At the end of each is a rule that does
// nothing, to skip the rest.
const (
	PrefSteer    = 10000
	PrefSteerEnd = 30000
	PrefRoute    = 31000
	PrefRouteEnd = 32000
)

// Rule is an entry of ip-rule(8). It looks a table up unless it says otherwise.
type Rule struct {
	IPv6         bool
	Pref         int
	From, To     netip.Prefix // not valid: any
	Protocol     uint8        // 0: any
	Sport, Dport Ports
	Mark         uint32 // 0: any
	Local        bool   // sent by this host
	Table        int    // also of a rule that does not look it up: whose it is

	Goto     int  // skips to the rules of this preference; 0: does not
	Narrower bool // finds only routes that are narrower than To
}

// Ports are a range; the zero value is any.
type Ports struct{ From, To uint16 }

// String is as ip-rule(8) has it.
func (p Ports) String() string { return fmt.Sprintf("%d-%d", p.From, p.To) }

// end reports whether the rule does nothing.
func (e Rule) end() bool { return e.Pref == PrefSteerEnd || e.Pref == PrefRouteEnd }

// suppressed is the length of the longest prefix that a rule does not find; below
// 0: it finds all.
func (e Rule) suppressed() int {
	switch {
	case !e.Narrower:
		return -1
	case e.To.IsValid():
		return e.To.Bits()
	}
	return 0
}

// Add adds the rule. It returns whether it was not there.
func (e Rule) Add() (bool, error) {
	err := netlink.RuleAdd(e.netlink())
	switch {
	case errors.Is(err, unix.EEXIST):
		return false, nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EAFNOSUPPORT):
		return false, fmt.Errorf("this kernel has no routing rules: it lacks CONFIG_IP_MULTIPLE_TABLES or "+
			"CONFIG_IPV6_MULTIPLE_TABLES: %w", err)
	case err != nil:
		return false, fmt.Errorf("add a rule: %w", err)
	}
	return true, nil
}

// Delete deletes the rule. It returns whether it was there.
func (e Rule) Delete() (bool, error) {
	err := netlink.RuleDel(e.netlink())
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("remove a rule: %w", err)
	}
	return true, nil
}

func (e Rule) netlink() *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Priority, r.Protocol, r.Table = family(e.IPv6), e.Pref, Protocol, e.Table
	r.Src, r.Dst, r.IPProto, r.Mark = ipNet(e.From), ipNet(e.To), int(e.Protocol), e.Mark
	if e.Sport != (Ports{}) {
		r.Sport = netlink.NewRulePortRange(e.Sport.From, e.Sport.To)
	}
	if e.Dport != (Ports{}) {
		r.Dport = netlink.NewRulePortRange(e.Dport.From, e.Dport.To)
	}
	if e.Local {
		r.IifName = "lo"
	}
	r.SuppressPrefixlen = e.suppressed()
	switch {
	case e.Goto > 0:
		r.Goto = e.Goto
	case e.end():
		r.Type = nl.FR_ACT_NOP
	default:
		r.Type = nl.FR_ACT_TO_TBL
	}
	return r
}

// Rules returns those of all our tunnels.
func Rules() ([]Rule, error) {
	var out []Rule
	for _, ipv6 := range []bool{false, true} {
		list, err := Stable(func() ([]netlink.Rule, error) { return netlink.RuleList(family(ipv6)) })
		if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list rules: %w", err)
		}
		for _, r := range list {
			if r.Protocol == Protocol {
				out = append(out, ruleOf(r, ipv6))
			}
		}
	}
	return out, nil
}

func ruleOf(r netlink.Rule, ipv6 bool) Rule {
	e := Rule{
		IPv6: ipv6, Pref: r.Priority, From: PrefixOf(r.Src), To: PrefixOf(r.Dst), Protocol: uint8(r.IPProto),
		Mark: r.Mark, Local: r.IifName != "", Table: r.Table, Goto: max(r.Goto, 0),
		Narrower: r.SuppressPrefixlen >= 0,
	}
	if r.Sport != nil {
		e.Sport = Ports{r.Sport.Start, r.Sport.End}
	}
	if r.Dport != nil {
		e.Dport = Ports{r.Dport.Start, r.Dport.End}
	}
	return e
}

// Command is what ip(8) is told; verb is "add" or "del".
func (e Rule) Command(verb string) string {
	words := []string{ip(e.IPv6), "rule", verb, "pref", fmt.Sprint(e.Pref)}
	word := func(name string, value any) { words = append(words, name, fmt.Sprint(value)) }
	if e.From.IsValid() {
		word("from", e.From)
	}
	if e.To.IsValid() {
		word("to", e.To)
	}
	if e.Mark != 0 {
		word("fwmark", fmt.Sprintf("%#x", e.Mark))
	}
	if e.Local {
		word("iif", "lo")
	}
	if e.Protocol != 0 {
		word("ipproto", e.Protocol)
	}
	if e.Sport != (Ports{}) {
		word("sport", e.Sport)
	}
	if e.Dport != (Ports{}) {
		word("dport", e.Dport)
	}
	word("table", tableName(e.Table))
	word("protocol", Protocol)
	switch {
	case e.Goto > 0:
		word("goto", e.Goto)
	case e.end():
		words = append(words, "nop")
	case e.Narrower:
		word("suppress_prefixlength", e.suppressed())
	}
	return strings.Join(words, " ")
}
