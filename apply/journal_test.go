package apply_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ipsec-quick/apply"
	"ipsec-quick/apply/fake"
)

var (
	us   = netip.MustParseAddr("192.0.2.1")
	peer = netip.MustParseAddr("192.0.2.2")
)

func sample(spi uint32, dir apply.Direction) apply.SA {
	sa := apply.SA{SPI: spi, Direction: dir, Src: peer, Dst: us, ReqID: 7,
		Encryption: apply.Algorithm{Name: apply.AESGCM16, Key: apply.Key("keykeykeykeykeykeyke")}}
	if dir == apply.Out {
		sa.Src, sa.Dst = us, peer
	}
	return sa
}

func protect(spi uint32) apply.Policy {
	return apply.Policy{
		Selector: apply.Selector{Local: netip.MustParsePrefix("10.1.0.0/16"), Remote: netip.MustParsePrefix("10.2.0.0/16")},
		Action:   apply.Protect, Local: us, Remote: peer, ReqID: 7, SPI: spi,
	}
}

func guard() apply.Policy {
	p := protect(0)
	p.Action, p.Guard = apply.Block, true
	return p
}

// errKilled stops a life at a point.
var errKilled = errors.New("killed")

// killer is a data plane whose process dies at the n-th change: before it is
// made, or after it.
type killer struct {
	*fake.Dataplane
	left  int
	after bool
}

func (k *killer) step(do func() error) error {
	if k.left == 0 && !k.after {
		panic(errKilled)
	}
	err := do()
	if k.left == 0 {
		panic(errKilled)
	}
	k.left--
	return err
}

func (k *killer) AllocSPI(r uint32, s, d netip.Addr, m apply.Mode) (spi uint32, err error) {
	err = k.step(func() error { spi, err = k.Dataplane.AllocSPI(r, s, d, m); return err })
	return spi, err
}
func (k *killer) InstallSA(sa apply.SA) error {
	return k.step(func() error { return k.Dataplane.InstallSA(sa) })
}
func (k *killer) UpdateSA(sa apply.SA) error {
	return k.step(func() error { return k.Dataplane.UpdateSA(sa) })
}
func (k *killer) RemoveSA(id apply.SAID) error {
	return k.step(func() error { return k.Dataplane.RemoveSA(id) })
}
func (k *killer) SetPolicy(p apply.Policy) error {
	return k.step(func() error { return k.Dataplane.SetPolicy(p) })
}
func (k *killer) RemovePolicy(p apply.Policy) error {
	return k.step(func() error { return k.Dataplane.RemovePolicy(p) })
}
func (k *killer) SwitchOutbound(p apply.Policy) error {
	return k.step(func() error { return k.Dataplane.SwitchOutbound(p) })
}

