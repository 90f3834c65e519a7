package xfrm

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
)

// Suite names the algorithms of an ESP SA, as in apply, and the cipher's key
// length in octets (an AEAD's with its salt).
type Suite struct {
	Encryption, Integrity string
	KeyLen                int
}

// Support is what the kernel can do.
type Support struct {
	ESP4, ESP6 bool
	Direction  bool           // SAs have a direction (Linux 6.10)
	Suites     map[Suite]bool // those that were asked for
}

// Probe finds out what the kernel can do by adding SAs to the loopback address
// and removing them at once. Its error is a *NoPermission or a *NoESP, the
// latter if there is no ESP for either family.
func Probe(suites ...Suite) (Support, error) {
	k, err := open()
	if err != nil {
		return Support{}, err
	}
	defer k.Close()
	return k.probe(suites)
}

// preflight learns the kernel's quirks, which proves that it has ESP for one
// family (the other one's is looked for when it is needed), and looks for the
// algorithms.
func (k *Kernel) preflight(need []Suite) error {
	where, err := k.findESP()
	if err != nil {
		return err
	}
	k.mu.Lock()
	k.noProof = map[bool]bool{!where.Is6(): true}
	k.mu.Unlock()
	for _, s := range need {
		if err := k.try(s.sample(where)); err != nil {
			return err
		}
	}
	return nil
}

// findESP learns the quirks with the first SA that the kernel can do, and
// returns where it goes.
func (k *Kernel) findESP() (netip.Addr, error) {
	var lacking error
	for _, ipv6 := range []bool{false, true} {
		for _, s := range plain {
			err := k.learnQuirks(s.sample(loopback(ipv6)))
			if err == nil {
				return loopback(ipv6), nil
			}
			var algorithm *NoAlgorithm
			var esp *NoESP
			if errors.As(err, &algorithm) {
				lacking = err
				continue
			}
			if !errors.As(err, &esp) {
				return netip.Addr{}, err
			}
			lacking = nil
			break
		}
		if lacking != nil {
			return netip.Addr{}, lacking
		}
	}
	return netip.Addr{}, &NoESP{
		Options: []string{"CONFIG_INET_ESP", "CONFIG_INET6_ESP"},
		Modules: []string{"esp4", "esp6"},
	}
}

// proveESP makes sure, once, that there is ESP for an address family: to learn
// it from the SA would be too late, since the peer would have it already.
func (k *Kernel) proveESP(ipv6 bool) error {
	k.mu.Lock()
	needed := k.noProof[ipv6]
	k.mu.Unlock()
	if !needed {
		return nil
	}
	if err := k.tryPlain(ipv6); err != nil {
		return err
	}
	k.mu.Lock()
	delete(k.noProof, ipv6)
	k.mu.Unlock()
	return nil
}

// tryPlain tries any suite.
func (k *Kernel) tryPlain(ipv6 bool) error {
	var err error
	for _, s := range plain {
		var missing *NoAlgorithm
		if err = k.try(s.sample(loopback(ipv6))); !errors.As(err, &missing) {
			break
		}
	}
	return err
}

// loopback is where the throwaway SAs point: no tunnel has them as outer
// addresses.
func loopback(ipv6 bool) netip.Addr {
	if ipv6 {
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// plain are suites of which a kernel that is of use has at least one.
var plain = []Suite{
	{Encryption: apply.AESGCM16, KeyLen: 20},
	{Encryption: apply.AESCBC, KeyLen: 16, Integrity: apply.HMACSHA256},
	{Encryption: apply.ChaCha20Poly1305, KeyLen: 36},
}

func (k *Kernel) probe(suites []Suite) (Support, error) {
	where, err := k.findESP()
	if err != nil {
		return Support{}, err
	}
	support := Support{Direction: k.quirks.direction, Suites: make(map[Suite]bool)}
	support.ESP4 = where.Is4()
	support.ESP6 = where.Is6() || k.tryPlain(true) == nil
	for _, s := range suites {
		support.Suites[s] = k.try(s.sample(where)) == nil
	}
	return support, nil
}

// learnQuirks tries outbound ESN SAs until the kernel takes one, then looks
// whether it remembers the direction.
func (k *Kernel) learnQuirks(sa apply.SA) error {
	sa.ESN = true
	var err error
	for _, q := range []quirks{
		{direction: true, outWindow: 0, outBitmap: 0},
		{direction: true, outWindow: 0, outBitmap: 1},
		{direction: true, outWindow: 1, outBitmap: 1},
	} {
		k.quirks = q
		if err = k.putSA(msgNewSA, sa); isErrno(err, unix.EINVAL) {
			continue
		}
		if err != nil {
			return explain(err, sa)
		}
		found, err := k.get(sa.ID(), false)
		if derr := k.RemoveSA(sa.ID()); err == nil {
			err = derr
		}
		k.quirks.direction = found.dir == saDirOut
		return err
	}
	return err
}

// try adds an SA and removes it.
func (k *Kernel) try(sa apply.SA) error {
	if err := k.putSA(msgNewSA, sa); err != nil {
		return explain(err, sa)
	}
	return k.RemoveSA(sa.ID())
}

// sample is a throwaway SA. Its key is random, its SPI is outside the range
// that we or others allocate from, and if this process dies before it removes
// the SA its limit does.
func (s Suite) sample(addr netip.Addr) apply.SA {
	var spi [4]byte
	_, _ = rand.Read(spi[:])
	sa := apply.SA{
		SPI:        binary.BigEndian.Uint32(spi[:])&0x0fffffff | 0xe0000000,
		Direction:  apply.Out,
		Src:        addr,
		Dst:        addr,
		Encryption: apply.Algorithm{Name: s.Encryption, Key: randomKey(s.KeyLen)},
		Hard:       apply.Limits{Time: 2 * time.Second},
	}
	if s.Integrity != "" {
		sa.Integrity = apply.Algorithm{Name: s.Integrity}
		for _, n := range (apply.Algorithm{Name: s.Integrity}).KeyLens() {
			sa.Integrity.Key = randomKey(n)
		}
	}
	return sa
}

func randomKey(n int) apply.Key {
	k := make(apply.Key, n)
	_, _ = rand.Read(k)
	return k
}
