package suite

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"testing/iotest"

	"ipsec-quick/ike/wire"
)

// allCiphers is a proposal for every encryption, and every integrity algorithm, that we have.
var allCiphers = []string{
	"aes128gcm16-prfsha256-x25519", "aes192gcm16-prfsha256-x25519", "aes256gcm16-prfsha256-x25519",
	"chacha20poly1305-prfsha256-x25519",
	"aes128-sha256-x25519", "aes192-sha384-x25519", "aes256-sha512-x25519",
}

// newCipher returns a cipher with keys that depend on the proposal alone.
func newCipher(t testing.TB, proposal string) *Cipher {
	t.Helper()
	choice := choose(t, ike(t, proposal), wire.ProtocolIKE)
	c, err := NewCipher(choice, octets("e", choice.encrKeyLen()), octets("a", choice.integKeyLen()))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func parse(t testing.TB, datagram []byte) *wire.Message {
	t.Helper()
	m, err := wire.Parse(datagram)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestSKVectors opens messages that another implementation sealed, and seals the same ones.
func TestSKVectors(t *testing.T) {
	for _, v := range vectors(t, "sk.txt", 7) {
		t.Run(v[0]+"/"+v[2], func(t *testing.T) {
			proposal := v[0] + "-prfsha256-x25519"
			choice := choose(t, ike(t, proposal), wire.ProtocolIKE)
			c, err := NewCipher(choice, unhex(t, v[3]), unhex(t, v[4]))
			if err != nil {
				t.Fatal(err)
			}
			datagram := unhex(t, v[6])
			m := parse(t, datagram)
			inner, err := c.Open(datagram, m)
			if err != nil {
				t.Fatal(err)
			}
			payloads, err := wire.ParsePayloads(m.Payloads[0].(wire.SK).First, inner)
			if err != nil {
				t.Fatal(err)
			}
			if n, ok := payloads[0].(wire.Notify); !ok || len(payloads) != 1 || n.Kind != 16385 || !bytes.Equal(n.Data, []byte{0, 0, 0, 10}) {
				t.Errorf("payloads are %v", payloads)
			}
			if strconv.FormatUint(uint64(m.MessageID), 10) != v[2] || m.Response != (v[1] == "1") {
				t.Errorf("message is %+v", m)
			}
			m.Payloads = payloads
			sealed, err := c.Seal(m, 0, bytes.NewReader(unhex(t, v[5])))
			if err != nil {
				t.Fatal(err)
			}
			if len(sealed) != 1 || hex.EncodeToString(sealed[0]) != v[6] {
				t.Errorf("sealed:\n got %x\nwant %s", sealed, v[6])
			}
		})
	}
}

// TestRFC7634 opens the IKEv2 message of RFC 7634, Appendix B.
func TestRFC7634(t *testing.T) {
	choice := choose(t, ike(t, "chacha20poly1305-prfsha256-x25519"), wire.ProtocolIKE)
	key := unhex(t, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3")
	c, err := NewCipher(choice, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	datagram := unhex(t, "c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e202500000000090000004529000029"+
		"1011121314151617610394701f8d017f7c12924889"+"6b71bfe25236efd7cdc67066906315b2")
	got, err := c.Open(datagram, parse(t, datagram))
	if err != nil {
		t.Fatal(err)
	}
	if want := unhex(t, "0000000c000040010000000a"); !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

// message is one with n octets in a Vendor ID payload, and so n+4 octets of payloads.
func message(n int, response bool) *wire.Message {
	return &wire.Message{
		SPIi: 0x0102030405060708, SPIr: 0x1112131415161718,
		Exchange: wire.IKEAuth, Initiator: true, Response: response, MessageID: 0xdeadbeef,
		Payloads: []wire.Payload{wire.VendorID{Data: octets("vendor", n)}},
	}
}

// open parses and decrypts datagrams and puts together what was in them.
func open(t testing.TB, c *Cipher, datagrams [][]byte) (wire.PayloadType, []byte) {
	t.Helper()
	var first wire.PayloadType
	var all []byte
	for i, d := range datagrams {
		m := parse(t, d)
		plain, err := c.Open(d, m)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, plain...)
		switch p := m.Payloads[0].(type) {
		case wire.SK:
			first = p.First
		case wire.SKF:
			if i == 0 {
				first = p.First
			} else if p.First != wire.NoNextPayload {
				t.Errorf("fragment %d names a first payload", p.Number)
			}
			if int(p.Number) != i+1 || int(p.Total) != len(datagrams) {
				t.Errorf("fragment %d of %d, not %d of %d", p.Number, p.Total, i+1, len(datagrams))
			}
		}
	}
	return first, all
}

func TestSealOpen(t *testing.T) {
	for _, proposal := range allCiphers {
		t.Run(proposal, func(t *testing.T) {
			c, d := newCipher(t, proposal), newCipher(t, proposal)
			ivs := map[string]bool{}
			for n := range 70 {
				for i, limit := range []int{0, 100, 130, 576, 1280} {
					m := message(n*7, n%2 == 0)
					m.MessageID = uint32(5*n + i)
					sealed, err := c.Seal(m, limit, &stream{name: fmt.Sprint(n, limit)})
					if err != nil {
						t.Fatal(err)
					}
					for _, s := range sealed {
						if limit > 0 && len(s) > limit {
							t.Fatalf("%d octets, over the limit of %d", len(s), limit)
						}
						got := parse(t, s)
						if got.SPIi != m.SPIi || got.SPIr != m.SPIr || got.Exchange != m.Exchange ||
							got.Initiator != m.Initiator || got.Response != m.Response || got.MessageID != m.MessageID {
							t.Fatalf("the header is %+v", got)
						}
						n, _ := protectedLen(got)
						iv := string(s[len(s)-n:][:c.iv])
						if ivs[iv] {
							t.Fatalf("IV %x is there twice", iv)
						}
						ivs[iv] = true
					}
					// One datagram where it fits, and not one more than it takes.
					if one := c.sealedLen(skHeader, n*7+4); limit > 0 && (len(sealed) == 1) != (one <= limit) {
						t.Fatalf("%d datagrams for %d octets, limit %d", len(sealed), one, limit)
					}
					first, plain := open(t, d, sealed)
					if first != wire.PayloadVendorID || !bytes.Equal(plain, wire.AppendPayloads(nil, m.Payloads)) {
						t.Fatalf("payloads of %d octets come back differently", n*7)
					}
				}
			}
		})
	}
}

// TestSealAgain seals one message into more and more fragments (RFC 7383, Section 2.5.2), and as
// request and response: no IV of AEAD is there twice.
func TestSealAgain(t *testing.T) {
	c := newCipher(t, "aes256gcm16-prfsha256-x25519")
	ivs, totals := map[string]bool{}, map[int]bool{}
	for _, response := range []bool{false, true} {
		for _, limit := range []int{0, 1280, 576, 256, 128} {
			sealed, err := c.Seal(message(2000, response), limit, nil)
			if err != nil {
				t.Fatal(err)
			}
			totals[len(sealed)] = true
			for _, s := range sealed {
				n, _ := protectedLen(parse(t, s))
				iv := string(s[len(s)-n:][:c.iv])
				if ivs[iv] {
					t.Fatalf("limit %d: IV %x is there twice", limit, iv)
				}
				ivs[iv] = true
			}
		}
	}
	if len(totals) != 5 {
		t.Fatalf("%d numbers of fragments, not 5", len(totals))
	}
}

func TestSealEmpty(t *testing.T) {
	for _, proposal := range allCiphers {
		c := newCipher(t, proposal)
		m := message(0, false)
		m.Payloads = nil
		sealed, err := c.Seal(m, 1280, &stream{name: "empty"})
		if err != nil {
			t.Fatal(err)
		}
		if first, plain := open(t, c, sealed); first != wire.NoNextPayload || len(plain) != 0 || len(sealed) != 1 {
			t.Errorf("%s: %d octets of type %s", proposal, len(plain), first)
		}
	}
}

// TestSealLimits seals what is as long as a datagram can be, and longer, and into datagrams that
// are too short for anything.
func TestSealLimits(t *testing.T) {
	for _, proposal := range allCiphers {
		c := newCipher(t, proposal)
		overhead := c.sealedLen(skHeader, 4)
		for n := wire.MaxMessage - overhead - 20; n <= wire.MaxMessage-5; n++ {
			m := message(n, false)
			sealed, err := c.Seal(m, 0, &stream{name: "limits"})
			if err != nil {
				t.Fatalf("%s: %d octets: %v", proposal, n, err)
			}
			if want := 1 + (c.sealedLen(skHeader, n+4)-1)/wire.MaxMessage; len(sealed) != want {
				t.Fatalf("%s: %d octets in %d datagrams, not %d", proposal, n, len(sealed), want)
			}
			if n%10 == 0 {
				if _, plain := open(t, c, sealed); len(plain) != n+4 {
					t.Fatalf("%s: %d octets come back as %d", proposal, n+4, len(plain))
				}
			}
		}
		if sealed, err := c.Seal(message(40, false), skfHeader+c.iv+c.icv, nil); err == nil {
			t.Errorf("%s: %d datagrams with nothing in them", proposal, len(sealed))
		}
		big := message(wire.MaxMessage-4, false)
		big.Payloads = append(big.Payloads, wire.VendorID{Data: make([]byte, 100)})
		if _, err := c.Seal(big, 1280, &stream{name: "big"}); err == nil {
			t.Errorf("%s: a message of more than 65535 octets", proposal)
		}
		if _, err := c.Seal(message(60000, false), 1, nil); err == nil {
			t.Errorf("%s: datagrams of one octet", proposal)
		}
	}
	broken := errors.New("broken")
	c := newCipher(t, "aes128-sha256-x25519")
	for _, limit := range []int{0, 128} {
		if _, err := c.Seal(message(200, false), limit, iotest.ErrReader(broken)); !errors.Is(err, broken) {
			t.Errorf("limit %d: the error of the source: %v", limit, err)
		}
	}
}

// TestOpenRefuses changes each octet of a message, and cuts it at each.
func TestOpenRefuses(t *testing.T) {
	for _, proposal := range allCiphers {
		c := newCipher(t, proposal)
		for _, limit := range []int{0, 120} {
			sealed, err := c.Seal(message(150, false), limit, &stream{name: "refuses"})
			if err != nil {
				t.Fatal(err)
			}
			d := sealed[len(sealed)-1]
			if (len(sealed) == 1) != (limit == 0) {
				t.Fatalf("%s: %d datagrams", proposal, len(sealed))
			}
			m := parse(t, d)
			for i := range d {
				bad := bytes.Clone(d)
				bad[i] ^= 0x10
				if plain, err := c.Open(bad, m); !errors.Is(err, ErrAuthentic) || plain != nil {
					t.Fatalf("%s: octet %d changed: %v", proposal, i, err)
				}
				if _, err := c.Open(d[:i], m); !errors.Is(err, ErrAuthentic) {
					t.Fatalf("%s: cut at %d: %v", proposal, i, err)
				}
			}
			if _, err := c.Open(d, m); err != nil {
				t.Fatalf("%s: what was sealed: %v", proposal, err)
			}
		}
		for _, ps := range [][]wire.Payload{nil, {wire.VendorID{}}, {wire.SK{}}, {wire.SK{Body: make([]byte, 1<<20)}}} {
			if _, err := c.Open(make([]byte, 100), &wire.Message{Payloads: ps}); !errors.Is(err, ErrAuthentic) {
				t.Errorf("%s: payloads %T: %v", proposal, ps, err)
			}
		}
	}
}

// TestOpenPadding opens messages that their sender padded in its own way: RFC 7296, Section 3.14,
// and RFC 5282, Section 3, want any padding accepted, and it cannot exceed what is there.
func TestOpenPadding(t *testing.T) {
	for _, proposal := range allCiphers {
		c := newCipher(t, proposal)
		text := octets("text", 300)
		for _, v := range []struct {
			padding int
			length  byte
			want    error
		}{{0, 0, nil}, {255, 255, nil}, {15, 15, nil}, {16, 15, nil}, {0, 255, nil}, {-300, 0, nil}, {-300, 1, ErrPadding}, {-280, 100, ErrPadding}} {
			plain := append(bytes.Clone(text), octets("padding", 300)...)[:300+v.padding]
			plain = append(plain, v.length)
			if c.block != nil && len(plain)%16 != 0 {
				plain = append(make([]byte, 16-len(plain)%16), plain...)
				if v.want != nil && len(plain) > int(v.length) {
					continue
				}
			}
			m := message(0, false)
			b := append(make([]byte, skHeader+c.iv), plain...)
			c.header(b, m, wire.PayloadSK, wire.PayloadVendorID, len(b)+c.icv)
			b, err := c.protect(b, skHeader, m, 0, 0, &stream{name: "padding"})
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.Open(b, parse(t, b))
			if !errors.Is(err, v.want) {
				t.Fatalf("%s: %d octets of padding, length %d: %v", proposal, v.padding, v.length, err)
			}
			if want := len(plain) - 1 - int(v.length); err == nil && !bytes.Equal(got, plain[:want]) {
				t.Fatalf("%s: %d octets, not %d", proposal, len(got), want)
			}
		}
	}
	// Authentic, but not of whole blocks, or of none.
	c := newCipher(t, "aes256-sha512-x25519")
	for _, n := range []int{0, 1, 17} {
		m := message(0, false)
		b := make([]byte, skHeader+c.iv+n)
		c.header(b, m, wire.PayloadSK, wire.PayloadVendorID, len(b)+c.icv)
		b = append(b, c.checksum(b)...)
		if _, err := c.Open(b, parse(t, b)); !errors.Is(err, ErrPadding) {
			t.Errorf("%d octets: %v", n, err)
		}
	}
}

func TestNewCipherRefuses(t *testing.T) {
	gcm := choose(t, ike(t, "aes256gcm16-prfsha256-x25519"), wire.ProtocolIKE)
	cbc := choose(t, ike(t, "aes256-sha256-x25519"), wire.ProtocolIKE)
	half := cbc
	half.Integ = wire.Transform{}
	for name, v := range map[string]struct {
		c    Choice
		e, a int
	}{
		"no encryption": {Choice{}, 32, 32}, "no salt": {gcm, 32, 0}, "short key": {cbc, 16, 32},
		"short integrity key": {cbc, 32, 16}, "no integrity": {half, 32, 0},
	} {
		if _, err := NewCipher(v.c, make(Secret, v.e), make(Secret, v.a)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
