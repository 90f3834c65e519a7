package xfrm

import (
	"errors"
	"strings"
	"testing"

	"ipsec-quick/apply"
)

// The number of the interface, and the mark of what leaves.
func TestInterfaceAttributes(t *testing.T) {
	const id = 0x1000007
	sa := testSA()
	sa.IfID, sa.Mark = id, apply.Mark
	m, err := newSA(sa, quirks{direction: true})
	if err != nil {
		t.Fatal(err)
	}
	p := policyEntry{apply.Policy{Selector: pair, Action: apply.Protect, Local: us, Remote: peer, ReqID: 77, SPI: 0xc1a2b3c4, IfID: id}, policyOut}
	for what, attrs := range map[string][]byte{
		"NEWSA": m.b[sizeUserSAInfo:], "ALLOCSPI": allocSPI(sa, lowestSPI, highestSPI, quirks{}).b[sizeUserSPIInfo:],
		"NEWPOLICY": newPolicy(p).b[sizePolicyInfo:], "DELPOLICY": policyID(p).b[sizePolicyID:],
	} {
		got := attribute(t, attrs, attrIfID)
		if len(got) != 4 {
			t.Errorf("%s: IF_ID %x", what, got)
			continue
		}
		checkFields(t, got, []field{{what + ": if_id", 0, false, 4, id}})
	}
	checkFields(t, attribute(t, m.b[sizeUserSAInfo:], attrSetMark), []field{{"set_mark", 0, false, 4, apply.Mark}})
	if plain := newPolicy(policyEntry{apply.Policy{Selector: pair, Action: apply.Block}, policyIn}); len(plain.b) != sizePolicyInfo {
		t.Errorf("a policy of no interface has attributes: %x", plain.b[sizePolicyInfo:])
	}
}

// Policies of one selector for several interfaces, and for none, are different ones.
func TestPoliciesOfInterfaces(t *testing.T) {
	enterNamespace(t)
	k := opened(t)
	guard := apply.Policy{Selector: pair, Action: apply.Block, Guard: true}
	for _, id := range []uint32{0, 7, 8} {
		guard.IfID = id
		for range 2 { // the second time it is there
			if err := k.SetPolicy(guard); err != nil {
				t.Fatal(err)
			}
		}
	}
	count := func(what string) int { return strings.Count(ip(t, "xfrm policy"), what) }
	if n := count("if_id"); n != 6 || count("dir ") != 9 {
		t.Errorf("%d of 6 policies of interfaces:\n%s", n, ip(t, "xfrm policy"))
	}
	// What does not come from an interface meets the one that is of none.
	if err := sendUDP(t, "10.1.0.1", "10.2.0.1", nil); err == nil {
		t.Error("a packet went out")
	}
	guard.IfID = 0
	if err := k.RemovePolicy(guard); err != nil {
		t.Fatal(err)
	}
	if err := sendUDP(t, "10.1.0.1", "10.2.0.1", nil); err != nil {
		t.Errorf("the policies of interfaces are about others' packets: %v", err)
	}
	guard.IfID = 7
	if err := k.RemovePolicy(guard); err != nil {
		t.Fatal(err)
	}
	if err := k.RemovePolicy(guard); !errors.Is(err, apply.ErrAbsent) {
		t.Errorf("removed twice: %v", err)
	}
	if n := count("if_id 0x8"); n != 3 {
		t.Errorf("%d of 3 policies are left", n)
	}
}
