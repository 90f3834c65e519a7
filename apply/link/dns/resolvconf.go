package dns

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// resolvconf is the program, by PATH.
const resolvconf = "resolvconf"

func haveResolvconf() bool {
	_, err := exec.LookPath(resolvconf)
	return err == nil
}

// orderFile has, with Debian's resolvconf, what comes before what in resolv.conf.
var orderFile = "/etc/resolvconf/interface-order"

// record is the name of what a device has there, behind which the device's own
// stays free. Debian's sorts by patterns of devices' names: "tun.office" is like
// tun0, before what the links have.
func record(device string) string {
	name := device + ".ipsec-quick"
	f, err := os.Open(orderFile)
	if err != nil {
		return name
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if strings.TrimSpace(lines.Text()) == "tun*" {
			return "tun." + name
		}
	}
	return name
}

// ResolvconfSet is a line for the shell that does what Set does with Resolvconf.
// -m and -x make the servers the ones that are asked, with openresolv and systemd's;
// Debian's takes no notice.
func ResolvconfSet(device string, c Config) string {
	var lines []string
	for _, s := range c.Servers {
		lines = append(lines, fmt.Sprintf("'nameserver %v'", s))
	}
	var search []string
	for _, d := range c.Domains {
		if !routing(d) {
			search = append(search, d)
		}
	}
	if len(search) > 0 {
		lines = append(lines, "'search "+strings.Join(search, " ")+"'")
	}
	return `printf '%s\n' ` + strings.Join(lines, " ") + " | " + resolvconf + " -a " + record(device) + " -m 0 -x"
}

// ResolvconfRevert is the same for Revert.
func ResolvconfRevert(device string) string { return resolvconf + " -d " + record(device) }

func runShell(ctx context.Context, line string, change func(string)) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", line)
	cmd.Dir = "/"
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // all of it ends in time
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it has started a daemon, perhaps
	}
	if said := strings.TrimSpace(string(out)); err != nil && said != "" {
		err = fmt.Errorf("%w: %.300s", err, said)
	}
	if err != nil {
		return fmt.Errorf("`%s`: %w", line, err)
	}
	change(line)
	return nil
}
