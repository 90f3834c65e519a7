package watch

import (
	"bytes"
	"os"
	"strconv"
	"testing"
)

// residentFile is how much of files is mapped, in KiB (proc_pid_status(5)).
func residentFile(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	_, rest, found := bytes.Cut(status, []byte("RssFile:"))
	fields := bytes.Fields(rest)
	if !found || len(fields) == 0 {
		t.Skip("this kernel does not count it")
	}
	n, err := strconv.Atoi(string(fields[0]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestUnmap(t *testing.T) {
	before := residentFile(t)
	findCode().unmap()
	if after := residentFile(t); after >= before {
		t.Errorf("%d KiB of files mapped, %d before", after, before)
	}
}
