//go:build lab

package lab_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/test/harness"
)

// TestSecrets runs whole tunnels at the debug level and looks for their keys in
// all that can be seen from outside: what the commands print, the logs, the files
// but those of the state, the arguments and the environment of the processes, and
// what a loop says that is made to crash.
func TestSecrets(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"pre-shared key", "raw keys"} {
		row := harness.NewRow("9. No key in sight", by, "both ends")
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			row.Of(t)
			n := harness.NewNet(t, "a", "b")
			ends, keys := secretEnds(t, n, by == "raw keys")
			s := &seen{keys: keys}
			stop := s.watchProcesses(t, n.Hosts)
			a, b := ends[0], ends[1]
			for _, q := range []*harness.Quick{b, a} {
				s.command(t, q, "up")
				confinedLoop(t, q)
			}
			s.collect(t, ends)
			var monitors []*harness.Running
			if strings.Contains(a.Exec("--help").Stdout, "monitor") {
				monitors = append(monitors, a.Start("monitor", a.Name, "--json"), b.Start("monitor", b.Name))
			}
			for _, q := range ends {
				for _, args := range [][]string{{"rekey"}, {"rekey", "--ike"}, {"status"}, {"status", "--json"}, {"restart"}, {"rekey"}} {
					s.command(t, q, args...)
					s.collect(t, ends)
				}
				confinedLoop(t, q)
			}
			for _, m := range monitors {
				m.Signal(syscall.SIGINT)
				s.add("monitor", m.Wait(5*time.Second).Stdout)
			}
			for _, q := range ends {
				crash(t, q)
				s.command(t, q, "up")
				s.command(t, q, "rekey", "--ike")
				s.collect(t, ends)
			}
			for _, q := range ends {
				s.command(t, q, "down")
			}
			stop()
			s.check(t)
			row.Notef("%d keys, %d KiB looked through", len(s.keys), s.text.Len()>>10)
		})
	}
}

// secretEnds are two tunnels and the keys that they are given.
func secretEnds(t *testing.T, n *harness.Net, raw bool) (ends []*harness.Quick, keys map[string][]byte) {
	t.Helper()
	files := []quickFile{between(n.A(), n.B()), between(n.B(), n.A())}
	files[1].start = "passive"
	keys = map[string][]byte{}
	if !raw {
		psk := rand.Text() + rand.Text()
		keys["PSK"] = []byte(psk)
		for i, h := range n.Hosts[:2] {
			files[i].psk = psk
			ends = append(ends, harness.NewQuick(t, h, "tunnel"+h.Name, files[i].String()))
		}
		return ends, keys
	}
	for i, h := range n.Hosts[:2] {
		files[i].psk, files[i].more = noPSK, `public_key = "PUBLIC-KEY"`
		ends = append(ends, harness.NewQuick(t, h, "tunnel"+h.Name, files[i].String()))
	}
	for i, h := range n.Hosts[:2] {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		text := privatePEM(t, key)
		block, _ := pem.Decode([]byte(text))
		keys["private key of "+h.Name] = key.Seed()
		keys["PKCS #8 of "+h.Name] = block.Bytes[len(block.Bytes)-ed25519.SeedSize-2:] // from the octet string on
		h.WriteFile("/etc/ipsec-quick/own.key", text)
		files[1-i].more = fmt.Sprintf("public_key = %q", quickPublicKey(t, ends[i], key))
	}
	for i, h := range n.Hosts[:2] {
		toml := strings.Replace(files[i].String(), "[local]\n", "[local]\nkey_file = \"own.key\"\n", 1)
		h.WriteFile("/etc/ipsec-quick/"+ends[i].Name+".toml", toml)
	}
	return ends, keys
}

// confinedLoop checks what a loop has kept of its privileges.
func confinedLoop(t *testing.T, q *harness.Quick) {
	t.Helper()
	path := fmt.Sprintf("/proc/%d/status", q.PID())
	kept := "0000000000001400" // NET_ADMIN, NET_BIND_SERVICE
	if inUserspace() {
		kept = "0000000000003400" // and NET_RAW
	}
	within(t, 5*time.Second, q.Name+" has given up the capabilities that it does not need", func() bool {
		status, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{"CapEff:\t" + kept + "\n", "CapPrm:\t" + kept + "\n", "CapBnd:\t" + kept + "\n", "NoNewPrivs:\t1\n"} {
			if !strings.Contains(string(status), line) {
				return false
			}
		}
		return true
	})
}

