package apply

import (
	"net/netip"
	"testing"
)

// What is left of 1500 octets: 1500 - IP - UDP - 8 - IV - ICV, down to whole blocks,
// less the 2 octets of the trailer.
func TestMTU(t *testing.T) {
	peer4, peer6 := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")
	for _, c := range []struct {
		encryption, integrity string
		peer                  netip.Addr
		udp                   bool
		path, want            int
	}{
		{AESGCM16, "", peer4, false, 1500, 1446}, // 1448 is 362 times 4
		{AESGCM16, "", peer4, true, 1500, 1438},
		{AESGCM16, "", peer6, false, 1500, 1426},
		{AESGCM16, "", peer6, true, 1500, 1418},
		{ChaCha20Poly1305, "", peer4, false, 1500, 1446},
		{ChaCha20Poly1305, "", peer6, true, 1500, 1418},
		{AESCBC, HMACSHA256, peer4, false, 1500, 1438}, // 1440 is 90 times 16
		{AESCBC, HMACSHA256, peer4, true, 1500, 1422},  // 1432: 8 are lost to padding
		{AESCBC, HMACSHA256, peer6, false, 1500, 1406},
		{AESCBC, HMACSHA256, peer6, true, 1500, 1406},
		{AESCBC, HMACSHA384, peer4, false, 1500, 1422},
		{AESCBC, HMACSHA512, peer4, false, 1500, 1422},
		{AESCBC, HMACSHA512, peer6, true, 1500, 1390},
		{AESGCM16, "", peer4, false, 1400, 1346},
		{AESCBC, HMACSHA256, peer4, true, 1400, 1326},
		{AESGCM16, "", peer4, false, 9000, 8946},
		{AESGCM16, "", netip.MustParseAddr("::ffff:192.0.2.2"), false, 1500, 1446},
	} {
		sa := SA{Dst: c.peer, Encryption: Algorithm{Name: c.encryption}, Integrity: Algorithm{Name: c.integrity}}
		if c.udp {
			sa.Encap = &Encap{4500, 4500}
		}
		if got := sa.MTU(c.path); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}
