package watch

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"time"

	"ipsec-quick/ike"
	"ipsec-quick/ike/wire"
)

const (
	// offerTimeout is how long another tunnel may take to say whether it wants a
	// negotiation: longer than a busy host delays it, shorter than the peer waits
	// for an answer in all.
	offerTimeout = 5 * time.Second
	// maxOffers bounds the offers under way: anybody can send an IKE_SA_INIT
	// request.
	maxOffers = 16
)

// offer passes what none of our peers answers to on to the other tunnels, one
// after the other. What was offered to us is not passed on: the other loop asks
// them itself.
func (l *loop) offer(c ike.Claim) {
	others := l.dir.others(l.facts.Netns)
	spi := claimSPI(c)
	if len(others) == 0 || l.offers.Load() >= maxOffers {
		l.claimed(c, spi, false)
		return
	}
	var message bytes.Buffer
	if err := gob.NewEncoder(&message).Encode(c); err != nil {
		l.log.Error("cannot offer a negotiation to other tunnels", "err", err)
		l.claimed(c, spi, false)
		return
	}
	l.offers.Add(1)
	go func() {
		defer l.offers.Add(-1)
		adopted := false
		for name := range others {
			r, err := ask(newDir(l.dir.root, name), &request{Verb: verbOffer, Claim: message.Bytes()}, offerTimeout, nil)
			// One that does not answer may have adopted it all the same: then the
			// peer must not hear from us that it is refused.
			if adopted = err == nil && r.Accepted || errors.Is(err, os.ErrDeadlineExceeded); adopted {
				break
			}
		}
		clear(message.Bytes()) // keys of the half-open IKE SA
		l.call(func() { l.claimed(c, spi, adopted) })
	}()
}

// claimed tells the core what came of a half-open IKE SA.
func (l *loop) claimed(c ike.Claim, spi wire.SPI, adopted bool) {
	if len(c.SA) > 0 {
		l.push(ike.Claimed{SA: spi, Adopted: adopted})
	}
}

func claimSPI(c ike.Claim) wire.SPI {
	h, err := wire.ParseHeader(c.Datagram.Data)
	if err != nil {
		return 0
	}
	return ourSPI(h)
}

// offered decides about another tunnel's offer.
func (l *loop) offered(message []byte) (bool, error) {
	var c ike.Claim
	if err := gob.NewDecoder(bytes.NewReader(message)).Decode(&c); err != nil {
		return false, fmt.Errorf("offer: %w", err)
	}
	if l.closing != nil || !l.core.Accepts(c) {
		return false, nil
	}
	l.push(ike.Adopt{Claim: c})
	return true, nil
}
