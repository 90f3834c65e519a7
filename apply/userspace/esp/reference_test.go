package esp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"ipsec-quick/apply"
)

// reference is ESP once more, written from the RFCs for clarity alone: the packet
// of a body, which is payload, padding, pad length and next header.
func reference(t testing.TB, s suite, esn bool, spi uint32, seq uint64, iv, body []byte) []byte {
	t.Helper()
	header := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, spi), uint32(seq))
	high := binary.BigEndian.AppendUint32(nil, uint32(seq>>32))

	key := s.encryption.Key
	if s.integrity.Name == "" {
		key, salt := key[:len(key)-4], key[len(key)-4:]
		var aead cipher.AEAD
		var err error
		if s.encryption.Name == apply.ChaCha20Poly1305 {
			aead, err = chacha20poly1305.New(key)
		} else {
			block, failed := aes.NewCipher(key)
			if failed != nil {
				t.Fatal(failed)
			}
			aead, err = cipher.NewGCM(block)
		}
		if err != nil {
			t.Fatal(err)
		}
		aad := bytes.Clone(header)
		if esn {
			aad = bytes.Join([][]byte{header[:4], high, header[4:]}, nil)
		}
		nonce := append(bytes.Clone(salt), iv...)
		return aead.Seal(append(header, iv...), nonce, body, aad)
	}

	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	sealed := make([]byte, len(body))
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(sealed, body)
	packet := append(append(header, iv...), sealed...)
	h := map[string]func() hash.Hash{
		apply.HMACSHA256: sha256.New, apply.HMACSHA384: sha512.New384, apply.HMACSHA512: sha512.New,
	}[s.integrity.Name]
	mac := hmac.New(h, s.integrity.Key)
	mac.Write(packet)
	if esn {
		mac.Write(high)
	}
	return append(packet, mac.Sum(nil)[:s.icv]...)
}

// sealBody is a packet with SPI 9, sequence number 1 and a body that Seal would
// not make.
func sealBody(t testing.TB, s suite, body []byte) []byte {
	return reference(t, s, false, 9, 1, make([]byte, s.iv), body)
}

func TestAgainstReference(t *testing.T) {
	for _, suite := range suites {
		for _, esn := range []bool{false, true} {
			t.Run(fmt.Sprint(suite, "/", esn), func(t *testing.T) {
				tr := suite.transform(t, esn)
				var s Scratch
				for _, n := range []int{0, 1, 2, 13, 14, 15, 20, 61, 62, 63, 64, 1399, 1400, 9000, 65000} {
					seq := uint64(n) + 0xffffff00
					if esn {
						seq += 3 << 32
					}
					src := payload(n)
					packet := tr.Seal(&s, make([]byte, 0, tr.Len(n)), 0xc0ffee01, seq, src, 41)

					body := bytes.Clone(src)
					for pad := 1; (len(body)+2)%suite.align != 0; pad++ {
						body = append(body, byte(pad))
					}
					body = append(body, byte(len(body)-n), 41)
					if want := reference(t, suite, esn, 0xc0ffee01, seq, packet[8:8+suite.iv], body); !bytes.Equal(packet, want) {
						t.Fatalf("%d octets:\n%x\nwant\n%x", n, packet, want)
					}
				}
			})
		}
	}
}