// crash makes a loop end with all that the runtime has to say, into its log, and
// without a core file, which everybody might read.
func crash(t *testing.T, q *harness.Quick) {
	t.Helper()
	pid := q.PID()
	infinite := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Prlimit(pid, unix.RLIMIT_CORE, &infinite, nil); err != nil {
		t.Fatal(err)
	}
	q.Host.Signal(pid, syscall.SIGABRT)
	within(t, 20*time.Second, "the loop ended", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d/cmdline", pid))
		return err != nil
	})
	if cores := q.Host.Shell("ls /core* 2>/dev/null || true"); cores != "" {
		t.Errorf("%s left %s", q.Name, cores)
	}
}

// seen is what can be seen from outside, and the keys that must not be in it.
type seen struct {
	mu   sync.Mutex
	text bytes.Buffer
	keys map[string][]byte // by what they are
}

func (s *seen) add(what, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(&s.text, "\n==== %s\n%s\n", what, text)
}

// command runs a command on a tunnel, which must succeed, and keeps what it says.
func (s *seen) command(t *testing.T, q *harness.Quick, args ...string) {
	t.Helper()
	full := append([]string{args[0], q.Name}, args[1:]...)
	r := q.ExecEnv([]string{"IPSEC_QUICK_LOG=debug", "GOTRACEBACK=crash"}, full...)
	if r.Err != nil {
		t.Errorf("%s: %v: %s", q.Name, full, r)
	}
	s.add(strings.Join(full, " "), r.String())
}

var kernelKey = regexp.MustCompile(`0x([0-9a-f]{32,})`)

// ikeState is what a state file has of the keys of IKE SAs; gob finds its fields
// by their names.
type ikeState struct {
	SAs []*struct {
		Keys struct{ D, Ai, Ar, Ei, Er, Pi, Pr octets }
	}
}

type octets []byte

func (o *octets) GobDecode(b []byte) error {
	*o = bytes.Clone(b)
	return nil
}

// collect keeps the files of all ends, and the keys that they use now.
func (s *seen) collect(t *testing.T, ends []*harness.Quick) {
	t.Helper()
	for _, q := range ends {
		if !inUserspace() {
			for _, found := range kernelKey.FindAllStringSubmatch(q.Host.Run("ip", "xfrm", "state"), -1) {
				key, err := hex.DecodeString(found[1])
				if err != nil {
					t.Fatal(err)
				}
				s.keys["ESP "+found[1][:8]] = key
			}
		}
		for line := range strings.Lines(q.Host.Run("find", "/run/ipsec-quick", "-printf", "%y %m %p\n")) {
			s.add("file", line)
			f := strings.Fields(line)
			if want := map[string]string{"d": "700", "f": "600", "s": "600"}[f[0]]; f[1] != want {
				t.Errorf("%s: %s has mode %s, not %s", q.Host.Name, f[2], f[1], want)
			}
			switch {
			case f[0] != "f":
			case strings.HasSuffix(f[2], ".state"):
				s.state(t, q.Host.Run("cat", f[2]))
			case inUserspace() && strings.HasSuffix(f[2], "/sad"):
				s.records([]byte(q.Host.Run("cat", f[2])))
			case strings.HasSuffix(f[2], ".new"): // about to replace another
			default: // it may have gone since
				s.add(f[2], q.Host.Run("sh", "-c", `cat "$0" 2>/dev/null || true`, f[2]))
			}
		}
	}
}

// state takes the keys of the IKE SAs of a state file.
func (s *seen) state(t *testing.T, file string) {
	t.Helper()
	_, snapshot, _ := strings.Cut(file, "\n")
	var state ikeState
	if err := gob.NewDecoder(strings.NewReader(snapshot)).Decode(&state); err != nil {
		t.Fatalf("state file: %v", err)
	}
	for _, sa := range state.SAs {
		k := sa.Keys
		for name, key := range map[string]octets{
			"SK_d": k.D, "SK_ai": k.Ai, "SK_ar": k.Ar, "SK_ei": k.Ei, "SK_er": k.Er, "SK_pi": k.Pi, "SK_pr": k.Pr,
		} {
			if len(key) > 0 { // AES-GCM has no SK_ai and SK_ar
				s.keys[fmt.Sprintf("%s %x", name, key[:4])] = key
			}
		}
	}
}

