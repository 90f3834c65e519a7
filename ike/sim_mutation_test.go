package ike

import (
	"slices"
	"testing"
)

// mutation breaks on purpose what keeps packets from getting lost. The zero value
// breaks nothing.
type mutation struct {
	outboundFirst bool // packets use a new outbound SA before the inbound one is there
	sendFirst     bool // messages leave before what they depend on is persisted
	noRetention   bool // an old inbound SA goes when its Child SA is deleted
}

// reorder is the list of actions as a broken host carries it out.
func (m mutation) reorder(actions []Action) []Action {
	if !m.sendFirst {
		return actions
	}
	slices.SortStableFunc(actions, func(a, b Action) int { return rank(a) - rank(b) })
	return actions
}

// rank puts what is persisted behind what is sent.
func rank(a Action) int {
	if _, ok := a.(Persist); ok {
		return 1
	}
	return 0
}

// afterStep is what a broken host does besides.
func (m mutation) afterStep(h *simHost) {
	if !m.noRetention {
		return
	}
	for _, sa := range h.e.state.SAs {
		for _, c := range sa.Children {
			if c.State == childRetiring {
				h.remove(c.InID())
			}
		}
	}
}

// TestSimulationFinds: a simulation that cannot fail shows nothing.
func TestSimulationFinds(t *testing.T) {
	tests := map[string]mutation{
		"outbound before inbound": {outboundFirst: true},
		"send before persist":     {sendFirst: true},
		"no retention":            {noRetention: true},
	}
	for name, breaks := range tests {
		t.Run(name, func(t *testing.T) {
			const enough = 100
			found := simulateAll(1, enough, breaks, 1)
			if found.count == 0 {
				t.Fatalf("none of %d seeds fails", enough)
			}
			t.Logf("%d of %d seeds fail, one of them: %s", found.count, enough, found.shown[0].text)
		})
	}
}
