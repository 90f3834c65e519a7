package userspace

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"ipsec-quick/apply"
)

// Whatever is in the files, opening them ends, without a panic and with no more
// than they hold.
func FuzzFiles(f *testing.F) {
	dir := f.TempDir()
	filled(f, dir, 3)
	var seeds [][]byte
	for _, file := range []string{fileSAD, fileSPD} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		must(f, err)
		seeds = append(seeds, bytes.TrimRight(text[headerLen:], "\x00"))
	}
	f.Add(seeds[0], seeds[1])
	f.Add(seeds[1], seeds[0])
	sads, spds := newTable[saRecord](""), newTable[policyRecord]("")
	f.Fuzz(func(t *testing.T, sad, spd []byte) {
		dir := t.TempDir()
		write := func(name string, header []byte, chunk int, records []byte) {
			b := make([]byte, headerLen)
			copy(b, header)
			b = append(b, records...)
			b = append(b, make([]byte, chunk-len(records)%chunk)...)
			must(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
		}
		write(fileSAD, sads.header(), sads.chunkSize(), sad)
		write(fileSPD, spds.header(), spds.chunkSize(), spd)
		p, _ := openBench(t, dir)
		for _, a := range everything(p) {
			if !a.hold() {
				continue
			}
			sa := a.slot.body.sa()
			a.release()
			if err := sa.Check(); err != nil {
				t.Errorf("%v: %v", sa, err)
			}
		}
		for id, a := range everything(p) {
			if _, err := p.Query(id); err != nil && !errors.Is(err, apply.ErrAbsent) {
				t.Error(err)
			}
			if !a.larval {
				send(a, 3, 100)
				receive(a, 5, 100)
			}
		}
		p.tables.Load().outbound(&leaves)
		p.sweep()
		must(t, p.Close())
		p, _ = openBench(t, dir) // what is left can be read
		must(t, p.InstallSA(outSA(0xdeadbeef)))
	})
}
