package esp

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"fmt"
	"reflect"
	"testing"
	"unsafe"
)

// memory is what v points to, as it lies there.
func memory(v any) []byte {
	p := reflect.ValueOf(v)
	return unsafe.Slice((*byte)(p.UnsafePointer()), p.Type().Elem().Size())
}

// needles are octets that give a key away: pieces of itself, and for AES of the
// last round key, from which all others follow.
func needles(t *testing.T, s suite) [][]byte {
	key := s.encryption.Key
	if s.iv == 8 {
		key = key[:len(key)-4]
	}
	found := [][]byte{key[:8], key[len(key)-8:]}
	if s.encryption.Name == "chacha20-poly1305" {
		return found
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	// The object begins with the number of rounds and the round keys in order.
	m := memory(block)
	rounds := int(binary.NativeEndian.Uint64(m))
	if want := len(key)/4 + 6; rounds != want {
		t.Skipf("another layout of AES: %d rounds, want %d", rounds, want)
	}
	last := m[8+16*rounds:][:16]
	return append(found, bytes.Clone(last[:8]), bytes.Clone(last[8:]))
}

func TestWipe(t *testing.T) {
	for _, suite := range suites {
		t.Run(fmt.Sprint(suite), func(t *testing.T) {
			tr := suite.transform(t, true)
			objects := [][]byte{}
			if tr.aead != nil {
				objects = append(objects, memory(tr.aead))
			} else {
				objects = append(objects, memory(tr.cbc.block), memory(tr.cbc.encrypt), memory(tr.cbc.decrypt),
					tr.cbc.mac.inner, tr.cbc.mac.outer)
			}
			holds := func() int {
				n := 0
				for _, needle := range needles(t, suite) {
					for _, m := range objects {
						n += bytes.Count(m, needle)
					}
				}
				return n
			}
			if holds() == 0 {
				t.Fatal("no key found before it was wiped: the test looks in a wrong place")
			}
			tr.Wipe()
			if n := holds(); n > 0 {
				t.Errorf("%d pieces of the key are still there", n)
			}
			for i, m := range objects {
				if bytes.Count(m, []byte{0}) != len(m) {
					t.Errorf("object %d is not zero", i)
				}
			}
			if tr.salt != 0 {
				t.Error("the salt is still there")
			}
		})
	}
}

// What holds a pointer is left alone.
func TestWipeLeavesPointers(t *testing.T) {
	object := struct {
		n int
		p *int
	}{1, new(int)}
	wipeObject(&object)
	wipeObject(object)
	wipeObject((*int)(nil))
	if object.n != 1 || object.p == nil {
		t.Error("wiped an object with a pointer")
	}
}

// A Scratch, which outlives SAs, keeps nothing that is derived from the keys of
// CBC with HMAC.
func TestScratchKeepsNoKey(t *testing.T) {
	for _, suite := range suites[4:7] {
		tr := suite.transform(t, true)
		var s Scratch
		tr.Seal(&s, make([]byte, 0, 200), 9, 1, payload(100), NextIPv4)
		for _, state := range [][]byte{tr.cbc.mac.inner, tr.cbc.mac.outer} {
			for _, word := range [][]byte{state[4:8], state[8:12]} { // after the name of the hash
				swapped := []byte{word[3], word[2], word[1], word[0]}
				m := memory(s.digest[tr.cbc.mac.hash])
				if bytes.Contains(m, word) || bytes.Contains(m, swapped) {
					t.Errorf("%v: the state of the keyed hash is in the Scratch", suite)
				}
			}
		}
	}
}
