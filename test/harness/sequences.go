//go:build linux

package harness

import (
	"encoding/binary"
	"fmt"
)

// Sequences are the sequence numbers of ESP packets on a link, and their IVs, as
// far as those are the eight octets of AES-GCM and ChaCha20-Poly1305.
type Sequences struct {
	numbers map[[8]byte]bool  // SPI, sequence number
	ivs     map[[12]byte]bool // SPI, IV
	twice   []string
}

// Sequences has the capture look at the sequence numbers of ESP packets from now
// on.
func (c *Capture) Sequences() *Sequences {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sequences = &Sequences{numbers: map[[8]byte]bool{}, ivs: map[[12]byte]bool{}}
	return c.sequences
}

// add notes an ESP packet.
func (s *Sequences) add(esp []byte) {
	if len(esp) < 16 {
		return
	}
	number := [8]byte(esp)
	iv := [12]byte(append(esp[:4:4], esp[8:16]...))
	if s.numbers[number] || s.ivs[iv] {
		s.twice = append(s.twice, fmt.Sprintf("SPI %x, number %d, IV %x",
			esp[:4], binary.BigEndian.Uint32(esp[4:]), esp[8:16]))
	}
	s.numbers[number], s.ivs[iv] = true, true
}

// Twice lists the packets whose number or IV had been there before. The capture
// must have been stopped.
func (s *Sequences) Twice() []string { return s.twice }

// Count is how many packets have been looked at.
func (s *Sequences) Count() int { return len(s.numbers) + len(s.twice) }
