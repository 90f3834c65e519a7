package suite

import (
	"bytes"
	"encoding/gob"
	"encoding/hex"
	"errors"
	"math/big"
	"testing"
	"testing/iotest"

	"ipsec-quick/ike/wire"
)

// group returns the ID of a key exchange method by its keyword.
func group(t testing.TB, name string) wire.TransformID {
	t.Helper()
	tr, ok := lookup(name)
	if !ok || tr.Type != wire.TransformKE {
		t.Fatalf("no key exchange %q", name)
	}
	return tr.ID
}

func TestKEVectors(t *testing.T) {
	seen := map[wire.TransformID]bool{}
	for _, v := range vectors(t, "kex.txt", 6) {
		id := group(t, v[0])
		seen[id] = true
		t.Run(v[0], func(t *testing.T) {
			var ends [2]*PrivateKE
			for i := range ends {
				// The scalar drawn is the private key of the vector: GenerateKE reads just that.
				k, err := GenerateKE(id, bytes.NewReader(unhex(t, v[1+i])))
				if err != nil {
					t.Fatal(err)
				}
				if got := hex.EncodeToString(k.Public); got != v[3+i] {
					t.Errorf("public value %d:\n got %s\nwant %s", i, got, v[3+i])
				}
				ends[i] = k
			}
			for i, k := range ends {
				shared, err := k.Shared(ends[1-i].Public)
				if err != nil {
					t.Fatal(err)
				}
				if got := hex.EncodeToString(shared); got != v[5] {
					t.Errorf("shared secret %d:\n got %s\nwant %s", i, got, v[5])
				}
			}
		})
	}
	for _, m := range methods {
		if !seen[m.id] {
			t.Errorf("%s has no vector", m.names[0])
		}
	}
}

// TestKERestart sends a half-done exchange through encoding/gob, as a restart does.
func TestKERestart(t *testing.T) {
	for _, m := range methods {
		t.Run(m.names[0], func(t *testing.T) {
			a, err := GenerateKE(m.id, &stream{name: "a"})
			if err != nil {
				t.Fatal(err)
			}
			b, err := GenerateKE(m.id, &stream{name: "b"})
			if err != nil {
				t.Fatal(err)
			}
			if len(a.Public) != m.public || bytes.Equal(a.Public, b.Public) {
				t.Fatalf("public values of %d octets, equal %v", len(a.Public), bytes.Equal(a.Public, b.Public))
			}
			var buf bytes.Buffer
			if err := gob.NewEncoder(&buf).Encode(a); err != nil {
				t.Fatal(err)
			}
			var back PrivateKE
			if err := gob.NewDecoder(&buf).Decode(&back); err != nil {
				t.Fatal(err)
			}
			want, err := a.Shared(b.Public)
			if err != nil {
				t.Fatal(err)
			}
			got, err := back.Shared(b.Public)
			if err != nil {
				t.Fatal(err)
			}
			other, err := b.Shared(a.Public)
			if err != nil {
				t.Fatal(err)
			}
			if !got.Equal(want) || !other.Equal(want) || len(want) == 0 {
				t.Error("the shared secrets differ")
			}
		})
	}
}

// TestKERefuses gives each group the public values of RFC 6989, Section 2, and RFC 8031,
// Section 3.2, that must not be used.
func TestKERefuses(t *testing.T) {
	for _, m := range methods {
		k, err := GenerateKE(m.id, &stream{name: "refuses"})
		if err != nil {
			t.Fatal(err)
		}
		zero := make([]byte, m.public)
		ones := bytes.Repeat([]byte{0xff}, m.public)
		bad := map[string][]byte{
			"empty": nil, "short": zero[1:], "long": append(zero[:len(zero):len(zero)], 0), "zero": zero,
		}
		switch {
		case m.modp != nil:
			p := new(big.Int).SetBytes(m.modp.p.Nat().Bytes(m.modp.p))
			put := func(v *big.Int) []byte { return v.FillBytes(make([]byte, m.public)) }
			bad["one"] = put(big.NewInt(1))
			bad["p-1"] = put(new(big.Int).Sub(p, big.NewInt(1)))
			bad["p"] = put(p)
			bad["all ones"] = ones
			if _, err := k.Shared(put(new(big.Int).Sub(p, big.NewInt(2)))); err != nil {
				t.Errorf("%s: p-2 is valid: %v", m.names[0], err)
			}
			if _, err := k.Shared(put(big.NewInt(2))); err != nil {
				t.Errorf("%s: 2 is valid: %v", m.names[0], err)
			}
		case m.id == wire.KECurve25519:
			bad["order 2"] = append([]byte{1}, zero[1:]...)
			bad["order 8"] = unhex(t, "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")
		default:
			off := bytes.Clone(k.Public)
			off[len(off)-1] ^= 1
			bad["off the curve"] = off
			bad["all ones"] = ones
		}
		for name, public := range bad {
			if s, err := k.Shared(public); !errors.Is(err, ErrPublicValue) || s != nil {
				t.Errorf("%s, %s: %v", m.names[0], name, err)
			}
		}
	}
}

