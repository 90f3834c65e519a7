package suite

import (
	"fmt"
	"slices"
	"strings"

	"ipsec-quick/ike/wire"
)

// NoProposal is the error of Select: nothing that is offered is among what we allow.
type NoProposal struct {
	Offered  []wire.Proposal
	Ours     []Proposal
	Protocol wire.ProtocolID
	Match    Match
}

// columns are the rows of the table that NoProposal prints.
var columns = []struct {
	title string
	typ   wire.TransformType
}{
	{"encryption", wire.TransformENCR},
	{"integrity", wire.TransformINTEG},
	{"PRF", wire.TransformPRF},
	{"key exchange", wire.TransformKE},
	{"ESN", wire.TransformESN},
}

// Error sets what the peer offers beside what we allow, a line for each type of algorithm, and
// marks the types that have nothing in common. Where each type has something, it is the
// combinations that differ, and both lists of proposals follow.
func (e *NoProposal) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "no %s proposal in common", e.Protocol)
	rows := e.rows()
	width := len("the peer offers")
	for _, r := range rows {
		width = max(width, len(r.theirs))
	}
	line := func(title, theirs, ours, mark string) {
		text := fmt.Sprintf("  %-12s  %-*s  %s%s", title, width, theirs, ours, mark)
		b.WriteString("\n" + strings.TrimRight(text, " "))
	}
	line("", "the peer offers", "we allow", "")
	apart := false
	for _, r := range rows {
		mark := ""
		if r.apart {
			mark, apart = "   <- nothing in common", true
		}
		line(r.title, r.theirs, r.ours, mark)
	}
	if !apart {
		fmt.Fprintf(&b, "\n  none of its proposals %s goes with one of ours, %s", list(spellings(e.Offered)), list(written(e.Ours)))
	}
	return b.String()
}

type row struct {
	title, theirs, ours string
	apart               bool
}

// rows returns a row for each type of algorithm that either side names.
func (e *NoProposal) rows() []row {
	var theirs, ours []wire.Transform
	for _, p := range e.Offered {
		if p.Protocol == e.Protocol {
			theirs = append(theirs, p.Transforms...)
		}
	}
	for _, p := range e.Ours {
		ours = append(ours, p.Transforms...)
	}
	var rows []row
	for _, c := range columns {
		t, o := ofType(theirs, c.typ), ofType(ours, c.typ)
		if len(t)+len(o) == 0 || c.typ == wire.TransformKE && e.Match.IgnoreKE {
			continue
		}
		_, ok := common(t, o, c.typ)
		apart := !ok && len(t) > 0 && len(o) > 0
		if c.typ == wire.TransformKE && !ok {
			none := wire.Transform{Type: wire.TransformKE, ID: wire.KENone}
			apart = !slices.Contains(t, none) && len(t) > 0 || !slices.Contains(o, none) && len(o) > 0 && !e.Match.PFSOptional
		}
		rows = append(rows, row{c.title, names(t), names(o), apart})
	}
	return rows
}

// names lists each transform once.
func names(ts []wire.Transform) string {
	var words []string
	for _, t := range ts {
		if k := keyword(t); !slices.Contains(words, k) {
			words = append(words, k)
		}
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, " ")
}

// spellings writes proposals as they came.
func spellings(ps []wire.Proposal) []string {
	var all []string
	for _, p := range ps {
		all = append(all, spell(p.Transforms))
	}
	return all
}

// written writes our proposals.
func written(ps []Proposal) []string {
	var all []string
	for _, p := range ps {
		all = append(all, p.String())
	}
	return all
}

func list(all []string) string {
	if len(all) == 0 {
		return "nothing"
	}
	return strings.Join(all, ", ")
}
