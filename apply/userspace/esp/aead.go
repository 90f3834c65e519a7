package esp

import "encoding/binary"

// aeadIVLen is the length of the IV that is sent, of AES-GCM (RFC 4106, Section
// 3.1) and of ChaCha20-Poly1305 (RFC 7634, Section 2).
const aeadIVLen = 8

// aeadTrailers are padding and pad length for 0 to 3 octets of padding, first
// octet lowest. The next header follows.
var aeadTrailers = [4]uint64{0, 0x0101, 0x02_0201, 0x0303_0201}

// sealAEAD is Seal with the IV as an argument, for known answers.
func (t *Transform) sealAEAD(s *Scratch, dst []byte, spi uint32, seq, iv uint64, src []byte, next uint8) []byte {
	start, n := len(dst), len(src)
	end := start + headerLen + aeadIVLen
	_ = dst[:start+t.Len(n)] // else the AEAD would allocate
	dst = dst[:end]
	header := dst[start:]
	binary.BigEndian.PutUint32(header, spi)
	binary.BigEndian.PutUint32(header[4:], uint32(seq))
	binary.BigEndian.PutUint64(header[8:], iv)

	// The trailer has at most 5 octets: one word is saved, written, put back.
	pad := -(n + 2) & 3
	behind := src[n : n+8]
	saved := binary.LittleEndian.Uint64(behind)
	binary.LittleEndian.PutUint64(behind, aeadTrailers[pad]|uint64(next)<<(8*(pad+1)))
	dst = t.aead.Seal(dst, s.setNonce(t.salt, iv), src[:n+pad+2], s.setAAD(spi, seq, t.esn))
	binary.LittleEndian.PutUint64(behind, saved)
	return dst
}

func (t *Transform) openAEAD(s *Scratch, dst, packet []byte, seq uint64) ([]byte, error) {
	spi := binary.BigEndian.Uint32(packet)
	iv := binary.BigEndian.Uint64(packet[headerLen:])
	sealed := packet[headerLen+aeadIVLen:]
	plain, err := t.aead.Open(dst, s.setNonce(t.salt, iv), sealed, s.setAAD(spi, seq, t.esn))
	if err != nil {
		return nil, ErrForged
	}
	return plain, nil
}

func (s *Scratch) setNonce(salt uint32, iv uint64) []byte {
	binary.BigEndian.PutUint32(s.nonce[:], salt)
	binary.BigEndian.PutUint64(s.nonce[4:], iv)
	return s.nonce[:]
}

// setAAD: the SPI, and the sequence number in 32 or with ESN in 64 bits.
func (s *Scratch) setAAD(spi uint32, seq uint64, esn bool) []byte {
	binary.BigEndian.PutUint32(s.aad[:], spi)
	if esn {
		binary.BigEndian.PutUint64(s.aad[4:], seq)
		return s.aad[:12]
	}
	binary.BigEndian.PutUint32(s.aad[4:], uint32(seq))
	return s.aad[:8]
}
