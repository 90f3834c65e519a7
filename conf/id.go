package conf

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"ipsec-quick/ike/wire"
)

// An ID is who an end says it is (RFC 7296, Section 3.5). The empty ID stands
// for the address that is used in the end.
type ID struct {
	Kind wire.IDType // IDIPv4Addr, IDIPv6Addr, IDFQDN, IDRFC822Addr or IDKeyID; 0: empty
	Data []byte      // as in the payload
}

// IDOf is the identity of an address.
func IDOf(addr netip.Addr) ID {
	addr = addr.Unmap()
	if addr.Is4() {
		return ID{wire.IDIPv4Addr, addr.AsSlice()}
	}
	return ID{wire.IDIPv6Addr, addr.AsSlice()}
}

// Empty reports whether the identity was left open.
func (id ID) Empty() bool { return id.Kind == 0 }

// Equal reports whether both say the same, names without regard to case.
func (id ID) Equal(o ID) bool {
	if id.Kind != o.Kind {
		return false
	}
	if id.Kind == wire.IDFQDN || id.Kind == wire.IDRFC822Addr {
		return strings.EqualFold(string(id.Data), string(o.Data))
	}
	return bytes.Equal(id.Data, o.Data)
}

// Wire is the payload: IDr with responder, else IDi.
func (id ID) Wire(responder bool) wire.ID {
	return wire.ID{Responder: responder, Kind: id.Kind, Data: id.Data}
}

// String is the identity as a tunnel file spells it.
func (id ID) String() string {
	switch id.Kind {
	case 0:
		return ""
	case wire.IDIPv4Addr, wire.IDIPv6Addr:
		if addr, ok := netip.AddrFromSlice(id.Data); ok {
			return addr.String()
		}
	case wire.IDFQDN, wire.IDRFC822Addr:
		return string(id.Data)
	default:
	}
	return "@#" + hex.EncodeToString(id.Data)
}

// maxID bounds an identity. The payload's length has 16 bits; no name is
// longer than 253 octets (RFC 1035) and no mail address longer than 254.
const maxID = 255

// idKinds are the prefixes that say what an identity is where its look does
// not, as strongSwan spells them.
var idKinds = []struct {
	prefix string
	kind   wire.IDType
}{
	{"ipv4:", wire.IDIPv4Addr},
	{"ipv6:", wire.IDIPv6Addr},
	{"fqdn:", wire.IDFQDN},
	{"dns:", wire.IDFQDN},
	{"rfc822:", wire.IDRFC822Addr},
	{"email:", wire.IDRFC822Addr},
	{"userfqdn:", wire.IDRFC822Addr},
	{"keyid:", wire.IDKeyID},
}

// ParseID reads an identity as strongSwan spells it: an address; a host name,
// also as "@name"; "user@host", also as "@@user@host"; "@#hex", a key id of
// these octets; or any of them as text after "ipv4:", "ipv6:", "fqdn:",
// "email:" or "keyid:".
func ParseID(s string) (ID, error) {
	switch {
	case s == "":
		return ID{}, errors.New("an identity is not empty")
	case len(s) > maxID:
		return ID{}, fmt.Errorf("an identity of %d octets is longer than %d", len(s), maxID)
	case strings.HasPrefix(s, "%any") || strings.Contains(s, "*"):
		return ID{}, fmt.Errorf("%q is a pattern; a peer has one identity, which it proves", s)
	case strings.HasPrefix(s, "@#"):
		data, err := hex.DecodeString(strings.ReplaceAll(s[2:], ":", ""))
		if err != nil || len(data) == 0 {
			return ID{}, fmt.Errorf("%q is no key id: \"@#\" goes before pairs of hexadecimal digits", s)
		}
		return ID{wire.IDKeyID, data}, nil
	case strings.HasPrefix(s, "@@"):
		return idOfKind(wire.IDRFC822Addr, s[2:])
	case strings.HasPrefix(s, "@"):
		return idOfKind(wire.IDFQDN, s[1:])
	}
	for _, k := range idKinds {
		if n := len(k.prefix); len(s) >= n && strings.EqualFold(s[:n], k.prefix) {
			return idOfKind(k.kind, s[n:])
		}
	}
	switch {
	case strings.Contains(s, "="):
		return ID{}, fmt.Errorf("%q is a distinguished name; these come with certificates, which are not served by this version yet", s)
	case strings.Contains(s, "@"):
		return idOfKind(wire.IDRFC822Addr, s)
	case strings.Contains(s, ":"):
		return idOfKind(wire.IDIPv6Addr, s)
	case looksLikeIPv4(s):
		return idOfKind(wire.IDIPv4Addr, s)
	}
	return idOfKind(wire.IDFQDN, s)
}

// looksLikeIPv4 reports whether s is made of digits and dots only: a wrong
// address, "192.0.2.300", is not taken for a name.
func looksLikeIPv4(s string) bool { return strings.Trim(s, "0123456789.") == "" }

func idOfKind(kind wire.IDType, s string) (ID, error) {
	switch kind {
	case wire.IDIPv4Addr, wire.IDIPv6Addr:
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" || addr.Is4In6() || addr.Is4() != (kind == wire.IDIPv4Addr) {
			return ID{}, fmt.Errorf("%q is no address of the kind it looks like; a name goes as \"fqdn:%s\"", s, s)
		}
		return IDOf(addr), nil
	case wire.IDRFC822Addr:
		user, host, _ := strings.Cut(s, "@")
		if user == "" || host == "" || !printable(s) {
			return ID{}, fmt.Errorf("%q is no mail address: user@host", s)
		}
	case wire.IDFQDN:
		if s == "" || !printable(s) {
			return ID{}, fmt.Errorf("%q is no host name", s)
		}
	default:
		if s == "" {
			return ID{}, errors.New("a key id is not empty")
		}
	}
	return ID{kind, []byte(s)}, nil
}

// printable reports whether s is ASCII without blanks and control characters,
// as names in identities are.
func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }) < 0
}
