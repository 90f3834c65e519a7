//go:build lab

// Package lab_test holds the tests that need root, namespaces, a real kernel
// with ESP and a real peer. Compile them on the host and run them in the lab:
//
//	CGO_ENABLED=0 go build -o bin/ ./cmd/...
//	CGO_ENABLED=0 go test -c -tags lab -o bin/lab.test ./test
//	test/lab/run bin/lab.test -test.v
//
// With -dataplane userspace ipsec-quick does ESP itself. In the VM strongSwan goes
// on to use the kernel's; elsewhere its plugin kernel-libipsec, so that any kernel
// will do:
//
//	IPSEC_QUICK_LAB=native test/lab/run bin/lab.test -dataplane userspace
package lab_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"ipsec-quick/test/harness"
)

// parallel is how many tests run at once unless -test.parallel says otherwise:
// they wait for each other's timers more than they compute.
const parallel = "5"

var dataplane = flag.String("dataplane", harness.Dataplane, "what does ESP: kernel or userspace")

// inUserspace says whether ESP is done outside the kernel.
func inUserspace() bool { return harness.Dataplane == harness.Userspace }

// espKind is how ESP crosses the link of two hosts with no NAT between them.
func espKind() harness.Kind {
	if inUserspace() {
		return harness.KindESPinUDP
	}
	return harness.KindESP
}

// kernelOnly skips a test of what only the kernel's data plane has.
func kernelOnly(t *testing.T) {
	t.Helper()
	if inUserspace() {
		t.Skip("about ESP in the kernel")
	}
}

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getuid() != 0 || os.Getenv("LAB") == "" {
		fmt.Fprintln(os.Stderr, "these tests change the machine they run on: test/lab/run bin/lab.test")
		os.Exit(1)
	}
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		if err := flag.Set("test.parallel", parallel); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	harness.Dataplane, harness.Timeout = *dataplane, form(harness.Timeout, 5*time.Minute)
	harness.Libipsec = inUserspace() && os.Getenv("LAB") != "vm"
	start := time.Now()
	if err := warm(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	harness.PrintTable(os.Stdout)
	if err := printTranscript(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("\nlab tests: %.1f s\n", time.Since(start).Seconds())
	os.Exit(code)
}

// warm has the kernel load the algorithms, in a network namespace that goes
// away: under emulation that takes seconds, which belong to no test.
func warm() error {
	if inUserspace() {
		return nil
	}
	algorithms := []string{
		"aead rfc4106(gcm(aes)) 0x" + strings.Repeat("00", 20) + " 128",
		"aead rfc7539esp(chacha20,poly1305) 0x" + strings.Repeat("00", 36) + " 128",
	}
	for name, size := range map[string]int{"sha256": 32, "sha384": 48, "sha512": 64} {
		algorithms = append(algorithms, fmt.Sprintf("enc cbc(aes) 0x%s auth-trunc hmac(%s) 0x%s %d",
			strings.Repeat("00", 16), name, strings.Repeat("00", size), size*4))
	}
	var batch strings.Builder
	for i, a := range algorithms {
		fmt.Fprintf(&batch, "xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x%x mode tunnel %s\n", 0xc0000001+i, a)
	}
	// In the VM, not on a host whose kernel others use: the modules are known,
	// so the kernel need not ask modprobe for every name that might be one.
	const helper = "/proc/sys/kernel/modprobe"
	if os.Getenv("LAB") == "vm" {
		path, err := os.ReadFile(helper)
		if err != nil {
			return err
		}
		modules := strings.Fields("-qa gcm ghash_clmulni_intel ghash_generic seqiv chacha20poly1305 " +
			"chacha_x86_64 chacha_generic poly1305_x86_64 poly1305_generic authenc echainiv")
		if out, err := exec.Command("modprobe", modules...).CombinedOutput(); err != nil {
			return fmt.Errorf("modprobe: %v: %s", err, out)
		}
		if err := os.WriteFile(helper, []byte("\n"), 0); err != nil {
			return err
		}
		defer func() { _ = os.WriteFile(helper, path, 0) }()
	}
	cmd := exec.Command("unshare", "--net", "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(batch.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("the kernel does not have all algorithms of ESP: %v\n%s", err, out)
	}
	return nil
}
