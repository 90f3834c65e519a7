package suite

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"ipsec-quick/ike/wire"
)

// ErrAuthentic is returned by Open for a message that the holder of the keys did not make. It is
// dropped without an answer (RFC 7296, Section 2.21).
var ErrAuthentic = errors.New("the integrity check failed")

// ErrPadding is returned by Open for an authentic message whose Pad Length exceeds what is there.
var ErrPadding = errors.New("the padding is longer than the message")

// Lengths in octets of what stands before the encrypted part.
const (
	skHeader  = wire.HeaderLen + 4 // IKE header, generic payload header (RFC 7296, Section 3.14)
	skfHeader = skHeader + 4       // and Fragment Number, Total Fragments (RFC 7383, Section 2.5)
)

// maxFragments bounds Total Fragments to the 15 bits that it has in the IV of AEAD. A message of
// 65535 octets stays far below it, whatever the size of its fragments.
const maxFragments = 1<<15 - 1

// Cipher protects the SK and SKF payloads of one direction of an IKE SA. It keeps its schedule of
// keys between messages and is not for concurrent use.
type Cipher struct {
	iv, icv int // octets

	aead  cipher.AEAD
	nonce [12]byte // the salt and the IV: RFC 5282, Section 4

	block cipher.Block
	mac   hash.Hash
	sum   [64]byte // of the longest hash
}

// Format writes "<hidden>" for every verb: the schedule of keys is worth as much as the keys.
func (Cipher) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// NewCipher returns a Cipher for one direction: with Ei and Ai of IKEKeys for what the original
// initiator sends, with Er and Ar for the other. The keys are copied. The error says that the
// choice is incomplete or a key has another length than it needs.
func NewCipher(c Choice, encr, integ Secret) (*Cipher, error) {
	e := encryptionOf(c.Encr)
	if e == nil {
		return nil, fmt.Errorf("encryption %s is not supported", c.Encr)
	}
	if len(encr) != e.key+e.salt {
		return nil, fmt.Errorf("encryption key of %d octets, not %d", len(encr), e.key+e.salt)
	}
	x := &Cipher{iv: e.iv, icv: e.icv}
	var err error
	if e.aead != nil {
		copy(x.nonce[:], encr[e.key:])
		x.aead, err = e.aead(encr[:e.key])
		return x, err
	}
	a := integrityOf(c.Integ.ID)
	if a == nil {
		return nil, fmt.Errorf("integrity algorithm %s is not supported", c.Integ)
	}
	if len(integ) != a.key {
		return nil, fmt.Errorf("integrity key of %d octets, not %d", len(integ), a.key)
	}
	x.icv = a.icv
	x.mac = hmac.New(a.hash, integ)
	x.block, err = aes.NewCipher(encr)
	return x, err
}

// Seal encrypts m.Payloads and returns the message as datagrams, without the non-ESP marker: one
// with an SK payload if it has at most maxLen octets (0: no limit), else several with SKF payloads
// of at most that (RFC 7383). The datagrams are the caller's.
//
// The IV of AEAD is made of the R flag, the Message ID, and number and total of fragments, so it
// needs no counter that survives a restart. It does not repeat because one message is sent for one
// Message ID in one direction and role: the same message is sealed again only into more fragments
// than before (RFC 7383, Section 2.5.2), another one with the same Message ID never. The IV of CBC
// is drawn from rand, which AEAD does not read.
//
// The error is that of rand, or says that the message is too long.
func (c *Cipher) Seal(m *wire.Message, maxLen int, rand io.Reader) ([][]byte, error) {
	limit := wire.MaxMessage
	if maxLen > 0 {
		limit = min(maxLen, limit)
	}
	b := make([]byte, skHeader+c.iv, 512)
	b = wire.AppendPayloads(b, m.Payloads)
	inner := b[skHeader+c.iv:]
	first := wire.FirstType(m.Payloads)
	if n := c.sealedLen(skHeader, len(inner)); n <= limit {
		b = c.pad(b, skHeader)
		c.header(b, m, wire.PayloadSK, first, n)
		b, err := c.protect(b, skHeader, m, 0, 0, rand)
		return [][]byte{b}, err
	}
	return c.fragment(inner, m, first, limit, rand)
}

// fragment seals inner as SKF payloads of at most limit octets.
func (c *Cipher) fragment(inner []byte, m *wire.Message, first wire.PayloadType, limit int, rand io.Reader) ([][]byte, error) {
	size := c.room(limit)
	if size < 1 || len(inner) > wire.MaxMessage {
		return nil, fmt.Errorf("a message of %d octets does not fit into datagrams of %d", len(inner), limit)
	}
	total := (len(inner) + size - 1) / size
	if total > maxFragments {
		return nil, fmt.Errorf("a message of %d octets does not fit into datagrams of %d", len(inner), limit)
	}
	out := make([][]byte, 0, total)
	for number := 1; number <= total; number++ {
		part := inner[:min(size, len(inner))]
		inner = inner[len(part):]
		n := c.sealedLen(skfHeader, len(part))
		b := make([]byte, skfHeader+c.iv, n)
		b = c.pad(append(b, part...), skfHeader)
		c.header(b, m, wire.PayloadSKF, first, n)
		binary.BigEndian.PutUint16(b[skHeader:], uint16(number))
		binary.BigEndian.PutUint16(b[skHeader+2:], uint16(total))
		b, err := c.protect(b, skfHeader, m, number, total, rand)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
		first = wire.NoNextPayload // in all but the first: RFC 7383, Section 2.5
	}
	return out, nil
}

