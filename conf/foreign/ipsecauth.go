package foreign

import (
	"net/netip"
	"strings"
)

// sideID is the identity of a side; empty for none and for any.
func (e *ends) sideID(b block, side string, libreswan bool) string {
	key := side + "id"
	v, at := b.get(key)
	v = strings.Trim(v, "'")
	name, bracketed := strings.CutPrefix(v, "@[")
	_, notAddr := netip.ParseAddr(v)
	switch {
	case v == "" || v == "%none" || v == "%null" || strings.HasPrefix(v, "%any"):
		return ""
	case v == "%fromcert":
		e.remark(at, b.path+key, "%s", noCertificates)
		return ""
	case libreswan && bracketed:
		return e.identity(at, b.path+key, "keyid:"+strings.TrimSuffix(name, "]"))
	case libreswan && notAddr != nil && !strings.ContainsAny(v, "@=:"):
		e.remark(at, b.path+key, "libreswan looks this name up and is identified by the address; here it is the name: write the address if the peer has that")
	case strings.HasPrefix(v, "%"):
		v = v[1:] // the peer may be asked for another
	}
	return e.identity(at, b.path+key, v)
}

// ipsecAuth reads how both ends prove who they are.
func (e *ends) ipsecAuth(b block, ours, theirs string) {
	method := func(side string) (string, string, place) {
		for _, key := range []string{side + "auth", "authby"} {
			if v, at := b.get(key); v != "" {
				return v, key, at
			}
		}
		return "pubkey", side, placeOf(b, side)
	}
	one, key, at := method(ours)
	two, theirKey, theirAt := method(theirs)
	for _, m := range []struct {
		method, key string
		at          place
	}{{one, key, at}, {two, theirKey, theirAt}} {
		switch {
		case strings.HasPrefix(m.method, "eap"):
			e.remark(m.at, b.path+m.key, "%s: %s", m.method, noEAP)
		case m.method == "null":
			e.remark(m.at, b.path+m.key, "an end always proves who it is here: give both a psk_file, or raw public keys")
		}
	}
	isPSK := func(s string) bool { return s == "psk" || s == "secret" }
	signs := func(s string) bool {
		return !isPSK(s) && !strings.HasPrefix(s, "eap") && s != "null"
	}
	e.psk = isPSK(one) || isPSK(two)
	if signs(two) && !e.psk {
		e.sideKey(b, theirs, theirKey, theirAt)
	}
	if e.proof.key != "" {
		e.ownKey(at, b.path+key, "our private key")
	} else if signs(one) && !e.psk && !signs(two) {
		e.remark(at, b.path+key, "%s", noCertificates)
	}
	e.findPSK(at, b.path+key, isPSK(one) == isPSK(two))
}

func placeOf(b block, key string) place {
	_, at := b.get(key)
	return at
}

// sideKey reads the peer's raw public key.
func (e *ends) sideKey(b block, side, authKey string, authAt place) {
	for _, k := range []string{"rsasigkey", "pubkey", "ecdsakey", "eddsakey", "sigkey"} {
		v, at := b.get(side + k)
		if v == "" || strings.HasPrefix(v, "%") {
			continue
		}
		if public, inline := inlineKey(v); inline {
			if public == "" {
				e.remark(at, b.path+side+k, "this is no RSA key of 2048 bits or more, and no other public key that is known here: write the peer's public_key")
				e.proof = setting{}
				return
			}
			e.proof = setting{"public_key", quote(public)}
			return
		}
		e.publicKey(at, b.path+side+k, v, "ipsec.d/certs")
		return
	}
	e.remark(authAt, b.path+authKey, "%s", noCertificates)
}
