//go:build linux

package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Systemd is systemd as the first process of a host, in PID, cgroup, UTS and
// mount namespaces of its own.
type Systemd struct {
	t       testing.TB
	host    *Host
	cgroups *os.File // the mount, which is at no path
	cgroup  string
	cmd     *exec.Cmd
	out     lockedBuffer
	exited  chan struct{}
	pid     string // systemd's
}

// bootScript mounts what systemd is to find, lets the test install what it wants,
// and becomes systemd. /etc, /usr and /var can be changed and nobody else sees
// it. Of this kernel only the host's network can: there are no devices but these,
// and other sysctls are read-only. Units that set up a machine, and whatever
// Debian's packages enable, are left out.
const bootScript = `
mount -t proc proc /proc
mount --bind /proc/sys /mnt
mount -o remount,bind,ro /mnt
mount --bind /proc/sys/net /mnt/net
mount --rbind /mnt /proc/sys
umount -l /mnt
mount -t cgroup2 cgroup2 /sys/fs/cgroup

mount -t tmpfs -o mode=755 dev /mnt
mkdir /mnt/net /mnt/pts /mnt/shm
for node in null zero full random urandom tty net/tun; do
	: >/mnt/$node
	mount --bind /dev/$node /mnt/$node
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts /mnt/pts
mount -t tmpfs shm /mnt/shm
ln -s pts/ptmx /mnt/ptmx
ln -s /proc/self/fd /mnt/fd
mount --rbind /mnt /dev
umount -l /mnt

mount -t tmpfs -o mode=755 changes /mnt
for dir in etc usr var; do
	mkdir /mnt/$dir /mnt/$dir.work
	mount -t overlay -o "lowerdir=/$dir,upperdir=/mnt/$dir,workdir=/mnt/$dir.work" overlay "/$dir"
done
find /etc/systemd/system /usr/lib/systemd/system -path '*.wants/*' ! -name 'systemd-journald*' -delete
rm -f /usr/lib/systemd/system-generators/*
ln -s /dev/null /etc/systemd/system/tmp.mount # it would hide a folder of the test
echo 0123456789abcdef0123456789abcdef >/etc/machine-id # else this is a first boot, which enables things
hostname "$1"

eval "$2"
mount --make-rshared / # as systemd has it on a machine: it mounts credentials for units
exec env container=lab /usr/lib/systemd/systemd --log-target=journal --show-status=no
`

// BootSystemd runs a shell script in the host, as on a machine whose disk is
// prepared, and boots systemd, whose default target is multi-user.target. It
// does not wait. At the test's end systemd is killed with all its units.
func BootSystemd(t testing.TB, h *Host, script string) *Systemd {
	t.Helper()
	s := &Systemd{t: t, host: h, exited: make(chan struct{})}
	if err := s.makeCgroup(); err != nil {
		t.Fatalf("%s: cgroup: %v", h.Name, err)
	}
	dir, err := os.Open(s.cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	s.cmd = exec.Command("unshare", "--cgroup", "--mount", "--pid", "--uts", "--fork", "--kill-child",
		"--propagation", "private", "sh", "-euc", bootScript, "sh", h.Name, script)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	s.cmd.WaitDelay = 3 * time.Second
	s.cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if err := h.Do(s.cmd.Start); err != nil {
		t.Fatalf("%s: %v", h.Name, err)
	}
	go func() {
		_ = s.cmd.Wait() // killed, or the test misses it
		close(s.exited)
	}()
	t.Cleanup(s.end)
	if !Poll(Timeout, func() bool {
		s.pid = strings.TrimSpace(h.Exec("pgrep", "-x", "-P", fmt.Sprint(s.cmd.Process.Pid), "systemd").Stdout)
		select {
		case <-s.exited:
			return true
		default:
			return s.pid != ""
		}
	}) || s.pid == "" {
		t.Fatalf("%s: systemd is not there:\n%s", h.Name, s.out.String())
	}
	return s
}

// cgroupPattern is the name of a systemd's cgroup.
const cgroupPattern = "ipsec-quick-lab-*"

// makeCgroup makes a cgroup below this process's own.
func (s *Systemd) makeCgroup() error {
	fsfd, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fsfd)
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return os.NewSyscallError("fsconfig", err)
	}
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fsmount", err)
	}
	s.cgroups = os.NewFile(uintptr(fd), "cgroup2")
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	own := ""
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			own = strings.TrimSpace(path)
		}
	}
	s.cgroup, err = os.MkdirTemp(filepath.Join(fmt.Sprintf("/proc/self/fd/%d", fd), own), cgroupPattern)
	return err
}

// end kills everything, and wants nothing to be left.
func (s *Systemd) end() {
	if s.t.Failed() {
		s.t.Logf("%s: systemd:\n%s\n%s", s.host.Name, s.out.String(), s.Exec("journalctl", "--no-pager", "-o", "short-precise", "-n", "300"))
	}
	_ = s.cmd.Process.Kill() // its child goes with it, and that one's namespace
	<-s.exited
	if !Poll(10*time.Second, func() bool { return removeCgroup(s.cgroup) == nil }) {
		s.t.Errorf("%s: cgroup: %v", s.host.Name, removeCgroup(s.cgroup))
	}
	_ = s.cgroups.Close()
}

// removeCgroup removes a cgroup without processes and those below it.
func removeCgroup(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeCgroup(filepath.Join(path, e.Name())))
		}
	}
	return errors.Join(err, os.Remove(path))
}

// Exec runs a command beside systemd until it ends and says how.
func (s *Systemd) Exec(argv ...string) Result {
	return s.host.Exec(append([]string{"nsenter", "--target", s.pid, "--mount", "--pid", "--cgroup", "--uts", "--net", "--"}, argv...)...)
}

// Run runs a command that must succeed and returns its stdout.
func (s *Systemd) Run(argv ...string) string {
	s.t.Helper()
	r := s.Exec(argv...)
	if r.Err != nil {
		s.t.Fatalf("%s: %s: %v\n%s", s.host.Name, strings.Join(argv, " "), r.Err, r)
	}
	return strings.TrimSpace(r.Stdout)
}

// Show returns a property of a unit (systemctl show).
func (s *Systemd) Show(unit, property string) string {
	s.t.Helper()
	return s.Run("systemctl", "show", "--value", "--property", property, unit)
}
