package userspace

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ipsec-quick/apply"
)

// filled makes the files of a tunnel with SAs, a reservation and policies.
func filled(t testing.TB, dir string, sas int) {
	t.Helper()
	p, _ := openBench(t, dir)
	for i := range sas {
		sa := outSA(0xc0000001 + uint32(i))
		if i%2 > 0 {
			sa = inSA(0xc0000001 + uint32(i))
		}
		if i%3 == 0 {
			sa.Encryption = apply.Algorithm{Name: apply.AESCBC, Key: apply.Key(strings.Repeat("e", 32))}
			sa.Integrity = apply.Algorithm{Name: apply.HMACSHA512, Key: apply.Key(strings.Repeat("i", 64))}
			sa.Mode, sa.Selector, sa.Encap = apply.Transport, &inner, nil
		}
		sa.Soft, sa.Hard = apply.Limits{Packets: 1e6, Time: time.Hour}, apply.Limits{Bytes: 1e9, Use: 2 * time.Hour}
		a := installed(t, p, sa)
		send(a, i, 100)
	}
	_, err := p.AllocSPI(7, peer, us, apply.Tunnel)
	must(t, err)
	must(t, p.SetPolicy(apply.Policy{Selector: inner, Action: apply.Block, Guard: true}))
	must(t, p.SetPolicy(protect(0xc0000003)))
	must(t, p.Close())
}

// What was installed is there again, word for word.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	const n = 3*chunkRecords + 2
	filled(t, dir, n)
	p, b := openBench(t, dir)
	if len(everything(p)) != n+1 || len(p.tables.Load().entries) != 2 || len(b.steered) != 2 || !b.running || b.said() != "" {
		t.Fatalf("%d SAs, %d policies, %v, %s", len(everything(p)), len(p.tables.Load().entries), b.log, b.said())
	}
	e := p.tables.Load().outbound(&leaves)
	if e.policy != protect(0xc0000003) || e.sa == nil {
		t.Errorf("%+v", e)
	}
	for i := range n {
		sa := outSA(0xc0000001 + uint32(i))
		if i%2 > 0 {
			sa = inSA(sa.SPI)
		}
		a := lookup(p, sa.ID())
		if a == nil {
			t.Fatalf("SA %d is not there", i)
		}
		got := a.slot.body.sa()
		if i%3 == 0 {
			if got.Integrity.Name != apply.HMACSHA512 || string(got.Integrity.Key) != strings.Repeat("i", 64) || *got.Selector != inner ||
				got.Mode != apply.Transport || got.Encap != nil || a.selector == nil {
				t.Errorf("SA %d: %+v", i, got)
			}
		} else if string(got.Encryption.Key) != testKey || *got.Encap != *sa.Encap || got.Selector != nil {
			t.Errorf("%+v", got)
		}
		if got.ReqID != 7 || got.Direction != sa.Direction || got.Src != sa.Src || got.Dst != sa.Dst || got.ESN != sa.ESN ||
			got.ReplayWindow != sa.ReplayWindow || got.Soft.Time != time.Hour || got.Hard.Use != 2*time.Hour ||
			got.Soft.Packets != 1e6 || got.Hard.Bytes != 1e9 {
			t.Errorf("%+v", got)
		}
		if seq, _ := send(a, 1, 1); seq != uint64(i)+1 {
			t.Errorf("SA %d goes on with %d", i, seq)
		}
	}
	for id := range everything(p) {
		must(t, p.RemoveSA(id))
	}
	must(t, p.RemovePolicy(protect(0xc0000003)))
	must(t, p.RemovePolicy(apply.Policy{Selector: inner, Guard: true}))
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A replay window is what it was, also for a process after that.
func TestWindowSurvives(t *testing.T) {
	dir := t.TempDir()
	sa := inSA(0xc0000001)
	sa.ReplayWindow = apply.MaxReplayWindow
	p, _ := openBench(t, dir)
	a := installed(t, p, sa)
	rnd := rand.New(rand.NewPCG(6479, 1))
	seen := map[uint32]bool{}
	for range 20 {
		for range 500 {
			low := 1 + rnd.Uint32N(4000)
			if receive(a, low, 1) == seen[low] {
				t.Fatalf("%d: seen before: %v", low, seen[low])
			}
			seen[low] = true
		}
		must(t, p.Close())
		p, _ = openBench(t, dir)
		a = lookup(p, sa.ID())
	}
}

