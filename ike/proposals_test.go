package ike

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

// offers sets the proposals of a peer.
func offers(t testing.TB, p *Peer, ike, esp string) {
	p.IKE, p.ESP = proposal(t, suite.ParseIKE, ike), proposal(t, suite.ParseESP, esp)
}

// rekeyed checks that new keys for all can be made, from both sides.
func (n *network) rekeyed() {
	n.t.Helper()
	n.flowing = true
	n.mustFlow()
	for _, h := range n.hosts {
		peer := h.cfg.Peers[0].Name
		before := h.e.Status()[0].Rekeys
		n.step(h, RekeyChild{peer})
		n.run(10 * time.Second)
		n.step(h, RekeyIKE{peer})
		n.run(10 * time.Second)
		after := h.e.Status()[0].Rekeys
		if after.Child != before.Child+1 || after.IKE != before.IKE+1 || after.Failed != before.Failed {
			n.t.Fatalf("%s: rekeys before %+v, after %+v\n%s", h.name, before, after, n.log())
		}
	}
	n.flowing = false
}

func TestAlgorithms(t *testing.T) {
	tests := []struct{ ike, esp string }{
		{"aes128gcm16-prfsha256-x25519", "aes128gcm16-x25519"},
		{"aes256gcm16-prfsha384-ecp256", "aes256gcm16-ecp256-esn"},
		{"aes256gcm16-prfsha512-ecp384", "aes256gcm16-ecp384"},
		{"chacha20poly1305-prfsha256-ecp521", "chacha20poly1305-ecp521"},
		{"aes128-sha256-modp2048", "aes128-sha256-modp2048"},
		{"aes256-sha384-modp3072", "aes256-sha384"},
		{"aes256-sha512-x25519", "aes256-sha512-esn-noesn"},
	}
	for _, test := range tests {
		t.Run(test.ike, func(t *testing.T) {
			n := newNetwork(t, 1, func(a, b *Peer) {
				offers(t, a, test.ike, test.esp)
				offers(t, b, test.ike, test.esp)
				a.Fragment, b.Fragment = 576, 576
			})
			n.up()
			n.rekeyed()
			s := n.a().e.Status()[0]
			if s.Proposal != test.ike {
				t.Errorf("%s instead of %s", s.Proposal, test.ike)
			}
			if esn := s.Children[0].Child.Choice.ESN; esn != strings.Contains(test.esp, "-esn") {
				t.Errorf("ESN: %t", esn)
			}
		})
	}
}

func TestNoProposal(t *testing.T) {
	n := newNetwork(t, 1, func(a, _ *Peer) { offers(t, a, "aes128gcm16-prfsha256-x25519", "aes128gcm16") })
	n.step(n.a(), Tick{})
	n.settle()
	if _, ok := said[Lost](n.a()); ok {
		t.Fatal("anybody can refuse for the peer, and at once")
	}
	n.run(5 * time.Second)
	lost, ok := said[Lost](n.a())
	if !ok || !Refused(lost.Err) {
		t.Fatalf("lost: %v", lost.Err)
	}
	for _, words := range []string{"NO_PROPOSAL_CHOSEN", "we offer aes128gcm16-prfsha256-x25519"} {
		if !strings.Contains(lost.Err.Error(), words) {
			t.Errorf("%q is not in %q", words, lost.Err)
		}
	}
	if !reported(n.b(), "no IKE proposal in common") {
		t.Error("the responder's operator does not learn why")
	}
	nothing(t, n.b())
}

// TestHintIsNoAnswer: a forged refusal that comes before the true answer ends
// nothing, and leaves no deadline behind.
func TestHintIsNoAnswer(t *testing.T) {
	n := newNetwork(t, 1, nil)
	n.step(n.a(), Tick{})
	request, err := wire.Parse(n.queue[0].Data)
	if err != nil {
		t.Fatal(err)
	}
	forged := wire.Message{SPIi: request.SPIi, Exchange: wire.IKESAInit, Response: true,
		Payloads: []wire.Payload{wire.Notify{Kind: wire.NotifyNoProposalChosen}}}
	n.step(n.a(), Datagram{Local: n.queue[0].Local, Remote: n.queue[0].Remote, Data: forged.AppendTo(nil)})
	lost := 0
	n.drop = func(s Send) bool { // IKE_AUTH takes its time
		m, err := wire.Parse(s.Data)
		if err == nil && m.Exchange == wire.IKEAuth && lost < 4 {
			lost++
			return true
		}
		return false
	}
	n.run(20 * time.Second) // fails when a deadline stays in the past
	n.mustFlow()
}

