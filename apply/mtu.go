package apply

// Lengths of headers, in octets (RFC 791, RFC 8200, RFC 768; RFC 4303, Section 2).
const (
	ipv4Header = 20
	ipv6Header = 40
	udpHeader  = 8
	espHeader  = 8 // SPI and sequence number
	espTrailer = 2 // pad length and next header
)

// LeastMTU6 is the least MTU of a link that carries IPv6 (RFC 8200, Section 5).
const LeastMTU6 = 1280

// MTU is the length of the longest packet that goes through an SA in tunnel mode in
// one piece, where the longest on the path to the peer is path octets long: what is
// left by the outer IP header, UDP, and ESP with its IV, padding and ICV (RFC 4303,
// Section 2). The keys are not needed.
func (s SA) MTU(path int) int {
	outer := ipv4Header
	if s.Dst.Unmap().Is6() {
		outer = ipv6Header
	}
	if s.Encap != nil {
		outer += udpHeader
	}
	encryption, integrity := kernelAlgorithms[s.Encryption.Name], kernelAlgorithms[s.Integrity.Name]
	icv := int(encryption.ICVBits+integrity.ICVBits) / 8
	room := path - outer - espHeader - encryption.IVLen - icv
	return room - room%encryption.Block - espTrailer
}
