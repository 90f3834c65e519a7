package esp

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"strconv"
	"strings"
	"testing"

	"ipsec-quick/apply"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	if s == "-" {
		return nil
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// vectors are the lines of a file in testdata, split into words. A file with none
// fails.
func vectors(t *testing.T, name string, words int) [][]string {
	t.Helper()
	f, err := os.Open("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all [][]string
	in := bufio.NewScanner(f)
	for in.Scan() {
		line := in.Text()
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		w := strings.Fields(line)
		if len(w) != words {
			t.Fatalf("%s: %d words, not %d: %s", name, len(w), words, line)
		}
		all = append(all, w)
	}
	if err := in.Err(); err != nil || len(all) == 0 {
		t.Fatalf("%s: %d vectors, %v", name, len(all), err)
	}
	return all
}

// Packets of RFC 7634 and of draft-mcgrew-gcm-test-01, sealed and opened. Their
// IVs are not the sequence number, and their next headers not what is inside.
func TestVectorsAEAD(t *testing.T) {
	for i, w := range vectors(t, "aead.txt", 9) {
		keymat := append(unhex(t, w[1]), unhex(t, w[2])...)
		iv, aad, plain := unhex(t, w[3]), unhex(t, w[4]), unhex(t, w[5])
		next, err := strconv.Atoi(w[8])
		if err != nil {
			t.Fatal(err)
		}
		spi, seq, esn := binary.BigEndian.Uint32(aad), uint64(binary.BigEndian.Uint32(aad[4:])), len(aad) == 12
		if esn {
			seq = binary.BigEndian.Uint64(aad[4:])
		}
		tr, err := New(apply.Algorithm{Name: w[0], Key: keymat}, apply.Algorithm{}, esn)
		if err != nil {
			t.Fatal(err)
		}
		want := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, spi), uint32(seq))
		want = append(append(append(want, iv...), unhex(t, w[6])...), unhex(t, w[7])...)

		src := append(plain[:len(plain)-2-int(plain[len(plain)-2])], make([]byte, MaxTrailer)...)
		src = src[:len(src)-MaxTrailer]
		var s Scratch
		got := tr.sealAEAD(&s, make([]byte, 0, len(want)), spi, seq, binary.BigEndian.Uint64(iv), src, uint8(next))
		if !bytes.Equal(got, want) {
			t.Errorf("vector %d: sealed\n%x\nwant\n%x", i, got, want)
		}
		opened, gotNext, err := tr.Open(&s, nil, want, seq)
		if err != nil || int(gotNext) != next || !bytes.Equal(opened, src) {
			t.Errorf("vector %d: opened\n%x, next header %d, %v, want\n%x", i, opened, gotNext, err, src)
		}
	}
}

// The ESP packets of RFC 3602, Section 4, which have no ICV: one is added.
func TestVectorsCBC(t *testing.T) {
	mac := suites[4].integrity
	for i, w := range vectors(t, "cbc.txt", 4) {
		key, packet, want := unhex(t, w[0]), unhex(t, w[1]), unhex(t, w[2])
		suite := suite{apply.Algorithm{Name: apply.AESCBC, Key: key}, mac, 16, 16, 16}
		tr := suite.transform(t, false)
		var s Scratch
		packet = append(packet, tr.cbc.mac.sum(&s, packet, 0, false)...)
		got, next, err := tr.Open(&s, nil, packet, 1)
		if err != nil || strconv.Itoa(int(next)) != w[3] || !bytes.Equal(got, want) {
			t.Errorf("vector %d: opened\n%x, next header %d, %v, want\n%x", i, got, next, err, want)
		}
	}
}

// The authenticator vectors of RFC 4868, Section 2.7.2.
func TestVectorsHMAC(t *testing.T) {
	for i, w := range vectors(t, "hmac.txt", 4) {
		m, icvLen, err := newMAC(apply.Algorithm{Name: w[0], Key: unhex(t, w[1])})
		if err != nil {
			t.Fatal(err)
		}
		data, want := unhex(t, w[2]), unhex(t, w[3])
		var s Scratch
		if got := m.sum(&s, data, 0, false); !bytes.Equal(got, want) || len(got) != icvLen {
			t.Errorf("vector %d: %x, want %x", i, got, want)
		}
		// As ESN's upper half the end of the data is hashed all the same.
		rest, high := data[:len(data)-4], binary.BigEndian.Uint32(data[len(data)-4:])
		if got := m.sum(&s, rest, uint64(high)<<32|5, true); !bytes.Equal(got, want) {
			t.Errorf("vector %d with ESN: %x, want %x", i, got, want)
		}
	}
}
