package watch

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"ipsec-quick/conf"
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
// after the other, first to those that it is meant for. What was offered to us is not passed on: the other loop asks
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
		for _, name := range inTurn(c, others) {
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

// inTurn are the tunnels in the order in which they are asked: those first that an
// IKE_AUTH request names (IDr, RFC 7296, Section 2.15), as most initiators do. With
// hundreds of tunnels on a host it would take long to find the one otherwise.
func inTurn(c ike.Claim, others map[string]*facts) []string {
	names := slices.Sorted(maps.Keys(others))
	payloads, err := wire.ParsePayloads(c.First, c.Request)
	if len(c.SA) == 0 || err != nil {
		return names
	}
	wanted := map[string]bool{}
	for _, p := range payloads {
		if id, ok := p.(wire.ID); ok && id.Responder {
			named := conf.ID{Kind: id.Kind, Data: id.Data}
			wanted[idText(named)] = true
			if named.Equal(conf.IDOf(c.Datagram.Local.Addr())) {
				wanted[idText(conf.ID{})] = true
			}
		}
	}
	var first, rest []string
	for _, name := range names {
		if slices.ContainsFunc(others[name].IDs, func(id string) bool { return wanted[id] }) {
			first = append(first, name)
		} else {
			rest = append(rest, name)
		}
	}
	return append(first, rest...)
}

// ownIDs are the identities that a tunnel has towards its peers.
func ownIDs(t *conf.Tunnel) []string {
	var ids []string
	for i := range t.Peers {
		if id := idText(t.Peers[i].LocalID); !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
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
