//go:build lab

package lab_test

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// initRequest is an IKE_SA_INIT request that any responder takes: AES-GCM 256,
// HMAC-SHA2-384, curve25519 (RFC 7296, Sections 3.1, 3.3, 3.4 and 3.9).
func initRequest(t *testing.T) []byte {
	t.Helper()
	random := make([]byte, 8+32+32)
	if _, err := rand.Read(random); err != nil {
		t.Fatal(err)
	}
	payload := func(next byte, body []byte) []byte {
		head := []byte{next, 0, 0, 0}
		binary.BigEndian.PutUint16(head[2:], uint16(4+len(body)))
		return append(head, body...)
	}
	transforms := []byte{
		3, 0, 0, 12, 1, 0, 0, 20, 0x80, 14, 1, 0, // ENCR_AES_GCM_16, 256 bits
		3, 0, 0, 8, 2, 0, 0, 6, // PRF_HMAC_SHA2_384
		0, 0, 0, 8, 4, 0, 0, 31, // curve25519
	}
	proposal := append([]byte{0, 0, 0, byte(8 + len(transforms)), 1, 1, 0, 3}, transforms...)
	body := payload(34, proposal)                                                     // SA, then KE
	body = append(body, payload(40, append([]byte{0, 31, 0, 0}, random[8:40]...))...) // KE, then Nonce
	body = append(body, payload(0, random[40:])...)
	message := make([]byte, 28, 28+len(body))
	copy(message, random[:8])
	copy(message[16:], []byte{33, 0x20, 34, 0x08})
	binary.BigEndian.PutUint32(message[24:], uint32(28+len(body)))
	return append(message, body...)
}

// halfOpen sends 60 IKE_SA_INIT requests, three from each of 20 addresses, and
// never goes on, so that the responder has reason to demand cookies.
func halfOpen(t *testing.T, from *harness.Host, to netip.Addr) {
	t.Helper()
	const addresses, each = 20, 3
	script := ""
	for i := range addresses {
		script += fmt.Sprintf("ip addr add 192.0.2.%d/24 dev eth0\n", 100+i)
	}
	from.Shell(script)
	answers := 0
	for i := range addresses {
		for range each {
			conn, err := from.ListenUDP(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + i)}), 0))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.WriteTo(initRequest(t), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 500))); err != nil {
				t.Fatal(err)
			}
			if err := conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if _, _, err := conn.ReadFromUDPAddrPort(make([]byte, 2048)); err == nil {
				answers++
			}
			conn.Close()
		}
	}
	if answers == 0 {
		t.Fatalf("%v answered none of %d IKE_SA_INIT requests", to, addresses*each)
	}
}
