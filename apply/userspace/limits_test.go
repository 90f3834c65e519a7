package userspace

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"ipsec-quick/apply"
)

// The counts are exact, one by one and in batches: as in the kernel a limit fires
// with the packet that comes when it has been reached.
func TestCountLimits(t *testing.T) {
	for _, c := range []struct {
		name           string
		soft, hard     apply.Limits
		size           uint64
		warnAt, passed int // the packet that reports the soft limit, and how many pass
	}{
		{"none", apply.Limits{}, apply.Limits{}, 100, 0, 20},
		{"packets", apply.Limits{Packets: 3}, apply.Limits{Packets: 6}, 100, 4, 6},
		{"one packet", apply.Limits{}, apply.Limits{Packets: 1}, 100, 0, 1},
		{"bytes", apply.Limits{Bytes: 400}, apply.Limits{Bytes: 900}, 100, 5, 9},
		{"bytes, between packets", apply.Limits{Bytes: 401}, apply.Limits{Bytes: 901}, 100, 6, 10},
		{"bytes, one short", apply.Limits{Bytes: 399}, apply.Limits{Bytes: 899}, 100, 5, 9},
		{"packets before bytes", apply.Limits{Bytes: 1000, Packets: 2}, apply.Limits{Bytes: 800, Packets: 7}, 100, 3, 7},
		{"bytes before packets", apply.Limits{Bytes: 200, Packets: 5}, apply.Limits{Bytes: 600, Packets: 7}, 100, 3, 6},
		{"soft is hard", apply.Limits{Packets: 4}, apply.Limits{Packets: 4}, 100, 0, 4},
		{"empty packets", apply.Limits{Bytes: 1}, apply.Limits{Bytes: 2}, 0, 0, 20},
		{"large", apply.Limits{Packets: 1}, apply.Limits{Bytes: 1<<64 - 1}, 1 << 40, 2, 20},
	} {
		for _, batch := range []int{1, 2, 3, 5, 7, 20, 64} {
			t.Run(fmt.Sprintf("out %s by %d", c.name, batch), func(t *testing.T) {
				p, _ := openBench(t, t.TempDir())
				sa := outSA(0xc0000001)
				sa.Soft, sa.Hard = c.soft, c.hard
				a := installed(t, p, sa)
				sent, warned, stopped := 0, 0, false
				for sent < 20 && !stopped {
					want := min(batch, 20-sent)
					first, n := send(a, want, c.size)
					if n > 0 && first != uint64(sent)+1 {
						t.Fatalf("sequence number %d after %d packets", first, sent)
					}
					if warned == 0 && c.warnAt != 0 && len(p.Events()) > 0 {
						wantEvent(t, p, apply.Expire{SAID: sa.ID(), ReqID: 7})
						warned = sent + 1 // or a later one of the batch
					}
					sent += n
					stopped = n < want
				}
				if sent != c.passed {
					t.Errorf("%d packets passed, want %d", sent, c.passed)
				}
				if (warned == 0) != (c.warnAt == 0) || c.warnAt != 0 && (c.warnAt < warned || c.warnAt >= warned+batch) {
					t.Errorf("the soft limit was reported with the batch that begins with packet %d, want packet %d", warned, c.warnAt)
				}
				ends(t, p, sa, uint64(sent), uint64(sent)*c.size, c.passed < 20)
			})
		}
		t.Run("in "+c.name, func(t *testing.T) {
			p, _ := openBench(t, t.TempDir())
			sa := inSA(0xc0000001)
			sa.Soft, sa.Hard = c.soft, c.hard
			a := installed(t, p, sa)
			got := 0
			for low := uint32(1); low <= 20 && receive(a, low, c.size); low++ {
				got++
				if got == c.warnAt {
					wantEvent(t, p, apply.Expire{SAID: sa.ID(), ReqID: 7})
				}
			}
			if got != c.passed {
				t.Errorf("%d packets passed, want %d", got, c.passed)
			}
			ends(t, p, sa, uint64(got), uint64(got)*c.size, c.passed < 20)
		})
	}
}

