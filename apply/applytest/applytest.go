// Package applytest tests that a data plane does what package apply says. It is
// run over each of them: what it finds the same is what a tunnel may rely on.
//
// Two hosts are network namespaces, so it takes root and iproute2.
package applytest

import (
	"testing"

	"ipsec-quick/apply"
)

// An Opener opens the data plane of a host. The calling thread is in the host's
// network namespace, and so it is whenever a method of it is called. dir is empty,
// and the host's own.
type Opener func(dir string) (apply.Dataplane, error)

// Run tests the data plane that open opens.
func Run(t *testing.T, open Opener) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Opener)
	}{
		{"Algorithms", testAlgorithms},
		{"Limits", testLimits},
		{"SwitchOutbound", testSwitchOutbound},
		{"UpdateSA", testUpdateSA},
		{"Reservations", testReservations},
		{"Trap", testTrap},
		{"Guard", testGuard},
		{"Fragments", testFragments},
		{"Drops", testDrops},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // they have hosts of their own, and wait for seconds to pass
			test.run(t, open)
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
