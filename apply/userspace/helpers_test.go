package userspace

import (
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"ipsec-quick/apply"
	"ipsec-quick/apply/userspace/packet"
)

var (
	us    = netip.MustParseAddr("192.0.2.1")
	peer  = netip.MustParseAddr("192.0.2.2")
	moved = netip.MustParseAddr("192.0.2.22")
	inner = apply.Selector{Local: netip.MustParsePrefix("10.1.0.0/16"), Remote: netip.MustParsePrefix("10.2.0.0/16")}
)

// bench is a carrier and a steering that note what they are told.
type bench struct {
	mu      sync.Mutex
	log     []string
	fail    map[string]error
	running bool
	paths   map[*association]*place
	steered []apply.Policy
	text    strings.Builder // what is logged
}

func (b *bench) note(what string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = append(b.log, what)
	err := b.fail[what]
	delete(b.fail, what)
	return err
}

// failNext makes the next call of that name fail.
func (b *bench) failNext(what string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := errors.New(what + " fails")
	b.fail = map[string]error{what: err}
	return err
}

func (b *bench) start() error {
	err := b.note("start")
	b.running = err == nil
	return err
}

func (b *bench) stop() error {
	err := b.note("stop")
	b.running = b.running && err != nil
	return err
}

func (b *bench) attach(a *association) error {
	if err := b.note("attach"); err != nil {
		return err
	}
	b.paths[a] = a.place.Load()
	return nil
}

func (b *bench) detach(a *association) { delete(b.paths, a) }

func (b *bench) fit(bool) error { return nil }

func (b *bench) receive(_, _ netip.AddrPort, _ []byte) { _ = b.note("receive") }

func (b *bench) listen() { _ = b.note("listen") }

func (b *bench) bequeath() ([]int, error) { return nil, b.note("bequeath") }

func (b *bench) resume() { _ = b.note("resume") }

func (b *bench) close() { _ = b.note("close"); b.running = false }

func (b *bench) Refresh() error { return b.note("refresh") }

func (b *bench) Sync(policies []apply.Policy) error {
	err := b.note("sync")
	if err == nil {
		b.steered = policies
	}
	return err
}

func (b *bench) Write(text []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(text)
}

func (b *bench) said() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// openBench opens the plane in a directory.
func openBench(t testing.TB, dir string) (*Plane, *bench) {
	t.Helper()
	b := &bench{paths: map[*association]*place{}}
	p, err := open(Options{Dir: dir, Name: "t", Steering: b, Log: slog.New(slog.NewTextHandler(b, nil))},
		func(*Plane) (carrier, error) { return b, nil })
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	return p, b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wants(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%v, want %v", err, want)
	}
}

const testKey = "0123456789abcdefSALT"

// outSA and inSA are the two SAs of a pair.
func outSA(spi uint32) apply.SA {
	return apply.SA{
		SPI: spi, Direction: apply.Out, Src: us, Dst: peer, ReqID: 7, ESN: true,
		Encryption: apply.Algorithm{Name: apply.AESGCM16, Key: apply.Key(testKey)},
		Encap:      &apply.Encap{SrcPort: 4500, DstPort: 4500},
	}
}

func inSA(spi uint32) apply.SA {
	sa := outSA(spi)
	sa.Direction, sa.Src, sa.Dst, sa.ReplayWindow = apply.In, peer, us, 128
	return sa
}

func protect(spi uint32) apply.Policy {
	return apply.Policy{Selector: inner, Action: apply.Protect, Local: us, Remote: peer, ReqID: 7, SPI: spi}
}

// leaves and enters are packets of the pair's.
var (
	leaves = packet.Flow{Src: [16]byte{10, 1, 0, 1}, Dst: [16]byte{10, 2, 0, 1}, SrcPort: 1234, DstPort: 80, Protocol: 6}
	enters = packet.Flow{Src: [16]byte{10, 2, 0, 1}, Dst: [16]byte{10, 1, 0, 1}, SrcPort: 80, DstPort: 1234, Protocol: 6}
)

func next(t testing.TB, p *Plane) apply.Event {
	t.Helper()
	select {
	case ev := <-p.Events():
		return ev
	case <-time.After(10 * time.Second):
		t.Fatal("no event within 10 s")
		return nil
	}
}

func wantEvent(t testing.TB, p *Plane, want apply.Event) {
	t.Helper()
	if got := next(t, p); got != want {
		t.Fatalf("event %#v, want %#v", got, want)
	}
}

func none(t testing.TB, p *Plane) {
	t.Helper()
	select {
	case ev := <-p.Events():
		t.Errorf("unexpected event %#v", ev)
	default:
	}
}

// installed is the association of an SA that was installed.
func installed(t testing.TB, p *Plane, sa apply.SA) *association {
	t.Helper()
	must(t, p.InstallSA(sa))
	return lookup(p, sa.ID())
}

func lookup(p *Plane, id apply.SAID) *association {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.installed(id)
}

// everything is what is installed and reserved.
func everything(p *Plane) map[apply.SAID]*association {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.sas)
}

// send takes sequence numbers for n packets of size octets.
func send(a *association, n int, size uint64) (first uint64, allowed int) {
	if !a.hold() {
		return 0, 0
	}
	defer a.release()
	return a.reserve(n, size, size, now())
}

// receive takes an authentic packet.
func receive(a *association, low uint32, octets uint64) bool {
	if !a.hold() {
		return false
	}
	defer a.release()
	a.mu.Lock()
	defer a.mu.Unlock()
	seq, fresh := a.infer(low)
	return fresh && a.accept(seq, octets, now())
}
