package userspace

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"ipsec-quick/apply"
	"ipsec-quick/apply/userspace/esp"
	"ipsec-quick/apply/userspace/offload"
	"ipsec-quick/apply/userspace/outer"
	"ipsec-quick/apply/userspace/packet"
	"ipsec-quick/apply/userspace/tun"
)

const (
	espHeader = 8    // SPI and sequence number
	marker    = 4    // octets of zero before IKE (RFC 3948, Section 2.2)
	keepalive = 0xff // RFC 3948, Section 2.3
)

// An inbound opens ESP packets and writes what was in them to the TUN device. It
// is for one goroutine.
type inbound struct {
	w         *workers
	stray     func(local, remote netip.AddrPort, data []byte) bool // Options.Stray
	clock     clock
	now       int64
	tables    *tables
	flows     flows[permit]
	fragments fragments
	scratch   esp.Scratch

	joiner  *offload.Joiner
	joining joining
	queue   *tun.Queue // of the packets that are being joined
	rebuilt []byte     // a packet of transport mode, with an IP header again
}

// joining is how a packet came that is being joined with others: one that came in
// the same way, and can be joined, is of the same flow and need not be looked at any
// more. Without an SA all are.
type joining struct {
	sa        *association
	next, tos uint8
}

// A permit is what permits said of a flow and an SA.
type permit struct {
	sa *association
	ok bool
}

func newInbound(w *workers) *inbound {
	return &inbound{w: w, joiner: offload.NewJoiner()}
}

// begin is called before messages, flush after them.
func (in *inbound) begin() {
	in.now, in.tables = in.clock.now(), in.w.p.tables.Load()
	on := in.w.join.Load()
	in.joiner.TCP, in.joiner.UDP = on.TCP, on.UDP
}

// flush writes what was joined.
func (in *inbound) flush() {
	in.joining = joining{}
	if b := in.joiner.Take(); b != nil {
		_ = in.queue.Write(b) // a device that is down or full drops it
	}
}

// message takes what came as one: ESP packets, most of them of one SA, which is
// held and locked once for all. Over UDP, also IKE and keepalives.
func (in *inbound) message(local netip.AddrPort, m *outer.Message, udp bool) {
	var a *association
	for b := m.Data; len(b) > 0; {
		d := b[:min(m.Size, len(b))]
		b = b[len(d):]
		if len(d) < espHeader {
			if len(d) > 1 || d[0] != keepalive {
				in.w.p.unknown.Add(1)
			}
			continue
		}
		spi := binary.BigEndian.Uint32(d)
		if a == nil || a.spi != spi {
			in.leave(a)
			if a = nil; spi == 0 && udp {
				in.w.p.o.IKE(local, m.From, d[marker:])
				continue
			}
			if a = in.enter(spi, local.Addr()); a == nil {
				if in.stray == nil || !in.stray(local, m.From, d) {
					in.w.p.unknown.Add(1)
				}
				continue
			}
		}
		if in.packet(a, d, m.TOS) {
			a.mapped(m.From, in.now)
		}
	}
	in.leave(a)
}

// enter finds, holds and locks an SA; nil: there is none.
func (in *inbound) enter(spi uint32, local netip.Addr) *association {
	for {
		a := in.tables.find(spi, local)
		if a == nil {
			return nil
		}
		if a.hold() {
			a.mu.Lock()
			return a
		}
		was := in.tables
		if in.tables = in.w.p.tables.Load(); in.tables == was {
			return nil
		}
	}
}

func (in *inbound) leave(a *association) {
	if a != nil {
		a.mu.Unlock()
		a.release()
	}
}

// packet opens one ESP packet and delivers what is in it. It returns
// whether it was authentic and new.
func (in *inbound) packet(a *association, d []byte, tos uint8) bool {
	seq, fresh := a.infer(binary.BigEndian.Uint32(d[4:]))
	if !fresh {
		return false
	}
	payload, next, err := a.transform.Open(&in.scratch, in.joiner.Next(), d, seq)
	if err != nil {
		cause := dropMalformed
		if errors.Is(err, esp.ErrForged) {
			cause = dropForged
		}
		a.drop(cause)
		return false
	}
	if !a.accept(seq, uint64(len(payload)), in.now) {
		return false
	}
	if next != esp.NextNone {
		in.deliver(a, payload, next, tos)
	}
	return true
}

// deliver passes the inner packet on, if it is one that the SA may carry.
func (in *inbound) deliver(a *association, b []byte, next, tos uint8) {
	if in.joining == (joining{a, next, tos}) && in.joiner.Add(b) {
		return
	}
	b = in.joiner.Keep(b)
	if a.mode == apply.Transport {
		b = in.rebuild(a, b, next, tos)
	} else if next != esp.NextIPv4 && next != esp.NextIPv6 {
		a.drop(dropMalformed)
		return
	}
	h, err := packet.Parse(b)
	if err != nil || a.mode == apply.Tunnel && h.IPv6 != (next == esp.NextIPv6) {
		a.drop(dropMalformed)
		return
	}
	b = b[:h.Len]
	h.Flow = in.fragments.flow(&h)
	if !in.permits(a, &h, b) {
		a.drop(dropSelectors)
		return
	}
	if a.mode == apply.Tunnel {
		inner, ok := packet.DecapsulateTOS(tos, h.TOS)
		if !ok { // congestion, and a sender that will not hear of it (RFC 6040, Section 4.2)
			a.drop(dropMalformed)
			return
		}
		if inner != h.TOS {
			packet.SetTOS(b, inner)
		}
	} else if a.place.Load().encap != nil {
		packet.SetChecksum(b, &h) // a NAT may have changed the addresses (RFC 3948, Section 3.1.2)
	}
	if !in.joiner.Add(b) {
		in.flush()
		in.joiner.Add(b)
	}
	if a.mode == apply.Tunnel {
		in.joining = joining{a, next, tos}
	}
	// The queue that a flow is written to is the one its answers come from.
	in.queue = in.w.queues[hash(&h.Flow)%uint32(in.w.active.Load())]
}

// permits reports whether a packet may come out of an SA, by what it remembers of
// the flow. An ICMP error may, if the packet that it answers has gone into the
// tunnel (RFC 4301, Section 6.2).
func (in *inbound) permits(a *association, h *packet.Header, b []byte) bool {
	p, known := in.flows.get(in.tables, &h.Flow)
	if !known || p.sa != a {
		p = permit{a, in.tables.permits(a, &h.Flow)}
		in.flows.put(&h.Flow, p)
	}
	if p.ok {
		return true
	}
	f, ok := packet.Quoted(b, h)
	return ok && in.tables.permits(a, &f)
}

// rebuild puts an IP header before the payload of transport mode.
func (in *inbound) rebuild(a *association, payload []byte, next, tos uint8) []byte {
	const headers = packet.IPv6Len
	if in.rebuilt == nil {
		in.rebuilt = make([]byte, 0, headers+maxPacket)
	}
	pl := a.place.Load()
	f := packet.Flow{Protocol: next, IPv6: pl.src.Is6()}
	copy(f.Src[:], pl.src.AsSlice())
	copy(f.Dst[:], pl.dst.AsSlice())
	n := packet.PutHeader(in.rebuilt[:headers], f, tos, len(payload))
	return append(in.rebuilt[:n], payload...)
}
