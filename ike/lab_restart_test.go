package ike

import (
	"slices"

	"ipsec-quick/ike/wire"
)

// sealedID is what may be encrypted once: a message or fragment of an IKE SA. The
// Message ID makes the nonce of AEAD.
type sealedID struct {
	spii, spir wire.SPI
	id         uint32
	response   bool
	number     uint16
}

// sealedOnce fails the test when a nonce is used for a second message.
func (h *host) sealedOnce(data []byte) {
	m, err := wire.Parse(data)
	if err != nil {
		h.t.Fatalf("%s sends what does not parse: %v", h.name, err)
	}
	id := sealedID{spii: m.SPIi, spir: m.SPIr, id: m.MessageID, response: m.Response}
	switch p := m.Payloads[len(m.Payloads)-1].(type) {
	case wire.SK:
	case wire.SKF:
		id.number = p.Number
	default:
		return
	}
	if before, again := h.sent[id]; again && !slices.Equal(before, data) {
		h.t.Fatalf("%s: two messages with Message ID %d, response %t", h.name, m.MessageID, m.Response)
	}
	h.sent[id] = data
}

// restart begins a host's process anew, with what it saved and with the data
// plane as it is. What the core does not know is removed, as the loop does.
func (n *network) restart(h *host) {
	h.t.Helper()
	h.e = New(h.cfg)
	for peer, b := range h.saved {
		if err := h.e.Restore(peer, b); err != nil {
			h.t.Fatal(err)
		}
	}
	present := map[ChildID]bool{}
	for _, c := range h.in {
		present[c.InID()] = true
	}
	for _, c := range h.out {
		present[c.OutID()] = true
	}
	n.trace = append(n.trace, h.name+" restarts")
	n.step(h, Recovered{Present: present})
	in, out := map[uint32]bool{}, map[uint32]bool{}
	for _, s := range h.e.Status() {
		for _, c := range s.Children {
			in[c.Child.SPIIn], out[c.Child.SPIOut] = true, true
		}
	}
	for spi := range h.in {
		if !in[spi] {
			delete(h.in, spi)
		}
	}
	for spi := range h.out {
		if !out[spi] {
			delete(h.out, spi)
		}
	}
}
