package userspace

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
)

// A tunnel's life: reserved, installed, switched, moved, taken down. Nothing is
// left.
func TestLife(t *testing.T) {
	dir := t.TempDir()
	p, b := openBench(t, dir)
	if p.Name() != "userspace" {
		t.Error(p.Name())
	}
	guard := apply.Policy{Selector: inner, Action: apply.Block, Guard: true}
	must(t, p.SetPolicy(guard))
	if !b.running || len(b.steered) != 1 {
		t.Error("no traffic is taken from the first policy on")
	}
	spi, err := p.AllocSPI(7, peer, us, apply.Tunnel)
	must(t, err)
	if spi>>28 != 0xc {
		t.Errorf("SPI %08x", spi)
	}
	list, err := p.List([]uint32{7})
	must(t, err)
	if len(list) != 1 || !list[0].Larval || list[0].SAID != (apply.SAID{Dst: us, SPI: spi}) || list[0].Src != peer ||
		list[0].Direction != apply.In || list[0].ReqID != 7 {
		t.Errorf("%+v", list)
	}
	in, out := inSA(spi), outSA(0xc0000001)
	must(t, p.InstallSA(in))
	wants(t, p.InstallSA(in), apply.ErrExists)
	must(t, p.InstallSA(out))
	wants(t, p.InstallSA(out), apply.ErrExists)
	must(t, p.SetPolicy(protect(out.SPI)))
	if e := p.tables.Load().outbound(&leaves); e == nil || e.sa == nil || e.sa.spi != out.SPI {
		t.Fatalf("%+v", e)
	}
	a := p.tables.Load().find(spi, us)
	if a == nil || !p.tables.Load().permits(a, &enters) || p.tables.Load().permits(a, &leaves) {
		t.Error("inbound")
	}
	if p.tables.Load().find(spi, peer) != nil || p.tables.Load().find(spi+1, us) != nil {
		t.Error("an SA that is not there")
	}

	fresh := outSA(0xc0000002)
	must(t, p.InstallSA(fresh))
	if e := p.tables.Load().outbound(&leaves); e.sa.spi != out.SPI {
		t.Error("the new SA is used before the switch")
	}
	must(t, p.SwitchOutbound(protect(fresh.SPI)))
	if e := p.tables.Load().outbound(&leaves); e.sa.spi != fresh.SPI {
		t.Error("not switched")
	}
	must(t, p.RemoveSA(out.ID()))
	wants(t, p.RemoveSA(out.ID()), apply.ErrAbsent)
	if _, err := p.Query(out.ID()); err == nil {
		t.Error("a removed SA is read")
	}

	fresh.Dst = moved
	must(t, p.UpdateSA(fresh))
	if e := p.tables.Load().outbound(&leaves); e.sa == nil || e.sa.place.Load().dst != moved || b.paths[e.sa].dst != moved {
		t.Error("it moved, and the policy has lost it")
	}
	gone := outSA(0xc0000009)
	wants(t, p.UpdateSA(gone), apply.ErrAbsent)

	must(t, p.RemovePolicy(protect(fresh.SPI)))
	wants(t, p.RemovePolicy(protect(fresh.SPI)), apply.ErrAbsent)
	wants(t, p.SwitchOutbound(protect(fresh.SPI)), apply.ErrAbsent)
	if e := p.tables.Load().outbound(&leaves); e == nil || e.policy != guard {
		t.Errorf("the guard has gone too: %+v", e)
	}
	must(t, p.RemoveSA(fresh.ID()))
	must(t, p.RemoveSA(in.ID()))
	must(t, p.RemovePolicy(guard))
	if b.running || len(b.steered) > 0 || len(b.paths) > 0 {
		t.Errorf("left: running %v, %v, %d paths", b.running, b.steered, len(b.paths))
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if p.tables.Load().outbound(&leaves) != nil {
		t.Error("there is a policy")
	}
}

func TestArguments(t *testing.T) {
	p, _ := openBench(t, t.TempDir())
	bad := outSA(255)
	weak := outSA(0xc0000001)
	weak.Encryption.Key = weak.Encryption.Key[:16]
	for name, err := range map[string]error{
		"reserved SPI":      p.InstallSA(bad),
		"update of it":      p.UpdateSA(bad),
		"short key":         p.InstallSA(weak),
		"families":          second(p.AllocSPI(7, peer, netip.IPv6Loopback(), apply.Tunnel)),
		"policy":            p.SetPolicy(apply.Policy{Selector: inner}),
		"switch of it":      p.SwitchOutbound(apply.Policy{Selector: inner}),
		"switch of a block": p.SwitchOutbound(apply.Policy{Selector: inner, Action: apply.Block}),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if len(everything(p)) > 0 || len(p.tables.Load().entries) > 0 {
		t.Error("something was installed")
	}
	if _, err := open(Options{Dir: filepath.Join(t.TempDir(), "none")}, nil); err == nil {
		t.Error("no directory, no error")
	}
}

func second[A any](_ A, err error) error { return err }

// What cannot be carried or steered is not installed.
func TestFailures(t *testing.T) {
	p, b := openBench(t, t.TempDir())
	wants(t, b.failNext("attach"), b.fail["attach"])
	if err := p.InstallSA(outSA(0xc0000001)); err == nil || len(everything(p)) > 0 {
		t.Errorf("no path: %v, %d SAs", err, len(everything(p)))
	}
	for _, what := range []string{"start", "sync"} {
		want := b.failNext(what)
		wants(t, p.SetPolicy(protect(1000)), want)
		if len(p.tables.Load().entries) > 0 || b.running || len(b.steered) > 0 {
			t.Errorf("%s failed, and the policy is there", what)
		}
	}
	must(t, p.SetPolicy(protect(1000)))
	want := b.failNext("sync")
	wants(t, p.SetPolicy(protect(1001)), want) // a change that fails takes nothing away
	for _, what := range []string{"sync", "stop"} {
		want := b.failNext(what)
		wants(t, p.RemovePolicy(protect(1000)), want)
		if p.tables.Load().outbound(&leaves) == nil {
			t.Errorf("%s failed, and the policy has gone", what)
		}
	}
	must(t, p.RemovePolicy(protect(1000)))
}

// An SA that has no way to its peer when it is taken up gets one later.
func TestRefreshDialsAgain(t *testing.T) {
	dir := t.TempDir()
	p, _ := openBench(t, dir)
	must(t, p.InstallSA(outSA(0xc0000001)))
	must(t, p.Close())

	b := &bench{paths: map[*association]*place{}}
	b.failNext("attach")
	p, err := open(Options{Dir: dir, Name: "t", Steering: b, Log: slog.New(slog.NewTextHandler(b, nil))},
		func(*Plane) (carrier, error) { return b, nil })
	must(t, err)
	defer p.Close()
	if len(b.paths) > 0 || !strings.Contains(b.said(), "no way to its peer") {
		t.Fatalf("%d paths; logged: %s", len(b.paths), b.said())
	}
	want := b.failNext("attach")
	wants(t, p.Refresh(), want)
	must(t, p.Refresh())
	if len(b.paths) != 1 {
		t.Error("there is no path yet")
	}
}

// Another process reads while the first has the plane, and goes on with it then.
func TestStandby(t *testing.T) {
	dir := t.TempDir()
	first, _ := openBench(t, dir)
	second, b := openBench(t, dir)
	if list, err := second.List([]uint32{7}); err != nil || list != nil {
		t.Errorf("nothing is there: %v, %v", list, err)
	}
	a := installed(t, first, outSA(0xc0000001))
	must(t, first.SetPolicy(protect(0xc0000001)))
	send(a, 5, 100)
	for _, p := range []*Plane{first, second} {
		u, err := p.Query(outSA(0xc0000001).ID())
		if err != nil || u.Packets != 5 || u.Bytes != 500 {
			t.Errorf("%+v, %v", u, err)
		}
		list, err := p.List([]uint32{6, 7})
		if err != nil || len(list) != 1 || list[0].SPI != 0xc0000001 {
			t.Errorf("%+v, %v", list, err)
		}
		if _, err := p.Query(inSA(1000).ID()); err == nil {
			t.Error("an SA that is not there")
		}
	}
	if len(b.log) > 0 {
		t.Errorf("the second one has begun: %v", b.log)
	}
	reader := Reader{dir}
	if u, err := reader.Query(outSA(0xc0000001).ID()); err != nil || u.Packets != 5 || reader.Name() != second.Name() {
		t.Errorf("%+v, %v", u, err)
	}
	time.AfterFunc(100*time.Millisecond, func() { must(t, first.Close()) })
	must(t, second.InstallSA(inSA(0xc0000002))) // it waits
	if !b.running || len(b.steered) != 1 || len(b.paths) != 2 {
		t.Errorf("%v", b.log)
	}
	after := lookup(second, outSA(0xc0000001).ID())
	if seq, n := send(after, 1, 100); seq != 6 || n != 1 {
		t.Errorf("sequence number %d", seq)
	}
	if e := second.tables.Load().outbound(&leaves); e == nil || e.sa != after {
		t.Errorf("%+v", e)
	}
	wants(t, first.RemoveSA(outSA(0xc0000001).ID()), os.ErrClosed)
	if _, err := first.List(nil); err == nil {
		t.Error("a closed plane lists")
	}
	if _, open := <-first.Events(); open {
		t.Error("events of a closed plane")
	}
}

// A List is enough: a loop that takes over need not change anything.
func TestStandbyTakesOverByList(t *testing.T) {
	dir := t.TempDir()
	first, _ := openBench(t, dir)
	second, b := openBench(t, dir)
	must(t, first.SetPolicy(protect(1000)))
	must(t, first.Close())
	if _, err := second.List(nil); err != nil || !b.running {
		t.Errorf("%v, %v", err, b.log)
	}
}

// Whoever holds the plane for good is named, after a while.
func TestStandbyGivesUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	openBench(t, dir)
	second, _ := openBench(t, dir)
	wants(t, second.InstallSA(outSA(1000)), errStandby)
}

// What another process has reserved is found; it lapses at its time.
func TestReservations(t *testing.T) {
	dir := t.TempDir()
	first, _ := openBench(t, dir)
	spi, err := first.AllocSPI(7, peer, us, apply.Transport)
	must(t, err)
	must(t, first.Close())
	p, _ := openBench(t, dir)
	list, err := p.List([]uint32{7})
	must(t, err)
	if len(list) != 1 || list[0].SPI != spi || !list[0].Larval || list[0].Mode != apply.Transport {
		t.Fatalf("%+v", list)
	}
	a := lookup(p, list[0].SAID)
	a.slot.body.added -= reservedFor // as if it were that long ago
	p.sweep()
	if list, _ := p.List([]uint32{7}); len(list) > 0 {
		t.Errorf("%+v", list)
	}
	none(t, p)
	must(t, p.InstallSA(inSA(spi))) // nevertheless
	must(t, p.RemoveSA(inSA(spi).ID()))
	spi, err = p.AllocSPI(7, peer, us, apply.Tunnel)
	must(t, err)
	must(t, p.RemoveSA(apply.SAID{Dst: us, SPI: spi}))
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A journal over the plane takes all away again, whenever the process before was
// killed.
func TestJournal(t *testing.T) {
	steps := []func(*apply.Journal) error{
		func(j *apply.Journal) error {
			return j.SetPolicy(apply.Policy{Selector: inner, Action: apply.Block, Guard: true})
		},
		func(j *apply.Journal) error { return second(j.AllocSPI(7, peer, us, apply.Tunnel)) },
		func(j *apply.Journal) error { return j.InstallSA(inSA(0xc0000002)) },
		func(j *apply.Journal) error { return j.InstallSA(outSA(0xc0000001)) },
		func(j *apply.Journal) error { return j.SetPolicy(protect(0xc0000001)) },
		func(j *apply.Journal) error { return j.InstallSA(outSA(0xc0000003)) },
		func(j *apply.Journal) error { return j.SwitchOutbound(protect(0xc0000003)) },
		func(j *apply.Journal) error { return j.RemoveSA(outSA(0xc0000001).ID()) },
		func(j *apply.Journal) error {
			sa := outSA(0xc0000003)
			sa.Dst = moved
			return j.UpdateSA(sa)
		},
	}
	for n := range len(steps) + 1 {
		dir := t.TempDir()
		path := filepath.Join(dir, "journal")
		p, _ := openBench(t, dir)
		j, err := apply.OpenJournal(path, p, nil)
		must(t, err)
		for _, step := range steps[:n] {
			must(t, step(j))
		}
		must(t, j.Close())
		p, b := openBench(t, dir)
		j, err = apply.OpenJournal(path, p, nil)
		must(t, err)
		must(t, j.Undo())
		if left, _ := os.ReadDir(dir); len(left) > 0 || b.running || len(b.steered) > 0 {
			t.Errorf("after %d steps: left %v, running %v, %v", n, left, b.running, b.steered)
		}
	}
}

func TestPrepareSocket(t *testing.T) {
	p, _ := openBench(t, t.TempDir())
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, p.PrepareSocket(fd, us, true))
	if os.Getuid() != 0 {
		t.Skip("needs root: a socket is marked")
	}
	p.o.Mark = 0x1234
	must(t, p.PrepareSocket(fd, us, true))
	if mark, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK); err != nil || mark != 0x1234 {
		t.Errorf("%#x, %v", mark, err)
	}
}

func TestReceiveESP(t *testing.T) {
	p, b := openBench(t, t.TempDir())
	p.ReceiveESP(netip.AddrPortFrom(us, 4500), netip.AddrPortFrom(peer, 4500), []byte{1, 2, 3, 4})
	if strings.Join(b.log, " ") != "listen receive" {
		t.Error(b.log)
	}
	p.unknown.Add(2)
	if p.Unknown() != 2 {
		t.Error(p.Unknown())
	}
}

// Close leaves no goroutine, and is done once.
func TestClose(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 10 {
		p, _ := openBench(t, t.TempDir())
		sa := outSA(0xc0000001)
		sa.Hard.Time = time.Hour
		must(t, p.InstallSA(sa))
		must(t, p.Close())
		must(t, p.Close())
	}
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines, before %d", runtime.NumGoroutine(), before)
}
