package applytest

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
)

const reqID = 77

// suite is a set of algorithms.
type suite struct {
	encryption string
	keyLen     int // octets, an AEAD's with its salt
	integrity  string
	integLen   int
}

var suites = []suite{
	{apply.AESGCM16, 20, "", 0},
	{apply.AESGCM16, 36, "", 0},
	{apply.ChaCha20Poly1305, 36, "", 0},
	{apply.AESCBC, 16, apply.HMACSHA256, 32},
	{apply.AESCBC, 32, apply.HMACSHA384, 48},
	{apply.AESCBC, 32, apply.HMACSHA512, 64},
}

// link is a pair of SAs between two hosts, seen from the first one.
type link struct {
	suite suite
	mode  apply.Mode
	ports bool // tunnel mode: only UDP between the ports
	ipv6  bool
	esn   bool
	encap bool
	soft  apply.Limits
	hard  apply.Limits
}

// plain is one as good as any.
var plain = link{suite: suites[0], encap: true}

func (l link) String() string {
	s := fmt.Sprintf("%s%d %v", l.suite.encryption, l.suite.keyLen*8, l.mode)
	for _, is := range []struct {
		name string
		yes  bool
	}{{l.suite.integrity, l.suite.integrity != ""}, {"ipv6", l.ipv6}, {"esn", l.esn}, {"udp", l.encap}} {
		if is.yes {
			s += " " + is.name
		}
	}
	return s
}

// sa is one direction of the link, from one host to another, as dir sees it.
func (l link) sa(from, to *host, spi uint32, dir apply.Direction) apply.SA {
	key := func(n int, c byte) apply.Key { return apply.Key(bytes.Repeat([]byte{c ^ byte(spi)}, n)) }
	sa := apply.SA{
		SPI: spi, Direction: dir, Src: from.outer[l.ipv6], Dst: to.outer[l.ipv6], ReqID: reqID, Mode: l.mode,
		Encryption: apply.Algorithm{Name: l.suite.encryption, Key: key(l.suite.keyLen, 0x5a)},
		ESN:        l.esn, ReplayWindow: 128,
	}
	if l.suite.integrity != "" {
		sa.Integrity = apply.Algorithm{Name: l.suite.integrity, Key: key(l.suite.integLen, 0xa5)}
	}
	if l.encap {
		sa.Encap = &apply.Encap{SrcPort: natPort, DstPort: natPort}
	}
	return sa
}

func (l link) selector(local, remote *host) apply.Selector {
	s := apply.Selector{Local: local.inner.Masked(), Remote: remote.inner.Masked()}
	if l.mode == apply.Transport {
		bits := local.outer[l.ipv6].BitLen()
		s.Local, s.Remote = netip.PrefixFrom(local.outer[l.ipv6], bits), netip.PrefixFrom(remote.outer[l.ipv6], bits)
	}
	if l.ports || l.mode == apply.Transport {
		one := apply.PortMask{Port: port, Mask: 0xffff}
		s.Protocol, s.LocalPort, s.RemotePort = unix.IPPROTO_UDP, one, one
	}
	return s
}

func (l link) policy(local, remote *host, spi uint32) apply.Policy {
	return apply.Policy{
		Selector: l.selector(local, remote), Action: apply.Protect, Mode: l.mode, ReqID: reqID, SPI: spi,
		Local: local.outer[l.ipv6], Remote: remote.outer[l.ipv6],
	}
}

// address is a host's end of the traffic of the link.
func (l link) address(h *host) netip.Addr {
	if l.mode == apply.Transport {
		return h.outer[l.ipv6]
	}
	return h.inner.Addr()
}

// pipe is what a link installs between a and b.
type pipe struct {
	link
	t            *testing.T
	a, b         *host
	ab, ba       apply.SA // as a sees them
	ab2, ba2     apply.SA // as b sees them
	aSock, bSock *net.UDPConn
}

// install connects two hosts. limits are those of a's SAs.
func (l link) install(t *testing.T, a, b *host) *pipe {
	t.Helper()
	p := &pipe{link: l, t: t, a: a, b: b}
	spiA, err := a.plane.AllocSPI(reqID, b.outer[l.ipv6], a.outer[l.ipv6], l.mode)
	must(t, err)
	spiB, err := b.plane.AllocSPI(reqID, a.outer[l.ipv6], b.outer[l.ipv6], l.mode)
	must(t, err)
	p.ab = l.sa(a, b, spiB, apply.Out)
	p.ba = l.sa(b, a, spiA, apply.In)
	p.ab2, p.ba2 = p.ab, p.ba
	p.ab2.Direction, p.ba2.Direction = apply.In, apply.Out
	p.ab.Soft, p.ab.Hard, p.ba.Soft, p.ba.Hard = l.soft, l.hard, l.soft, l.hard
	must(t, b.plane.InstallSA(p.ab2))
	must(t, a.plane.InstallSA(p.ba))
	must(t, b.plane.InstallSA(p.ba2))
	must(t, a.plane.InstallSA(p.ab))
	must(t, a.plane.SetPolicy(l.policy(a, b, spiB)))
	must(t, b.plane.SetPolicy(l.policy(b, a, spiA)))
	p.aSock = a.listen(l.address(a), port, nil)
	p.bSock = b.listen(l.address(b), port, nil)
	return p
}

// remove takes all away and checks that it is.
func (p *pipe) remove() {
	p.t.Helper()
	shut(p.aSock)
	shut(p.bSock)
	must(p.t, p.a.plane.RemovePolicy(p.policy(p.a, p.b, p.ab.SPI)))
	must(p.t, p.b.plane.RemovePolicy(p.policy(p.b, p.a, p.ba.SPI)))
	for _, sa := range []apply.SA{p.ab, p.ba} {
		must(p.t, p.a.plane.RemoveSA(sa.ID()))
		must(p.t, p.b.plane.RemoveSA(sa.ID()))
	}
	p.a.empty()
	p.b.empty()
}

// exchange sends one datagram each way and wants them to arrive.
func (p *pipe) exchange() {
	p.t.Helper()
	p.exchangeOf(100)
}

// exchangeOf does so with datagrams of some octets.
func (p *pipe) exchangeOf(octets int) {
	p.t.Helper()
	p.send(p.aSock, p.bSock, p.address(p.b), octets)
	p.send(p.bSock, p.aSock, p.address(p.a), octets)
}

func (p *pipe) send(from, to *net.UDPConn, addr netip.Addr, octets int) {
	p.t.Helper()
	text := make([]byte, octets)
	_, _ = rand.Read(text)
	if _, err := from.WriteToUDPAddrPort(text, netip.AddrPortFrom(addr, port)); err != nil {
		p.t.Fatalf("%v: %v", p.link, err)
	}
	_ = to.SetReadDeadline(time.Now().Add(3 * time.Second))
	buf := make([]byte, octets+1)
	if n, err := to.Read(buf); err != nil || !bytes.Equal(buf[:n], text) {
		p.t.Fatalf("%v: received %d octets, %v", p.link, n, err)
	}
}

// lost wants nothing to arrive.
func (p *pipe) lost(to *net.UDPConn) {
	p.t.Helper()
	_ = to.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	buf := make([]byte, 200)
	if n, err := to.Read(buf); err == nil {
		p.t.Errorf("%v: received %d octets", p.link, n)
	}
}

func (p *pipe) usage(h *host, sa apply.SA) apply.Usage {
	p.t.Helper()
	u, err := h.plane.Query(sa.ID())
	must(p.t, err)
	return u
}
