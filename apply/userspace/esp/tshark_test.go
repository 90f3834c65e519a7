package esp

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ipsec-quick/apply"
	"ipsec-quick/apply/userspace/packet"
)

// flow is from 10.1.0.1 to 10.2.0.2, or from 2001:db8::1 to 2001:db8::2.
func flow(protocol uint8, ipv6 bool) packet.Flow {
	if ipv6 {
		return packet.Flow{IPv6: true, Protocol: protocol,
			Src: [16]byte{0x20, 0x01, 0x0d, 0xb8, 15: 1}, Dst: [16]byte{0x20, 0x01, 0x0d, 0xb8, 15: 2}}
	}
	return packet.Flow{Protocol: protocol, Src: [16]byte{10, 1, 0, 1}, Dst: [16]byte{10, 2, 0, 2}}
}

// datagram is an IP packet with right checksums, and MaxTrailer octets of room.
func datagram(t testing.TB, f packet.Flow, transport []byte) []byte {
	t.Helper()
	b := make([]byte, packet.IPv6Len+len(transport)+MaxTrailer)
	n := packet.PutHeader(b, f, 0, len(transport))
	n += copy(b[n:], transport)
	h, err := packet.Parse(b[:n])
	if err != nil {
		t.Fatal(err)
	}
	packet.SetChecksum(b[:n], &h)
	return b[:n]
}

// udp has a checksum of one, for datagram to correct, unless it is 0.
func udp(src, dst uint16, checksum byte, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, src)
	b = binary.BigEndian.AppendUint16(b, dst)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	return append(append(b, 0, checksum), payload...)
}

// pcap is a capture of IP packets (LINKTYPE_RAW).
func pcap(packets [][]byte) []byte {
	word := binary.LittleEndian.AppendUint32
	file := word(word(nil, 0xa1b2c3d4), 2|4<<16)
	file = word(word(word(word(file, 0), 0), 1<<18), 101)
	for i, p := range packets {
		file = word(word(word(word(file, uint32(i)), 0), uint32(len(p))), uint32(len(p)))
		file = append(file, p...)
	}
	return file
}

// tsharkNames are the suite's algorithms as tshark has them.
func tsharkNames(s suite) (encryption, integrity string) {
	encryption = map[string]string{
		apply.AESGCM16: "AES-GCM with 16 octet ICV [RFC4106]", apply.AESCBC: "AES-CBC [RFC3602]",
		apply.ChaCha20Poly1305: "ChaCha20 with Poly1305 [RFC7634]",
	}[s.encryption.Name]
	integrity = map[string]string{
		"": "NULL", apply.HMACSHA256: "HMAC-SHA-256-128 [RFC4868]",
		apply.HMACSHA384: "HMAC-SHA-384-192 [RFC4868]", apply.HMACSHA512: "HMAC-SHA-512-256 [RFC4868]",
	}[s.integrity.Name]
	return encryption, integrity
}

// capture is what tshark is given, and what it should find.
type capture struct {
	packets [][]byte
	want    []string // SPI, sequence number, ICV is good, next header, then of UDP inside: ports and payload
	sas     []string // the SAs, as options
}

// add seals datagrams with a suite, in all the ways that ESP is sent. high is the
// upper half of their sequence numbers; if it is not zero they are extended.
func (c *capture) add(t *testing.T, suite suite, spi, high uint32) {
	tr, s, seq := suite.transform(t, high > 0), new(Scratch), uint64(high)<<32
	seal := func(outer packet.Flow, encap bool, inner []byte, next uint8, inside string) {
		seq++
		sealed := tr.Seal(s, make([]byte, 0, tr.Len(len(inner))), spi, seq, inner, next)
		if encap {
			outer.Protocol = 17
			sealed = udp(4500, 4500, 0, sealed)
		}
		c.packets = append(c.packets, datagram(t, outer, sealed))
		c.want = append(c.want, fmt.Sprintf("0x%08x\t%d\t1\t0x%02x\t%s", spi, uint32(seq), next, inside))
	}
	data := payload(300)
	for _, tunnel := range []struct{ outer6, inner6, encap bool }{{false, true, false}, {true, false, false}, {false, false, true}} {
		next := uint8(NextIPv4)
		if tunnel.inner6 {
			next = NextIPv6
		}
		for _, n := range []int{1, 2, 3, 4, 300} {
			inner := datagram(t, flow(17, tunnel.inner6), udp(40001, 40002, 1, data[:n]))
			seal(flow(50, tunnel.outer6), tunnel.encap, inner, next, fmt.Sprintf("40001\t40002\t%x", data[:n]))
		}
	}
	// Transport mode is the same without the inner header.
	inner := datagram(t, flow(17, false), udp(40003, 40004, 1, data[:9]))
	seal(flow(50, false), false, inner[packet.IPv4Len:], 17, fmt.Sprintf("40003\t40004\t%x", data[:9]))

	encryption, integrity := tsharkNames(suite)
	extended := ""
	if high > 0 {
		extended = fmt.Sprintf(`,"64-bit","0x%x"`, high)
	}
	for _, family := range []string{"IPv4", "IPv6"} {
		c.sas = append(c.sas, "-o", fmt.Sprintf(`uat:esp_sa:"%s","*","*","0x%08x","%s","0x%x","%s","0x%s"%s`,
			family, spi, encryption, []byte(suite.encryption.Key), integrity, hex.EncodeToString(suite.integrity.Key), extended))
	}
}

