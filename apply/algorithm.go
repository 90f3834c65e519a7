package apply

import (
	"fmt"
	"slices"
)

// Names of the algorithms, after the IANA registry of IKEv2 transforms.
const (
	AESGCM16         = "aes-gcm-16"
	ChaCha20Poly1305 = "chacha20-poly1305"
	AESCBC           = "aes-cbc"

	HMACSHA256 = "hmac-sha2-256-128"
	HMACSHA384 = "hmac-sha2-384-192"
	HMACSHA512 = "hmac-sha2-512-256"
)

// KernelAlgorithm is an algorithm as Linux and iproute2 name it
// (net/xfrm/xfrm_algo.c).
type KernelAlgorithm struct {
	Name    string
	AEAD    bool
	ICVBits uint32 // AEAD and integrity: length of the ICV on the wire
	KeyLens []int  // octets, an AEAD's with its 4 octets of salt

	IVLen int // encryption: octets on the wire
	Block int // encryption: what payload, padding and trailer together are a multiple of, in octets
}

var kernelAlgorithms = map[string]KernelAlgorithm{
	AESGCM16:         {"rfc4106(gcm(aes))", true, 128, []int{20, 28, 36}, 8, 4},     // RFC 4106
	ChaCha20Poly1305: {"rfc7539esp(chacha20,poly1305)", true, 128, []int{36}, 8, 4}, // RFC 7634
	AESCBC:           {"cbc(aes)", false, 0, []int{16, 24, 32}, 16, 16},             // RFC 3602
	HMACSHA256:       {"hmac(sha256)", false, 128, []int{32}, 0, 0},                 // RFC 4868
	HMACSHA384:       {"hmac(sha384)", false, 192, []int{48}, 0, 0},                 // RFC 4868
	HMACSHA512:       {"hmac(sha512)", false, 256, []int{64}, 0, 0},                 // RFC 4868
}

// Kernel looks the algorithm up and checks its key's length.
func (a Algorithm) Kernel() (KernelAlgorithm, error) {
	k, ok := kernelAlgorithms[a.Name]
	if !ok {
		return k, fmt.Errorf("unknown ESP algorithm %q", a.Name)
	}
	if !slices.Contains(k.KeyLens, len(a.Key)) {
		return k, fmt.Errorf("%s: key of %d octets, want one of %v", a.Name, len(a.Key), k.KeyLens)
	}
	return k, nil
}

// IsAEAD reports whether the algorithm of that name needs no Integrity.
func IsAEAD(name string) bool { return kernelAlgorithms[name].AEAD }

// KeyLens are the lengths its key may have, in octets; nil for an unknown name.
func (a Algorithm) KeyLens() []int { return kernelAlgorithms[a.Name].KeyLens }
