package esp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"ipsec-quick/apply"
)

// suite is a pair of algorithms and the overhead that RFCs give it.
type suite struct {
	encryption, integrity apply.Algorithm
	iv, icv, align        int
}

func (s suite) String() string {
	name := fmt.Sprint(s.encryption.Name, "-", 8*len(s.encryption.Key))
	if s.iv == 8 {
		name = fmt.Sprint(s.encryption.Name, "-", 8*(len(s.encryption.Key)-4))
	}
	if s.integrity.Name != "" {
		name += "+" + s.integrity.Name
	}
	return name
}

// suites are all that there are.
var suites = func() []suite {
	var all []suite
	algorithm := func(name string, n int) apply.Algorithm {
		key := make(apply.Key, n)
		for i := range key {
			key[i] = byte(n + 7*i)
		}
		return apply.Algorithm{Name: name, Key: key}
	}
	for _, n := range []int{20, 28, 36} {
		all = append(all, suite{algorithm(apply.AESGCM16, n), apply.Algorithm{}, 8, 16, 4})
	}
	all = append(all, suite{algorithm(apply.ChaCha20Poly1305, 36), apply.Algorithm{}, 8, 16, 4})
	for _, n := range []int{16, 24, 32} {
		for i, mac := range []string{apply.HMACSHA256, apply.HMACSHA384, apply.HMACSHA512} {
			all = append(all, suite{algorithm(apply.AESCBC, n), algorithm(mac, 32+16*i), 16, 16 + 8*i, 16})
		}
	}
	return all
}()

// main are those whose speed matters.
var mainSuites = []suite{suites[0], suites[2], suites[3], suites[10], suites[12]}

func (s suite) transform(t testing.TB, esn bool) *Transform {
	t.Helper()
	tr, err := New(s.encryption, s.integrity, esn)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// payload is n octets with a guard of MaxTrailer octets behind them.
func payload(n int) []byte {
	b := make([]byte, n+MaxTrailer)
	for i := range b {
		b[i] = byte(i*i + i>>8)
	}
	return b[:n]
}

func TestSealOpen(t *testing.T) {
	for _, suite := range suites {
		for _, esn := range []bool{false, true} {
			t.Run(fmt.Sprint(suite, "/", esn), func(t *testing.T) {
				out, in := suite.transform(t, esn), suite.transform(t, esn)
				var s Scratch
				for n := range 150 {
					seq := uint64(n + 1)
					if esn {
						seq |= 5 << 32
					}
					src := payload(n)
					before := bytes.Clone(src[:cap(src)])
					dst := make([]byte, 3, 3+out.Len(n)+2)
					packet := out.Seal(&s, dst, 0x01020304, seq, src, NextIPv4)[3:]
					if len(packet) != out.Len(n) {
						t.Fatalf("%d octets: packet of %d, Len says %d", n, len(packet), out.Len(n))
					}
					if !bytes.Equal(src[:cap(src)], before) {
						t.Fatalf("%d octets: Seal changed its source or what is behind it", n)
					}
					if spi := binary.BigEndian.Uint32(packet); spi != 0x01020304 {
						t.Fatalf("SPI %#x", spi)
					}
					if low := binary.BigEndian.Uint32(packet[4:]); low != uint32(seq) {
						t.Fatalf("sequence number %#x", low)
					}
					if behind := packet[len(packet) : len(packet)+2]; behind[0]|behind[1] != 0 {
						t.Fatalf("%d octets: Seal wrote behind its packet", n)
					}
					got, next, err := in.Open(&s, nil, packet, seq)
					if err != nil || next != NextIPv4 || !bytes.Equal(got, src) {
						t.Fatalf("%d octets: opened %d octets, next header %d, %v", n, len(got), next, err)
					}
				}
			})
		}
	}
}

// With the sizes that the RFCs give, Len is what a packet of one octet more would
// not fit.
func TestLengths(t *testing.T) {
	for _, suite := range suites {
		tr := suite.transform(t, false)
		sa := apply.SA{Dst: netip.IPv4Unspecified(), Encryption: suite.encryption, Integrity: suite.integrity}
		if got, want := sa.MTU(20+1480), tr.MaxPayload(1480); got != want {
			t.Errorf("%v: apply says %d, we %d", suite, got, want)
		}
		for n := range 200 {
			body := n + 2
			for body%suite.align != 0 {
				body++
			}
			if want := 8 + suite.iv + body + suite.icv; tr.Len(n) != want {
				t.Errorf("%v: Len(%d) is %d, want %d", suite, n, tr.Len(n), want)
			}
		}
		for n := range 300 {
			most := tr.MaxPayload(n)
			if most < 0 {
				if tr.Len(0) <= n {
					t.Errorf("%v: MaxPayload(%d) is %d, but nothing fits in it", suite, n, most)
				}
				continue
			}
			if tr.Len(most) > n || tr.Len(most+1) <= n {
				t.Errorf("%v: MaxPayload(%d) is %d, Len of it %d, of one more %d", suite, n, most, tr.Len(most), tr.Len(most+1))
			}
		}
	}
}

// No print of a transform shows anything.
func TestPrintsHideKeys(t *testing.T) {
	for _, suite := range mainSuites {
		tr := suite.transform(t, false)
		for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%d", "%s", "%q"} {
			if got := fmt.Sprintf(verb, tr) + fmt.Sprintf(verb, *tr); got != "<hidden><hidden>" {
				t.Errorf("%v: %s prints %s", suite, verb, got)
			}
		}
	}
}

