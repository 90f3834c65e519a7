package suite

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"testing"

	"ipsec-quick/ike/wire"
)

var hashes = map[string]struct {
	prf, integ wire.TransformID
	hash       func() hash.Hash
}{
	"sha256": {wire.PRFHMACSHA256, wire.AuthHMACSHA256_128, sha256.New},
	"sha384": {wire.PRFHMACSHA384, wire.AuthHMACSHA384_192, sha512.New384},
	"sha512": {wire.PRFHMACSHA512, wire.AuthHMACSHA512_256, sha512.New},
}

func TestHMACVectors(t *testing.T) {
	for _, v := range vectors(t, "hmac.txt", 5) {
		key, data, want := unhex(t, v[2]), unhex(t, v[3]), v[4]
		var got []byte
		if v[0] == "prf" {
			half := len(data) / 2
			got = PRF(hashes[v[1]].prf, key, data[:half], nil, data[half:])
		} else {
			c, err := NewCipher(Choice{
				Encr:  wire.Transform{Type: wire.TransformENCR, ID: wire.EncrAESCBC, KeyLength: 128},
				Integ: wire.Transform{Type: wire.TransformINTEG, ID: hashes[v[1]].integ},
			}, make(Secret, 16), key)
			if err != nil {
				t.Fatal(err)
			}
			got = c.checksum(data)
		}
		if hex.EncodeToString(got) != want {
			t.Errorf("%s %s:\n got %x\nwant %s", v[0], v[1], got, want)
		}
	}
}

// plus is prf+ as RFC 7296, Section 2.13, writes it down.
func plus(h func() hash.Hash, key, seed []byte, blocks int) []byte {
	var all, t []byte
	for i := 1; i <= blocks; i++ {
		m := hmac.New(h, key)
		m.Write(append(append(append([]byte{}, t...), seed...), byte(i)))
		t = m.Sum(nil)
		all = append(all, t...)
	}
	return all
}

func TestPRFPlus(t *testing.T) {
	key, seed := octets("key", 40), octets("seed", 77)
	for name, h := range hashes {
		want := plus(h.hash, key, seed, 255)
		size := PRFKeyLen(h.prf)
		for _, n := range []int{0, 1, size - 1, size, size + 1, 3*size + 5, 255 * size} {
			if got := PRFPlus(h.prf, key, seed, n); !bytes.Equal(got, want[:n]) || len(got) != n {
				t.Errorf("%s: prf+ of %d octets is wrong", name, n)
			}
		}
		if PRFPlus(h.prf, key, seed, 255*size+1) != nil || PRFPlus(h.prf, key, seed, -1) != nil {
			t.Errorf("%s: prf+ of more than 255 blocks", name)
		}
	}
	if PRF(wire.PRFHMACSHA1, key) != nil || PRFPlus(wire.PRFHMACSHA1, key, seed, 1) != nil || PRFKeyLen(wire.PRFHMACSHA1) != 0 {
		t.Error("PRF_HMAC_SHA1 is supported")
	}
}

func mac(h func() hash.Hash, key []byte, data ...[]byte) []byte {
	m := hmac.New(h, key)
	for _, d := range data {
		m.Write(d)
	}
	return m.Sum(nil)
}

func spis(i, r wire.SPI) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(i)), uint64(r))
}

// ikeKeys cuts keys of given lengths from keying material, in the order of RFC 7296, Section 2.14.
func ikeKeys(m []byte, p, a, e int) IKEKeys {
	take := func(n int) Secret { s := m[:n]; m = m[n:]; return s }
	return IKEKeys{D: take(p), Ai: take(a), Ar: take(a), Ei: take(e), Er: take(e), Pi: take(p), Pr: take(p)}
}

func sameIKE(a, b IKEKeys) bool {
	return a.D.Equal(b.D) && a.Ai.Equal(b.Ai) && a.Ar.Equal(b.Ar) && a.Ei.Equal(b.Ei) &&
		a.Er.Equal(b.Er) && a.Pi.Equal(b.Pi) && a.Pr.Equal(b.Pr)
}

