//go:build lab

// Package lab_test holds the tests that need root, namespaces, a real kernel
// with ESP and a real peer. Compile them on the host and run them in the lab:
//
//	CGO_ENABLED=0 go build -o bin/ipsec-quick ./cmd/ipsec-quick
//	CGO_ENABLED=0 go test -c -tags lab -o bin/lab.test ./test
//	test/lab/run bin/lab.test -test.v
package lab_test

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getuid() != 0 || os.Getenv("LAB") == "" {
		fmt.Fprintln(os.Stderr, "these tests change the machine they run on: test/lab/run bin/lab.test")
		os.Exit(1)
	}
	start := time.Now()
	code := m.Run()
	harness.PrintTable(os.Stdout)
	fmt.Printf("\nlab tests: %.1f s\n", time.Since(start).Seconds())
	os.Exit(code)
}