func TestNewRefuses(t *testing.T) {
	gcm, cbc, sha := suites[0].encryption, suites[4].encryption, suites[4].integrity
	for _, test := range []struct {
		encryption, integrity apply.Algorithm
		want                  string
	}{
		{apply.Algorithm{Name: "null"}, sha, "unknown"},
		{cbc, apply.Algorithm{}, "unknown"},
		{gcm, sha, "own integrity"},
		{sha, cbc, "no pair"},
		{cbc, cbc, "no pair"},
		{apply.Algorithm{Name: apply.AESGCM16, Key: gcm.Key[:16]}, apply.Algorithm{}, "key of 16 octets"},
		{cbc, apply.Algorithm{Name: sha.Name, Key: sha.Key[:20]}, "key of 20 octets"},
	} {
		_, err := New(test.encryption, test.integrity, false)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s with %s: %v, want %q", test.encryption.Name, test.integrity.Name, err, test.want)
		}
	}
}

// Any octet that is changed, cut off or added, and an SPI or sequence number that
// is another one, makes a packet forged or malformed, ESN's upper half included.
func TestOpenRefuses(t *testing.T) {
	for _, suite := range suites {
		for _, esn := range []bool{false, true} {
			tr := suite.transform(t, esn)
			var s Scratch
			const seq = 7<<32 | 9
			sealed := tr.Seal(&s, make([]byte, 0, tr.Len(30)), 0x1234, seq, payload(30), NextIPv6)
			open := func(b []byte, seq uint64) error {
				_, _, err := tr.Open(&s, nil, bytes.Clone(b), seq)
				return err
			}
			if err := open(sealed, seq); err != nil {
				t.Fatal(err)
			}
			for i := range sealed {
				b := bytes.Clone(sealed)
				b[i] ^= 1 << (i % 8)
				// The sequence number is read from the packet, then given.
				if err := open(b, seq&^0xffffffff|uint64(binary.BigEndian.Uint32(b[4:]))); !errors.Is(err, ErrForged) {
					t.Errorf("%v: octet %d changed: %v", suite, i, err)
				}
				if err := open(sealed[:i], seq); !errors.Is(err, ErrForged) && !errors.Is(err, ErrMalformed) {
					t.Errorf("%v: cut to %d octets: %v", suite, i, err)
				}
			}
			for n := 1; n < 20; n++ {
				if open(append(bytes.Clone(sealed), make([]byte, n)...), seq) == nil {
					t.Errorf("%v: opened with %d octets more", suite, n)
				}
			}
			err := open(sealed, seq+1<<32)
			if esn != errors.Is(err, ErrForged) {
				t.Errorf("%v, ESN %v: with another upper half of the sequence number: %v", suite, esn, err)
			}
		}
	}
}

// What a peer with the keys can do wrong.
func TestOpenTrailer(t *testing.T) {
	for _, suite := range []suite{suites[0], suites[3], suites[4]} {
		tr := suite.transform(t, false)
		for _, test := range []struct {
			trailer string // at the end of a body of 64 octets
			want    int    // payload; -1: malformed
		}{
			{"\x00\x04", 62},
			{"\x01\x01\x04", 61},
			{"\x01\x02\x03\x03\x04", 59},
			{"\x02\x01\x04", -1},         // does not count from 1
			{"\x00\x00\x00\x03\x04", -1}, // does not count
			{"\x3f\x04", -1},             // one more than there is
			{"\xff\x04", -1},
			{countTo(62) + "\x3e\x04", 0}, // nothing but padding
		} {
			body := append(bytes.Repeat([]byte{0xee}, 64-len(test.trailer)), test.trailer...)
			packet := sealBody(t, suite, body)
			got, next, err := tr.Open(new(Scratch), nil, packet, 1)
			switch {
			case test.want < 0:
				if !errors.Is(err, ErrMalformed) {
					t.Errorf("%v, trailer %x: %v", suite, test.trailer, err)
				}
			case err != nil || len(got) != test.want || next != 4:
				t.Errorf("%v, trailer %x: %d octets, next header %d, %v", suite, test.trailer, len(got), next, err)
			}
		}
	}
}