func TestDeriveIKE(t *testing.T) {
	ni, nr := octets("ni", 32), octets("nr", 20)
	gir, extra := octets("gir", 32), octets("extra", 32)
	const spii, spir = 0x0102030405060708, 0x1112131415161718
	for _, c := range []struct {
		proposal string
		prf      func() hash.Hash
		p, a, e  int
	}{
		{"aes128gcm16-prfsha256-x25519", sha256.New, 32, 0, 20},
		{"aes192gcm16-prfsha384-x25519", sha512.New384, 48, 0, 28},
		{"aes256gcm16-prfsha512-x25519", sha512.New, 64, 0, 36},
		{"chacha20poly1305-prfsha256-x25519", sha256.New, 32, 0, 36},
		{"aes128-sha256-x25519", sha256.New, 32, 32, 16},
		{"aes192-sha384-x25519", sha512.New384, 48, 48, 24},
		{"aes256-sha512-x25519", sha512.New, 64, 64, 32},
	} {
		choice := choose(t, ike(t, c.proposal), wire.ProtocolIKE)
		nonces := append(append([]byte{}, ni...), nr...)
		seed := append(nonces, spis(spii, spir)...)

		first := ikeKeys(plus(c.prf, mac(c.prf, nonces, gir), seed, 9), c.p, c.a, c.e)
		if got := DeriveIKE(choice, ni, nr, []Secret{gir}, spii, spir); !sameIKE(got, first) {
			t.Errorf("%s: keys of an IKE SA differ", c.proposal)
		}
		second := ikeKeys(plus(c.prf, mac(c.prf, first.D, extra, ni, nr), seed, 9), c.p, c.a, c.e)
		if got := DeriveIKE(choice, ni, nr, []Secret{gir, extra}, spii, spir); !sameIKE(got, second) {
			t.Errorf("%s: keys after an additional key exchange differ", c.proposal)
		}

		// The old SA's PRF is another one than the new one's.
		oldD := octets("old", 32)
		for _, shared := range [][]Secret{{gir}, {gir, extra}} {
			data := [][]byte{gir, ni, nr}
			if len(shared) > 1 {
				data = append(data, extra)
			}
			want := ikeKeys(plus(c.prf, mac(sha256.New, oldD, data...), seed, 9), c.p, c.a, c.e)
			if got := RekeyIKE(choice, wire.PRFHMACSHA256, oldD, ni, nr, shared, spii, spir); !sameIKE(got, want) {
				t.Errorf("%s: keys of a rekeyed IKE SA differ, %d secrets", c.proposal, len(shared))
			}
		}
		first.Wipe()
		if !sameIKE(first, ikeKeys(make([]byte, 1024), c.p, c.a, c.e)) {
			t.Errorf("%s: keys are left after Wipe", c.proposal)
		}
	}
}

func TestDeriveChild(t *testing.T) {
	ni, nr, d := octets("ni", 32), octets("nr", 32), Secret(octets("d", 48))
	gir, extra := Secret(octets("gir", 256)), Secret(octets("extra", 32))
	for _, c := range []struct {
		proposal string
		e, a     int
	}{
		{"aes128gcm16", 20, 0}, {"aes192gcm16", 28, 0}, {"aes256gcm16", 36, 0}, {"chacha20poly1305", 36, 0},
		{"aes128-sha256", 16, 32}, {"aes192-sha384", 24, 48}, {"aes256-sha512", 32, 64},
	} {
		choice := choose(t, esp(t, c.proposal), wire.ProtocolESP)
		for name, in := range map[string]struct {
			shared []Secret
			seed   []byte
		}{
			"no key exchange": {nil, bytes.Join([][]byte{ni, nr}, nil)},
			"PFS":             {[]Secret{gir}, bytes.Join([][]byte{gir, ni, nr}, nil)},
			"additional":      {[]Secret{gir, extra}, bytes.Join([][]byte{gir, ni, nr, extra}, nil)},
		} {
			m := plus(sha512.New384, d, in.seed, 8)
			take := func(n int) Secret { s := m[:n]; m = m[n:]; return s }
			want := ChildKeys{Ei: take(c.e), Ai: take(c.a), Er: take(c.e), Ar: take(c.a)}
			got := DeriveChild(wire.PRFHMACSHA384, d, choice, ni, nr, in.shared)
			if !got.Ei.Equal(want.Ei) || !got.Ai.Equal(want.Ai) || !got.Er.Equal(want.Er) || !got.Ar.Equal(want.Ar) {
				t.Errorf("%s, %s: keys differ", c.proposal, name)
			}
			got.Wipe()
			if !got.Ei.Equal(make([]byte, c.e)) || !got.Ar.Equal(make([]byte, c.a)) {
				t.Errorf("%s: keys are left after Wipe", c.proposal)
			}
		}
	}
	if !gir.Equal(octets("gir", 256)) {
		t.Error("deriving keys changed the shared secret")
	}
}

func BenchmarkDeriveIKE(b *testing.B) {
	c := choose(b, ike(b, "aes256gcm16-prfsha384-x25519"), wire.ProtocolIKE)
	ni, nr, gir := octets("ni", 32), octets("nr", 32), octets("gir", 32)
	for b.Loop() {
		DeriveIKE(c, ni, nr, []Secret{gir}, 1, 2)
	}
}
