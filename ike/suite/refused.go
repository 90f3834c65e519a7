package suite

import (
	"strconv"
	"strings"

	"ipsec-quick/ike/wire"
)

// refusal is a row of the table of what strongSwan's spelling can name and we don't do. It serves
// two ends: to say what to write instead, and to name what a peer offers.
type refusal struct {
	name string         // * stands for the key length in bits
	t    wire.Transform // zero: known by its keyword alone
	why  string
	use  string
}

// The reasons. RFC 8221 and RFC 8247 say MUST NOT or SHOULD NOT of what is called weak here.
const (
	weak    = "is too weak"
	missing = "is not supported"
)

var refusals = []refusal{
	{"3des", wire.Transform{Type: wire.TransformENCR, ID: 3}, weak, "aes256"},
	{"des", wire.Transform{Type: wire.TransformENCR, ID: 2}, weak, "aes256"},
	{"cast128", wire.Transform{Type: wire.TransformENCR, ID: 6}, weak, "aes128"},
	{"blowfish*", wire.Transform{Type: wire.TransformENCR, ID: 7}, weak, "aes256"},
	{"null", wire.Transform{Type: wire.TransformENCR, ID: 11}, "does not encrypt", "aes128gcm16"},
	{"aes*ctr", wire.Transform{Type: wire.TransformENCR, ID: 13}, missing, "aes*gcm16"},
	{"aes*ccm8", wire.Transform{Type: wire.TransformENCR, ID: 14}, missing, "aes*gcm16"},
	{"aes*ccm12", wire.Transform{Type: wire.TransformENCR, ID: 15}, missing, "aes*gcm16"},
	{"aes*ccm16", wire.Transform{Type: wire.TransformENCR, ID: 16}, missing, "aes*gcm16"},
	{"aes*gcm8", wire.Transform{Type: wire.TransformENCR, ID: 18}, missing, "aes*gcm16"},
	{"aes*gcm12", wire.Transform{Type: wire.TransformENCR, ID: 19}, missing, "aes*gcm16"},
	{"aes*gmac", wire.Transform{Type: wire.TransformENCR, ID: 21}, "does not encrypt", "aes*gcm16"},
	{"camellia*", wire.Transform{Type: wire.TransformENCR, ID: 23}, missing, "aes*"},
	{"camellia*ctr", wire.Transform{Type: wire.TransformENCR, ID: 24}, missing, "aes*gcm16"},
	{"camellia*ccm16", wire.Transform{Type: wire.TransformENCR, ID: 27}, missing, "aes*gcm16"},
	{"aes*ccm64", wire.Transform{}, missing, "aes*gcm16"},
	{"aes*ccm96", wire.Transform{}, missing, "aes*gcm16"},
	{"aes*ccm128", wire.Transform{}, missing, "aes*gcm16"},
	{"aes*gcm64", wire.Transform{}, missing, "aes*gcm16"},
	{"aes*gcm96", wire.Transform{}, missing, "aes*gcm16"},
	{"aes*gcm", wire.Transform{}, "does not say the length of its check value", "aes*gcm16"},
	{"chacha20poly1305compat", wire.Transform{}, missing, "chacha20poly1305"},
	{"serpent*", wire.Transform{}, missing, "aes*"},
	{"twofish*", wire.Transform{}, missing, "aes*"},

	{"md5", wire.Transform{Type: wire.TransformINTEG, ID: 1}, weak, "sha256"},
	{"sha1", wire.Transform{Type: wire.TransformINTEG, ID: 2}, weak, "sha256"},
	{"sha", wire.Transform{}, weak, "sha256"},
	{"aesxcbc", wire.Transform{Type: wire.TransformINTEG, ID: 5}, missing, "sha256"},
	{"md5_128", wire.Transform{Type: wire.TransformINTEG, ID: 6}, weak, "sha256"},
	{"sha1_160", wire.Transform{Type: wire.TransformINTEG, ID: 7}, weak, "sha256"},
	{"aescmac", wire.Transform{Type: wire.TransformINTEG, ID: 8}, missing, "sha256"},
	{"camelliaxcbc", wire.Transform{}, missing, "sha256"},
	{"sha256_96", wire.Transform{}, "is a draft's truncation", "sha256"},
	{"sha2_256_96", wire.Transform{}, "is a draft's truncation", "sha256"},

	{"prfmd5", wire.Transform{Type: wire.TransformPRF, ID: 1}, weak, "prfsha256"},
	{"prfsha1", wire.Transform{Type: wire.TransformPRF, ID: 2}, weak, "prfsha256"},
	{"prfaesxcbc", wire.Transform{Type: wire.TransformPRF, ID: 4}, missing, "prfsha256"},
	{"prfaescmac", wire.Transform{Type: wire.TransformPRF, ID: 8}, missing, "prfsha256"},
	{"prfcamelliaxcbc", wire.Transform{}, missing, "prfsha256"},

	{"modp768", wire.Transform{Type: wire.TransformKE, ID: 1}, weak, "modp2048"},
	{"modp1024", wire.Transform{Type: wire.TransformKE, ID: 2}, weak, "modp2048"},
	{"modp1536", wire.Transform{Type: wire.TransformKE, ID: 5}, weak, "modp2048"},
	{"modp6144", wire.Transform{Type: wire.TransformKE, ID: 17}, missing, "modp4096"},
	{"modp8192", wire.Transform{Type: wire.TransformKE, ID: 18}, missing, "modp4096"},
	{"modp1024s160", wire.Transform{Type: wire.TransformKE, ID: 22}, weak, "modp2048"},
	{"modp2048s224", wire.Transform{Type: wire.TransformKE, ID: 23}, weak, "modp2048"},
	{"modp2048s256", wire.Transform{Type: wire.TransformKE, ID: 24}, weak, "modp2048"},
	{"ecp192", wire.Transform{Type: wire.TransformKE, ID: 25}, weak, "ecp256"},
	{"ecp224", wire.Transform{Type: wire.TransformKE, ID: 26}, missing, "ecp256"},
	{"ecp224bp", wire.Transform{Type: wire.TransformKE, ID: 27}, missing, "ecp256"},
	{"ecp256bp", wire.Transform{Type: wire.TransformKE, ID: 28}, missing, "ecp256"},
	{"ecp384bp", wire.Transform{Type: wire.TransformKE, ID: 29}, missing, "ecp384"},
	{"ecp512bp", wire.Transform{Type: wire.TransformKE, ID: 30}, missing, "ecp521"},
	{"curve448", wire.Transform{Type: wire.TransformKE, ID: 32}, missing, "x25519"},
	{"x448", wire.Transform{}, missing, "x25519"},
	{"mlkem512", wire.Transform{Type: wire.TransformKE, ID: 35}, missing, "x25519"},
	{"mlkem768", wire.Transform{Type: wire.TransformKE, ID: 36}, missing, "x25519"},
	{"mlkem1024", wire.Transform{Type: wire.TransformKE, ID: 37}, missing, "x25519"},
}