// errUnknown: tshark does not know an algorithm, or ESN.
var errUnknown = errors.New("this tshark does not know an SA of that kind")

// run writes the capture and has tshark read it.
func (c *capture) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("no tshark: ", err)
	}
	file := filepath.Join(t.TempDir(), "esp.pcap")
	if err := os.WriteFile(file, pcap(c.packets), 0o600); err != nil {
		t.Fatal(err)
	}
	args = append(args, "-n", "-r", file, "-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE",
		"-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE")
	cmd := exec.Command(tshark, append(args, c.sas...)...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir()) // no one's preferences
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if strings.Contains(problems.String(), "Invalid -o flag") || strings.Contains(problems.String(), "More fields than required") {
		return "", errUnknown
	}
	if err != nil {
		err = fmt.Errorf("tshark: %w: %s", err, &problems)
	}
	return strings.TrimSuffix(string(out), "\n"), err
}

var (
	tsharkFields = []string{"-T", "fields", "-E", "occurrence=l", "-e", "esp.spi", "-e", "esp.sequence", "-e", "esp.icv_good",
		"-e", "esp.protocol", "-e", "udp.srcport", "-e", "udp.dstport", "-e", "udp.payload"}
	tsharkFaults = []string{"-Y", "_ws.malformed || _ws.expert.severity >= 0x600000 || esp.icv_bad == 1"} // from warnings on
)

// tshark reads packets of each suite with its keys, finds what is in them, and no
// fault.
func TestTshark(t *testing.T) {
	const high = 5
	knows := func(suite suite, high uint32) bool {
		one := new(capture)
		one.add(t, suite, 0x1000, high)
		_, err := one.run(t)
		if errors.Is(err, errUnknown) {
			t.Logf("%v with %d as upper half of sequence numbers is left out: %v", suite, high, err)
		}
		return !errors.Is(err, errUnknown)
	}
	chacha, esn := knows(suites[3], 0), knows(suites[0], high) // from 4.6, from 4.4
	all := new(capture)
	for i, suite := range suites {
		if suite.encryption.Name == apply.ChaCha20Poly1305 && !chacha {
			continue
		}
		all.add(t, suite, uint32(0x1000+i), 0)
		if esn {
			all.add(t, suite, uint32(0x2000+i), high)
		}
	}
	got, err := all.run(t, tsharkFields...)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.ReplaceAll(got, "\tTrue\t", "\t1\t"), "\n") // 4.0 and 4.4 differ
	if len(lines) != len(all.want) {
		t.Fatalf("%d packets read, want %d", len(lines), len(all.want))
	}
	for i, want := range all.want {
		if lines[i] != want {
			t.Fatalf("packet %d read as\n%s\nwant\n%s", i, lines[i], want)
		}
	}
	if faults, err := all.run(t, tsharkFaults...); faults != "" || err != nil {
		t.Errorf("%v, faults:\n%s", err, faults)
	}
}

// What it would say if there were one.
func TestTsharkFindsFaults(t *testing.T) {
	c := new(capture)
	c.add(t, suites[0], 0x1000, 0)
	for _, p := range c.packets {
		p[len(p)-1] ^= 1
	}
	faults, err := c.run(t, tsharkFaults...)
	if got := strings.Count(faults, "\n") + 1; err != nil || got != len(c.packets) {
		t.Errorf("%v, %d faults of %d:\n%s", err, got, len(c.packets), faults)
	}
}
