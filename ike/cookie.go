package ike

import (
	"crypto/hmac"
	"crypto/sha256"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"ipsec-quick/ike/wire"
)

// What strangers may cost us (RFC 7296, Section 2.6; RFC 8019). Addresses are
// counted by [subnet].
const (
	cookiesFrom     = 30  // half-open IKE SAs in all, from which a cookie is asked for
	cookiesFromPeer = 3   // the same by address
	maxHalfOpen     = 500 // in all: beyond it nothing is answered
	// halfOpenShare is the part of those still free up to which an address may have
	// half-open ones. An office behind a NAT, or a gateway with many tunnels, gets
	// 100 at once, and however many addresses somebody has, the next one finds room.
	halfOpenShare = 4
	halfOpenFor   = 30 * time.Second
	cookieLife    = time.Minute // of a secret; the one before is accepted too
	// cookiesFor is how long cookies are asked for once they were. It is longer than
	// a request is sent again: if one was answered by COOKIE and then the same one by
	// our choice, the initiator would not know which of its two messages, without and
	// with the cookie, AUTH has to cover (RFC 7296, Section 2.6).
	cookiesFor = time.Minute

	// Requests without a cookie that are looked at, at once and a second: most of
	// what can be asked leaves no half-open IKE SA behind that would count.
	initBurst = cookiesFrom
	initRate  = 10
	// maxInitRequest bounds what a half-open IKE SA keeps of its request, in
	// octets. The largest key exchanges there are and all algorithms take half.
	maxInitRequest = 8 << 10
)

// cookieJar makes and checks cookies without remembering any.
type cookieJar struct {
	secret, previous []byte
	until            time.Time
	wanted           time.Time // until then everybody has to show one
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

// showsCookie reports whether an IKE_SA_INIT request carries a cookie of ours:
// its sender receives what is sent to its address.
func (e *Endpoint) showsCookie(d Datagram, spi wire.SPI, shown, nonce []byte) bool {
	if shown == nil {
		return false
	}
	e.renewCookies()
	for _, secret := range [][]byte{e.cookies.secret, e.cookies.previous} {
		if secret != nil && hmac.Equal(shown, cookie(secret, nonce, spi, d.Remote)) {
			return true
		}
	}
	return false
}

// admit decides whether an IKE_SA_INIT request is looked at. Known means that its
// sender showed a cookie; of anybody else one is asked for when there are many.
func (e *Endpoint) admit(d Datagram, spi wire.SPI, nonce []byte, known bool) bool {
	open, same := len(e.halfOpen), e.halfOpenFrom[subnet(d.Remote.Addr())]
	if same >= (maxHalfOpen-open)/halfOpenShare {
		e.stats.Flooded++
		return false
	}
	if known {
		return true
	}
	if open >= cookiesFrom || same >= cookiesFromPeer || !e.strangers.AllowN(e.now, 1) {
		e.cookies.wanted = e.now.Add(cookiesFor)
	}
	if e.now.Before(e.cookies.wanted) {
		e.askCookie(d, spi, nonce)
		return false
	}
	return true
}

// askCookie wants the request again, with proof that its sender has the address
// that it came from.
func (e *Endpoint) askCookie(d Datagram, spi wire.SPI, nonce []byte) {
	e.stats.Flooded++
	e.renewCookies()
	e.replyInit(d, spi, wire.Notify{Kind: wire.NotifyCookie, Data: cookie(e.cookies.secret, nonce, spi, d.Remote)})
}

// newStrangers limits the requests without a cookie.
func newStrangers() *rate.Limiter { return rate.NewLimiter(initRate, initBurst) }

// subnet is what one sender has of addresses: an IPv4 address, and of IPv6 the
// 64 bits that a host is given.
func subnet(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	return netip.PrefixFrom(a, 64).Masked().Addr()
}

// keepHalfOpen counts a half-open IKE SA that a request made.
func (e *Endpoint) keepHalfOpen(sa *ikeSA) {
	e.halfOpen[initKey{sa.SPIi, sa.Init.From}] = sa.local()
	e.halfOpenFrom[subnet(sa.Init.From.Addr())]++
}

// dropHalfOpen no longer counts it, if it was counted.
func (e *Endpoint) dropHalfOpen(sa *ikeSA) {
	key := initKey{sa.SPIi, sa.Init.From}
	if e.halfOpen[key] != sa.local() {
		return
	}
	delete(e.halfOpen, key)
	from := subnet(key.remote.Addr())
	if e.halfOpenFrom[from]--; e.halfOpenFrom[from] == 0 {
		delete(e.halfOpenFrom, from)
	}
}

// lowest is the smallest of nonces, compared octet by octet (RFC 7296, Section
// 2.8.1).
func lowest(nonces ...[]byte) []byte { return slices.MinFunc(nonces, slices.Compare[[]byte]) }
