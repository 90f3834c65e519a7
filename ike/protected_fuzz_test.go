package ike

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"reflect"
	"testing"
	"time"

	"ipsec-quick/ike/wire"
)

// FuzzProtected is an authenticated peer that means harm: the script says what
// stands in its SK payloads and fragments, and in which order they come. They
// are sealed with its keys.
//
// Two hosts get the same script: one in fragments, the other, when the last one
// has come, the whole message. Nothing may tell them apart afterwards.
func FuzzProtected(f *testing.F) {
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) < 1 || len(script) > 2000 {
			return
		}
		var worlds [2]*network
		for i := range worlds {
			worlds[i] = newNetwork(t, 1, nil)
			worlds[i].up()
			worlds[i].drop = func(Send) bool { return true }
		}
		h := hostility{n: worlds, who: int(script[0] & 1), parts: map[direction][]part{}}
		for s := (octets{script[1:]}); len(s.b) > 0; {
			if op := s.u8(); op&0x80 != 0 {
				h.happen(op, s.u8())
			} else if !h.message(op, &s) {
				break // no IKE SA is left
			}
			h.compare(t)
		}
		worlds[0].run(3 * time.Minute) // time must pass
	})
}

// octets is a script; past its end there are zeros.
type octets struct{ b []byte }

func (s *octets) u8() byte {
	b := s.take(1)
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

func (s *octets) take(n int) []byte {
	n = min(n, len(s.b))
	b := s.b[:n:n]
	s.b = s.b[n:]
	return b
}

// hostility is a script at work on one host of each network: of the first one
// with fragments, of the second without.
type hostility struct {
	n     [2]*network
	who   int
	parts map[direction][]part // that came and are not used up
}

// direction is requests or responses of one IKE SA.
type direction struct {
	sa       *ikeSA
	response bool
}

type part struct {
	id    uint32
	skf   wire.SKF
	plain []byte
}

func (h *hostility) host(i int) *host { return h.n[i].hosts[h.who] }

// step gives the same event to both.
func (h *hostility) step(ev Event) {
	for i, n := range h.n {
		n.step(h.host(i), ev)
	}
}

// happen is something that no message brings about.
func (h *hostility) happen(what, argument byte) {
	peer := h.host(0).cfg.Peers[0].Name
	switch what & 0x7f % 6 {
	case 0:
		h.step(RekeyChild{peer})
	case 1:
		h.step(RekeyIKE{peer})
	case 2:
		for _, n := range h.n {
			n.now = n.now.Add(time.Duration(argument) * 100 * time.Millisecond)
		}
		h.step(Tick{})
	case 3:
		for _, c := range h.host(0).e.Status()[0].Children {
			h.step(Expire{Child: c.Child.OutID(), Hard: argument&1 != 0})
		}
	case 4:
		for i := range h.n {
			h.host(i).failInstall = !h.host(i).failInstall
		}
	case 5:
		for i := range h.n {
			h.host(i).failSPI = !h.host(i).failSPI
		}
	}
}

// message is one datagram of the peer; false: there is no IKE SA that it could
// be for.
func (h *hostility) message(op byte, s *octets) bool {
	id, number, total, first, length := int8(s.u8()), s.u8(), s.u8(), s.u8(), s.u8()
	plain := s.take(int(length))
	if op&4 == 0 {
		plain = append(plain, 0) // Pad Length; without it the script's last octet is that
	}
	var sas [2]*ikeSA
	for i := range sas {
		all := h.host(i).e.ofPeer(h.host(i).cfg.Peers[0].Name)
		if len(all) == 0 {
			return false
		}
		sas[i] = all[len(all)-1]
		if op&0x20 != 0 {
			sas[i] = all[0]
		}
	}
	sa := sas[1]
	m := &wire.Message{
		SPIi: sa.SPIi, SPIr: sa.SPIr, Initiator: !sa.Original, Response: op&2 != 0, MessageID: sa.Recv.ExpectID,
		Exchange: [4]wire.ExchangeType{wire.Informational, wire.CreateChildSA, wire.IKEAuth, wire.IKESAInit}[op>>3&3],
	}
	if m.Response && sa.Send.Request != nil {
		m.MessageID = sa.Send.Request.ID
	}
	m.MessageID += uint32(id)
	if len(sa.Keys.Ei) == 0 {
		return false
	}
	kind := wire.PayloadType(first)
	if op&1 == 0 {
		d := forge(sa, m, kind, nil, plain)
		h.step(h.datagram(d))
		return true
	}
	skf := wire.SKF{Number: uint16(number), Total: uint16(total), First: kind}
	fragment := forge(sas[0], m, kind, &skf, plain)
	h.n[0].step(h.host(0), h.datagram(fragment))
	var ev Event = Tick{}
	if whole := h.collect(sa, m, skf, plain, fragment); whole != nil {
		ev = h.datagram(whole)
	}
	h.n[1].step(h.host(1), ev)
	return true
}

func (h *hostility) datagram(data []byte) Datagram {
	from, to := addrB, addrA
	if h.who == 1 {
		from, to = addrA, addrB
	}
	return Datagram{Local: ipPort(to), Remote: ipPort(from), Data: data}
}

// collect is what RFC 7383, Section 2.6, says about a fragment: the whole
// message when it is the last one that was missing, nil when others are. One
// that is not looked into stays what it is.
func (h *hostility) collect(sa *ikeSA, m *wire.Message, p wire.SKF, padded, fragment []byte) []byte {
	r := sa.Send.Request
	expected := !m.Response && m.MessageID == sa.Recv.ExpectID ||
		m.Response && r != nil && m.MessageID == r.ID && m.Exchange == r.Exchange
	again := !m.Response && m.MessageID+1 == sa.Recv.ExpectID
	end := len(padded) - 1
	if end >= 0 {
		end -= int(padded[end])
	}
	if end < 0 || p.Number == 0 || p.Number > p.Total || p.Number > 1 && p.First != 0 || m.Exchange == wire.IKESAInit || !expected && !again {
		return fragment
	}
	sa.LastHeard = h.n[1].now
	if again {
		if p.Number != 1 {
			return nil
		}
		return forge(sa, m, p.First, nil, padded)
	}
	dir := direction{sa, m.Response}
	parts := h.parts[dir]
	if len(parts) > 0 && parts[0].id != m.MessageID {
		parts = nil
	}
	parts = append(parts, part{m.MessageID, p, padded[:end]})
	h.parts[dir] = parts
	total := uint16(0)
	for _, q := range parts {
		total = max(total, q.skf.Total)
	}
	var first wire.PayloadType
	var joined []byte
	for number := uint16(1); number <= total; number++ {
		found := false
		for _, q := range parts {
			if q.skf.Total == total && q.skf.Number == number {
				joined, found = append(joined, q.plain...), true
				if number == 1 {
					first = q.skf.First
				}
				break
			}
		}
		if !found {
			return nil
		}
	}
	delete(h.parts, dir)
	return forge(sa, m, first, nil, append(joined, 0))
}

// compare fails unless both hosts said and know the same, within bounds.
func (h *hostility) compare(t *testing.T) {
	t.Helper()
	var known [2][]byte
	for i := range h.n {
		host := h.host(i)
		var err error
		if known[i], err = host.e.Snapshot(host.cfg.Peers[0].Name); err != nil {
			t.Fatal(err)
		}
		if len(host.in) > maxFuzzSAs || len(host.e.LocalSPIs()) > maxFuzzSAs {
			t.Fatalf("%d SAs, %d IKE SAs", len(host.in), len(host.e.LocalSPIs()))
		}
		for _, sa := range host.e.state.SAs {
			for _, r := range []*reassembly{sa.fragments.request, sa.fragments.response} {
				if r != nil && (r.size > maxReassembly || len(r.parts) > maxFragments) {
					t.Fatalf("%d octets in %d fragments", r.size, len(r.parts))
				}
			}
		}
	}
	if !reflect.DeepEqual(h.n[0].queue, h.n[1].queue) || !bytes.Equal(known[0], known[1]) {
		t.Fatalf("in fragments:\n%s\nwhole:\n%s", h.n[0].log(), h.n[1].log())
	}
	h.n[0].queue, h.n[1].queue = nil, nil
}

// forge seals what a peer of ours sends, by AES-GCM (RFC 5282): an SK payload,
// or with p an SKF. Padded ends with the Pad Length.
func forge(sa *ikeSA, m *wire.Message, first wire.PayloadType, p *wire.SKF, padded []byte) []byte {
	const iv, icv, salt = 8, 16, 4
	key := sa.Keys.Er
	if !sa.Original {
		key = sa.Keys.Ei
	}
	block, err := aes.NewCipher(key[:len(key)-salt])
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	kind, size := wire.PayloadSK, 4+iv+len(padded)+icv
	if p != nil {
		kind, size = wire.PayloadSKF, size+4
	}
	b := wire.AppendHeader(nil, m, kind, wire.HeaderLen+size)
	b = append(b, byte(first), 0)
	b = binary.BigEndian.AppendUint16(b, uint16(size))
	if p != nil {
		b = binary.BigEndian.AppendUint16(b, p.Number)
		b = binary.BigEndian.AppendUint16(b, p.Total)
	}
	sum := make([]byte, iv)
	nonce := append(bytes.Clone(key[len(key)-salt:]), sum...)
	return aead.Seal(append(b, sum...), nonce, padded, b)
}
