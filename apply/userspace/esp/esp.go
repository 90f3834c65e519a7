// Package esp makes and opens packets of the Encapsulating Security Payload
// (RFC 4303): from the SPI to the ICV, with what is inside. It has no socket, no
// clock and no goroutine; the outer header, the SAs and their limits are the
// data plane's.
//
// It is the inner loop of the data plane, so nothing here allocates for a
// packet: who calls brings the buffers and a Scratch.
package esp

import "errors"

// What the next header field says of the payload.
const (
	NextIPv4 = 4  // a packet in tunnel mode
	NextIPv6 = 41 // a packet in tunnel mode
	NextNone = 59 // a dummy, to be dropped and not counted (RFC 4303, Section 2.6)
)

// MaxTrailer is how many octets behind a payload Seal writes over and puts
// back: 15 of padding, the pad length and the next header.
const MaxTrailer = 17

// headerLen are the SPI and the sequence number.
const headerLen = 8

// Errors of Open. The packet is to be dropped and counted; nothing in it can be
// trusted.
var (
	// ErrForged: the ICV is wrong.
	ErrForged = errors.New("ESP packet with a wrong ICV")
	// ErrMalformed: too short, not of whole blocks, or authentic with a
	// trailer that makes no sense.
	ErrMalformed = errors.New("malformed ESP packet")
)

// A Scratch is what one worker needs to seal and open. It may be used with any
// Transform, by one goroutine at a time. The zero value is ready.
type Scratch struct {
	nonce  [12]byte // salt and IV (RFC 4106, Section 4; RFC 7634, Section 2)
	aad    [12]byte // SPI and sequence number (RFC 4106, Section 5)
	saved  [MaxTrailer]byte
	digest [hashes]digest
	sum    [64]byte
}