// A file that is not ours, of another version or boot, is no file.
func TestForeignFiles(t *testing.T) {
	for name, change := range map[string]func([]byte) []byte{
		"text":           func([]byte) []byte { return []byte("hello") },
		"empty":          func([]byte) []byte { return nil },
		"half a header":  func(b []byte) []byte { return b[:20] },
		"another magic":  func(b []byte) []byte { b[0]++; return b },
		"another layout": func(b []byte) []byte { b[len(magic)]++; return b },
		"another size":   func(b []byte) []byte { b[len(magic)+4]++; return b },
		"another boot":   func(b []byte) []byte { b[len(magic)+12]++; return b },
	} {
		for _, file := range []string{fileSAD, fileSPD} {
			dir := t.TempDir()
			filled(t, dir, 3)
			path := filepath.Join(dir, file)
			text, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, change(text), 0o600))
			p, b := openBench(t, dir)
			if len(everything(p)) > 0 == (file == fileSAD) || len(p.tables.Load().entries) > 0 == (file == fileSPD) {
				t.Errorf("%s, %s: %d SAs, %d policies", name, file, len(everything(p)), len(p.tables.Load().entries))
			}
			if !strings.Contains(b.said(), "another layout") {
				t.Errorf("%s, %s: %q", name, file, b.said())
			}
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s, %s: it is still there: %v", name, file, err)
			}
			must(t, p.InstallSA(outSA(0xd0000001)))
			must(t, p.SetPolicy(protect(0xd0000001)))
		}
	}
}

// A program that may not read the boot's identity takes the file for one of this
// boot.
func TestBootUnknown(t *testing.T) {
	dir := t.TempDir()
	filled(t, dir, 1)
	tb := newTable[saRecord](filepath.Join(dir, fileSAD))
	if tb.boot == ([36]byte{}) {
		t.Skip("there is no such thing here")
	}
	tb.boot = [36]byte{}
	must(t, tb.open())
	if n := len(tb.used()); n != 2 {
		t.Errorf("%d records", n)
	}
	must(t, tb.close())
}

// What is no file is an error that names it.
func TestNoFile(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Symlink("/etc/passwd", filepath.Join(dir, fileSAD)))
	b := &bench{}
	p, err := open(Options{Dir: dir, Steering: b}, func(*Plane) (carrier, error) { return b, nil })
	if err == nil || !strings.Contains(err.Error(), fileSAD) {
		t.Errorf("%v, %v", p, err)
	}
}

// A record that makes no sense is dropped, alone.
func TestDamagedRecords(t *testing.T) {
	for name, change := range map[string]func(*saRecord){
		"SPI":       func(r *saRecord) { r.spi = 3 },
		"direction": func(r *saRecord) { r.direction = 9 },
		"mode":      func(r *saRecord) { r.mode = 7 },
		"address":   func(r *saRecord) { r.dst.family = 5 },
		"families":  func(r *saRecord) { r.dst.family = 6 },
		"name":      func(r *saRecord) { r.encryption.name[0] = 'x' },
		"key":       func(r *saRecord) { r.encryption.keyLen = 255 },
		"name long": func(r *saRecord) { r.encryption.nameLen = 255 },
		"window":    func(r *saRecord) { r.replayWindow = 1 << 31 },
		"reqid":     func(r *saRecord) { r.reqID = 1 << 31 },
		"future":    func(r *saRecord) { r.added = now() + 1e12 },
		"used":      func(r *saRecord) { r.used = -1 },
		"sequence":  func(r *saRecord) { r.esn, r.sequence = 0, 1<<40 },
		"selector":  func(r *saRecord) { r.hasSelector, r.selector.local.bits = 1, 200 },
	} {
		dir := t.TempDir()
		p, _ := openBench(t, dir)
		change(&installed(t, p, outSA(0xc0000001)).slot.body)
		must(t, p.InstallSA(outSA(0xc0000002)))
		must(t, p.Close())
		p, b := openBench(t, dir)
		if len(everything(p)) != 1 || !strings.Contains(b.said(), "a record is dropped") {
			t.Errorf("%s: %d SAs, %s", name, len(everything(p)), b.said())
		}
	}
}

// A kill between writing a changed record and freeing the one before leaves both:
// the newer one counts.
func TestTwoRecordsOfOne(t *testing.T) {
	dir := t.TempDir()
	p, _ := openBench(t, dir)
	a := installed(t, p, outSA(0xc0000001))
	must(t, p.SetPolicy(protect(1)))
	s, err := p.sad.take()
	must(t, err)
	s.body = a.slot.body
	s.body.dst, s.body.sequence = addressOf(moved), 77
	s.commit(slotInstalled)
	s2, err := p.spd.take()
	must(t, err)
	s2.body.set(protect(0xc0000001))
	s2.commit(slotInstalled)
	s3, err := p.spd.take() // and one that was being written
	must(t, err)
	s3.body.set(protect(9))
	must(t, p.Close())
	p, _ = openBench(t, dir)
	e := p.tables.Load().outbound(&leaves)
	if len(everything(p)) != 1 || len(p.tables.Load().entries) != 1 || e.policy.SPI != 0xc0000001 || e.sa == nil || e.sa.id().Dst != moved {
		t.Errorf("%v %+v", everything(p), e)
	}
	if seq, _ := send(e.sa, 1, 1); seq != 78 {
		t.Errorf("it goes on with %d", seq)
	}
	if n := len(p.sad.used()) + len(p.spd.used()); n != 2 {
		t.Errorf("%d records", n)
	}
}

