package ike

import (
	"crypto/hmac"
	"crypto/sha256"
	"net/netip"
	"slices"
	"time"

	"ipsec-quick/ike/wire"
)

// What half-open IKE SAs may cost us (RFC 7296, Section 2.6; RFC 8019).
const (
	cookiesFrom     = 30  // half-open IKE SAs in all, from which a cookie is asked for
	cookiesFromPeer = 3   // the same by address
	maxHalfOpen     = 500 // in all: beyond it nothing is answered
	maxHalfOpenPeer = 10  // the same by address
	halfOpenFor     = 30 * time.Second
	cookieLife      = time.Minute // of a secret; the one before is accepted too
)

// cookieJar makes and checks cookies without remembering any.
type cookieJar struct {
	secret, previous []byte
	until            time.Time
}

// cookie is bound to the nonce, the SPI and the address that it is asked for.
func cookie(secret []byte, nonce []byte, spi wire.SPI, remote netip.AddrPort) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write(nonce)
	mac.Write([]byte(spi.String()))
	mac.Write(remote.Addr().AsSlice())
	return mac.Sum(nil)
}

// renewCookies replaces a secret that is old. Nobody may have asked for a long
// time: then the one before is too old as well.
func (e *Endpoint) renewCookies() {
	if j := &e.cookies; !e.now.Before(j.until) {
		if !e.now.Before(j.until.Add(cookieLife)) {
			j.secret = nil
		}
		j.previous, j.secret, j.until = j.secret, e.random(32), e.now.Add(cookieLife)
	}
}

// admit decides whether an IKE_SA_INIT request may make a half-open IKE SA. It
// asks for a cookie when there are many.
func (e *Endpoint) admit(d Datagram, m *wire.Message, ps payloads) bool {
	open, same := len(e.halfOpen), 0
	for key := range e.halfOpen {
		if key.remote.Addr() == d.Remote.Addr() {
			same++
		}
	}
	if open >= maxHalfOpen || same >= maxHalfOpenPeer {
		e.stats.Flooded++
		return false
	}
	if open < cookiesFrom && same < cookiesFromPeer {
		return true
	}
	e.renewCookies()
	if n := ps.notify(wire.NotifyCookie); n != nil {
		for _, secret := range [][]byte{e.cookies.secret, e.cookies.previous} {
			if secret != nil && hmac.Equal(n.Data, cookie(secret, ps.nonce(), m.SPIi, d.Remote)) {
				return true
			}
		}
	}
	e.stats.Flooded++
	e.replyInit(d, m, wire.Notify{Kind: wire.NotifyCookie, Data: cookie(e.cookies.secret, ps.nonce(), m.SPIi, d.Remote)})
	return false
}

// lowest is the smallest of nonces, compared octet by octet (RFC 7296, Section
// 2.8.1).
func lowest(nonces ...[]byte) []byte { return slices.MinFunc(nonces, slices.Compare[[]byte]) }