func TestChildRefused(t *testing.T) {
	tests := map[string]struct {
		change func(a, b *Peer)
		words  []string
		told   string
	}{
		"no common ESP proposal": {func(a, _ *Peer) { a.ESP = proposal(t, suite.ParseESP, "aes128-sha256") },
			[]string{"NO_PROPOSAL_CHOSEN", "we offer aes128-sha256"}, "no ESP proposal in common"},
		"selectors apart": {func(a, _ *Peer) { a.RemoteTS = prefixTS("10.9.0.0/16") },
			[]string{"TS_UNACCEPTABLE", "we asked for 10.1.0.0/16 === 10.9.0.0/16"}, "it asked for 10.1.0.0/16 === 10.9.0.0/16"},
		"transport mode here only": {func(a, _ *Peer) { a.Transport = true },
			[]string{"insists on tunnel mode"}, ""},
		"transport mode there only": {func(_, b *Peer) { b.Transport = true },
			[]string{"NO_PROPOSAL_CHOSEN"}, "insists on tunnel mode"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t, 1, test.change)
			n.up()
			lost, ok := said[Lost](n.a())
			if !ok || !Refused(lost.Err) {
				t.Fatalf("lost: %v", lost.Err)
			}
			for _, words := range test.words {
				if !strings.Contains(lost.Err.Error(), words) {
					t.Errorf("%q is not in %q", words, lost.Err)
				}
			}
			if test.told != "" && !reported(n.b(), test.told) {
				t.Errorf("the responder's operator was not told %q\n%s", test.told, n.log())
			}
			if _, ok := said[Established](n.a()); ok {
				t.Error("established without a Child SA")
			}
			n.run(time.Hour)
			for _, h := range n.hosts {
				if len(h.in)+len(h.out) > 2 || len(h.e.LocalSPIs()) != 1 {
					t.Errorf("%s: %d inbound, %d outbound SAs, %d IKE SAs", h.name, len(h.in), len(h.out), len(h.e.LocalSPIs()))
				}
			}
			if n.a().active != nil {
				t.Error("packets go somewhere")
			}
		})
	}
}

func TestNarrowing(t *testing.T) {
	host := netip.MustParseAddr("10.2.0.7")
	web := wire.Selector{Protocol: 6, FromPort: 443, ToPort: 443, From: host, To: host}
	tests := []struct {
		name                 string
		aLocal, aRemote      []wire.Selector
		bLocal, bRemote      []wire.Selector
		wantLocal, wantRemte string // at a
	}{
		{"wider here", prefixTS("10.0.0.0/8"), prefixTS("10.0.0.0/8"), prefixTS("10.2.0.0/16"), prefixTS("10.1.0.0/16"), "10.1.0.0/16", "10.2.0.0/16"},
		{"wider there", prefixTS("10.1.0.0/24"), prefixTS("10.2.0.0/24"), prefixTS("10.0.0.0/8"), prefixTS("10.0.0.0/8"), "10.1.0.0/24", "10.2.0.0/24"},
		{"one port", prefixTS("10.1.0.0/16"), prefixTS("10.2.0.0/16"), []wire.Selector{web}, prefixTS("10.1.0.0/16"), "10.1.0.0/16", "10.2.0.7/32[6/443-443]"},
		{"one of two", prefixTS("10.1.0.0/16"), slices.Concat(prefixTS("10.2.0.0/16"), prefixTS("fd00::/64")), prefixTS("10.2.0.0/16"), prefixTS("10.1.0.0/16"), "10.1.0.0/16", "10.2.0.0/16"},
		{"the addresses used", nil, nil, nil, nil, "192.0.2.1/32", "192.0.2.2/32"},
		{"no prefix", prefixTS("10.1.0.0/16"), []wire.Selector{{ToPort: anyPort, From: netip.MustParseAddr("10.2.0.1"), To: host}}, prefixTS("10.2.0.0/16"), prefixTS("10.1.0.0/16"), "10.1.0.0/16", "10.2.0.1-10.2.0.7"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			n := newNetwork(t, 1, func(a, b *Peer) {
				a.LocalTS, a.RemoteTS, b.LocalTS, b.RemoteTS = test.aLocal, test.aRemote, test.bLocal, test.bRemote
			})
			n.up()
			n.rekeyed()
			c, d := n.a().active, n.b().active
			got := fmt.Sprint(selectorText(c.LocalTS), " ", selectorText(c.RemoteTS))
			if got != test.wantLocal+" "+test.wantRemte {
				t.Errorf("narrowed to %s", got)
			}
			if !slices.Equal(c.LocalTS, d.RemoteTS) || !slices.Equal(c.RemoteTS, d.LocalTS) {
				t.Error("the two sides differ")
			}
		})
	}
}