// sealedLen returns the length of a datagram with inner octets in it.
func (c *Cipher) sealedLen(header, inner int) int {
	n := inner + 1 // Pad Length
	if c.block != nil {
		n = (n + aes.BlockSize - 1) / aes.BlockSize * aes.BlockSize
	}
	return header + c.iv + n + c.icv
}

// room returns how many octets fit into a fragment of limit octets.
func (c *Cipher) room(limit int) int {
	n := limit - skfHeader - c.iv - c.icv
	if c.block != nil {
		n = n / aes.BlockSize * aes.BlockSize
	}
	return n - 1
}

// pad appends padding, zeros up to the block size for CBC and none for AEAD, and the Pad Length.
func (c *Cipher) pad(b []byte, header int) []byte {
	end := c.sealedLen(header, len(b)-header-c.iv) - c.icv
	padding := end - len(b) - 1
	for range padding {
		b = append(b, 0)
	}
	return append(b, byte(padding))
}

// header writes the IKE header and the generic payload header over the octets reserved for them.
func (c *Cipher) header(b []byte, m *wire.Message, kind, first wire.PayloadType, length int) {
	h := wire.AppendHeader(b[:0], m, kind, length)
	h = append(h, byte(first), 0)
	binary.BigEndian.AppendUint16(h, uint16(length-wire.HeaderLen))
}

// protect encrypts b behind the header and the IV, in place, and appends the checksum.
func (c *Cipher) protect(b []byte, header int, m *wire.Message, number, total int, rand io.Reader) ([]byte, error) {
	iv, text := b[header:header+c.iv], b[header+c.iv:]
	if c.aead != nil {
		v := uint64(total)<<48 | uint64(m.MessageID)<<16 | uint64(number)
		if m.Response {
			v |= 1 << 63
		}
		binary.BigEndian.PutUint64(iv, v)
		copy(c.nonce[len(c.nonce)-c.iv:], iv)
		sealed := c.aead.Seal(b[:header+c.iv], c.nonce[:], text, b[:header])
		return sealed, nil
	}
	if _, err := io.ReadFull(rand, iv); err != nil {
		return nil, fmt.Errorf("drawing an IV: %w", err)
	}
	cipher.NewCBCEncrypter(c.block, iv).CryptBlocks(text, text)
	return append(b, c.checksum(b)...), nil
}

// checksum returns the truncated HMAC over all of b (RFC 7296, Section 3.14), valid until the next.
func (c *Cipher) checksum(b []byte) []byte {
	c.mac.Reset()
	c.mac.Write(b)
	return c.mac.Sum(c.sum[:0])[:c.icv]
}

// Open decrypts the SK or SKF at the end of m, which is datagram parsed, and returns what is in it
// without padding: payloads, or a part of them. The datagram is left as it is. The error is
// ErrAuthentic or ErrPadding; the time it takes says nothing about the keys.
func (c *Cipher) Open(datagram []byte, m *wire.Message) ([]byte, error) {
	n, ok := protectedLen(m)
	if !ok || n < c.iv+c.icv || n > len(datagram) {
		return nil, ErrAuthentic
	}
	header := len(datagram) - n
	iv, text := datagram[header:header+c.iv], datagram[header+c.iv:]
	var plain []byte
	if c.aead != nil {
		copy(c.nonce[len(c.nonce)-c.iv:], iv)
		var err error
		if plain, err = c.aead.Open(nil, c.nonce[:], text, datagram[:header]); err != nil {
			return nil, ErrAuthentic
		}
	} else {
		signed := len(datagram) - c.icv
		if !hmac.Equal(c.checksum(datagram[:signed]), datagram[signed:]) {
			return nil, ErrAuthentic
		}
		text = text[:len(text)-c.icv]
		if len(text)%aes.BlockSize != 0 {
			return nil, ErrPadding
		}
		plain = make([]byte, len(text))
		cipher.NewCBCDecrypter(c.block, iv).CryptBlocks(plain, text)
	}
	if len(plain) == 0 {
		return nil, ErrPadding
	}
	end := len(plain) - 1 - int(plain[len(plain)-1])
	if end < 0 {
		return nil, ErrPadding
	}
	return plain[:end], nil
}

// protectedLen returns the length of what follows the header of the last payload, an SK or SKF.
func protectedLen(m *wire.Message) (int, bool) {
	if len(m.Payloads) == 0 {
		return 0, false
	}
	switch p := m.Payloads[len(m.Payloads)-1].(type) {
	case wire.SK:
		return len(p.Body), true
	case wire.SKF:
		return len(p.Body), true
	}
	return 0, false
}
