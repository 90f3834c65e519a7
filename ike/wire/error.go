package wire

import "strconv"

// ErrorKind says what is wrong with a message.
type ErrorKind uint8

// What can be wrong with a message.
const (
	Truncated       ErrorKind = iota + 1 // a field runs over the end of what holds it
	BadLength                            // a length that contradicts the others or the type
	BadVersion                           // a major version other than 2
	BadValue                             // a value that the RFC forbids
	TooMany                              // over one of the limits of this package
	TrailingBytes                        // octets are left after the end
	UnknownCritical                      // a payload that is not known and must be (RFC 7296, Section 2.5)
)

var errorNames = map[ErrorKind]string{
	Truncated:       "truncated",
	BadLength:       "bad length",
	BadVersion:      "major version is not 2",
	BadValue:        "value not allowed",
	TooMany:         "too many elements",
	TrailingBytes:   "trailing octets",
	UnknownCritical: "unknown critical payload",
}

// String describes the kind in a few words.
func (k ErrorKind) String() string { return registryName(errorNames, "error", k) }

// Error is the only error that parsing returns. It quotes nothing of the
// message, so it can be logged.
//
// For kind UnknownCritical, Payload is what the answer's Notify payload of type
// UNSUPPORTED_CRITICAL_PAYLOAD carries (RFC 7296, Section 2.5); for BadVersion
// the answer is INVALID_MAJOR_VERSION; for all others, INVALID_SYNTAX. Whether
// there is an answer at all is for the caller (RFC 7296, Section 2.21).
type Error struct {
	Kind    ErrorKind
	Payload PayloadType // the payload it is in; NoNextPayload: in no payload
	Offset  int         // from the first octet of what was parsed
}

// Error says what is wrong, and where.
func (e *Error) Error() string {
	where := "message"
	if e.Payload != NoNextPayload {
		where = "payload " + e.Payload.String()
	}
	return "ike: " + where + ": " + e.Kind.String() + " at octet " + strconv.Itoa(e.Offset)
}
