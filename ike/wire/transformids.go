package wire

// TransformType says what a transform is an algorithm for (RFC 7296, Section 3.3.2).
type TransformType uint8

// Transform types. The additional key exchanges are RFC 9370's; their IDs are
// those of TransformKE.
const (
	TransformENCR   TransformType = 1 // Encryption Algorithm
	TransformPRF    TransformType = 2 // Pseudorandom Function
	TransformINTEG  TransformType = 3 // Integrity Algorithm
	TransformKE     TransformType = 4 // Key Exchange Method, in RFC 7296: Diffie-Hellman Group (D-H)
	TransformESN    TransformType = 5 // Extended Sequence Numbers, since RFC 9827: Sequence Numbers (SN)
	TransformADDKE1 TransformType = 6
	TransformADDKE2 TransformType = 7
	TransformADDKE3 TransformType = 8
	TransformADDKE4 TransformType = 9
	TransformADDKE5 TransformType = 10
	TransformADDKE6 TransformType = 11
	TransformADDKE7 TransformType = 12
)

var transformTypeNames = map[TransformType]string{
	TransformENCR:   "ENCR",
	TransformPRF:    "PRF",
	TransformINTEG:  "INTEG",
	TransformKE:     "KE",
	TransformESN:    "ESN",
	TransformADDKE1: "ADDKE1",
	TransformADDKE2: "ADDKE2",
	TransformADDKE3: "ADDKE3",
	TransformADDKE4: "ADDKE4",
	TransformADDKE5: "ADDKE5",
	TransformADDKE6: "ADDKE6",
	TransformADDKE7: "ADDKE7",
	13:              "KWA",
	14:              "GCAUTH",
}

// String returns the RFC's abbreviation, such as ENCR.
func (t TransformType) String() string { return registryName(transformTypeNames, "TRANSFORM", t) }

// TransformID is an algorithm. What it means depends on the transform's type:
// 12 is AES-CBC for ENCR and HMAC-SHA2-256-128 for INTEG.
type TransformID uint16

// IDs of TransformENCR.
const (
	Encr3DES                TransformID = 3
	EncrNull                TransformID = 11
	EncrAESCBC              TransformID = 12
	EncrAESCTR              TransformID = 13
	EncrAESCCM8             TransformID = 14
	EncrAESCCM12            TransformID = 15
	EncrAESCCM16            TransformID = 16
	EncrAESGCM8             TransformID = 18
	EncrAESGCM12            TransformID = 19
	EncrAESGCM16            TransformID = 20
	EncrNullAuthAESGMAC     TransformID = 21
	EncrCamelliaCBC         TransformID = 23
	EncrChaCha20Poly1305    TransformID = 28
	EncrAESCCM8IIV          TransformID = 29 // RFC 8750, ESP only
	EncrAESGCM16IIV         TransformID = 30 // RFC 8750, ESP only
	EncrChaCha20Poly1305IIV TransformID = 31 // RFC 8750, ESP only
)

// IDs of TransformPRF.
const (
	PRFHMACMD5    TransformID = 1
	PRFHMACSHA1   TransformID = 2
	PRFAES128XCBC TransformID = 4
	PRFHMACSHA256 TransformID = 5
	PRFHMACSHA384 TransformID = 6
	PRFHMACSHA512 TransformID = 7
	PRFAES128CMAC TransformID = 8
)

// IDs of TransformINTEG.
const (
	AuthNone           TransformID = 0
	AuthHMACMD5_96     TransformID = 1
	AuthHMACSHA1_96    TransformID = 2
	AuthAESXCBC_96     TransformID = 5
	AuthAESCMAC_96     TransformID = 8
	AuthAES128GMAC     TransformID = 9
	AuthAES192GMAC     TransformID = 10
	AuthAES256GMAC     TransformID = 11
	AuthHMACSHA256_128 TransformID = 12
	AuthHMACSHA384_192 TransformID = 13
	AuthHMACSHA512_256 TransformID = 14
)

