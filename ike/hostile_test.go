package ike

import (
	"encoding/binary"
	"testing"
	"time"

	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

// forge sends b the next request of the peer at the other end of one of its IKE
// SAs, whose keys the test has, and returns the answer; nil for none.
func (n *network) forge(sa *ikeSA, exchange wire.ExchangeType, ps ...wire.Payload) payloads {
	n.t.Helper()
	cipher := func(encr, integ suite.Secret) *suite.Cipher {
		c, err := suite.NewCipher(sa.Choice, encr, integ)
		if err != nil {
			n.t.Fatal(err)
		}
		return c
	}
	toB, fromB := cipher(sa.Keys.Ei, sa.Keys.Ai), cipher(sa.Keys.Er, sa.Keys.Ar)
	if sa.Original {
		toB, fromB = fromB, toB
	}
	id := sa.Recv.ExpectID
	m := &wire.Message{SPIi: sa.SPIi, SPIr: sa.SPIr, Exchange: exchange, Initiator: !sa.Original, MessageID: id, Payloads: ps}
	data, err := toB.Seal(m, 0, n.b().cfg.Rand)
	if err != nil {
		n.t.Fatal(err)
	}
	n.queue = nil
	n.step(n.b(), Datagram{Local: sa.Local, Remote: sa.Remote, NATT: sa.NATT, Data: data[0]})
	for _, s := range n.queue {
		m, err := wire.Parse(s.Data)
		if err != nil || !m.Response || m.MessageID != id {
			continue
		}
		inner, err := fromB.Open(s.Data, m)
		if err != nil {
			n.t.Fatal(err)
		}
		list, err := wire.ParsePayloads(m.Payloads[len(m.Payloads)-1].(wire.SK).First, inner)
		if err != nil {
			n.t.Fatal(err)
		}
		return append(payloads{}, list...)
	}
	return nil
}

// newKeys are the payloads of CREATE_CHILD_SA that all kinds of it have.
func newKeys(proposals []suite.Proposal, protocol wire.ProtocolID, spi []byte) []wire.Payload {
	public := make([]byte, 32)
	public[0] = 9
	return []wire.Payload{
		wire.SA{Proposals: offer(proposals, protocol, spi)},
		wire.Nonce{Data: append(make([]byte, 24), spi...)},
		wire.KE{Group: wire.KECurve25519, Data: public},
	}
}

// askChild asks b for a Child SA, in the place of the one that the peer knows by
// old; 0: for a new one.
func (n *network) askChild(sa *ikeSA, spi, old uint32) payloads {
	ps := newKeys(n.a().cfg.Peers[0].ESP, wire.ProtocolESP, binary.BigEndian.AppendUint32(nil, spi))
	ps = append(ps, wire.TS{Selectors: prefixTS("10.1.0.0/16")}, wire.TS{Responder: true, Selectors: prefixTS("10.2.0.0/16")})
	if old != 0 {
		ps = append(ps, wire.Notify{Kind: wire.NotifyRekeySA, Protocol: wire.ProtocolESP, SPI: binary.BigEndian.AppendUint32(nil, old)})
	}
	return n.forge(sa, wire.CreateChildSA, ps...)
}

func refused(ps payloads, kind wire.NotifyType) bool {
	f := ps.failure()
	return f != nil && f.Kind == kind
}

// TestHostileChildren: a peer that makes Child SAs, new ones or each in the place
// of the last, and deletes none.
func TestHostileChildren(t *testing.T) {
	for _, rekey := range []bool{false, true} {
		n := newNetwork(t, 1, func(_, b *Peer) { b.DPD = 0 })
		n.up()
		sa := n.b().e.current("a")
		var old uint32
		if rekey {
			old = sa.sorted()[0].SPIOut
		}
		made := 0
		var last payloads
		for i := range uint32(100) {
			if last = n.askChild(sa, 0xd0000000+i, old); last.failure() == nil {
				made++
				if rekey {
					old = 0xd0000000 + i
				}
			}
			n.now = n.now.Add(time.Second)
		}
		if made != maxChildren-1 || len(n.b().in) != maxChildren || !refused(last, wire.NotifyNoAdditionalSAs) {
			t.Errorf("rekey %t: %d made, %d installed, at last %v", rekey, made, len(n.b().in), last)
		}
	}
}

// TestHostileRekeys: a peer that does nothing but rekey, as it should.
func TestHostileRekeys(t *testing.T) {
	n := newNetwork(t, 1, func(_, b *Peer) { b.DPD = 0 })
	n.up()
	sa := n.b().e.current("a")
	spi, most := uint32(0xd0000000), 0
	old := sa.sorted()[0].SPIOut
	many := func() (made int) {
		for range 500 {
			spi++
			ps := n.askChild(sa, spi, old)
			if ps.failure() != nil {
				if !refused(ps, wire.NotifyTemporaryFailure) {
					t.Fatalf("refused with %v", ps)
				}
				continue
			}
			n.forge(sa, wire.Informational, wire.Delete{Protocol: wire.ProtocolESP, SPIs: []uint32{old}})
			old = spi
			made++
			most = max(most, len(n.b().in))
		}
		return made
	}
	if made := many(); made != exchangeBurst {
		t.Errorf("%d rekeys at once", made)
	}
	n.now = n.now.Add(10 * time.Second)
	if made := many(); made != 10*exchangeRate {
		t.Errorf("%d rekeys 10 s later", made)
	}
	if most > maxRetiring+3 {
		t.Errorf("%d Child SAs at once", most)
	}
}

// TestHostileIKE: a peer that rekeys the IKE SA and does not delete the old one.
func TestHostileIKE(t *testing.T) {
	n := newNetwork(t, 1, func(_, b *Peer) { b.DPD = 0 })
	n.up()
	made := 0
	for i := range uint64(100) {
		sa := n.b().e.current("a")
		ps := n.forge(sa, wire.CreateChildSA, newKeys(n.a().cfg.Peers[0].IKE, wire.ProtocolIKE, binary.BigEndian.AppendUint64(nil, i+1))...)
		switch {
		case ps.failure() == nil:
			made++
		case !refused(ps, wire.NotifyTemporaryFailure):
			t.Fatalf("refused with %v", ps)
		}
		if got := len(n.b().e.LocalSPIs()); got > maxIKESAs {
			t.Fatalf("%d IKE SAs", got)
		}
	}
	if made != maxIKESAs-1 {
		t.Errorf("%d were made", made)
	}
	n.now = n.now.Add(2 * time.Minute)
	n.step(n.b(), Tick{})
	if got := len(n.b().e.LocalSPIs()); got != 1 || len(n.b().in) != 1 {
		t.Errorf("in the end %d IKE SAs, %d Child SAs", got, len(n.b().in))
	}
}

// TestHostileRequests: requests are answered as fast as the state is written at
// ease; what comes too fast costs no more than the look at it.
func TestHostileRequests(t *testing.T) {
	n := newNetwork(t, 1, nil)
	n.up()
	sa := n.b().e.current("a")
	many := func() (answered int) {
		for range 2 * requestBurst {
			if n.forge(sa, wire.Informational) != nil {
				answered++
			}
		}
		return answered
	}
	if got := many(); got != requestBurst {
		t.Errorf("%d requests were answered at once", got)
	}
	n.now = n.now.Add(time.Second)
	if got := many(); got != requestRate {
		t.Errorf("%d requests were answered a second later", got)
	}
}

// TestHostileReplay: what was answered long ago is not decrypted again.
func TestHostileReplay(t *testing.T) {
	n := newNetwork(t, 1, nil)
	n.up()
	sa := n.b().e.current("a")
	data := sealedBy(t, n.a(), &wire.Message{Exchange: wire.Informational, MessageID: sa.Recv.ExpectID})
	n.forge(sa, wire.Informational)
	n.forge(sa, wire.Informational)
	sa.openCipher = nil
	n.queue = nil
	n.step(n.b(), Datagram{Local: sa.Local, Remote: sa.Remote, NATT: sa.NATT, Data: data})
	if len(n.queue) != 0 || sa.openCipher != nil {
		t.Error("it is decrypted, or answered")
	}
}

// TestHostileDeletes: a peer that deletes at once what it has agreed to is asked
// less and less often.
func TestHostileDeletes(t *testing.T) {
	for _, ike := range []bool{false, true} {
		n := newNetwork(t, 1, func(a, b *Peer) { a.Start, b.Start = StartPassive, StartNow })
		n.up()
		var made []time.Time
		for range 1200 { // two minutes
			if sa := n.b().e.current("a"); sa != nil && n.b().active != nil {
				made = append(made, n.now)
				d := wire.Delete{Protocol: wire.ProtocolESP, SPIs: []uint32{n.b().active.SPIOut}}
				if ike {
					d = wire.Delete{Protocol: wire.ProtocolIKE}
				}
				n.forge(sa, wire.Informational, d)
			}
			n.run(100 * time.Millisecond)
		}
		last := made[len(made)-1].Sub(made[len(made)-2])
		if len(made) < 10 || len(made) > 25 || made[1].Sub(made[0]) > retryFirst || last < retryMax {
			t.Errorf("IKE %t: made at %v", ike, made)
		}
	}
}

// TestHostileHandshakes: a peer that begins anew all the time.
func TestHostileHandshakes(t *testing.T) {
	n := newNetwork(t, 1, nil)
	established := func(times int) (got int) {
		for range times {
			a := &host{t: t, name: "a", addr: addrA, cfg: n.a().cfg, nextSPI: n.a().nextSPI,
				in: map[uint32]ChildSA{}, out: map[uint32]ChildSA{}, sent: map[sealedID][]byte{}}
			a.e = New(a.cfg)
			n.hosts[0] = a
			n.step(a, Tick{})
			n.settle()
			if a.active != nil {
				got++
			}
			if sas := len(n.b().e.LocalSPIs()); sas > maxIKESAs+ofOneAddress || len(n.b().in) > maxIKESAs {
				t.Fatalf("%d IKE SAs, %d Child SAs", sas, len(n.b().in))
			}
		}
		return got
	}
	if got := established(500); got != exchangeBurst {
		t.Errorf("%d times at once", got)
	}
	n.run(halfOpenFor + retryMax) // what it left half-open is in its own way until then
	n.mustFlow()
}

// TestManyRekeys is what a peer may do: 250 rekeys in a row, by both sides in
// turn and at once.
func TestManyRekeys(t *testing.T) {
	for _, both := range []bool{false, true} {
		n := newNetwork(t, 1, nil)
		n.up()
		for i := range 250 {
			n.step(n.hosts[i%2], RekeyChild{n.hosts[i%2].cfg.Peers[0].Name})
			if both {
				n.step(n.hosts[1-i%2], RekeyChild{n.hosts[1-i%2].cfg.Peers[0].Name})
			}
			n.run(100 * time.Millisecond)
			n.mustFlow()
		}
		for _, h := range n.hosts {
			s := h.e.Status()[0]
			if s.Rekeys.Child < 250 || s.Rekeys.Failed != 0 || h.e.Stats().Flooded != 0 {
				t.Errorf("both %t: %s: %+v, %+v", both, h.name, s.Rekeys, h.e.Stats())
			}
		}
	}
}
