package userspace_test

import (
	"log/slog"
	"testing"

	"ipsec-quick/apply"
	"ipsec-quick/apply/applytest"
	"ipsec-quick/apply/userspace"
	"ipsec-quick/apply/userspace/steer"
)

// TestDataplane is what the data planes have in common.
func TestDataplane(t *testing.T) {
	applytest.Run(t, func(dir string) (apply.Dataplane, error) {
		const name = "quick0"
		log := slog.New(slog.DiscardHandler)
		return userspace.Open(userspace.Options{
			Dir: dir, Name: name, Mark: apply.Mark, Log: log, Change: func(string) {},
			Steering: steer.Open(steer.Options{Device: name, Ports: []uint16{500, 4500, 4501}, Log: log, Change: func(string) {}}),
		})
	})
}
