package steer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
	"ipsec-quick/apply/link/rtnl"
)

// The guard of a tunnel is a table of nftables (nft(8)). It drops packets that a
// policy covers and that come from, or leave by, another device than a TUN of
// ours: cleartext that pretends to be the peer's, and what no rule steers, such
// as the packets of a socket that is bound to a device.
//
// The kernel's IPsec policies could not do it: nothing exempts packets of IPv6
// that come from one device (disable_policy is the receiving address's, and by
// then the interface of the flow is the loopback).

// errNoGuard: the kernel has no nf_tables.
var errNoGuard = errors.New("this kernel has no nftables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET): cleartext from outside that " +
	"pretends to be a peer's is not dropped, and what a socket bound to a device sends is not either")

const (
	// guardTimeout bounds a request, in case the kernel acknowledges less than the
	// library waits for.
	guardTimeout = 5 * time.Second
	// guardBuffer holds the largest transaction, and the answers to it.
	guardBuffer = 8 << 20

	afterNAT = 300 // behind what changes a packet's source
)

func guardTable(device string) *nftables.Table {
	return &nftables.Table{Name: "ipsec-quick-" + device, Family: nftables.TableFamilyINet}
}

func openGuard() (*nftables.Conn, error) {
	return nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetReadBuffer(guardBuffer), c.SetWriteBuffer(guardBuffer), c.SetDeadline(time.Now().Add(guardTimeout)))
	}))
}

// guards lists the tables there are. It tells a kernel without nftables, for
// which a transaction is not a way: it would not be answered in full.
func guards(c *nftables.Conn) ([]*nftables.Table, error) {
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	for _, absent := range []error{unix.EINVAL, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.ENOENT} {
		if errors.Is(err, absent) {
			return nil, errNoGuard
		}
	}
	if errors.Is(err, os.ErrPermission) {
		err = fmt.Errorf("%w (CAP_NET_ADMIN is needed)", err)
	}
	return tables, err
}

// A guard is the table of a tunnel.
type guard struct {
	table *nftables.Table
	rules map[string][]*nftables.Rule // by policy; nil: to be read, for their handles
}

// The chains. Those that let pass come before what drops.
const (
	chainInput   = "input"
	chainForward = "forward"
	chainOutput  = "output"
	chainIn      = "covered" // what is covered, inbound
	chainPassIn  = "pass-in"
	chainPassOut = "pass-out"
)

// replace makes it anew, in one transaction.
func (g *guard) replace(policies map[policy]bool, local []uint16) error {
	c, err := openGuard()
	if err == nil {
		_, err = guards(c)
	}
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	c.AddTable(g.table)
	c.DelTable(g.table)
	c.AddTable(g.table)
	b := builder{c, g.table}
	b.frame(local)
	// In an order that is the same each time, for those who compare.
	return g.commit(b, slices.SortedFunc(maps.Keys(policies), func(p, q policy) int { return strings.Compare(p.name(), q.name()) }))
}

// add adds policies.
func (g *guard) add(policies []policy) error {
	c, err := openGuard()
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	return g.commit(builder{c, g.table}, policies)
}

// commit carries out a transaction that ends with adding policies.
func (g *guard) commit(b builder, policies []policy) error {
	for _, p := range policies {
		b.policy(p)
	}
	g.rules = nil
	if err := b.c.Flush(); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	return nil
}

// remove removes policies.
func (g *guard) remove(policies []policy) error {
	c, err := openGuard()
	if err == nil && g.rules == nil {
		err = g.read(c)
	}
	for _, p := range policies {
		for _, r := range g.rules[p.name()] {
			err = errors.Join(err, c.DelRule(r))
		}
		delete(g.rules, p.name())
	}
	if err == nil {
		err = c.Flush()
	}
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	return nil
}