// keyBits are the key lengths that a * in a refusal's name can stand for.
var keyBits = []uint16{128, 192, 256}

// refused looks a keyword up in the table: why we don't do it, and what to write instead.
func refused(keyword string) (why, use string, ok bool) {
	for _, r := range refusals {
		if keyword == strings.Replace(r.name, "*", "", 1) {
			return r.why, strings.Replace(r.use, "*", "128", 1), true
		}
		for _, bits := range keyBits {
			n := strconv.Itoa(int(bits))
			if keyword == strings.Replace(r.name, "*", n, 1) {
				return r.why, strings.Replace(r.use, "*", n, 1), true
			}
		}
	}
	if len(keyword) > 4 && strings.HasPrefix(keyword, "ke") && keyword[3] == '_' {
		return "is an additional key exchange, which " + missing, "x25519", true
	}
	return "", "", false
}

// foreign names a transform that only the table of refusals knows.
func foreign(t wire.Transform) (string, bool) {
	for _, r := range refusals {
		if r.t.Type == t.Type && r.t.ID == t.ID && r.t.Type != 0 {
			n := ""
			if t.KeyLength != 0 {
				n = strconv.Itoa(int(t.KeyLength))
			}
			return strings.Replace(r.name, "*", n, 1), true
		}
	}
	return "", false
}
