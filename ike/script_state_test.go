package ike

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"ipsec-quick/ike/wire"
)

// names are the names of SAs: old is what a play began with, A the first that a
// asked for, A2 the next. A Child SA and an IKE SA are known by the SPIs of both
// sides.
type names struct {
	of    map[string]string
	order []string         // as they were made
	asked map[uint32]*host // for a Child SA, by the inbound SPI there
}

func newNames(p *play) names {
	n := names{map[string]string{}, nil, map[uint32]*host{}}
	n.name(p)
	for pair := range n.of {
		n.of[pair] = "old"
	}
	return n
}

func spiPair(spii, spir wire.SPI) string { return "IKE " + spii.String() + " " + spir.String() }

func childPair(p *play, h *host, c ChildSA) string {
	if h == p.b {
		c.SPIIn, c.SPIOut = c.SPIOut, c.SPIIn
	}
	return fmt.Sprintf("ESP %08x %08x", c.SPIIn, c.SPIOut)
}

// installed are the Child SAs that have an SA in the data plane.
func (h *host) installed() []ChildSA {
	return slices.AppendSeq(slices.Collect(maps.Values(h.in)), maps.Values(h.out))
}

// name gives names to the SAs that are new.
func (n *names) name(p *play) {
	for _, h := range p.n.hosts {
		for _, sa := range h.e.ofPeer(h.cfg.Peers[0].Name) {
			if t, ok := sa.Send.Active.(*childTask); ok {
				n.asked[t.SPI] = h
			}
			initiator := map[bool]*host{true: h, false: p.other(h)}[sa.Original]
			if sa.authenticated() {
				n.give(p, spiPair(sa.SPIi, sa.SPIr), initiator)
			}
		}
	}
	for _, h := range p.n.hosts {
		for _, c := range h.installed() {
			initiator := p.a // by IKE_AUTH
			for _, spi := range []uint32{c.SPIIn, c.SPIOut} {
				if asked := n.asked[spi]; asked != nil {
					initiator = asked
				}
			}
			n.give(p, childPair(p, h, c), initiator)
		}
	}
}

func (n *names) give(p *play, pair string, initiator *host) {
	if n.of[pair] != "" {
		return
	}
	name, times := strings.ToUpper(p.letter(initiator)), 1
	for other, taken := range n.of {
		if other[:3] == pair[:3] && strings.HasPrefix(taken, name) {
			times++
		}
	}
	if times > 1 {
		name += fmt.Sprint(times)
	}
	n.of[pair], n.order = name, append(n.order, pair)
}

// child is a Child SA by its name.
func (n *names) child(p *play, h *host, name string) ChildSA {
	for _, c := range h.in {
		if n.of[childPair(p, h, c)] == name {
			return c
		}
	}
	p.t.Fatalf("%s has no Child SA %s", p.letter(h), name)
	return ChildSA{}
}

// state is what a host has: its Child SAs, and its IKE SAs when there is more to
// say than that the old one is established.
func (n *names) state(p *play, h *host) string {
	ikeMarks := map[saState]string{established: "%s", replaced: "(%s)", deleting: "%s-", contested: "%s?"}
	childMarks := map[childState]string{childLive: "%s", childInstalling: "%s+", childDeleting: "%s-", childRetiring: "(%s)"}
	children, ikes := map[string]string{}, map[string]string{}
	for _, c := range h.installed() {
		children[childPair(p, h, c)] = "%s!" // nobody's, if nothing else is said
	}
	for _, sa := range h.e.ofPeer(h.cfg.Peers[0].Name) {
		if !sa.authenticated() {
			continue
		}
		pair := spiPair(sa.SPIi, sa.SPIr)
		ikes[pair] = ikeMarks[sa.State]
		if len(sa.Children) > 0 {
			ikes[pair] += "*"
		}
		for _, c := range sa.Children {
			pair := childPair(p, h, c.ChildSA)
			children[pair] = childMarks[c.State]
			_, in := h.in[c.SPIIn]
			if _, out := h.out[c.SPIOut]; !in || !out {
				children[pair] += "!"
			}
		}
	}
	if h.active != nil {
		children[childPair(p, h, *h.active)] += "*"
	}
	esp, ike := n.list(children), n.list(ikes)
	switch {
	case ike == "old*" || ike == "old":
		return esp
	case esp == "old*":
		return "IKE " + ike
	}
	return esp + ", IKE " + ike
}

// list writes SAs with their marks, in the order in which they were made.
func (n *names) list(marks map[string]string) string {
	var words []string
	for _, pair := range n.order {
		if mark, ok := marks[pair]; ok {
			words = append(words, fmt.Sprintf(mark, n.of[pair]))
		}
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, " ")
}
