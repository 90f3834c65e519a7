//go:build linux

package harness

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// charonPath is the daemon as Debian's strongswan-charon installs it.
const charonPath = "/usr/lib/ipsec/charon"

// charonPlugins is all that the tests need, named so that no test depends on
// what a package enables.
const charonPlugins = "random nonce openssl pem pkcs1 pkcs8 x509 revocation constraints pubkey " +
	"aes sha1 sha2 hmac kdf gcm chapoly curve25519 drbg counters " +
	"kernel-netlink socket-default vici updown"

// libipsecPlugin is strongSwan's ESP in user space. It takes ESP from
// kernel-netlink, which still does addresses and routes, when it comes first.
const libipsecPlugin = "kernel-libipsec"

// swanctlPlugins is what swanctl needs to read keys; without keys it starts
// much faster without them.
const swanctlPlugins = "openssl pem pkcs1 pkcs8 x509 pubkey random nonce"

// Charon is a strongSwan daemon in a host.
type Charon struct {
	Host *Host

	t   testing.TB
	cmd *exec.Cmd
	log *lockedBuffer

	mu     sync.Mutex
	exited chan struct{}
	state  string // how it ended
}

// lockedBuffer is a buffer that a process writes while a test reads it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// tail returns the last lines of a text.
func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(all) <= lines {
		return text
	}
	return fmt.Sprintf("[%d lines more]\n%s", len(all)-lines, strings.Join(all[len(all)-lines:], "\n"))
}

// StartCharon starts strongSwan in a host. settings are lines for the charon
// section of strongswan.conf. The daemon is stopped at the test's end, and its
// log printed if the test failed.
func StartCharon(t testing.TB, h *Host, settings ...string) *Charon {
	t.Helper()
	plugins := charonPlugins
	if Libipsec {
		plugins = libipsecPlugin + " " + plugins
	}
	h.WriteFile("/run/strongswan.conf", fmt.Sprintf(`charon {
		load = %s
		retransmit_base = 1.5
		retransmit_timeout = 1.0
		filelog {
			stderr {
				time_format = %%H:%%M:%%S
				time_add_ms = yes
				flush_line = yes
				default = 1
			}
		}
		%s
	}
	`, plugins, strings.Join(settings, "\n\t\t")))
	h.WriteFile("/run/swanctl.conf", "swanctl {\n\tload = pem\n}\n")
	h.WriteFile("/run/swanctl-keys.conf", "swanctl {\n\tload = "+swanctlPlugins+"\n}\n")
	c := &Charon{Host: h, t: t, log: &lockedBuffer{}, exited: make(chan struct{})}
	err := h.Do(func() error {
		c.cmd = exec.Command(charonPath)
		c.cmd.Env = append(os.Environ(), "STRONGSWAN_CONF=/run/strongswan.conf")
		c.cmd.Stdout, c.cmd.Stderr = c.log, c.log
		return c.cmd.Start()
	})
	if err != nil {
		t.Fatalf("%s: %v", h.Name, err)
	}
	go func() {
		err := c.cmd.Wait()
		c.mu.Lock()
		c.state = fmt.Sprint(err)
		c.mu.Unlock()
		close(c.exited)
	}()
	t.Cleanup(func() {
		c.Stop()
		if t.Failed() {
			t.Logf("strongSwan in %s, %s:\n%s", h.Name, c.state, tail(c.log.String(), 300))
		}
	})
	if !Poll(20*time.Second, c.answers) {
		t.Fatalf("%s: strongSwan does not start:\n%s", h.Name, c.log)
	}
	return c
}

// answers says whether the daemon accepts commands.
func (c *Charon) answers() bool {
	return c.Host.Do(func() error {
		conn, err := net.Dial("unix", "/run/charon.vici")
		if err != nil {
			return err
		}
		return conn.Close()
	}) == nil
}

// PID is the daemon's process id.
func (c *Charon) PID() int { return c.cmd.Process.Pid }

// Running says whether the process is there.
func (c *Charon) Running() bool {
	select {
	case <-c.exited:
		return false
	default:
		return true
	}
}

// Log is what the daemon has logged so far.
func (c *Charon) Log() string { return c.log.String() }

// Stop ends the daemon in the orderly way, in which it tells its peers; a
// daemon that does not end in time is killed.
func (c *Charon) Stop() {
	c.end(syscall.SIGTERM)
}

// Kill ends the daemon with SIGKILL; its SAs stay in the kernel.
func (c *Charon) Kill() {
	c.end(syscall.SIGKILL)
}

func (c *Charon) end(sig syscall.Signal) {
	if !c.Running() {
		return
	}
	// A frozen one would never hear of it. Errors mean that it has just gone.
	_ = c.cmd.Process.Signal(syscall.SIGCONT)
	_ = c.cmd.Process.Signal(sig)
	select {
	case <-c.exited:
	case <-time.After(15 * time.Second):
		_ = c.cmd.Process.Kill()
		<-c.exited
	}
}

// Freeze stops the process where it is, until Thaw.
func (c *Charon) Freeze() { c.Host.Signal(c.PID(), syscall.SIGSTOP) }

// Thaw lets a frozen process go on.
func (c *Charon) Thaw() { c.Host.Signal(c.PID(), syscall.SIGCONT) }

// Load writes swanctl.conf and keys and loads them, in place of what was loaded
// before. A key's name is its path below /etc/swanctl.
func (c *Charon) Load(conf string, keys map[string]string) {
	c.t.Helper()
	err := c.Host.Do(func() error {
		for _, dir := range []string{"private", "pubkey"} {
			if err := os.RemoveAll("/etc/swanctl/" + dir); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		c.t.Fatalf("%s: %v", c.Host.Name, err)
	}
	c.Host.WriteFile("/etc/swanctl/swanctl.conf", conf)
	settings := "/run/swanctl.conf"
	for path, text := range keys {
		c.Host.WriteFile("/etc/swanctl/"+path, text)
		settings = "/run/swanctl-keys.conf"
	}
	r := c.Host.ExecEnv([]string{"STRONGSWAN_CONF=" + settings}, "swanctl", "--load-all", "--noprompt", "--clear")
	if r.Err != nil {
		c.t.Fatalf("%s: swanctl: %s\n%s", c.Host.Name, r, conf)
	}
}

// Swanctl runs swanctl, as Debian configures it, and says how it ended.
func (c *Charon) Swanctl(args ...string) Result {
	return c.Host.Exec(append([]string{"swanctl"}, args...)...)
}

// Use makes another test, a subtest, the one that failures belong to, until it
// ends.
func (c *Charon) Use(t testing.TB) {
	before := c.t
	c.t = t
	t.Cleanup(func() { c.t = before })
}