// ends checks the counters, or that the SA has gone and said so once.
func ends(t *testing.T, p *Plane, sa apply.SA, packets, octets uint64, hard bool) {
	t.Helper()
	if hard {
		wantEvent(t, p, apply.Expire{SAID: sa.ID(), ReqID: 7, Hard: true})
		_, err := p.Query(sa.ID())
		wants(t, err, apply.ErrAbsent)
		wants(t, p.RemoveSA(sa.ID()), apply.ErrAbsent)
		must(t, p.InstallSA(sa)) // there is room for it
	} else if u, err := p.Query(sa.ID()); err != nil || u.Packets != packets || u.Bytes != octets {
		t.Errorf("%+v, %v, want %d packets with %d octets", u, err, packets, octets)
	}
	none(t, p)
}

// The last segment of a batch is shorter.
func TestLastSegment(t *testing.T) {
	p, _ := openBench(t, t.TempDir())
	sa := outSA(0xc0000001)
	a := installed(t, p, sa)
	a.hold()
	if first, n := a.reserve(10, 1400, 7, now()); first != 1 || n != 10 {
		t.Error(first, n)
	}
	if first, n := a.reserve(1, 1400, 900, now()); first != 11 || n != 1 {
		t.Error(first, n)
	}
	a.release()
	if u, err := p.Query(sa.ID()); err != nil || u.Bytes != 9*1400+7+900 || u.Packets != 11 {
		t.Errorf("%+v, %v", u, err)
	}
}

// Sequence numbers end: without ESN after 2^32 - 1 packets.
func TestSequenceNumbersEnd(t *testing.T) {
	for _, esn := range []bool{false, true} {
		p, _ := openBench(t, t.TempDir())
		sa := outSA(0xc0000001)
		sa.ESN = esn
		a := installed(t, p, sa)
		a.slot.body.sequence = 1<<32 - 11
		first, n := send(a, 64, 100)
		if want := map[bool]int{false: 10, true: 64}[esn]; first != 1<<32-10 || n != want {
			t.Errorf("ESN %v: %d from %d on", esn, n, first)
		}
		if esn {
			a.slot.body.sequence = 1<<64 - 3
			if first, n := send(a, 64, 100); first != 1<<64-2 || n != 2 {
				t.Errorf("%d from %d on", n, first)
			}
		}
		wantEvent(t, p, apply.Expire{SAID: sa.ID(), ReqID: 7, Hard: true})
		if _, n := send(a, 1, 100); n > 0 {
			t.Error("it goes on")
		}
	}
}

// Limits by time: since it was added, and since its first packet.
func TestTimeLimits(t *testing.T) {
	const s, h = 100 * time.Millisecond, 600 * time.Millisecond
	for _, c := range []struct {
		name       string
		soft, hard apply.Limits
		use        bool
		events     string
	}{
		{"time", apply.Limits{Time: s}, apply.Limits{Time: h}, false, "soft hard"},
		{"use", apply.Limits{Use: s}, apply.Limits{Use: h}, true, "soft hard"},
		{"never used", apply.Limits{Use: s}, apply.Limits{Use: h}, false, ""},
		{"centuries", apply.Limits{Time: 1<<63 - 1}, apply.Limits{Time: 1<<63 - 1, Use: 1<<63 - 1}, true, ""},
		{"soft alone", apply.Limits{Time: s, Use: s}, apply.Limits{}, true, "soft"},
		{"hard alone", apply.Limits{}, apply.Limits{Time: h}, false, "hard"},
		{"soft behind hard", apply.Limits{Time: 2 * h}, apply.Limits{Time: h}, false, "hard"},
		{"warned before", apply.Limits{Packets: 1, Time: s}, apply.Limits{Time: h}, true, "soft hard"},
	} {
		for _, direction := range []apply.Direction{apply.In, apply.Out} {
			t.Run(fmt.Sprint(c.name, " ", direction), func(t *testing.T) {
				t.Parallel()
				p, _ := openBench(t, t.TempDir())
				sa := outSA(0xc0000001)
				if direction == apply.In {
					sa = inSA(0xc0000001)
				}
				sa.Soft, sa.Hard = c.soft, c.hard
				begin := time.Now()
				a := installed(t, p, sa)
				if c.use {
					for range 2 {
						send(a, 1, 100)
					}
				}
				got := ""
				wait := h + 10*time.Second
				if c.events == "" {
					wait = 3 * s
				}
				for deadline := time.After(wait); deadline != nil; {
					select {
					case ev := <-p.Events():
						ex := ev.(apply.Expire)
						kind, limit := "soft", s
						if ex.Hard {
							kind, limit = "hard", h
						}
						if ex.SAID != sa.ID() || ex.ReqID != 7 {
							t.Errorf("%+v", ex)
						}
						after := time.Since(begin)
						if early := c.soft.Packets == 0 && after < limit; early || after > limit+5*time.Second {
							t.Errorf("%s after %v", kind, after)
						}
						if got = joinWords(got, kind); got == c.events {
							deadline = time.After(s) // for what should not come
						}
					case <-deadline:
						deadline = nil
					}
				}
				if got != c.events {
					t.Errorf("%q, want %q", got, c.events)
				}
			})
		}
	}
}

