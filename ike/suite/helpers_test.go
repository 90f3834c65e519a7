package suite

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"ipsec-quick/ike/wire"
)

// stream is a reader of octets that depend on its name alone.
type stream struct {
	name  string
	count uint64
	rest  []byte
}

func (s *stream) Read(b []byte) (int, error) {
	for n := 0; n < len(b); {
		if len(s.rest) == 0 {
			sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(s.name), s.count))
			s.count++
			s.rest = sum[:]
		}
		k := copy(b[n:], s.rest)
		s.rest = s.rest[k:]
		n += k
	}
	return len(b), nil
}

// octets returns n octets that depend on the name alone.
func octets(name string, n int) []byte {
	b := make([]byte, n)
	(&stream{name: name}).Read(b)
	return b
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	if s == "-" {
		return nil
	}
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// vectors returns the lines of a file in testdata, split into words. A file with none fails.
func vectors(t testing.TB, name string, words int) [][]string {
	t.Helper()
	f, err := os.Open("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all [][]string
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
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
	if err := in.Err(); err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatalf("%s is empty", name)
	}
	return all
}

// choose returns the choice that both ends come to for one proposal.
func choose(t testing.TB, p Proposal, protocol wire.ProtocolID) Choice {
	t.Helper()
	c, err := Select([]wire.Proposal{p.Wire(1, protocol, nil)}, []Proposal{p}, protocol, Match{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func ike(t testing.TB, s string) Proposal {
	t.Helper()
	p, err := ParseIKE(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func esp(t testing.TB, s string) Proposal {
	t.Helper()
	p, err := ParseESP(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