func TestInvalidKE(t *testing.T) {
	n := newNetwork(t, 1, func(a, b *Peer) {
		offers(t, a, "aes256gcm16-prfsha256-x25519-ecp384", "aes256gcm16-x25519-ecp256")
		offers(t, b, "aes256gcm16-prfsha256-ecp384", "aes256gcm16-ecp256")
		a.PFS, b.PFS = PFSYes, PFSYes
	})
	n.up()
	n.rekeyed()
	if c := n.a().active.Choice; c.KE.ID != wire.KEECP256 {
		t.Errorf("%s", c)
	}
	if got := strings.Count(n.log(), "N(INVALID_KE_PAYLOAD)"); got != 3 { // heard in IKE_SA_INIT, said and heard in CREATE_CHILD_SA
		t.Errorf("%d INVALID_KE_PAYLOAD\n%s", got, n.log())
	}
}

// TestInvalidKENotOffered: a group that we did not offer is not taken, whoever
// asks for it.
func TestInvalidKENotOffered(t *testing.T) {
	n := newNetwork(t, 1, nil)
	n.step(n.a(), Tick{})
	sent := n.queue[0]
	n.queue = nil
	request, _ := wire.Parse(sent.Data)
	for _, data := range [][]byte{{0, 14}, {0, 0}, {1}, nil} {
		answer := wire.Message{SPIi: request.SPIi, Exchange: wire.IKESAInit, Response: true,
			Payloads: []wire.Payload{wire.Notify{Kind: wire.NotifyInvalidKEPayload, Data: data}}}
		n.step(n.a(), Datagram{Local: sent.Local, Remote: sent.Remote, Data: answer.AppendTo(nil)})
		if len(n.queue) != 0 {
			t.Fatalf("%x: it begins again", data)
		}
	}
	n.drop = func(Send) bool { return true }
	n.run(3 * time.Second)
	if lost, ok := said[Lost](n.a()); !ok || !strings.Contains(lost.Err.Error(), "INVALID_KE_PAYLOAD") {
		t.Errorf("lost: %v", lost.Err)
	}
}

func TestPFS(t *testing.T) {
	names := map[PFS]string{PFSAuto: "auto", PFSYes: "yes", PFSNo: "no"}
	for here, nameHere := range names {
		for there, nameThere := range names {
			t.Run(nameHere+" meets "+nameThere, func(t *testing.T) {
				n := newNetwork(t, 1, func(a, b *Peer) {
					offers(t, a, "aes256gcm16-prfsha256-x25519", "aes256gcm16-x25519")
					offers(t, b, "aes256gcm16-prfsha256-x25519", "aes256gcm16-x25519")
					a.PFS, b.PFS = here, there
				})
				n.up()
				n.mustFlow()
				if here != PFSNo && there == PFSNo && here == PFSYes || here == PFSNo && there == PFSYes {
					// Each insists on the contrary: the Child SA lives until its hard limit.
					n.step(n.a(), RekeyChild{"b"})
					n.run(5 * time.Second)
					n.mustFlow()
					if s := n.a().e.Status()[0]; s.Rekeys.Child != 0 || s.Rekeys.Failed == 0 || s.LastError == "" {
						t.Errorf("%+v", s)
					}
					return
				}
				n.rekeyed()
				want := here != PFSNo && there != PFSNo
				if c := n.a().active.Choice; (c.KE.ID != wire.KENone) != want {
					t.Errorf("%s", c)
				}
			})
		}
	}
}
