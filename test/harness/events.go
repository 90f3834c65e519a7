//go:build linux

package harness

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// EventSocket is the netlink socket on which a loop hears of the kernel's
// expires, seen from outside the loop.
type EventSocket struct {
	t     testing.TB
	host  *Host
	pid   int
	fd    int // in the loop's process
	inode string
}

// EventSocket finds the loop's socket.
func (q *Quick) EventSocket() *EventSocket {
	q.t.Helper()
	s := &EventSocket{t: q.t, host: q.Host, pid: q.PID()}
	listeners := map[string]bool{}
	for _, f := range s.table() {
		if groups, err := strconv.ParseUint(f[3], 16, 32); err == nil && groups != 0 {
			listeners[f[9]] = true
		}
	}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.pid))
	if err != nil {
		q.t.Fatal(err)
	}
	for _, path := range fds {
		target, err := os.Readlink(path)
		inode, ok := strings.CutPrefix(target, "socket:[")
		if inode = strings.TrimSuffix(inode, "]"); err != nil || !ok || !listeners[inode] {
			continue
		}
		s.inode = inode
		if s.fd, err = strconv.Atoi(filepath.Base(path)); err != nil {
			q.t.Fatal(err)
		}
		return s
	}
	q.t.Fatalf("%s: process %d listens to no XFRM events", q.Host.Name, s.pid)
	return nil
}

// table is /proc/net/netlink of the host: its XFRM sockets, by column.
func (s *EventSocket) table() [][]string {
	s.t.Helper()
	var rows [][]string
	err := s.host.Do(func() error {
		f, err := os.Open("/proc/thread-self/net/netlink")
		if err != nil {
			return err
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			// sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
			if c := strings.Fields(lines.Text()); len(c) >= 10 && c[1] == fmt.Sprint(unix.NETLINK_XFRM) {
				rows = append(rows, c)
			}
		}
		return lines.Err()
	})
	if err != nil {
		s.t.Fatalf("%s: %v", s.host.Name, err)
	}
	return rows
}

// Shrink makes the socket's receive buffer as small as the kernel allows, which
// is a few events, and returns its size in bytes.
func (s *EventSocket) Shrink() int {
	s.t.Helper()
	process, err := unix.PidfdOpen(s.pid, 0)
	if err != nil {
		s.t.Fatalf("pidfd_open: %v", err)
	}
	defer unix.Close(process)
	fd, err := unix.PidfdGetfd(process, s.fd, 0)
	if err != nil {
		s.t.Fatalf("pidfd_getfd: %v", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil {
		s.t.Fatalf("SO_RCVBUF: %v", err)
	}
	size, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err != nil {
		s.t.Fatalf("SO_RCVBUF: %v", err)
	}
	return size
}

// Drops is how many events the kernel could not put into the buffer.
func (s *EventSocket) Drops() int {
	s.t.Helper()
	for _, c := range s.table() {
		if c[9] == s.inode {
			n, err := strconv.Atoi(c[8])
			if err != nil {
				s.t.Fatal(err)
			}
			return n
		}
	}
	s.t.Fatalf("%s: the loop's socket is gone", s.host.Name)
	return 0
}
