package wire

import "fmt"

// HeaderLen is the length of the IKE header in octets (RFC 7296, Section 3.1).
const HeaderLen = 28

// payloadHeaderLen is the length of the generic payload header in octets
// (RFC 7296, Section 3.2).
const payloadHeaderLen = 4

// majorVersion is the one this package reads and writes; the minor version is
// zero when sent and ignored when received (RFC 7296, Section 2.5).
const majorVersion = 2

// Flags of the header (RFC 7296, Section 3.1). All others, the Version flag
// among them, are zero when sent and ignored when received.
const (
	flagInitiator = 1 << 3
	flagResponse  = 1 << 5
)

// SPI is the SPI of an IKE SA (RFC 7296, Section 2.6), one per end.
type SPI uint64

// String returns 16 hexadecimal digits.
func (s SPI) String() string { return fmt.Sprintf("%016x", uint64(s)) }

// Header is the IKE header as it came (RFC 7296, Section 3.1), of whatever
// version.
type Header struct {
	SPIi, SPIr          SPI
	Next                PayloadType // the type of the first payload
	Major, Minor        uint8       // version
	Exchange            ExchangeType
	Initiator, Response bool // the I and R flags
	MessageID           uint32
	Length              uint32 // octets of the message, the header included, as the sender says
}

// ParseHeader reads the header of a datagram and nothing behind it. It is what
// a datagram is sorted by before it is known whose it is, and what is left to
// answer when Parse returns an error. The only error is Truncated.
func ParseHeader(datagram []byte) (Header, error) {
	r := newReader(datagram)
	h := r.header()
	return h, r.err()
}

func (r *reader) header() Header {
	var h Header
	h.SPIi = SPI(r.u64())
	h.SPIr = SPI(r.u64())
	h.Next = PayloadType(r.u8())
	version := r.u8()
	h.Major, h.Minor = version>>4, version&0xf
	h.Exchange = ExchangeType(r.u8())
	flags := r.u8()
	h.Initiator = flags&flagInitiator != 0
	h.Response = flags&flagResponse != 0
	h.MessageID = r.u32()
	h.Length = r.u32()
	if !r.ok() {
		return Header{}
	}
	return h
}

// messageHeader reads the header of a whole message and checks it.
func (r *reader) messageHeader() Header {
	length := int64(r.len())
	h := r.header()
	if r.ok() {
		r.require(h.Major == majorVersion, BadVersion)
		r.require(length <= MaxMessage && h.Length >= HeaderLen, BadLength)
		r.require(int64(h.Length) <= length, Truncated)
		r.require(int64(h.Length) >= length, TrailingBytes)
	}
	return h
}

// AppendHeader appends the header of m with the given type of the first
// payload, for a message of length octets in all.
func AppendHeader(b []byte, m *Message, next PayloadType, length int) []byte {
	start := len(b)
	b = append64(b, uint64(m.SPIi))
	b = append64(b, uint64(m.SPIr))
	var flags uint8
	if m.Initiator {
		flags |= flagInitiator
	}
	if m.Response {
		flags |= flagResponse
	}
	b = append(b, uint8(next), majorVersion<<4, uint8(m.Exchange), flags)
	b = append32(b, m.MessageID)
	b = append32(b, 0)
	setLength32(b, start, length)
	return b
}