func countTo(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i + 1)
	}
	return string(b)
}

// Nothing that is shorter than the smallest packet, or of no whole blocks, is
// decrypted.
func TestOpenLengths(t *testing.T) {
	for _, suite := range suites {
		tr := suite.transform(t, true)
		for n := range 120 {
			body := n - 8 - suite.iv - suite.icv
			want := ErrForged
			if body <= 0 || body%suite.align != 0 {
				want = ErrMalformed
			}
			if _, _, err := tr.Open(new(Scratch), nil, make([]byte, n), 1); !errors.Is(err, want) {
				t.Errorf("%v: %d zeros: %v, want %v", suite, n, err, want)
			}
		}
	}
}

// IVs of CBC neither repeat nor show the sequence number.
func TestIVs(t *testing.T) {
	suite := suites[4]
	tr := suite.transform(t, false)
	block, err := aes.NewCipher(suite.encryption.Key)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for seq := uint64(1); seq <= 1000; seq++ {
		packet := tr.Seal(new(Scratch), make([]byte, 0, 100), 1, seq, payload(20), 4)
		iv := packet[8:24]
		if seen[string(iv)] {
			t.Fatalf("IV of %d used twice", seq)
		}
		seen[string(iv)] = true
		clear := make([]byte, 16)
		block.Decrypt(clear, iv)
		if binary.BigEndian.Uint64(clear[8:]) != seq {
			t.Fatalf("IV of %d is made of %x", seq, clear)
		}
	}
}

// Several workers share a transform.
func TestConcurrent(t *testing.T) {
	for _, suite := range mainSuites {
		tr := suite.transform(t, true)
		var wg sync.WaitGroup
		for worker := range 4 {
			wg.Go(func() {
				var s Scratch
				dst, src := make([]byte, 0, 2000), payload(700+worker)
				for i := range uint64(200) {
					seq := i*4 + uint64(worker) + 1
					packet := tr.Seal(&s, dst, 9, seq, src, NextIPv4)
					if got, _, err := tr.Open(&s, nil, packet, seq); err != nil || !bytes.Equal(got, src) {
						t.Errorf("%v: worker %d, packet %d: %v", suite, worker, i, err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestNoAllocations(t *testing.T) {
	for _, suite := range suites {
		for _, esn := range []bool{false, true} {
			tr := suite.transform(t, esn)
			var s Scratch
			dst, opened, src := make([]byte, 0, 2000), make([]byte, 0, 2000), payload(1400)
			seq := uint64(0)
			got := testing.AllocsPerRun(100, func() {
				seq++
				packet := tr.Seal(&s, dst, 9, seq, src, NextIPv4)
				if _, _, err := tr.Open(&s, opened, packet, seq); err != nil {
					t.Fatal(err)
				}
				packet[3] ^= 1
				if _, _, err := tr.Open(&s, opened, packet, seq); err == nil {
					t.Fatal("opened twice")
				}
			})
			if got != 0 {
				t.Errorf("%v: %v allocations a packet", suite, got)
			}
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	for _, suite := range mainSuites {
		for _, n := range []int{64, 512, 1400} {
			b.Run(fmt.Sprint(suite, "/", n), func(b *testing.B) {
				tr := suite.transform(b, true)
				var s Scratch
				dst, src := make([]byte, 0, 2000), payload(n)
				b.SetBytes(int64(n))
				b.ReportAllocs()
				seq := uint64(0)
				for b.Loop() {
					seq++
					tr.Seal(&s, dst, 9, seq, src, NextIPv4)
				}
			})
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, suite := range mainSuites {
		for _, n := range []int{64, 512, 1400} {
			b.Run(fmt.Sprint(suite, "/", n), func(b *testing.B) {
				tr := suite.transform(b, true)
				var s Scratch
				sealed := tr.Seal(&s, make([]byte, 0, 2000), 9, 1, payload(n), NextIPv4)
				opened := make([]byte, 0, n+MaxTrailer)
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					if _, _, err := tr.Open(&s, opened, sealed, 1); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkAEAD is what Seal has to do at least: its difference to BenchmarkSeal
// is the price of ESP.
func BenchmarkAEAD(b *testing.B) {
	for _, suite := range slices.DeleteFunc(slices.Clone(mainSuites), func(s suite) bool { return s.iv != 8 }) {
		for _, n := range []int{64, 512, 1400} {
			b.Run(fmt.Sprint(suite, "/", n), func(b *testing.B) {
				var aead cipher.AEAD = suite.transform(b, true).aead
				dst, src := make([]byte, 0, 2000), payload(n)
				nonce, aad := make([]byte, 12), make([]byte, 12)
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					aead.Seal(dst, nonce, src, aad)
				}
			})
		}
	}
}