// IDs of TransformKE and of TransformADDKE1 to TransformADDKE7.
const (
	KENone            TransformID = 0
	KEMODP768         TransformID = 1
	KEMODP1024        TransformID = 2
	KEMODP1536        TransformID = 5
	KEMODP2048        TransformID = 14
	KEMODP3072        TransformID = 15
	KEMODP4096        TransformID = 16
	KEMODP6144        TransformID = 17
	KEMODP8192        TransformID = 18
	KEECP256          TransformID = 19
	KEECP384          TransformID = 20
	KEECP521          TransformID = 21
	KEECP192          TransformID = 25
	KEECP224          TransformID = 26
	KEBrainpoolP224r1 TransformID = 27
	KEBrainpoolP256r1 TransformID = 28
	KEBrainpoolP384r1 TransformID = 29
	KEBrainpoolP512r1 TransformID = 30
	KECurve25519      TransformID = 31
	KECurve448        TransformID = 32
	KEMLKEM512        TransformID = 35
	KEMLKEM768        TransformID = 36
	KEMLKEM1024       TransformID = 37
)

// IDs of TransformESN.
const (
	ESNNo  TransformID = 0 // 32-bit sequence numbers
	ESNYes TransformID = 1 // 64-bit sequence numbers, the low half on the wire
)

var encrNames = map[TransformID]string{
	1:                       "ENCR_DES_IV64",
	2:                       "ENCR_DES",
	Encr3DES:                "ENCR_3DES",
	4:                       "ENCR_RC5",
	5:                       "ENCR_IDEA",
	6:                       "ENCR_CAST",
	7:                       "ENCR_BLOWFISH",
	8:                       "ENCR_3IDEA",
	9:                       "ENCR_DES_IV32",
	EncrNull:                "ENCR_NULL",
	EncrAESCBC:              "ENCR_AES_CBC",
	EncrAESCTR:              "ENCR_AES_CTR",
	EncrAESCCM8:             "ENCR_AES_CCM_8",
	EncrAESCCM12:            "ENCR_AES_CCM_12",
	EncrAESCCM16:            "ENCR_AES_CCM_16",
	EncrAESGCM8:             "ENCR_AES_GCM_8",
	EncrAESGCM12:            "ENCR_AES_GCM_12",
	EncrAESGCM16:            "ENCR_AES_GCM_16",
	EncrNullAuthAESGMAC:     "ENCR_NULL_AUTH_AES_GMAC",
	EncrCamelliaCBC:         "ENCR_CAMELLIA_CBC",
	24:                      "ENCR_CAMELLIA_CTR",
	25:                      "ENCR_CAMELLIA_CCM_8",
	26:                      "ENCR_CAMELLIA_CCM_12",
	27:                      "ENCR_CAMELLIA_CCM_16",
	EncrChaCha20Poly1305:    "ENCR_CHACHA20_POLY1305",
	EncrAESCCM8IIV:          "ENCR_AES_CCM_8_IIV",
	EncrAESGCM16IIV:         "ENCR_AES_GCM_16_IIV",
	EncrChaCha20Poly1305IIV: "ENCR_CHACHA20_POLY1305_IIV",
	32:                      "ENCR_KUZNYECHIK_MGM_KTREE",
	33:                      "ENCR_MAGMA_MGM_KTREE",
	34:                      "ENCR_KUZNYECHIK_MGM_MAC_KTREE",
	35:                      "ENCR_MAGMA_MGM_MAC_KTREE",
}

var prfNames = map[TransformID]string{
	PRFHMACMD5:    "PRF_HMAC_MD5",
	PRFHMACSHA1:   "PRF_HMAC_SHA1",
	3:             "PRF_HMAC_TIGER",
	PRFAES128XCBC: "PRF_AES128_XCBC",
	PRFHMACSHA256: "PRF_HMAC_SHA2_256",
	PRFHMACSHA384: "PRF_HMAC_SHA2_384",
	PRFHMACSHA512: "PRF_HMAC_SHA2_512",
	PRFAES128CMAC: "PRF_AES128_CMAC",
	9:             "PRF_HMAC_STREEBOG_512",
}