// read learns the rules' handles.
func (g *guard) read(c *nftables.Conn) error {
	g.rules = map[string][]*nftables.Rule{}
	for _, name := range []string{chainIn, chainOutput, chainPassIn, chainPassOut} {
		rules, err := c.GetRules(g.table, &nftables.Chain{Name: name, Table: g.table})
		if err != nil {
			return err
		}
		for _, r := range rules {
			if comment, ok := userdata.GetString(r.UserData, userdata.TypeComment); ok {
				g.rules[comment] = append(g.rules[comment], &nftables.Rule{Table: g.table, Chain: r.Chain, Handle: r.Handle})
			}
		}
	}
	return nil
}

// name of a policy in the comments of its rules.
func (p policy) name() string {
	if p.bypass {
		return "bypass " + p.Selector.String()
	}
	return p.Selector.String()
}

// hasGuard reports whether the table is there.
func hasGuard(device string) (bool, error) {
	c, err := openGuard()
	if err != nil {
		return false, err
	}
	tables, err := guards(c)
	return slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == guardTable(device).Name }), err
}

// removeGuard removes the table, if there is one.
func removeGuard(device string) (removed bool, err error) {
	there, err := hasGuard(device)
	if errors.Is(err, errNoGuard) {
		return false, nil
	}
	if err == nil && there {
		var c *nftables.Conn
		if c, err = openGuard(); err == nil {
			c.DelTable(guardTable(device))
			err = c.Flush()
		}
	}
	if err != nil {
		return false, fmt.Errorf("guard: %w", err)
	}
	return there, nil
}

// builder adds to a table.
type builder struct {
	c     *nftables.Conn
	table *nftables.Table
}

// match is a part of a rule.
type match []expr.Any

func (b *builder) chain(name string, hook *nftables.ChainHook, priority nftables.ChainPriority) {
	b.c.AddChain(&nftables.Chain{
		Name: name, Table: b.table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityRef(priority),
	})
}

func (b *builder) rule(chain string, comment string, verdict expr.Any, parts ...match) {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	r := &nftables.Rule{Table: b.table, Chain: &nftables.Chain{Name: chain, Table: b.table}, Exprs: append(all, verdict)}
	if comment != "" {
		r.UserData = userdata.AppendString(nil, userdata.TypeComment, comment)
	}
	b.c.AddRule(r)
}

var (
	pass = &expr.Verdict{Kind: expr.VerdictAccept}
	drop = &expr.Verdict{Kind: expr.VerdictDrop}
)

// frame makes the chains, with what is the same for all policies.
func (b *builder) frame(local []uint16) {
	jump := func(from, to string) { b.rule(from, "", &expr.Verdict{Kind: expr.VerdictJump, Chain: to}) }
	for _, name := range []string{chainPassIn, chainPassOut, chainIn} {
		b.c.AddChain(&nftables.Chain{Name: name, Table: b.table})
	}
	jump(chainIn, chainPassIn)
	b.chain(chainInput, nftables.ChainHookInput, *nftables.ChainPriorityFilter)
	b.rule(chainInput, "", pass, meta(expr.MetaKeyIIFTYPE, u16(unix.ARPHRD_LOOPBACK)))
	for _, port := range local { // IKE, and ESP for our sockets
		b.rule(chainInput, "", pass, ofProtocol(unix.IPPROTO_UDP), transport(2, be16(port), nil))
	}
	b.rule(chainInput, "", pass, ofProtocol(unix.IPPROTO_ESP))
	// Without these no path is found to have a smaller MTU, where a policy covers
	// the routers on it (RFC 4301, Section 8.2.1): fragmentation needed, and packet
	// too big.
	b.rule(chainInput, "", pass, ofFamily(false), ofProtocol(unix.IPPROTO_ICMP), transport(0, []byte{3, 4}, nil))
	b.rule(chainInput, "", pass, ofFamily(true), ofProtocol(unix.IPPROTO_ICMPV6), transport(0, []byte{2}, nil))
	b.chain(chainForward, nftables.ChainHookForward, *nftables.ChainPriorityFilter)
	for _, chain := range []string{chainInput, chainForward} {
		b.rule(chain, "", pass, meta(expr.MetaKeyIIFGROUP, u32(rtnl.Group)))
		jump(chain, chainIn)
	}
	b.chain(chainOutput, nftables.ChainHookPostrouting, afterNAT)
	b.rule(chainOutput, "", pass, meta(expr.MetaKeyOIFTYPE, u16(unix.ARPHRD_LOOPBACK)))
	b.rule(chainOutput, "", pass, meta(expr.MetaKeyOIFGROUP, u32(rtnl.Group)))
	b.rule(chainOutput, "", pass, meta(expr.MetaKeyMARK, u32(apply.Mark)))
	jump(chainOutput, chainPassOut)
}

