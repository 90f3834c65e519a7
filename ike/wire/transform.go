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
	more = r.substruc(moreTransforms)
	length := int(r.u16())
	s := r.sub(length - 4) // after the marker, the reserved octet and the length
	t.Type = TransformType(s.u8())
	s.reserved(1)
	t.ID = TransformID(s.u16())
	for s.more() {
		s.attribute(&t)
	}
	return t, more
}

// attribute reads an attribute into t. A key length of another form than the
// RFC's, of zero bits, or a second one is kept as unknown, which is to say
// that the transform is not acceptable.
func (r *reader) attribute(t *Transform) {
	kind := r.u16()
	value := r.u16()
	if kind == attributeTV|keyLength && value != 0 && t.KeyLength == 0 {
		t.KeyLength = value
		return
	}
	a := append16(append16(nil, kind), value)
	if kind&attributeTV == 0 {
		a = append(a, r.take(int(value))...)
	}
	t.Unknown += string(a)
}

func (t Transform) appendTo(b []byte, last uint8) []byte {
	start := len(b)
	b = append(b, last, 0)
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
