package watch

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// programCode is where this program's code is mapped. Nil: not known.
type programCode []mapping

type mapping struct{ start, length uintptr }

// findCode looks for it, as long as /proc can be read.
func findCode() programCode {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil
	}
	var found programCode
	for line := range strings.Lines(string(maps)) {
		if !strings.Contains(line, " r-xp ") || !strings.HasSuffix(strings.TrimSpace(line), program) {
			continue
		}
		var start, end uintptr
		if _, err := fmt.Sscanf(line, "%x-%x ", &start, &end); err == nil && end > start {
			found = append(found, mapping{start, end - start})
		}
	}
	return found
}

// giveBack gives back the memory that was needed for a while.
func (c programCode) giveBack() {
	debug.FreeOSMemory()
	c.unmap()
}

// unmap gives back the pages of code that were needed once: for the start (reading
// files, making TUN devices, rules and filters, the first handshake), a rekey, a
// reload. What is needed again comes from the kernel's cache, which has it as long
// as memory is not short. Nothing is lost: code is never written to.
func (c programCode) unmap() {
	for _, m := range c {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.length, unix.MADV_DONTNEED)
	}
}