// policy is one policy, in both directions.
func (b *builder) policy(p policy) {
	if p.bypass {
		b.rule(chainPassIn, p.name(), pass, covered(p.Selector, apply.In)...)
		b.rule(chainPassOut, p.name(), pass, covered(p.Selector, apply.Out)...)
		return
	}
	b.rule(chainIn, p.name(), drop, covered(p.Selector, apply.In)...)
	b.rule(chainOutput, p.name(), drop, covered(p.Selector, apply.Out)...)
}

// covered matches the packets of a selector in one direction.
func covered(s apply.Selector, d apply.Direction) []match {
	src, dst, sport, dport := s.SrcDst(d)
	parts := []match{ofFamily(s.Local.Addr().Is6()), address(src, true), address(dst, false)}
	if s.Protocol != 0 {
		parts = append(parts, ofProtocol(s.Protocol))
	}
	switch s.Protocol {
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		parts = append(parts, octet(0, sport), octet(1, dport)) // type and code
	case unix.IPPROTO_MH:
		parts = append(parts, octet(2, sport)) // its type (RFC 6275, Section 6.1.1)
	default:
		if hasPorts(s.Protocol) {
			parts = append(parts, port(0, sport), port(2, dport))
		}
	}
	return parts
}

func u16(v uint16) []byte { return binary.NativeEndian.AppendUint16(nil, v) }
func u32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
func be16(v uint16) []byte {
	return binary.BigEndian.AppendUint16(nil, v)
}

func meta(key expr.MetaKey, value []byte) match {
	return match{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value},
	}
}

func family(ipv6 bool) byte {
	if ipv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func ofFamily(ipv6 bool) match {
	return meta(expr.MetaKeyNFPROTO, []byte{family(ipv6)})
}

func ofProtocol(protocol uint8) match { return meta(expr.MetaKeyL4PROTO, []byte{protocol}) }

// address compares the source or the destination.
func address(p netip.Prefix, source bool) match {
	if p.Bits() == 0 {
		return nil
	}
	ip := p.Masked().Addr().AsSlice()
	offset := uint32(12) // of the source in IPv4's header
	if p.Addr().Is6() {
		offset = 8
	}
	if !source {
		offset += uint32(len(ip))
	}
	return field(expr.PayloadBaseNetworkHeader, offset, ip, net.CIDRMask(p.Bits(), p.Addr().BitLen()))
}

// transport compares octets of the transport header.
func transport(offset uint32, value, mask []byte) match {
	return field(expr.PayloadBaseTransportHeader, offset, value, mask)
}

func port(offset uint32, p apply.PortMask) match {
	if p.IsAny() {
		return nil
	}
	return transport(offset, be16(p.Port), be16(p.Mask))
}

func octet(offset uint32, p apply.PortMask) match {
	if p.IsAny() {
		return nil
	}
	return transport(offset, []byte{byte(p.Port)}, []byte{byte(p.Mask)})
}

// field compares a field under a mask; nil: all of it.
func field(base expr.PayloadBase, offset uint32, value, mask []byte) match {
	n := uint32(len(value))
	m := match{&expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: n}}
	if mask != nil {
		m = append(m, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: n, Mask: mask, Xor: make([]byte, n)})
	}
	return append(m, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value})
}
