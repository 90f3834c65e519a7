package xfrm

import (
	"bytes"
	"io"
	"net/netip"
	"os"
	"strconv"
)

// statistics are the counters of the network namespace, /proc/net/xfrm_stat. The
// file is opened once: a process that has given its rights up cannot open it.
type statistics struct {
	file *os.File // nil: the kernel has none (CONFIG_XFRM_STATISTICS)
	base uint64   // unknown at the beginning
}

func openStatistics() *statistics {
	f, err := os.Open("/proc/thread-self/net/xfrm_stat")
	if err != nil {
		return &statistics{}
	}
	s := &statistics{file: f}
	s.base = s.unknown()
	return s
}

// unknown is XfrmInNoStates: packets for which there is no SA.
func (s *statistics) unknown() uint64 {
	if s.file == nil {
		return 0
	}
	text, err := io.ReadAll(io.NewSectionReader(s.file, 0, 1<<14))
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(text) {
		if f := bytes.Fields(line); len(f) == 2 && string(f[0]) == "XfrmInNoStates" {
			n, _ := strconv.ParseUint(string(f[1]), 10, 64)
			return n
		}
	}
	return 0
}

func (s *statistics) close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// Unknown is apply.Dataplane's; the kernel counts for all tunnels of the network
// namespace together.
func (k *Kernel) Unknown() uint64 { return k.stats.unknown() - k.stats.base }

// ReceiveESP is apply.Dataplane's. It does nothing: the kernel takes ESP from the
// sockets that PrepareSocket made ready.
func (k *Kernel) ReceiveESP(_, _ netip.AddrPort, _ []byte) {}
