package xfrm

import "testing"

// The table of SAs grows before there is traffic, and nothing is left in it.
func TestMakeRoom(t *testing.T) {
	enterNamespace(t)
	k := opened(t)
	before, err := k.buckets()
	if err != nil {
		t.Fatal(err)
	}
	k.makeRoom()
	after, err := k.buckets()
	if err != nil || before >= room || after < room {
		t.Errorf("%d buckets, then %d: %v", before, after, err)
	}
	if left := ip(t, "xfrm state list"); left != "" {
		t.Errorf("left: %s", left)
	}
}
