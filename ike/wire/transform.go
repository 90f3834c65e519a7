package wire

import "strconv"

// Transform is one algorithm of a proposal (RFC 7296, Section 3.3.2). Two
// transforms are the same if they compare equal.
type Transform struct {
	Type TransformType
	ID   TransformID

	// KeyLength is the Key Length attribute in bits; zero: there is none.
	KeyLength uint16

	// Unknown holds all other attributes as they came. A transform with any
	// MUST be considered unacceptable, and the others of its type are
	// processed as usual (RFC 7296, Section 3.3.6). It is empty in what we send.
	Unknown string
}

// String returns the registry's name, with the key length if there is one:
// "ENCR_AES_CBC 256".
func (t Transform) String() string {
	s := t.ID.Name(t.Type)
	if t.KeyLength != 0 {
		s += " " + strconv.Itoa(int(t.KeyLength))
	}
	if t.Unknown != "" {
		s += " (unknown attributes)"
	}
	return s
}

// The first two octets of an attribute: format and type (RFC 7296, Section 3.3.5).
const (
	attributeTV = 1 << 15 // AF: the value is in the next two octets; otherwise its length is
	keyLength   = 14
)

// transform reads one transform and whether another follows.
func (r *reader) transform() (t Transform, more bool) {
	s, more := r.substruc(moreTransforms)
	t.Type = TransformType(s.u8())
	s.reserved(1)
	t.ID = TransformID(s.u16())
	var unknown []byte
	for s.more() {
		unknown = s.attribute(&t, unknown)
	}
	t.Unknown = string(unknown)
	return t, more
}

// attribute reads an attribute into t, or appends it to unknown. A key length
// of another form than the RFC's, of zero bits, or a second one is unknown,
// which is to say that the transform is not acceptable.
func (r *reader) attribute(t *Transform, unknown []byte) []byte {
	kind := r.u16()
	value := r.u16()
	if kind == attributeTV|keyLength && value != 0 && t.KeyLength == 0 {
		t.KeyLength = value
		return unknown
	}
	unknown = append16(append16(unknown, kind), value)
	if kind&attributeTV == 0 {
		unknown = append(unknown, r.take(int(value))...)
	}
	return unknown
}

func (t Transform) appendTo(b []byte, marker uint8) []byte {
	start := len(b)
	b = append(b, marker, 0)
	b = append16(b, 0)
	b = append(b, uint8(t.Type), 0)
	b = append16(b, uint16(t.ID))
	if t.KeyLength != 0 {
		b = append16(b, attributeTV|keyLength)
		b = append16(b, t.KeyLength)
	}
	b = append(b, t.Unknown...)
	setLength16(b, start, len(b)-start)
	return b
}