// life is a tunnel that comes up, rekeys, moves, and goes down.
func life(dp apply.Dataplane) error {
	moved := sample(0xd0000002, apply.Out)
	moved.Dst = netip.MustParseAddr("192.0.2.22")
	var spi, second uint32
	for _, do := range []func() error{
		func() error { return dp.SetPolicy(guard()) },
		func() (err error) { spi, err = dp.AllocSPI(7, peer, us, apply.Tunnel); return err },
		func() error { return dp.InstallSA(sample(spi, apply.In)) },
		func() error { return dp.InstallSA(sample(0xd0000001, apply.Out)) },
		func() error { return dp.SetPolicy(protect(0xd0000001)) },
		func() (err error) { second, err = dp.AllocSPI(7, peer, us, apply.Tunnel); return err },
		func() error { return dp.InstallSA(sample(second, apply.In)) },
		func() error { return dp.InstallSA(sample(0xd0000002, apply.Out)) },
		func() error { return dp.SwitchOutbound(protect(0xd0000002)) },
		func() error { return dp.RemoveSA(sample(0xd0000001, apply.Out).ID()) },
		func() error { return dp.RemoveSA(sample(spi, apply.In).ID()) },
		func() error { return dp.RemovePolicy(protect(0xd0000002)) },
		func() error { return dp.UpdateSA(moved) },
	} {
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

// Wherever the process is killed, also in the middle of a line, another one
// takes away all there is, and once more has nothing to do.
func TestJournalKillPoints(t *testing.T) {
	for torn := range 2 {
		for point := range 100 {
			dir := t.TempDir()
			path := filepath.Join(dir, "journal")
			dp := &killer{Dataplane: fake.New(), left: point / 2, after: point%2 == 1}
			finished := run(t, path, dp)
			if torn == 1 {
				f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprint(f, `{"policy":{"Selector":{"Loc`)
				f.Close()
			}
			for range 2 {
				j, err := apply.OpenJournal(path, dp.Dataplane, nil)
				if err != nil {
					t.Fatalf("point %d: %v", point, err)
				}
				if err := j.Undo(); err != nil {
					t.Fatalf("point %d: %v", point, err)
				}
			}
			if s, r, p := dp.SAs(), dp.Reservations(), dp.Policies(); len(s)+len(r)+len(p) != 0 {
				t.Fatalf("point %d: left %v %v %v", point, s, r, p)
			}
			if v := dp.Violations(); v != nil {
				t.Errorf("point %d: %v", point, v)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Fatalf("point %d: file %v left", point, left[0])
			}
			if finished {
				if point < 26 {
					t.Fatalf("only %d points", point)
				}
				break
			}
		}
	}
}

// run lives until it is killed, or to the end.
func run(t *testing.T, path string, dp *killer) (finished bool) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil && r != errKilled {
			panic(r)
		}
	}()
	j, err := apply.OpenJournal(path, dp, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := life(j); err != nil {
		t.Fatal(err)
	}
	return true
}

// An Undo that is itself killed is finished by the next one.
func TestUndoKilled(t *testing.T) {
	for point := range 12 {
		path := filepath.Join(t.TempDir(), "journal")
		dp := &killer{Dataplane: fake.New(), left: 9} // at the switch: most is installed
		run(t, path, dp)
		dp.left, dp.after = point/2, point%2 == 1
		func() {
			defer func() { _ = recover() }()
			j, err := apply.OpenJournal(path, dp, nil)
			if err != nil {
				t.Error(err)
				return
			}
			_ = j.Undo()
		}()
		j, err := apply.OpenJournal(path, dp.Dataplane, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Undo(); err != nil {
			t.Fatal(err)
		}
		if n := len(dp.SAs()) + len(dp.Policies()) + len(dp.Reservations()); n != 0 {
			t.Errorf("point %d: %d left", point, n)
		}
	}
}

// What cannot be removed does not keep the rest, and is tried again.
func TestUndoContinuesAfterAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	dp := fake.New()
	j, err := apply.OpenJournal(path, dp, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{j.InstallSA(sample(0xd0000001, apply.Out)), j.SetPolicy(protect(0xd0000001)), j.SetPolicy(guard())} {
		if err != nil {
			t.Fatal(err)
		}
	}
	busy := errors.New("busy")
	dp.Fail("RemovePolicy", busy)
	if err := j.Undo(); !errors.Is(err, busy) {
		t.Fatalf("error %v", err)
	}
	if n := len(dp.SAs()) + len(dp.Policies()); n != 1 {
		t.Errorf("%d left, want 1", n)
	}
	if err := j.Undo(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Error("the file is left")
	}
}

// What somebody else had installed is not removed.
func TestUndoSparesOthers(t *testing.T) {
	dp := fake.New()
	if err := dp.InstallSA(sample(0xd0000001, apply.Out)); err != nil {
		t.Fatal(err)
	}
	j, err := apply.OpenJournal(filepath.Join(t.TempDir(), "journal"), dp, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.InstallSA(sample(0xd0000001, apply.Out)); !errors.Is(err, apply.ErrExists) {
		t.Fatal(err)
	}
	if err := j.Undo(); err != nil {
		t.Fatal(err)
	}
	if len(dp.SAs()) != 1 {
		t.Error("removed")
	}
}

// If the journal cannot be written nothing is done.
func TestJournalNotWritable(t *testing.T) {
	dp := fake.New()
	j, err := apply.OpenJournal(filepath.Join(t.TempDir(), "absent", "journal"), dp, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.SetPolicy(guard()); err == nil || len(dp.Policies()) != 0 {
		t.Errorf("%v, %v", err, dp.Policies())
	}
}

func TestJournalFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	dp := fake.New()
	var printed []string
	j, err := apply.OpenJournal(path, dp, func(s string) { printed = append(printed, s) })
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint32(2000) { // rekeys
		sa := sample(0xd0000001+i, apply.Out)
		if err := j.InstallSA(sa); err != nil {
			t.Fatal(err)
		}
		if err := j.SetPolicy(protect(sa.SPI)); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			if err := j.RemoveSA(sample(0xd0000000+i, apply.Out).ID()); err != nil {
				t.Fatal(err)
			}
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 80<<10 {
		t.Errorf("the journal grows: %d octets", len(b))
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	for _, text := range []string{string(b), strings.Join(printed, "\n")} {
		if strings.Contains(text, "keykey") || strings.Contains(text, "6b6579") || strings.Contains(text, "a2V5") {
			t.Error("a key")
		}
	}
	if n := len(j.SAs()); n != 1 {
		t.Errorf("%d SAs", n)
	}
	if ps := j.Policies(); len(ps) != 1 || ps[0].SPI != 0xd0000001+1999 {
		t.Errorf("%v", ps)
	}
	if v := dp.Violations(); v != nil {
		t.Error(v[0])
	}
	if err := os.WriteFile(path, []byte("nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := apply.OpenJournal(path, dp, nil); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a damaged file: %v", err)
	}
}