var integNames = map[TransformID]string{
	AuthNone:           "NONE",
	AuthHMACMD5_96:     "AUTH_HMAC_MD5_96",
	AuthHMACSHA1_96:    "AUTH_HMAC_SHA1_96",
	3:                  "AUTH_DES_MAC",
	4:                  "AUTH_KPDK_MD5",
	AuthAESXCBC_96:     "AUTH_AES_XCBC_96",
	6:                  "AUTH_HMAC_MD5_128",
	7:                  "AUTH_HMAC_SHA1_160",
	AuthAESCMAC_96:     "AUTH_AES_CMAC_96",
	AuthAES128GMAC:     "AUTH_AES_128_GMAC",
	AuthAES192GMAC:     "AUTH_AES_192_GMAC",
	AuthAES256GMAC:     "AUTH_AES_256_GMAC",
	AuthHMACSHA256_128: "AUTH_HMAC_SHA2_256_128",
	AuthHMACSHA384_192: "AUTH_HMAC_SHA2_384_192",
	AuthHMACSHA512_256: "AUTH_HMAC_SHA2_512_256",
}

var keNames = map[TransformID]string{
	KENone:            "NONE",
	KEMODP768:         "768-bit MODP Group",
	KEMODP1024:        "1024-bit MODP Group",
	KEMODP1536:        "1536-bit MODP Group",
	KEMODP2048:        "2048-bit MODP Group",
	KEMODP3072:        "3072-bit MODP Group",
	KEMODP4096:        "4096-bit MODP Group",
	KEMODP6144:        "6144-bit MODP Group",
	KEMODP8192:        "8192-bit MODP Group",
	KEECP256:          "256-bit random ECP group",
	KEECP384:          "384-bit random ECP group",
	KEECP521:          "521-bit random ECP group",
	22:                "1024-bit MODP Group with 160-bit Prime Order Subgroup",
	23:                "2048-bit MODP Group with 224-bit Prime Order Subgroup",
	24:                "2048-bit MODP Group with 256-bit Prime Order Subgroup",
	KEECP192:          "192-bit Random ECP Group",
	KEECP224:          "224-bit Random ECP Group",
	KEBrainpoolP224r1: "brainpoolP224r1",
	KEBrainpoolP256r1: "brainpoolP256r1",
	KEBrainpoolP384r1: "brainpoolP384r1",
	KEBrainpoolP512r1: "brainpoolP512r1",
	KECurve25519:      "Curve25519",
	KECurve448:        "Curve448",
	33:                "GOST3410_2012_256",
	34:                "GOST3410_2012_512",
	KEMLKEM512:        "ml-kem-512",
	KEMLKEM768:        "ml-kem-768",
	KEMLKEM1024:       "ml-kem-1024",
}

var esnNames = map[TransformID]string{
	ESNNo:  "No Extended Sequence Numbers",
	ESNYes: "Extended Sequence Numbers",
	2:      "32-bit Unspecified Numbers",
}

// Name returns the registry's name of the ID as one of type t, such as
// ENCR_AES_CBC.
func (id TransformID) Name(t TransformType) string {
	switch t {
	case TransformENCR:
		return registryName(encrNames, "ENCR", id)
	case TransformPRF:
		return registryName(prfNames, "PRF", id)
	case TransformINTEG:
		return registryName(integNames, "INTEG", id)
	case TransformKE, TransformADDKE1, TransformADDKE2, TransformADDKE3, TransformADDKE4,
		TransformADDKE5, TransformADDKE6, TransformADDKE7:
		return registryName(keNames, "KE", id)
	case TransformESN:
		return registryName(esnNames, "ESN", id)
	default:
		return registryName(nil, t.String(), id)
	}
}