func TestKESource(t *testing.T) {
	broken := errors.New("broken")
	for _, m := range methods {
		if _, err := GenerateKE(m.id, iotest.ErrReader(broken)); !errors.Is(err, broken) {
			t.Errorf("%s: error of the source: %v", m.names[0], err)
		}
		// Zero is no private value but for Curve25519, which sets a bit of it.
		_, err := GenerateKE(m.id, zeros{})
		if (err == nil) != (m.id == wire.KECurve25519) {
			t.Errorf("%s: a source of zeros: %v", m.names[0], err)
		}
	}
	if _, err := GenerateKE(wire.KEMODP1024, zeros{}); err == nil || SupportedKE(wire.KEMODP1024) {
		t.Error("modp1024 is supported")
	}
	if _, err := (&PrivateKE{Group: wire.KEMODP1024}).Shared(nil); err == nil {
		t.Error("modp1024 has a shared secret")
	}
	// One P-256 scalar above the order, then a good one.
	source := append(bytes.Repeat([]byte{0xff}, 32), octets("retry", 32)...)
	k, err := GenerateKE(wire.KEECP256, bytes.NewReader(source))
	if err != nil || !k.Scalar.Equal(octets("retry", 32)) {
		t.Errorf("no second draw: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestMODPPrimes computes the primes from their formula in RFC 3526, with pi by Machin's.
func TestMODPPrimes(t *testing.T) {
	for _, g := range []struct {
		bits uint
		k    int64
		g    *modpGroup
	}{{2048, 124476, modp2048}, {3072, 1690314, modp3072}, {4096, 240904, modp4096}} {
		if g.g == nil {
			t.Fatalf("modp%d is nil", g.bits)
		}
		one := big.NewInt(1)
		pow := func(n uint) *big.Int { return new(big.Int).Lsh(one, n) }
		p := new(big.Int).Sub(pow(g.bits), pow(g.bits-64))
		p.Sub(p, one)
		x := new(big.Int).Add(pi(g.bits-130), big.NewInt(g.k))
		p.Add(p, x.Lsh(x, 64))
		if got := g.g.p.Nat().Bytes(g.g.p); !bytes.Equal(got, p.Bytes()) {
			t.Errorf("modp%d is not the prime of RFC 3526", g.bits)
		}
		q := new(big.Int).Rsh(p, 1)
		if !p.ProbablyPrime(4) || !q.ProbablyPrime(4) {
			t.Errorf("modp%d is not a safe prime", g.bits)
		}
	}
}

// pi returns [2^bits pi], from pi = 16 arctan(1/5) - 4 arctan(1/239).
func pi(bits uint) *big.Int {
	const guard = 64
	arctan := func(x int64) *big.Int {
		term := new(big.Int).Lsh(big.NewInt(1), bits+guard)
		term.Quo(term, big.NewInt(x))
		sum, square := new(big.Int).Set(term), big.NewInt(x*x)
		for n := int64(1); term.Sign() != 0; n++ {
			term.Quo(term, square).Neg(term)
			sum.Add(sum, new(big.Int).Quo(term, big.NewInt(2*n+1)))
		}
		return sum
	}
	s := new(big.Int).Mul(arctan(5), big.NewInt(16))
	s.Sub(s, new(big.Int).Mul(arctan(239), big.NewInt(4)))
	return s.Rsh(s, guard)
}

func TestKEWipe(t *testing.T) {
	k, err := GenerateKE(wire.KECurve25519, &stream{name: "wipe"})
	if err != nil {
		t.Fatal(err)
	}
	k.Wipe()
	if !k.Scalar.Equal(make([]byte, 32)) || k.key != nil {
		t.Error("the private value is still there")
	}
}

func BenchmarkKE(b *testing.B) {
	for _, m := range methods {
		peer, err := GenerateKE(m.id, &stream{name: "peer"})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(m.names[0]+"/generate", func(b *testing.B) {
			rand := &stream{name: "bench"}
			for b.Loop() {
				if _, err := GenerateKE(m.id, rand); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(m.names[0]+"/shared", func(b *testing.B) {
			k, err := GenerateKE(m.id, &stream{name: "bench"})
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := k.Shared(peer.Public); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
