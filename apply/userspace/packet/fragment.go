package packet

import "encoding/binary"

// minMTU is what each IPv4 link can carry (RFC 791, Section 3.2).
const minMTU = 68

// AppendFragment appends one fragment of an IPv4 packet to dst, of at most mtu
// octets (68 if it is less), with the data from offset on. It returns the offset
// of the next one, or -1 after the last. b is the packet that h was parsed from;
// it may be a fragment itself. Begin with 0 (RFC 791, Section 3.2).
//
// Selectors with ports match the first fragment only: a peer that has such drops
// the others (RFC 4301, Section 7).
func AppendFragment(dst, b []byte, h *Header, offset, mtu int) (fragment []byte, next int) {
	start := len(dst)
	if offset == 0 {
		dst = append(dst, b[:h.HeaderLen]...)
	} else {
		dst = append(dst, b[:IPv4Len]...)
		dst = appendCopiedOptions(dst, b[IPv4Len:h.HeaderLen])
	}
	headerLen := len(dst) - start
	data := b[h.HeaderLen+offset : h.Len]
	more := false
	if most := (max(mtu, minMTU) - headerLen) &^ 7; headerLen+len(data) > max(mtu, minMTU) {
		data, more = data[:most], true
	}
	dst = append(dst, data...)

	header := dst[start : start+headerLen]
	header[0] = 0x40 | byte(headerLen/4)
	binary.BigEndian.PutUint16(header[2:], uint16(headerLen+len(data)))
	flags := uint16((h.Offset + offset) / 8)
	if h.DF {
		flags |= flagDF
	}
	if more || h.More {
		flags |= flagMF
	}
	binary.BigEndian.PutUint16(header[6:], flags)
	setIPv4Checksum(header)
	if !more {
		return dst, -1
	}
	return dst, offset + len(data)
}

// appendCopiedOptions appends the options that all fragments have: those with
// the copied flag (RFC 791, Section 3.1).
func appendCopiedOptions(dst, options []byte) []byte {
	const end, noOperation, copied = 0, 1, 0x80
	start := len(dst)
	for len(options) > 0 && options[0] != end {
		if options[0] == noOperation {
			options = options[1:]
			continue
		}
		if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
			break // nonsense: no router could read on
		}
		if options[0]&copied != 0 {
			dst = append(dst, options[:options[1]]...)
		}
		options = options[options[1]:]
	}
	for (len(dst)-start)%4 != 0 {
		dst = append(dst, end)
	}
	return dst
}