// The file grows, is used again where something was removed, and is bounded.
func TestTableGrows(t *testing.T) {
	tb := newTable[policyRecord](filepath.Join(t.TempDir(), "x"))
	var slots []*slot[policyRecord]
	for i := range 10 * chunkRecords {
		s, err := tb.take()
		must(t, err)
		s.body.spi = uint32(i)
		s.commit(slotInstalled)
		slots = append(slots, s)
	}
	before, err := os.Stat(tb.path)
	must(t, err)
	if before.Mode().Perm() != 0o600 {
		t.Error(before.Mode())
	}
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(slots), func(i, j int) { slots[i], slots[j] = slots[j], slots[i] })
	for _, s := range slots[:chunkRecords*5] {
		tb.recycle(s)
	}
	for range chunkRecords * 5 {
		s, err := tb.take()
		must(t, err)
		if s.body != (policyRecord{}) {
			t.Fatalf("%+v", s.body)
		}
		s.commit(slotInstalled)
	}
	used := tb.used()
	if after, err := os.Stat(tb.path); err != nil || after.Size() != before.Size() || len(used) != len(slots) {
		t.Errorf("%d octets, before %d; %d records; %v", after.Size(), before.Size(), len(used), err)
	}
	if !slices.IsSortedFunc(used, func(a, b *slot[policyRecord]) int { return int(a.order) - int(b.order) }) {
		t.Error("not in order")
	}
	must(t, tb.discard())
	if _, err := os.Stat(tb.path); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	must(t, tb.discard())
}

// Keys of an SA that was removed, has expired or was moved are in no file.
func TestRecordsAreWiped(t *testing.T) {
	key := "thisisthekeywhichnoonesees!!SALT"[:20]
	dir := t.TempDir()
	p, _ := openBench(t, dir)
	must(t, p.SetPolicy(protect(1))) // the files stay
	holds := func() (n int) {
		text, err := os.ReadFile(filepath.Join(dir, fileSAD))
		must(t, err)
		return bytes.Count(text, []byte(key))
	}
	sa := outSA(0xc0000001)
	sa.Encryption.Key = apply.Key(key)
	sa.Hard.Packets = 1
	a := installed(t, p, sa)
	if holds() != 1 {
		t.Fatal("the test looks in vain")
	}
	sa.Dst = moved
	must(t, p.UpdateSA(sa))
	if holds() != 1 {
		t.Error("an update left the key twice")
	}
	send(a, 2, 100)
	next(t, p)
	if holds() != 0 {
		t.Error("the hard limit left the key")
	}
	sa.Hard.Packets = 0
	must(t, p.InstallSA(sa))
	must(t, p.RemoveSA(sa.ID()))
	if holds() != 0 {
		t.Error("RemoveSA left the key")
	}
	text, err := os.ReadFile(filepath.Join(dir, fileSAD))
	must(t, err)
	if zeros := bytes.Count(text[headerLen:], []byte{0}); zeros != len(text)-headerLen {
		t.Errorf("%d octets are left", len(text)-headerLen-zeros)
	}
}

// An update does not wait for those who hold the SA, and they go on with it.
func TestUpdateWaitsForNobody(t *testing.T) {
	p, _ := openBench(t, t.TempDir())
	sa := outSA(0xc0000001)
	a := installed(t, p, sa)
	a.hold()
	defer a.release()
	a.reserve(3, 10, 10, now())
	must(t, p.UpdateSA(sa))
	if first, n := a.reserve(2, 10, 10, now()); first != 4 || n != 2 {
		t.Errorf("%d from %d on", n, first)
	}
}

// A removed SA cannot be used, and is wiped when its last user is done.
func TestRemoveWaits(t *testing.T) {
	p, _ := openBench(t, t.TempDir())
	sa := outSA(0xc0000001)
	a := installed(t, p, sa)
	if !a.hold() {
		t.Fatal("it cannot be held")
	}
	removed := make(chan error)
	go func() { removed <- p.RemoveSA(sa.ID()) }()
	select {
	case <-removed:
		t.Fatal("it was removed while it was held")
	case <-time.After(50 * time.Millisecond):
	}
	if a.hold() { // whoever asks meanwhile does not wait
		t.Error("an SA that is being removed was held")
	}
	a.release()
	must(t, <-removed)
	if a.hold() {
		t.Error("a removed SA was held")
	}
}
