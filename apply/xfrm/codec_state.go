package xfrm

import (
	"net/netip"
	"time"

	"ipsec-quick/apply"
)

// state is an SA as the kernel returns it. The algorithms, with their keys, are
// kept only where keys is asked for, and then as the attributes they came in.
type state struct {
	id     apply.SAID
	src    netip.Addr
	proto  uint8
	reqID  uint32
	mode   apply.Mode
	seq    uint32 // of the Acquire that made it
	flags  uint8
	window uint32 // replay window
	dir    uint8  // XFRMA_SA_DIR; 0: not told
	usage  apply.Usage

	larval bool // no algorithm yet
	encap  *apply.Encap
	secret rawState
}

// saInfo reads a struct xfrm_usersa_info.
func (r *reader) saInfo() state {
	var s state
	r = r.sub(sizeUserSAInfo)
	r.skip(sizeSelector)
	daddr := r.addr16()
	s.id.SPI = r.be32()
	s.proto = r.u8()
	r.skip(3)
	saddr := r.addr16()
	s.usage.Soft, s.usage.Hard = r.limits()
	s.secret.current = append([]byte(nil), r.take(sizeLifetimeCur)...)
	s.usage.Bytes, s.usage.Packets, s.usage.Added, s.usage.Used = readCurrent(s.secret.current)
	s.usage.Drops.Replayed = uint64(r.u32()) + uint64(r.u32()) // struct xfrm_stats: too old, seen before
	s.usage.Drops.Forged = uint64(r.u32())
	s.seq = r.u32()
	s.reqID = r.u32()
	fam := r.u16()
	if r.u8() == modeTransport {
		s.mode = apply.Transport
	}
	s.window = uint32(r.u8())
	s.flags = r.u8()
	s.id.Dst, s.src = address(fam, daddr), address(fam, saddr)
	return s
}

// limits reads a struct xfrm_lifetime_cfg.
func (r *reader) limits() (soft, hard apply.Limits) {
	count := func() uint64 {
		n := r.u64()
		if n == infinite {
			n = 0
		}
		return n
	}
	// More seconds than a Duration holds are no limit that will be met.
	const most = uint64(1<<63-1) / uint64(time.Second)
	seconds := func() time.Duration { return time.Duration(min(r.u64(), most)) * time.Second }
	soft.Bytes, hard.Bytes = count(), count()
	soft.Packets, hard.Packets = count(), count()
	soft.Time, hard.Time = seconds(), seconds()
	soft.Use, hard.Use = seconds(), seconds()
	return soft, hard
}

// readState reads the body of a NEWSA. What is not kept may be overwritten
// afterwards.
func readState(body []byte, keys bool) (state, error) {
	r := &reader{b: body}
	s := r.saInfo()
	s.larval = true
	err := r.attrs(func(kind uint16, value []byte) {
		v := &reader{b: value}
		switch kind {
		case attrAlgAEAD, attrAlgCrypt, attrAlgAuthTrunc:
			s.larval = false
			if keys {
				s.secret.algorithms = append(s.secret.algorithms, rawAttr{kind, append([]byte(nil), value...)})
			}
		case attrReplayVal, attrReplayESNVal:
			s.secret.replay = rawAttr{kind, append([]byte(nil), value...)}
			if kind == attrReplayESNVal {
				v.skip(sizeReplayESN - 4)
				s.window = v.u32()
			}
		case attrLastUsed:
			s.usage.LastUsed = seconds(v.u64())
		case attrSADir:
			s.dir = v.u8()
		case attrEncap:
			v.skip(2)
			s.encap = &apply.Encap{SrcPort: v.be16(), DstPort: v.be16()}
		}
		if v.err != nil {
			r.err = v.err
		}
	})
	if s.allocated() {
		s.reqID = aside(s.reqID)
	}
	return s, err
}

// allocated reports whether it is a reservation rather than what a packet made that
// found no SA, which has a sequence number.
func (s state) allocated() bool { return s.larval && s.seq == 0 }

// direction of an SA of ours. Before Linux 6.10 the kernel does not tell, but
// the flag we gave inbound SAs does; a larval one is inbound if it was allocated.
func (s state) direction() apply.Direction {
	switch {
	case s.dir == saDirIn:
		return apply.In
	case s.dir == saDirOut:
		return apply.Out
	case s.allocated(), s.flags&stateICMP != 0:
		return apply.In
	}
	return apply.Out
}

// installed is the state without what only the kernel understands.
func (s state) installed() apply.Installed {
	return apply.Installed{
		SAID: s.id, Src: s.src, ReqID: s.reqID &^ apply.TrapBit, Direction: s.direction(),
		Mode: s.mode, Usage: s.usage, Larval: s.larval,
	}
}

// seconds since 1970; zero: never.
func seconds(n uint64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(int64(n), 0)
}

// readCurrent reads a struct xfrm_lifetime_cur.
func readCurrent(b []byte) (octets, packets uint64, added, used time.Time) {
	r := &reader{b: b}
	octets, packets = r.u64(), r.u64()
	return octets, packets, seconds(r.u64()), seconds(r.u64())
}
