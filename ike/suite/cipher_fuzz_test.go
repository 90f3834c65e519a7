package suite

import (
	"bytes"
	"fmt"
	"testing"

	"ipsec-quick/ike/wire"
)

// FuzzOpen gives octets to Open as they come, and seals and opens them as payloads.
func FuzzOpen(f *testing.F) {
	for i, proposal := range allCiphers {
		c := newCipher(f, proposal)
		for _, limit := range []int{0, 120} {
			sealed, err := c.Seal(message(150, false), limit, &stream{name: "fuzz"})
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(i), uint16(limit), sealed[0])
		}
	}
	ciphers := make([]*Cipher, len(allCiphers))
	for i, proposal := range allCiphers {
		ciphers[i] = newCipher(f, proposal)
	}
	f.Fuzz(func(t *testing.T, which uint8, limit uint16, data []byte) {
		c := ciphers[int(which)%len(ciphers)]
		if m, err := wire.Parse(data); err == nil {
			before := bytes.Clone(data)
			plain, err := c.Open(data, m)
			if !bytes.Equal(data, before) {
				t.Fatal("Open changed the datagram")
			}
			if (plain == nil) != (err != nil) {
				t.Fatalf("%d octets and %v", len(plain), err)
			}
		}
		m := message(0, which >= 128)
		if len(data) > 0xffff-4 {
			return
		}
		m.Payloads = []wire.Payload{wire.VendorID{Data: data}, wire.Nonce{Data: make([]byte, 16)}}
		sealed, err := c.Seal(m, int(limit), &stream{name: "fuzz"})
		if err != nil {
			if int(limit) == 0 || c.room(int(limit)) >= 1 && len(data) < 60000 {
				t.Fatalf("%d octets in datagrams of %d: %v", len(data), limit, err)
			}
			return
		}
		first, plain := open(t, c, sealed)
		if first != wire.PayloadVendorID || !bytes.Equal(plain, wire.AppendPayloads(nil, m.Payloads)) {
			t.Fatal("what was sealed is not what was opened")
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	for _, proposal := range allCiphers {
		for _, n := range []int{200, 1000} {
			b.Run(fmt.Sprint(proposal, "/", n), func(b *testing.B) {
				c, m, rand := newCipher(b, proposal), message(n, false), zeros{}
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := c.Seal(m, 1280, rand); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, proposal := range allCiphers {
		b.Run(proposal, func(b *testing.B) {
			c := newCipher(b, proposal)
			sealed, err := c.Seal(message(200, false), 0, zeros{})
			if err != nil {
				b.Fatal(err)
			}
			m := parse(b, sealed[0])
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Open(sealed[0], m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
