package xfrm

import (
	"net/netip"

	"ipsec-quick/apply"
)

// decodeEvent makes an event of a message that the kernel multicast. It returns
// nil for messages that are none of ours: other kinds, other protocols than ESP,
// short ones.
//
// Sources: build_expire, build_acquire and build_mapping in
// net/xfrm/xfrm_user.c.
func decodeEvent(kind uint16, body []byte) apply.Event {
	r := &reader{b: body}
	var ev apply.Event
	ours := false
	switch kind {
	case msgExpire:
		ev, ours = r.expire()
	case msgAcquire:
		ev, ours = r.acquire()
	case msgMapping:
		ev, ours = r.mapping()
	}
	if !ours || r.err != nil {
		return nil
	}
	return ev
}

// expire is a struct xfrm_user_expire. A larval SA that a packet made has no
// SPI; that it lapses concerns nobody.
func (r *reader) expire() (apply.Event, bool) {
	r = r.sub(sizeUserExpire)
	s := r.saInfo()
	ev := apply.Expire{SAID: s.id, ReqID: s.reqID, Hard: r.u8() != 0}
	return ev, r.err == nil && s.proto == protoESP && s.id.SPI != 0 && s.id.Dst.IsValid()
}

// acquire is a struct xfrm_user_acquire with the template as attribute.
func (r *reader) acquire() (apply.Event, bool) {
	info := r.sub(sizeUserAcquire)
	daddr := info.addr16()
	info.skip(4) // spi
	proto := info.u8()
	info.skip(3)
	saddr := info.addr16()
	ev := apply.Acquire{Packet: info.selector()}
	found := false
	fam := uint16(0)
	err := r.attrs(func(kind uint16, value []byte) {
		if kind == attrTmpl && !found {
			t := &reader{b: value}
			t.skip(24)
			fam = t.u16()
			ev.ReqID = templateReqID(value)
			found = len(value) >= sizeTmpl
		}
	})
	ev.Remote, ev.Local = address(fam, daddr), address(fam, saddr)
	return ev, err == nil && info.err == nil && found && proto == protoESP && ev.Remote.IsValid()
}

// mapping is a struct xfrm_user_mapping.
func (r *reader) mapping() (apply.Event, bool) {
	r = r.sub(sizeUserMapping)
	daddr := r.addr16()
	spi := r.be32()
	fam := r.u16()
	proto := r.u8()
	r.skip(1)
	ev := apply.Mapping{SAID: apply.SAID{Dst: address(fam, daddr), SPI: spi}, ReqID: r.u32()}
	r.skip(16) // old_saddr
	saddr := r.addr16()
	r.skip(2) // old_sport
	ev.New = netip.AddrPortFrom(address(fam, saddr), r.be16())
	return ev, r.err == nil && proto == protoESP && ev.New.IsValid() && ev.Dst.IsValid()
}
