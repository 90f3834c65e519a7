package wire

// VendorID is a Vendor ID payload (RFC 7296, Section 3.12): an opaque constant
// by which implementations of one vendor know each other.
type VendorID struct {
	Data []byte
}

// Type returns PayloadVendorID.
func (VendorID) Type() PayloadType { return PayloadVendorID }

func (r *reader) vendorID() VendorID { return VendorID{Data: r.rest()} }

func (p VendorID) appendBody(b []byte) []byte { return append(b, p.Data...) }