// records takes the keys of ESP of a file of SAs, where each stands behind the
// name of its algorithm (24 octets), the length of that and its own.
func (s *seen) records(file []byte) {
	for _, record := range bytes.Split(file, []byte("aes-gcm-16"))[1:] {
		const name = 24 - len("aes-gcm-16")
		if len(record) < name+2 || len(record) < name+2+int(record[name+1]) {
			continue
		}
		if key := record[name+2:][:record[name+1]]; len(key) > 0 {
			s.keys[fmt.Sprintf("ESP %x", key[:4])] = key
		}
	}
}

// watchProcesses keeps the arguments and environments of our processes until it
// is stopped.
func (s *seen) watchProcesses(t *testing.T, hosts []*harness.Host) (stop func()) {
	quit := make(chan struct{})
	var done sync.WaitGroup
	known := map[string]bool{}
	done.Go(func() {
		for {
			asked := time.Now()
			for _, h := range hosts {
				for _, p := range h.Processes() {
					folder := filepath.Join("/proc", strconv.Itoa(p.PID))
					arguments, _ := os.ReadFile(filepath.Join(folder, "cmdline")) // it may have ended
					environment, _ := os.ReadFile(filepath.Join(folder, "environ"))
					if text := string(arguments) + "\n" + string(environment); !known[text] {
						known[text] = true
						s.add("process "+p.String(), text)
					}
				}
			}
			select {
			case <-quit:
				return
			case <-time.After(harness.Rest(asked, 100*time.Millisecond)):
			}
		}
	})
	return sync.OnceFunc(func() {
		close(quit)
		done.Wait()
		if len(known) < 2 {
			t.Error("no process was seen")
		}
	})
}

// forms are how a key may look in a text, from its first octets on: enough of
// them that no chance brings them there.
func forms(key []byte) [][]byte {
	const octets = 12 // a multiple of 3, for base64
	k := key[:min(octets, len(key))]
	var spaced, comma, goSyntax []string
	for _, b := range k {
		spaced = append(spaced, strconv.Itoa(int(b)))
		comma = append(comma, strconv.Itoa(int(b)))
		goSyntax = append(goSyntax, fmt.Sprintf("%#x", b))
	}
	quoted := strconv.Quote(string(k))
	all := [][]byte{k}
	for _, text := range []string{
		hex.EncodeToString(k), strings.ToUpper(hex.EncodeToString(k)), fmt.Sprintf("% x", k),
		base64.StdEncoding.EncodeToString(k), base64.URLEncoding.EncodeToString(k),
		strings.Join(spaced, " "), strings.Join(comma, ", "), strings.Join(comma, ","), strings.Join(goSyntax, ", "),
		quoted[1 : len(quoted)-1],
	} {
		all = append(all, []byte(text))
	}
	return all
}

// find returns what of the keys is in a text.
func find(text []byte, keys map[string][][]byte) (found []string) {
	for name, all := range keys {
		for _, form := range all {
			if i := bytes.Index(text, form); i >= 0 {
				before := text[:i]
				part := before[max(0, bytes.LastIndex(before, []byte("\n==== "))):]
				head, _, _ := strings.Cut(strings.TrimSpace(string(part)), "\n")
				found = append(found, fmt.Sprintf("%s as %q in %s", name, form, head))
			}
		}
	}
	return found
}

// check looks for the keys, and proves that it would have found them.
func (s *seen) check(t *testing.T) {
	t.Helper()
	keys, kinds := map[string][][]byte{}, map[string]bool{}
	for name, key := range s.keys {
		keys[name] = forms(key)
		kind, _, _ := strings.Cut(name, " ")
		kinds[kind] = true
	}
	for _, what := range find(s.text.Bytes(), keys) {
		t.Error(what)
	}
	for name, all := range keys {
		for _, form := range all {
			planted := fmt.Appendf(nil, "\n==== planted\nlevel=DEBUG key=%s more", form)
			if len(find(planted, map[string][][]byte{name: all})) == 0 {
				t.Errorf("%s is not found as %q", name, form)
			}
		}
	}
	for _, kind := range []string{"ESP", "SK_d", "SK_ei", "SK_er", "SK_pi", "SK_pr"} {
		if !kinds[kind] {
			t.Errorf("the test knows no key %s", kind)
		}
	}
	for _, part := range []string{"level=DEBUG", "SIGABRT", "goroutine ", "IPSEC_QUICK_LOG=debug", `"watch_pid"`, "<hidden>"} {
		if !bytes.Contains(s.text.Bytes(), []byte(part)) {
			t.Errorf("nothing with %q was looked through", part)
		}
	}
}