func joinWords(a, b string) string {
	if a == "" {
		return b
	}
	return a + " " + b
}

// An update sets the limits anew, and what was reported is reported again.
func TestUpdateLimits(t *testing.T) {
	p, _ := openBench(t, t.TempDir())
	sa := outSA(0xc0000001)
	sa.Soft.Packets = 2
	a := installed(t, p, sa)
	soft := apply.Expire{SAID: sa.ID(), ReqID: 7}
	send(a, 5, 100)
	wantEvent(t, p, soft)
	sa.Encryption.Key = nil // the installed one stays
	must(t, p.UpdateSA(sa))
	wantEvent(t, p, soft)
	sa.Soft.Packets = 100
	must(t, p.UpdateSA(sa))
	none(t, p)
	if first, n := send(a, 1, 100); first != 6 || n != 1 {
		t.Errorf("sequence number %d", first)
	}
	sa.Soft.Time = time.Nanosecond
	must(t, p.UpdateSA(sa))
	wantEvent(t, p, soft)
	u, err := p.Query(sa.ID())
	if err != nil || u.Packets != 6 || u.Soft != sa.Soft {
		t.Errorf("%+v, %v", u, err)
	}
	sa.Hard.Bytes = 600
	must(t, p.UpdateSA(sa))
	for got := next(t, p); got != (apply.Expire{SAID: sa.ID(), ReqID: 7, Hard: true}); got = next(t, p) {
		if got != soft {
			t.Errorf("%+v", got)
		}
	}
	wants(t, p.UpdateSA(sa), apply.ErrAbsent)
}

// Times are of CLOCK_BOOTTIME, and given by the wall clock.
func TestUsageTimes(t *testing.T) {
	p, _ := openBench(t, t.TempDir())
	a := installed(t, p, inSA(0xc0000001))
	u, err := p.Query(a.id())
	must(t, err)
	if time.Since(u.Added).Abs() > 10*time.Second || !u.Used.IsZero() || !u.LastUsed.IsZero() {
		t.Errorf("%+v", u)
	}
	a.slot.body.added -= int64(time.Hour)
	receive(a, 1, 100)
	u, err = p.Query(a.id())
	must(t, err)
	if d := time.Since(u.Added) - time.Hour; d.Abs() > 10*time.Second {
		t.Errorf("an hour ago is %v off", d)
	}
	if time.Since(u.Used).Abs() > 10*time.Second || u.LastUsed != u.Used {
		t.Errorf("%+v", u)
	}
}

// The replay window: seen, too old, new.
func TestReplay(t *testing.T) {
	p, _ := openBench(t, t.TempDir())
	sa := inSA(0xc0000001)
	sa.ESN = false
	a := installed(t, p, sa)
	for _, c := range []struct {
		low  uint32
		pass bool
	}{
		{0, false}, {1, true}, {1, false}, {3, true}, {2, true}, {3, false}, {1000, true}, {873, true}, {872, false},
		{1<<32 - 1, true}, {5, false}, {1<<32 - 100, true},
	} {
		if got := receive(a, c.low, 100); got != c.pass {
			t.Errorf("%d: %v", c.low, got)
		}
	}
	u, err := p.Query(sa.ID())
	if err != nil || u.Drops != (apply.Drops{Replayed: 5}) || u.Packets != 7 {
		t.Errorf("%+v, %v", u, err)
	}
	for _, cause := range []dropCause{dropForged, dropMalformed, dropMalformed, dropSelectors} {
		a.drop(cause)
	}
	if u, _ = p.Query(sa.ID()); u.Drops != (apply.Drops{Forged: 1, Replayed: 5, Malformed: 2, Selectors: 1}) {
		t.Errorf("%+v", u.Drops)
	}
}

