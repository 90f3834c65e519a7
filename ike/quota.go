package ike

import "golang.org/x/time/rate"

// What a peer may cost us that is authenticated, and hostile or broken. All of it
// is far above what a peer needs that rekeys every second.
const (
	// maxChildren bounds the Child SAs with a peer that are in use. One is, or
	// one for each of its selectors; a rekey by both sides makes four of one.
	maxChildren = 16
	// maxRetiring bounds those that only take what is under way.
	maxRetiring = 64
	// maxIKESAs bounds the IKE SAs with a peer. One is in use; those that were
	// replaced wait for their DELETE.
	maxIKESAs = 8

	// Requests that make keys, in a row and a second: several hundred on command
	// are granted, and a few a second for ever.
	exchangeBurst = 300
	exchangeRate  = 5
	// Requests of any kind. Each is written to the state file.
	requestBurst = 1000
	requestRate  = 100
)

// quota is what is left to a peer. A restart fills it up.
type quota struct{ requests, exchanges *rate.Limiter }

func newQuota() *quota {
	return &quota{
		requests:  rate.NewLimiter(requestRate, requestBurst),
		exchanges: rate.NewLimiter(exchangeRate, exchangeBurst),
	}
}

// mayAsk takes a request off a peer's quota. One too many is not answered: the
// peer sends it again. Who is not authenticated yet has a quota of half-open IKE
// SAs, see [Endpoint.admit].
func (e *Endpoint) mayAsk(sa *ikeSA) bool {
	q := e.quotas[sa.Peer]
	if q == nil || q.requests.AllowN(e.now, 1) {
		return true
	}
	e.stats.Flooded++
	return false
}

// mayExchange takes a key exchange off a peer's quota.
func (e *Endpoint) mayExchange(peer string) bool {
	if e.quotas[peer].exchanges.AllowN(e.now, 1) {
		return true
	}
	e.stats.Flooded++
	return false
}

// childrenFull reports whether a peer has all Child SAs that it may have.
func (e *Endpoint) childrenFull(peer string) bool {
	n := 0
	for _, sa := range e.state.ByPeer[peer] {
		for _, c := range sa.Children {
			if c.State != childRetiring {
				n++
			}
		}
	}
	return n >= maxChildren
}

// limitRetiring removes the oldest Child SAs that only take what is under way,
// when there are many.
func (e *Endpoint) limitRetiring(sa *ikeSA) {
	var retiring []*child
	for _, c := range sa.sorted() {
		if c.State == childRetiring {
			retiring = append(retiring, c)
		}
	}
	for ; len(retiring) > maxRetiring; retiring = retiring[1:] {
		e.removeChild(sa, retiring[0])
	}
}

// limitIKE forgets the oldest IKE SAs with a peer that opened another one, when
// there are many.
func (e *Endpoint) limitIKE(sa *ikeSA) {
	for _, other := range e.ofPeer(sa.Peer) {
		if len(e.state.ByPeer[sa.Peer]) <= maxIKESAs {
			return
		}
		if other != sa && other.authenticated() {
			e.gone(other)
		}
	}
}
