package conf

import (
	"slices"
	"strings"
	"time"

	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

// The defaults of [ike] and [esp].
const (
	ikePort         = 500
	natPort         = 4500
	defaultIKESoft  = 4 * time.Hour
	defaultIKEHard  = 4*time.Hour + 30*time.Minute
	defaultDPD      = 30 * time.Second
	defaultFragment = 1280 // what every path of IPv6 carries (RFC 8200, Section 5)
	defaultReplay   = 1024
)

const (
	// minFragment is what every host of IPv4 takes (RFC 7383, Section 2.5.1).
	minFragment = 576
	// maxReplay is the widest window of the kernel: a bitmap of
	// XFRMA_REPLAY_ESN_MAX bits.
	maxReplay = 4096
)

// A written proposal is one of a file, before PFS and ESN are settled.
type written struct {
	suite.Proposal
	text string
	at   place
}

// proposals is a list of them that parse reads.
func (v value) proposals(parse func(string) (suite.Proposal, error), example string) ([]written, bool) {
	elements, ok := v.filled(`["` + example + `"]`)
	if !ok {
		return nil, false
	}
	var list []written
	for _, e := range elements {
		text, isText := e.text(`"` + example + `"`)
		if !isText {
			ok = false
			continue
		}
		p, err := parse(text)
		if err != nil {
			e.wrong("", "%v", err)
			ok = false
			continue
		}
		if slices.ContainsFunc(list, func(w written) bool { return slices.Equal(w.Transforms, p.Transforms) }) {
			e.wrong("leave it out", "%q is in the list already", text)
			ok = false
		}
		list = append(list, written{p, text, e.at})
	}
	return list, ok
}

// ikeSettings is an [ike] or [peer.ike].
type ikeSettings struct {
	proposals option[[]written]
	lifetime  option[pair[time.Duration]]
	dpd       option[time.Duration]
	encap     option[string]
	fragment  option[int]
}

func readIKE(t *table) ikeSettings {
	return ikeSettings{
		proposals: read(t, "proposals", func(v value) ([]written, bool) {
			return v.proposals(suite.ParseIKE, "aes256gcm16-prfsha384-x25519")
		}),
		lifetime: read(t, "lifetime", ikeScale.read),
		dpd: read(t, "dpd", func(v value) (time.Duration, bool) {
			if v.raw == "off" {
				return 0, true
			}
			return v.duration(`"30s" or "off"`)
		}),
		encap: read(t, "encap", func(v value) (string, bool) {
			return v.word(EncapAuto, EncapYes, EncapNo)
		}),
		fragment: read(t, "fragment", readFragment),
	}
}

func readFragment(v value) (int, bool) {
	n, ok := v.whole(0, wire.MaxMessage, "1280")
	if ok && n > 0 && n < minFragment {
		v.wrong("write 576 or more, or 0 to never fragment", "%d octets are fewer than every host takes", n)
		return 0, false
	}
	return int(n), ok
}

func (s ikeSettings) over(base ikeSettings) ikeSettings {
	return ikeSettings{
		proposals: s.proposals.over(base.proposals),
		lifetime:  s.lifetime.over(base.lifetime),
		dpd:       s.dpd.over(base.dpd),
		encap:     s.encap.over(base.encap),
		fragment:  s.fragment.over(base.fragment),
	}
}

func (s ikeSettings) resolve() IKE {
	life := s.lifetime.or(pair[time.Duration]{defaultIKESoft, defaultIKEHard})
	ike := IKE{
		Proposals: slices.Clone(suite.DefaultIKE),
		Soft:      life.soft,
		Hard:      life.hard,
		DPD:       s.dpd.or(defaultDPD),
		Encap:     s.encap.or(EncapAuto),
		Fragment:  s.fragment.or(defaultFragment),
	}
	if s.proposals.set {
		ike.Proposals = nil
		for _, w := range s.proposals.val {
			ike.Proposals = append(ike.Proposals, w.Proposal)
		}
	}
	return ike
}

// espSettings is an [esp] or [peer.esp].
type espSettings struct {
	proposals option[[]written]
	pfs       option[string]
	esn       option[bool]
	window    option[uint32]
}

func readESP(t *table) espSettings {
	return espSettings{
		proposals: read(t, "proposals", func(v value) ([]written, bool) {
			return v.proposals(suite.ParseESP, "aes256gcm16")
		}),
		pfs: read(t, "pfs", func(v value) (string, bool) { return v.word(PFSAuto, PFSYes, PFSNo) }),
		esn: read(t, "esn", value.truth),
		window: read(t, "replay_window", func(v value) (uint32, bool) {
			n, ok := v.whole(0, maxReplay, "1024")
			return uint32(n), ok
		}),
	}
}

func (s espSettings) over(base espSettings) espSettings {
	return espSettings{
		proposals: s.proposals.over(base.proposals),
		pfs:       s.pfs.over(base.pfs),
		esn:       s.esn.over(base.esn),
		window:    s.window.over(base.window),
	}
}

// resolve settles what proposals, PFS and ESN say together. ike are the
// proposals whose key exchanges serve where an ESP proposal names none.
func (s espSettings) resolve(p *problems, ike []suite.Proposal) ESP {
	esp := ESP{PFS: s.pfs.or(PFSAuto), ESN: s.esn.or(true), ReplayWindow: s.window.or(defaultReplay)}
	groups := keyExchanges(ike)
	list := s.proposals.val
	if !s.proposals.set {
		for _, d := range suite.DefaultESP {
			list = append(list, written{Proposal: d})
		}
	}
	for _, w := range list {
		esp.Proposals = append(esp.Proposals, s.settle(p, w, esp, groups))
	}
	usesESN := slices.ContainsFunc(esp.Proposals, func(q suite.Proposal) bool { return hasESN(q, wire.ESNYes) })
	if usesESN && esp.ReplayWindow == 0 {
		p.add(s.window.at, "write esn = false too, or a window such as 1024",
			"replay_window = 0 does not go with esn = true: the kernel counts extended sequence numbers by the window")
	}
	return esp
}

// settle gives a proposal its key exchanges and its sequence numbers.
func (s espSettings) settle(p *problems, w written, esp ESP, groups []wire.TransformID) suite.Proposal {
	own := w.KE()
	none := slices.Contains(own, 0)
	switch esp.PFS {
	case PFSNo:
		if len(own) > 0 && !(none && len(own) == 1) {
			p.add(w.at, "write pfs = \"auto\" or \"yes\", or leave the key exchange out", "%q names a key exchange, and pfs is \"no\"", w.text)
		}
		w.Proposal = w.WithKE()
	case PFSYes:
		if none {
			p.add(w.at, "write pfs = \"auto\", or leave \"none\" out", "%q allows a rekey without key exchange, and pfs is \"yes\"", w.text)
		}
		fallthrough
	default:
		if len(own) == 0 {
			w.Proposal = w.WithKE(groups...)
		}
	}
	words := strings.Split(strings.ToLower(w.text), "-")
	switch {
	case slices.Contains(words, "esn") && !esp.ESN:
		p.add(w.at, "write esn = true, or leave \"esn\" out", "%q has extended sequence numbers, and esn is false", w.text)
	case slices.Contains(words, "esn") || slices.Contains(words, "noesn"):
	default:
		w.Proposal = withESN(w.Proposal, esp.ESN)
	}
	return w.Proposal
}

// keyExchanges is every method of the proposals, once, in their order.
func keyExchanges(list []suite.Proposal) []wire.TransformID {
	var ids []wire.TransformID
	for _, p := range list {
		for _, id := range p.KE() {
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// withESN is the proposal with extended sequence numbers preferred to plain
// ones, or with plain ones alone.
func withESN(p suite.Proposal, both bool) suite.Proposal {
	ts := slices.DeleteFunc(slices.Clone(p.Transforms), func(t wire.Transform) bool { return t.Type == wire.TransformESN })
	if both {
		ts = append(ts, wire.Transform{Type: wire.TransformESN, ID: wire.ESNYes})
	}
	return suite.Proposal{Transforms: append(ts, wire.Transform{Type: wire.TransformESN, ID: wire.ESNNo})}
}

func hasESN(p suite.Proposal, id wire.TransformID) bool {
	return slices.Contains(p.Transforms, wire.Transform{Type: wire.TransformESN, ID: id})
}
