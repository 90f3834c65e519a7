package xfrm

import (
	"net/netip"

	"ipsec-quick/apply"
)

// policyEntry is a policy in one direction.
type policyEntry struct {
	apply.Policy
	dir uint8 // policyIn, policyOut, policyFwd
}

// entries are the policy's directions, the outbound one last, so that answers
// are accepted before the first packet goes out.
func entries(p apply.Policy) []policyEntry {
	dirs := []uint8{policyIn, policyFwd, policyOut}
	if p.Mode == apply.Transport {
		dirs = []uint8{policyIn, policyOut}
	}
	var es []policyEntry
	for _, d := range dirs {
		es = append(es, policyEntry{p, d})
	}
	return es
}

func (e policyEntry) direction() apply.Direction {
	if e.dir == policyOut {
		return apply.Out
	}
	return apply.In
}

func (e policyEntry) user() uint32 {
	if e.Guard {
		return guardUser
	}
	return 0
}

// template says which SA the policy wants in this direction.
type template struct {
	src, dst netip.Addr
	spi      uint32
	reqID    uint32
	mode     apply.Mode
}

// template of the entry; nil if it has none.
func (e policyEntry) template() *template {
	switch {
	case e.Action == apply.Protect && e.dir == policyOut:
		// The SPI keeps the kernel from going on with the SA it has cached.
		return &template{e.Local, e.Remote, e.SPI, e.ReqID, e.Mode}
	case e.Action == apply.Protect:
		return &template{e.Remote, e.Local, 0, e.ReqID, e.Mode}
	case e.Action == apply.Trap && e.dir == policyOut:
		return &template{e.Local, e.Remote, 0, e.ReqID | apply.TrapBit, e.Mode}
	}
	return nil
}

// block reports whether packets that match are dropped. A trap lets outbound
// packets look for its SA; there is none, so they are dropped too.
func (e policyEntry) block() bool {
	return e.Action == apply.Block || e.Action == apply.Trap && e.dir != policyOut
}

// policyInfo is a struct xfrm_userpolicy_info.
func (m *message) policyInfo(e policyEntry) {
	m.selector(e.Selector, e.direction(), e.user())
	m.limits(apply.Limits{}, apply.Limits{})
	m.pad(sizeLifetimeCur)
	m.u32(e.Priority())
	m.u32(0) // index: the kernel's choice
	m.u8(e.dir)
	action := uint8(policyAllow)
	if e.block() {
		action = policyBlock
	}
	m.u8(action)
	m.u8(0) // flags
	m.u8(0) // share
	m.pad(4)
}

// newPolicy is the body of NEWPOLICY and UPDPOLICY.
func newPolicy(e policyEntry) *message {
	m := newMessage()
	m.policyInfo(e)
	if t := e.template(); t != nil {
		m.attr(attrTmpl, func() { m.template(*t) })
	}
	m.ifID(e.IfID)
	return m
}

// template is a struct xfrm_user_tmpl.
func (m *message) template(t template) {
	m.addr(t.dst)
	m.be32(t.spi)
	m.u8(protoESP)
	m.pad(3)
	m.u16(family(t.dst))
	m.pad(2)
	m.addr(t.src)
	m.u32(t.reqID)
	m.u8(kernelMode(t.mode))
	m.u8(0) // share
	m.u8(0) // optional
	m.pad(1)
	for range 3 { // integrity, encryption, compression: any
		m.u32(^uint32(0))
	}
}

// policyID is the body of DELPOLICY and GETPOLICY (struct xfrm_userpolicy_id).
func policyID(e policyEntry) *message {
	m := newMessage()
	m.selector(e.Selector, e.direction(), e.user())
	m.u32(0) // index
	m.u8(e.dir)
	m.pad(3)
	m.ifID(e.IfID)
	return m
}

// foundPolicy is what of a policy in the kernel tells whose it is.
type foundPolicy struct {
	priority uint32
	reqID    uint32 // of its template; 0: none
}

// readPolicy reads the body of a NEWPOLICY.
func readPolicy(body []byte) (foundPolicy, error) {
	r := &reader{b: body}
	info := r.sub(sizePolicyInfo)
	info.skip(sizeSelector + 64 + sizeLifetimeCur)
	p := foundPolicy{priority: info.u32()}
	err := r.attrs(func(kind uint16, value []byte) {
		if kind == attrTmpl {
			p.reqID = templateReqID(value)
		}
	})
	return p, err
}

// templateReqID reads the first template's ReqID.
func templateReqID(tmpl []byte) uint32 {
	const offset = 24 + 4 + 16 // id, family, saddr
	r := &reader{b: tmpl}
	r.skip(offset)
	return r.u32()
}