// With ESN sequence numbers go on beyond 32 bits.
func TestReplayESN(t *testing.T) {
	p, _ := openBench(t, t.TempDir())
	a := installed(t, p, inSA(0xc0000001))
	a.slot.body.sequence = 1<<32 - 10
	for _, low := range []uint32{1<<32 - 5, 5, 1<<32 - 1} {
		if !receive(a, low, 100) || receive(a, low, 100) {
			t.Errorf("%#x", low)
		}
	}
	if top := a.slot.body.sequence; top != 1<<32+5 {
		t.Errorf("the highest is %#x", top)
	}
}

// Two workers that have the same packet: one of them passes it on.
func TestReplayBetweenWorkers(t *testing.T) {
	p, _ := openBench(t, t.TempDir())
	a := installed(t, p, inSA(0xc0000001))
	a.hold()
	defer a.release()
	a.mu.Lock()
	defer a.mu.Unlock()
	one, fresh1 := a.infer(9)
	two, fresh2 := a.infer(9)
	if !fresh1 || !fresh2 || !a.accept(one, 1, now()) || a.accept(two, 1, now()) {
		t.Error("twice")
	}
}

// A NAT's new port is reported, not with every packet, and again after an update.
func TestMapping(t *testing.T) {
	p, _ := openBench(t, t.TempDir())
	sa := inSA(0xc0000001)
	a := installed(t, p, sa)
	come := func(from netip.AddrPort, at int64) {
		a.hold()
		a.mu.Lock()
		a.mapped(from, at)
		a.mu.Unlock()
		a.release()
	}
	at := now()
	was, is := netip.AddrPortFrom(peer, 4500), netip.AddrPortFrom(moved, 1024)
	want := apply.Mapping{SAID: sa.ID(), ReqID: 7, New: is}
	come(was, at)
	none(t, p)
	come(is, at)
	wantEvent(t, p, want)
	come(is, at+1)
	come(was, at+1)
	none(t, p)
	come(is, at+mappingEvery)
	wantEvent(t, p, want)
	sa.Src, sa.Encap = moved, &apply.Encap{SrcPort: 1024, DstPort: 4500}
	must(t, p.UpdateSA(sa))
	come(is, at+2)
	none(t, p)
	come(was, at+2)
	wantEvent(t, p, apply.Mapping{SAID: sa.ID(), ReqID: 7, New: was})
	sa.Encap = nil
	must(t, p.UpdateSA(sa))
	come(is, at+3)
	none(t, p) // no NAT, no ports
}

// A batch costs the same, however many limits there are.
func BenchmarkReserve(b *testing.B) {
	p, _ := openBench(b, b.TempDir())
	sa := outSA(0xc0000001)
	sa.Soft = apply.Limits{Bytes: 1 << 60, Packets: 1 << 60, Time: time.Hour, Use: time.Hour}
	sa.Hard = sa.Soft
	a := installed(b, p, sa)
	b.ReportAllocs()
	for at := now(); b.Loop(); {
		a.hold()
		a.reserve(44, 1440, 100, at)
		a.release()
	}
}

func BenchmarkAccept(b *testing.B) {
	p, _ := openBench(b, b.TempDir())
	sa := inSA(0xc0000001)
	sa.Hard = apply.Limits{Bytes: 1 << 60, Packets: 1 << 60}
	a := installed(b, p, sa)
	b.ReportAllocs()
	low := uint32(0)
	for at := now(); b.Loop(); {
		a.hold()
		a.mu.Lock()
		for range 44 {
			low++
			seq, _ := a.infer(low)
			a.accept(seq, 1440, at)
		}
		a.mu.Unlock()
		a.release()
	}
}
