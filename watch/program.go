package watch

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// unmapStart gives back the pages of the program's code that the start took:
// reading files, making TUN devices, rules and filters, the first handshake. What is
// needed again comes from the kernel's cache, which has it as long as memory is
// not short. Nothing is lost: code is never written to. Where /proc cannot be read
// the pages stay.
func unmapStart() {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(maps)) {
		if !strings.Contains(line, " r-xp ") || !strings.HasSuffix(strings.TrimSpace(line), program) {
			continue
		}
		var start, end uintptr
		if _, err := fmt.Sscanf(line, "%x-%x ", &start, &end); err == nil && end > start {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED)
		}
	}
}
