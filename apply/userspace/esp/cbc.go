package esp

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"slices"
	"sync"

	"ipsec-quick/apply"
)

// cbc is AES-CBC (RFC 3602) with HMAC-SHA2 (RFC 4868), encrypt-then-MAC.
type cbc struct {
	block cipher.Block
	mac   mac

	mu      sync.Mutex // of the modes, which hold an IV
	encrypt ivMode
	decrypt ivMode
}

// ivMode is what crypto/cipher's CBC modes are, so that one serves all packets.
type ivMode interface {
	cipher.BlockMode
	SetIV([]byte)
}

func newCBC(key []byte, integrity apply.Algorithm) (c *cbc, icvLen int, err error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, 0, err
	}
	iv := make([]byte, aes.BlockSize)
	encrypt, ok := cipher.NewCBCEncrypter(block, iv).(ivMode)
	decrypt, also := cipher.NewCBCDecrypter(block, iv).(ivMode)
	if !ok || !also {
		return nil, 0, errors.New("this Go's AES-CBC cannot change its IV")
	}
	mac, icvLen, err := newMAC(integrity)
	if err != nil {
		return nil, 0, err
	}
	return &cbc{block: block, mac: mac, encrypt: encrypt, decrypt: decrypt}, icvLen, nil
}

// sealCBC derives the IV, which an attacker must not foresee, from the sequence
// number by the cipher itself (NIST SP 800-38A, Appendix C).
func (t *Transform) sealCBC(s *Scratch, dst []byte, spi uint32, seq uint64, src []byte, next uint8) []byte {
	start, n := len(dst), len(src)
	dst = dst[:start+t.Len(n)]
	packet := dst[start:]
	binary.BigEndian.PutUint32(packet, spi)
	binary.BigEndian.PutUint32(packet[4:], uint32(seq))
	body := packet[headerLen+aes.BlockSize : len(packet)-t.icvLen]

	iv := packet[headerLen : headerLen+aes.BlockSize]
	clear(iv)
	binary.BigEndian.PutUint64(iv[aes.BlockSize-8:], seq)
	t.cbc.block.Encrypt(iv, iv)

	trailer := src[n:len(body)]
	copy(s.saved[:], trailer)
	for i := range trailer {
		trailer[i] = byte(i + 1)
	}
	trailer[len(trailer)-2] = byte(len(trailer) - 2)
	trailer[len(trailer)-1] = next
	t.cbc.crypt(t.cbc.encrypt, iv, body, src[:len(body)])
	copy(trailer, s.saved[:])

	icv := t.cbc.mac.sum(s, packet[:len(packet)-t.icvLen], seq, t.esn)
	copy(packet[len(packet)-t.icvLen:], icv)
	return dst
}

func (t *Transform) openCBC(s *Scratch, dst, packet []byte, seq uint64) ([]byte, error) {
	sealed, icv := packet[:len(packet)-t.icvLen], packet[len(packet)-t.icvLen:]
	if !t.cbc.mac.verify(s, sealed, seq, t.esn, icv) {
		return nil, ErrForged
	}
	body := sealed[headerLen+aes.BlockSize:]
	plain := slices.Grow(dst, len(body))[:len(dst)+len(body)]
	t.cbc.crypt(t.cbc.decrypt, sealed[headerLen:headerLen+aes.BlockSize], plain[len(dst):], body)
	return plain, nil
}

func (c *cbc) crypt(mode ivMode, iv, dst, src []byte) {
	c.mu.Lock()
	mode.SetIV(iv)
	mode.CryptBlocks(dst, src)
	c.mu.Unlock()
}
