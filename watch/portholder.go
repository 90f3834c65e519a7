package watch

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// udpInodes are the sockets of this network namespace that are bound to a local
// UDP port, by inode (Documentation/networking/proc_net_tcp.rst; udp alike). With
// open those that are connected, which get datagrams of one peer only, as those of
// ESP in user space, are left out.
func udpInodes(port uint16, open bool) []uint64 {
	var inodes []uint64
	for _, name := range []string{"/proc/self/net/udp", "/proc/self/net/udp6"} {
		f, err := os.Open(name)
		if err != nil {
			continue // IPv6 may be off
		}
		suffix := fmt.Sprintf(":%04X", port)
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			fields := strings.Fields(lines.Text())
			if len(fields) < 10 || !strings.HasSuffix(fields[1], suffix) || open && !strings.HasSuffix(fields[2], ":0000") {
				continue
			}
			if inode, err := strconv.ParseUint(fields[9], 10, 64); err == nil && inode != 0 {
				inodes = append(inodes, inode)
			}
		}
		_ = f.Close()
	}
	return inodes
}

// socketsOf are the inodes of the sockets that a process has open.
func socketsOf(pid int) []uint64 {
	folder := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, _ := os.ReadDir(folder) // the process may have ended, or be another user's
	var inodes []uint64
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(folder, e.Name()))
		if err != nil {
			continue
		}
		digits, isSocket := strings.CutPrefix(target, "socket:[")
		if !isSocket {
			continue
		}
		if inode, err := strconv.ParseUint(strings.TrimSuffix(digits, "]"), 10, 64); err == nil {
			inodes = append(inodes, inode)
		}
	}
	return inodes
}

// holder looks for a process that has one of the sockets open, and returns which.
func holder(inodes []uint64) (pid int, inode uint64) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, 0
	}
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		for _, inode := range socketsOf(n) {
			if slices.Contains(inodes, inode) {
				return n, inode
			}
		}
	}
	return 0, 0
}

// processName is the program of a process: its command's file name, or what the
// kernel calls it.
func processName(pid int) string {
	folder := filepath.Join("/proc", strconv.Itoa(pid))
	if line, err := os.ReadFile(filepath.Join(folder, "cmdline")); err == nil {
		if command, _, _ := strings.Cut(string(line), "\x00"); command != "" {
			return filepath.Base(command)
		}
	}
	comm, _ := os.ReadFile(filepath.Join(folder, "comm")) // it may have ended meanwhile
	return strings.TrimSpace(string(comm))
}

// portHeld is the error for a port that cannot be bound.
func portHeld(port uint16) *PortHeld {
	held := &PortHeld{Port: port}
	if pid, _ := holder(udpInodes(port, false)); pid != 0 {
		held.PID, held.Name = pid, processName(pid)
	}
	return held
}

// foreignHolder looks whether a port that we could bind, because SO_REUSEPORT
// allows it, is shared with a program that is not ours: it would take a part of
// our datagrams. ours are the sockets that are welcome there, asked for when those
// that are there are known: tunnels come up at any time.
func foreignHolder(ports []uint16, ours func() []uint64) *PortHeld {
	foreign := map[uint64]uint16{} // the port, by inode
	for _, port := range ports {
		for _, inode := range udpInodes(port, true) {
			foreign[inode] = port
		}
	}
	for _, inode := range ours() {
		delete(foreign, inode)
	}
	if len(foreign) == 0 {
		return nil
	}
	pid, inode := holder(slices.Sorted(maps.Keys(foreign)))
	if pid == 0 {
		return nil // closed meanwhile, or somebody's who hides it; the bind was allowed
	}
	return &PortHeld{Port: foreign[inode], PID: pid, Name: processName(pid)}
}

// lookForOthers finds out, without keeping anybody waiting, whether a program
// that is not ours shares the ports with us.
func (u *upRun) lookForOthers() {
	l := u.loop
	u.looked = make(chan struct{})
	if u.revived {
		close(u.looked)
		return
	}
	go func() {
		u.held = u.otherHolder()
		close(u.looked)
		if u.held != nil {
			l.call(func() { l.fault = u.held })
		}
	}()
}

// otherHolder is a program that is not ours and shares one of the ports. A tunnel
// that is just being handed from one process to another looks like that too, so it
// takes a second look.
func (u *upRun) otherHolder() *PortHeld {
	held := u.lookForHolder()
	if held != nil {
		time.Sleep(lookAgain)
		held = u.lookForHolder()
	}
	return held
}

const lookAgain = 300 * time.Millisecond

func (u *upRun) lookForHolder() *PortHeld {
	return foreignHolder([]uint16{u.o.Tunnel.Port, u.o.Tunnel.NATPort}, func() []uint64 {
		ours := u.parts.sockets.inodes()
		for name, f := range u.parts.dir.others("") {
			if len(f.Sockets) > 0 {
				ours = append(ours, f.Sockets...)
			} else if pid, _ := newDir(u.o.Dir, name).pid(); pid > 0 { // another version's
				ours = append(ours, socketsOf(pid)...)
			}
		}
		return ours
	})
}
