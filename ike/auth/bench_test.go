package auth

import (
	"testing"

	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

// BenchmarkHandshake does the cryptography of one IKE_SA_INIT and IKE_AUTH with a pre-shared key,
// of both ends: the least that a handshake can take.
func BenchmarkHandshake(b *testing.B) {
	for _, proposal := range []string{"aes256gcm16-prfsha384-x25519", "aes256gcm16-prfsha384-ecp256", "aes128-sha256-x25519"} {
		b.Run(proposal, func(b *testing.B) {
			p, err := suite.ParseIKE(proposal)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := handshake(p, new(counter)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// end is what one end has after IKE_SA_INIT.
type end struct {
	keys     suite.IKEKeys
	in, out  *suite.Cipher
	exchange *suite.PrivateKE
}

func handshake(p suite.Proposal, rand *counter) error {
	offer := []wire.Proposal{p.Wire(1, wire.ProtocolIKE, nil)}
	c, err := suite.Select(offer, []suite.Proposal{p}, wire.ProtocolIKE, suite.Match{})
	if err != nil {
		return err
	}
	psk := suite.Secret("a pre-shared key of some length")
	nonce, message := make([]byte, 32), make([]byte, 400)
	var ends [2]end
	for i := range ends {
		if ends[i].exchange, err = suite.GenerateKE(c.KE.ID, rand); err != nil {
			return err
		}
	}
	for i := range ends {
		e := &ends[i]
		shared, err := e.exchange.Shared(ends[1-i].exchange.Public)
		if err != nil {
			return err
		}
		e.keys = suite.DeriveIKE(c, nonce, nonce, []suite.Secret{shared}, 1, 2)
		if e.out, err = suite.NewCipher(c, e.keys.Ei, e.keys.Ai); err != nil {
			return err
		}
		if e.in, err = suite.NewCipher(c, e.keys.Er, e.keys.Ar); err != nil {
			return err
		}
		if i == 1 {
			e.in, e.out = e.out, e.in
		}
	}
	for i := range ends {
		from, to := &ends[i], &ends[1-i]
		id := wire.ID{Responder: i == 1, Kind: wire.IDFQDN, Data: []byte("hq.example.org")}
		a, err := Local{PSK: psk}.Sign(c.PRF.ID, SignedOctets(message, nonce, c.PRF.ID, from.keys.Pi, id), nil, rand)
		if err != nil {
			return err
		}
		m := &wire.Message{Exchange: wire.IKEAuth, MessageID: 1, Response: i == 1,
			Payloads: []wire.Payload{id, a, wire.VendorID{Data: make([]byte, 150)}}}
		sealed, err := from.out.Seal(m, 1280, rand)
		if err != nil {
			return err
		}
		got, err := wire.Parse(sealed[0])
		if err != nil {
			return err
		}
		if _, err := to.in.Open(sealed[0], got); err != nil {
			return err
		}
		if err := (Remote{PSK: psk}).Verify(c.PRF.ID, SignedOctets(message, nonce, c.PRF.ID, to.keys.Pi, id), a); err != nil {
			return err
		}
		suite.DeriveChild(c.PRF.ID, from.keys.D, c, nonce, nonce, nil)
	}
	return nil
}
