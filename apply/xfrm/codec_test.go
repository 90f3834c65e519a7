package xfrm

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
)

// field is where something lies in a message. Offsets are offsetof() and sizes
// sizeof() of the structures in linux/xfrm.h on x86_64; be means network order.
type field struct {
	name   string
	offset int
	be     bool
	size   int // 1, 2, 4, 8
	want   uint64
}

func checkFields(t *testing.T, b []byte, fields []field) {
	t.Helper()
	for _, f := range fields {
		if f.offset+f.size > len(b) {
			t.Fatalf("%s: message has only %d octets", f.name, len(b))
		}
		v := b[f.offset : f.offset+f.size]
		order := binary.ByteOrder(binary.NativeEndian)
		if f.be {
			order = binary.BigEndian
		}
		var got uint64
		switch f.size {
		case 1:
			got = uint64(v[0])
		case 2:
			got = uint64(order.Uint16(v))
		case 4:
			got = uint64(order.Uint32(v))
		case 8:
			got = order.Uint64(v)
		}
		if got != f.want {
			t.Errorf("%s at %d: %#x, want %#x", f.name, f.offset, got, f.want)
		}
	}
}

// attribute returns the value of the first attribute of a kind.
func attribute(t *testing.T, b []byte, kind uint16) []byte {
	t.Helper()
	var found []byte
	r := &reader{b: b}
	if err := r.attrs(func(k uint16, v []byte) {
		if k == kind && found == nil {
			found = v
		}
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

func testSA() apply.SA {
	return apply.SA{
		SPI: 0xc1a2b3c4, Direction: apply.In, Src: peer, Dst: us, ReqID: 77, ReplayWindow: 32,
		Encryption: apply.Algorithm{Name: apply.AESCBC, Key: bytes.Repeat([]byte{0xee}, 16)},
		Integrity:  apply.Algorithm{Name: apply.HMACSHA256, Key: bytes.Repeat([]byte{0xaa}, 32)},
		Encap:      &apply.Encap{SrcPort: 4501, DstPort: 4500},
		Soft:       apply.Limits{Bytes: 100, Packets: 3, Time: time.Minute, Use: 2 * time.Minute},
		Hard:       apply.Limits{Bytes: 200, Time: time.Hour, Use: 2 * time.Hour},
	}
}

func TestNewSA(t *testing.T) {
	m, err := newSA(testSA(), quirks{direction: true})
	if err != nil {
		t.Fatal(err)
	}
	checkFields(t, m.b, []field{
		{"sel.family", 40, false, 2, 0}, // AF_UNSPEC
		{"id.daddr", 56, true, 4, 0xc0000201},
		{"id.spi", 72, true, 4, 0xc1a2b3c4},
		{"id.proto", 76, false, 1, 50},
		{"saddr", 80, true, 4, 0xc0000202},
		{"soft_byte_limit", 96, false, 8, 100},
		{"hard_byte_limit", 104, false, 8, 200},
		{"soft_packet_limit", 112, false, 8, 3},
		{"hard_packet_limit", 120, false, 8, 1<<64 - 1},
		{"soft_add_expires_seconds", 128, false, 8, 60},
		{"hard_add_expires_seconds", 136, false, 8, 3600},
		{"soft_use_expires_seconds", 144, false, 8, 120},
		{"hard_use_expires_seconds", 152, false, 8, 7200},
		{"seq", 204, false, 4, 0},
		{"reqid", 208, false, 4, 77},
		{"family", 212, false, 2, unix.AF_INET},
		{"mode", 214, false, 1, modeTunnel},
		{"replay_window", 215, false, 1, 32},
		{"flags", 216, false, 1, stateAFUnspec | stateICMP},
	})
	attrs := m.b[sizeUserSAInfo:]
	crypt := attribute(t, attrs, attrAlgCrypt)
	if len(crypt) != sizeAlgo+16 || cString(crypt) != "cbc(aes)" || crypt[sizeAlgo] != 0xee {
		t.Errorf("ALG_CRYPT %x", crypt)
	}
	checkFields(t, crypt, []field{{"alg_key_len", 64, false, 4, 128}})
	auth := attribute(t, attrs, attrAlgAuthTrunc)
	if len(auth) != sizeAlgoAuth+32 || cString(auth) != "hmac(sha256)" || auth[sizeAlgoAuth] != 0xaa {
		t.Errorf("ALG_AUTH_TRUNC %x", auth)
	}
	checkFields(t, auth, []field{{"alg_key_len", 64, false, 4, 256}, {"alg_trunc_len", 68, false, 4, 128}})
	encap := attribute(t, attrs, attrEncap)
	checkFields(t, encap, []field{{"encap_type", 0, false, 2, 2}, {"encap_sport", 2, true, 2, 4501}, {"encap_dport", 4, true, 2, 4500}})
	if len(encap) != sizeEncapTmpl {
		t.Errorf("ENCAP of %d octets", len(encap))
	}
	if dir := attribute(t, attrs, attrSADir); !bytes.Equal(dir, []byte{saDirIn}) {
		t.Errorf("SA_DIR %x", dir)
	}
	if attribute(t, attrs, attrReplayESNVal) != nil {
		t.Error("REPLAY_ESN_VAL without need")
	}
	backing := m.b[:cap(m.b)]
	m.wipe()
	if bytes.IndexByte(backing, 0xee) >= 0 || bytes.IndexByte(backing, 0xaa) >= 0 {
		t.Error("keys left after wiping")
	}
}

func TestNewSAReplay(t *testing.T) {
	for _, c := range []struct {
		name         string
		dir          apply.Direction
		esn          bool
		window       uint32
		q            quirks
		small        uint8 // replay_window of the structure
		attr         bool
		bmp, window2 uint32
	}{
		{"in 32", apply.In, false, 32, quirks{}, 32, false, 0, 0},
		{"in 33", apply.In, false, 33, quirks{}, 0, true, 2, 33},
		{"in 4096", apply.In, false, 4096, quirks{}, 0, true, 128, 4096},
		{"in esn", apply.In, true, 1024, quirks{}, 0, true, 32, 1024},
		{"in esn without window", apply.In, true, 0, quirks{}, 0, true, 1, 32},
		{"out", apply.Out, false, 1024, quirks{}, 0, false, 0, 0},
		{"out esn, 6.10 and later", apply.Out, true, 1024, quirks{direction: true}, 0, true, 0, 0},
		{"out esn, older", apply.Out, true, 1024, quirks{outWindow: 1, outBitmap: 1}, 0, true, 1, 1},
	} {
		sa := testSA()
		sa.Direction, sa.ESN, sa.ReplayWindow = c.dir, c.esn, c.window
		m, err := newSA(sa, c.q)
		if err != nil {
			t.Fatal(err)
		}
		checkFields(t, m.b, []field{{c.name, 215, false, 1, uint64(c.small)}})
		if esn := m.b[216]&stateESN != 0; esn != c.esn {
			t.Errorf("%s: flag ESN %v", c.name, esn)
		}
		v := attribute(t, m.b[sizeUserSAInfo:], attrReplayESNVal)
		if (v != nil) != c.attr {
			t.Errorf("%s: REPLAY_ESN_VAL %x", c.name, v)
		}
		if v != nil {
			checkFields(t, v, []field{{c.name, 0, false, 4, uint64(c.bmp)}, {c.name, 20, false, 4, uint64(c.window2)}})
			if len(v) != sizeReplayESN+4*int(c.bmp) {
				t.Errorf("%s: %d octets", c.name, len(v))
			}
		}
		if cap(m.b) != typicalSAMessage {
			t.Errorf("%s: the message grew to %d octets, which left keys behind", c.name, cap(m.b))
		}
	}
}

func TestNewSAAEADAndTransport(t *testing.T) {
	sa := testSA()
	sa.Encap, sa.Integrity, sa.Direction, sa.Mode = nil, apply.Algorithm{}, apply.Out, apply.Transport
	sa.Src, sa.Dst = us6, peer6
	sa.Encryption = apply.Algorithm{Name: apply.AESGCM16, Key: make(apply.Key, 36)}
	sa.Selector = &apply.Selector{
		Local: netip.PrefixFrom(us6, 128), Remote: netip.PrefixFrom(peer6, 128),
		Protocol: 6, RemotePort: apply.PortMask{Port: 443, Mask: 0xffff},
	}
	m, err := newSA(sa, quirks{})
	if err != nil {
		t.Fatal(err)
	}
	checkFields(t, m.b, []field{
		{"sel.daddr", 12, true, 4, 2},
		{"sel.saddr", 28, true, 4, 1},
		{"sel.dport", 32, true, 2, 443},
		{"sel.dport_mask", 34, true, 2, 0xffff},
		{"sel.sport_mask", 38, true, 2, 0},
		{"sel.family", 40, false, 2, unix.AF_INET6},
		{"sel.prefixlen_d", 42, false, 1, 128},
		{"sel.proto", 44, false, 1, 6},
		{"family", 212, false, 2, unix.AF_INET6},
		{"mode", 214, false, 1, modeTransport},
		{"replay_window", 215, false, 1, 0},
		{"flags", 216, false, 1, 0},
	})
	aead := attribute(t, m.b[sizeUserSAInfo:], attrAlgAEAD)
	if len(aead) != sizeAlgoAuth+36 || cString(aead) != "rfc4106(gcm(aes))" {
		t.Errorf("ALG_AEAD %x", aead)
	}
	checkFields(t, aead, []field{{"alg_key_len", 64, false, 4, 288}, {"alg_icv_len", 68, false, 4, 128}})
}

func TestOtherRequests(t *testing.T) {
	id := saID(apply.SAID{Dst: us, SPI: 0xc1a2b3c4}).b
	if len(id) != sizeUserSAID {
		t.Errorf("xfrm_usersa_id of %d octets", len(id))
	}
	checkFields(t, id, []field{{"daddr", 0, true, 4, 0xc0000201}, {"spi", 16, true, 4, 0xc1a2b3c4}, {"family", 20, false, 2, unix.AF_INET}, {"proto", 22, false, 1, 50}})

	spi := allocSPI(testSA(), lowestSPI, highestSPI, quirks{direction: true}).b
	checkFields(t, spi, []field{{"min", 224, false, 4, lowestSPI}, {"max", 228, false, 4, highestSPI}})
	if dir := attribute(t, spi[sizeUserSPIInfo:], attrSADir); !bytes.Equal(dir, []byte{saDirIn}) {
		t.Errorf("SA_DIR %x", dir)
	}

	p := apply.Policy{
		Selector: apply.Selector{Local: pair.Local, Remote: pair.Remote, Protocol: 17, LocalPort: apply.PortMask{Port: 53, Mask: 0xffff}},
		Action:   apply.Protect, Local: us, Remote: peer, ReqID: 77, SPI: 0xc1a2b3c4,
	}
	out := newPolicy(policyEntry{p, policyOut}).b
	checkFields(t, out, []field{
		{"sel.daddr", 0, true, 4, 0x0a020000},
		{"sel.saddr", 16, true, 4, 0x0a010000},
		{"sel.sport", 36, true, 2, 53},
		{"sel.prefixlen_d", 42, false, 1, 16},
		{"sel.user", 52, false, 4, 0},
		{"soft_byte_limit", 56, false, 8, 1<<64 - 1},
		{"hard_add_expires_seconds", 96, false, 8, 0},
		{"priority", 152, false, 4, uint64(p.Priority())},
		{"dir", 160, false, 1, policyOut},
		{"action", 161, false, 1, policyAllow},
	})
	tmpl := attribute(t, out[sizePolicyInfo:], attrTmpl)
	if len(tmpl) != sizeTmpl {
		t.Fatalf("xfrm_user_tmpl of %d octets", len(tmpl))
	}
	checkFields(t, tmpl, []field{
		{"id.daddr", 0, true, 4, 0xc0000202}, {"id.spi", 16, true, 4, 0xc1a2b3c4}, {"id.proto", 20, false, 1, 50},
		{"family", 24, false, 2, unix.AF_INET}, {"saddr", 28, true, 4, 0xc0000201}, {"reqid", 44, false, 4, 77},
		{"mode", 48, false, 1, modeTunnel}, {"optional", 50, false, 1, 0}, {"ealgos", 56, false, 4, 1<<32 - 1},
	})
	in := newPolicy(policyEntry{p, policyIn}).b
	checkFields(t, in, []field{{"sel.dport", 32, true, 2, 53}, {"sel.saddr", 16, true, 4, 0x0a020000}})
	checkFields(t, attribute(t, in[sizePolicyInfo:], attrTmpl), []field{{"id.spi", 16, true, 4, 0}, {"id.daddr", 0, true, 4, 0xc0000201}})

	p.Action, p.Guard = apply.Trap, true
	trap := newPolicy(policyEntry{p, policyOut}).b
	checkFields(t, trap, []field{{"sel.user", 52, false, 4, guardUser}, {"action", 161, false, 1, policyAllow}})
	checkFields(t, attribute(t, trap[sizePolicyInfo:], attrTmpl), []field{{"reqid", 44, false, 4, 77 | apply.TrapBit}})
	checkFields(t, newPolicy(policyEntry{p, policyFwd}).b, []field{{"dir", 160, false, 1, policyFwd}, {"action", 161, false, 1, policyBlock}})

	pid := policyID(policyEntry{p, policyFwd}).b
	if len(pid) != sizePolicyID {
		t.Errorf("xfrm_userpolicy_id of %d octets", len(pid))
	}
	checkFields(t, pid, []field{{"sel.user", 52, false, 4, guardUser}, {"dir", 60, false, 1, policyFwd}})
	if b := bypass(familyIPv6, policyIn); len(b) != sizePolicyInfo || b[161] != policyAllow {
		t.Errorf("socket policy of %d octets", len(b))
	}
}

// What we write we read.
func TestStateRoundTrip(t *testing.T) {
	sa := testSA()
	m, err := newSA(sa, quirks{direction: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range []uint32{3, 4, 5} { // struct xfrm_stats
		binary.NativeEndian.PutUint32(m.b[sizeSelector+24+16+64+sizeLifetimeCur+4*i:], n)
	}
	s, err := readState(m.b, true)
	if err != nil {
		t.Fatal(err)
	}
	want := apply.Installed{SAID: sa.ID(), Src: sa.Src, ReqID: 77, Direction: apply.In,
		Usage: apply.Usage{Soft: sa.Soft, Hard: sa.Hard, Drops: apply.Drops{Replayed: 7, Forged: 5}}}
	if got := s.installed(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if *s.encap != *sa.Encap || s.window != 32 || len(s.secret.algorithms) != 2 || s.secret.algorithms[0].redacted() {
		t.Errorf("%+v", s)
	}
	s.secret.wipe()
	for _, a := range s.secret.algorithms {
		if !a.redacted() {
			t.Errorf("key of attribute %d left after wiping", a.kind)
		}
	}
}

func TestSkipAhead(t *testing.T) {
	esn := func(high, low uint32) rawAttr {
		m := &message{}
		for _, v := range []uint32{0, low, 0, high, 0, 0} {
			m.u32(v)
		}
		return rawAttr{attrReplayESNVal, m.b}
	}
	for _, c := range []struct{ high, low, wantHigh, wantLow uint32 }{
		{0, 5, 0, 65541}, {3, 1<<32 - 1, 4, 65535}, {0, 1<<32 - 65536, 1, 0},
	} {
		a := esn(c.high, c.low)
		a.skipAhead()
		if want := esn(c.wantHigh, c.wantLow); !bytes.Equal(a.value, want.value) {
			t.Errorf("%+v: %x", c, a.value)
		}
	}
	m := &message{}
	m.u32(1<<32 - 2)
	short := rawAttr{attrReplayVal, m.b}
	short.skipAhead() // must not wrap
	checkFields(t, short.value, []field{{"oseq", 0, false, 4, 1<<32 - 1}})
	rawAttr{attrReplayESNVal, []byte{1, 2, 3}}.skipAhead()
	rawAttr{}.skipAhead()
}
