package watch

import (
	"net/netip"
	"slices"
	"testing"

	"ipsec-quick/conf"
	"ipsec-quick/ike"
	"ipsec-quick/ike/wire"
)

// TestOfferInTurn: whom the request names is asked first, and nobody is left out.
func TestOfferInTurn(t *testing.T) {
	own := func(ids ...conf.ID) *facts {
		tunnel := &conf.Tunnel{}
		for _, id := range ids {
			tunnel.Peers = append(tunnel.Peers, conf.Peer{LocalID: id})
		}
		return &facts{IDs: ownIDs(tunnel)}
	}
	fqdn := func(s string) conf.ID { return conf.ID{Kind: wire.IDFQDN, Data: []byte(s)} }
	here := netip.MustParseAddr("192.0.2.1")
	others := map[string]*facts{
		"a": own(fqdn("a.example")), "b": own(fqdn("x.example"), fqdn("B.example")),
		"c": own(conf.ID{}), "d": {}, // of another version
	}
	for _, c := range []struct {
		named conf.ID
		want  []string
	}{
		{fqdn("b.example"), []string{"b", "a", "c", "d"}},
		{conf.IDOf(here), []string{"c", "a", "b", "d"}},
		{conf.IDOf(here.Next()), []string{"a", "b", "c", "d"}},
		{conf.ID{}, []string{"a", "b", "c", "d"}},
	} {
		list := []wire.Payload{wire.ID{Kind: wire.IDFQDN, Data: []byte("a.example")}}
		if !c.named.Empty() {
			list = append(list, c.named.Wire(true))
		}
		claim := ike.Claim{SA: []byte{1}, First: wire.FirstType(list), Request: wire.AppendPayloads(nil, list)}
		claim.Datagram.Local = netip.AddrPortFrom(here, 500)
		if got := inTurn(claim, others); !slices.Equal(got, c.want) {
			t.Errorf("%s named: %v, not %v", c.named, got, c.want)
		}
	}
	if got := inTurn(ike.Claim{}, others); len(got) != 4 {
		t.Errorf("%v", got)
	}
}
