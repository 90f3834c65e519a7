package watch

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ipsec-quick/apply"
)

// watching is a monitor in a goroutine.
type watching struct {
	mu     sync.Mutex
	events []MonitorEvent
	ended  chan error
	cancel context.CancelFunc
}

func (h *host) monitor() *watching {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &watching{ended: make(chan error, 1), cancel: cancel}
	go func() {
		w.ended <- Monitor(ctx, h.root, "left", func(ev *MonitorEvent) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, *ev)
			return nil
		})
	}()
	h.t.Cleanup(cancel)
	eventually(h.t, "it watches", func() bool { return len(w.all()) > 0 })
	return w
}

func (w *watching) all() []MonitorEvent {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.events)
}

// has counts the events of a kind.
func (w *watching) has(kind EventKind) (n int) {
	for _, ev := range w.all() {
		if ev.Event == kind {
			n++
		}
	}
	return n
}

func (w *watching) end(t *testing.T) {
	t.Helper()
	select {
	case err := <-w.ended:
		if err != nil {
			t.Errorf("monitor: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the monitor does not end")
	}
}

// TestMonitorRekey: a rekey, in the order in which it happens.
func TestMonitorRekey(t *testing.T) {
	head := "[lifetime]\npackets = { soft = 1000, hard = 2000 }\njitter = \"0%\"\n"
	ha, _, ra, _ := pair(t, func(a, b *site) { a.head, b.head = head, head })
	w := ha.monitor()
	old := ha.status("left").live()[0]
	for _, sa := range ha.dp.SAs() {
		ha.dp.SetUsage(sa.ID(), apply.Usage{Packets: 1000, Bytes: 64000})
		if sa.Direction == apply.Out {
			ha.dp.Expire(sa.ID(), false)
		}
	}
	eventually(t, "the old SAs are gone", func() bool { return w.has(EventRemoved) > 0 })
	var kinds []string
	for _, ev := range w.all() {
		kind := string(ev.Event)
		if ev.Event == EventMessage {
			kind = ev.Exchange + " " + strings.Fields(ev.Text)[0]
		}
		kinds = append(kinds, kind)
		if at, err := time.Parse(time.RFC3339, ev.Time); err != nil || time.Since(at).Abs() > time.Minute || ev.Tunnel != "left" {
			t.Errorf("%+v", ev)
		}
	}
	want := "watching, soft, CREATE_CHILD_SA request, CREATE_CHILD_SA response, installed, switched, INFORMATIONAL request, INFORMATIONAL response, removed"
	if got := strings.Join(kinds, ", "); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	events := w.all()
	soft, installed, removed := events[1], events[4], events[len(events)-1]
	if soft.SPI != old.SPIOut || soft.SPIIn != old.SPIIn || soft.Peer != "other" || soft.Limit != "packets" || soft.Used != 1000 || soft.Soft != 1000 {
		t.Errorf("%+v", soft)
	}
	if now := ha.status("left").live()[0]; installed.SPIIn != now.SPIIn || installed.SPIOut != now.SPIOut {
		t.Errorf("%+v, %+v", installed, now)
	}
	if removed.SPIOut != old.SPIOut || removed.Carried == nil || *removed.Carried != (Carried{1000, 1000, 64000, 64000}) {
		t.Errorf("%+v", removed)
	}
	ha.dp.Inject(apply.Overrun{})
	for _, sa := range ha.dp.SAs() {
		if sa.Direction == apply.In {
			ha.dp.Expire(sa.ID(), true)
		}
	}
	eventually(t, "hard", func() bool { return w.has(EventHard) == 1 && w.has(EventOverrun) == 1 })
	ra.down()
	w.end(t)
	if last := w.all()[len(w.all())-1]; last.Event != EventDown {
		t.Errorf("%+v", last)
	}
}

// TestMonitorGoesOn: with the next loop of the tunnel, until that is down.
func TestMonitorGoesOn(t *testing.T) {
	ha, _, ra, _ := pair(t, nil)
	w, other := ha.monitor(), ha.monitor()
	tunnel := ra.tunnel
	ra.crash()
	eventually(t, "it is said", func() bool { return w.has(EventInterrupted) == 1 })
	time.Sleep(2 * monitorPause)
	r := ha.start(tunnel)
	eventually(t, "it goes on", func() bool { return w.has(EventWatching) == 2 })
	if n := w.has(EventInterrupted); n != 1 {
		t.Errorf("%d times", n)
	}
	other.cancel() // Ctrl-C
	other.end(t)
	eventually(t, "one is left", func() (ok bool) { r.call(func() { ok = len(r.monitors) == 1 }); return ok })
	if err := Rekey(ha.root, "left", "", false); err != nil {
		t.Error(err)
	}
	eventually(t, "it is seen", func() bool { return w.has(EventInstalled) == 1 })
	r.crash()
	if err := Down(DownOptions{Name: "left", Log: ha.log(), Dir: ha.root, Dataplane: ha.opener}); err != nil {
		t.Error(err)
	}
	w.end(t)
	if err := Monitor(context.Background(), ha.root, "left", nil); !errors.Is(err, ErrNotUp) {
		t.Errorf("%v", err)
	}
}

// TestMonitorThatDoesNotRead: it keeps nobody waiting, and hears of it.
func TestMonitorThatDoesNotRead(t *testing.T) {
	ha, _, ra, _ := pair(t, nil)
	conn, err := net.Dial("unix", filepath.Join(ha.root, "left", fileControl))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, `{"verb":"monitor"}`); err != nil {
		t.Fatal(err)
	}
	w := ha.monitor()
	count := func() (n int) { ra.call(func() { n = len(ra.monitors) }); return n }
	eventually(t, "both are there", func() bool { return count() == 2 })
	text := strings.Repeat("x", 4096)
	for i := range 2000 {
		ra.call(func() { ra.tell(MonitorEvent{Event: EventReport, Text: text}) })
		if count() == 1 {
			break
		}
		for w.has(EventReport) <= i { // as fast as the other one reads
			time.Sleep(100 * time.Microsecond)
		}
	}
	if count() != 1 {
		t.Fatal("who does not read is still there")
	}
	if !strings.Contains(ha.logs.String(), "does not keep up") {
		t.Error("nothing in the log")
	}
	// Once it reads, it hears what was queued, and then why there is no more.
	var last response
	for in := json.NewDecoder(conn); ; {
		var r response
		if err := in.Decode(&r); err != nil {
			break
		}
		last = r
	}
	if !last.Done || last.Error != errLagging.Error() {
		t.Errorf("%+v", last)
	}
	if err := Rekey(ha.root, "left", "", false); err != nil {
		t.Error(err)
	}
}

func TestMonitorsAreFew(t *testing.T) {
	ha, _, ra, _ := pair(t, nil)
	for range maxMonitors {
		ha.monitor()
	}
	ended := make(chan error, 1)
	go func() {
		ended <- Monitor(context.Background(), ha.root, "left", func(*MonitorEvent) error { return nil })
	}()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("%v", err)
	}
	if !ha.established("left") {
		t.Error("commands are not answered")
	}
	ra.down()
}

func TestSoftLimit(t *testing.T) {
	now := time.Unix(1_000_000, 900_000_000)
	for _, c := range []struct {
		u     apply.Usage
		limit string
		used  uint64
	}{
		{apply.Usage{Added: time.Unix(1_000_000-60, 0), Soft: apply.Limits{Time: time.Minute, Bytes: 9}, Bytes: 8}, "time", 60},
		{apply.Usage{Added: time.Unix(1_000_000-59, 0), Soft: apply.Limits{Time: time.Minute, Bytes: 9}, Bytes: 10}, "bytes", 10},
		{apply.Usage{Used: time.Unix(1_000_000-61, 0), Soft: apply.Limits{Use: time.Minute}}, "use", 61},
		{apply.Usage{Packets: 3, Soft: apply.Limits{Use: time.Minute, Packets: 3}}, "packets", 3},
		{apply.Usage{Packets: 2, Soft: apply.Limits{Packets: 3}}, "", 0},
		{apply.Usage{Packets: 2, Bytes: 2}, "", 0},
	} {
		if limit, used, _ := softLimit(c.u, now); limit != c.limit || used != c.used {
			t.Errorf("%+v: %s %d", c.u, limit, used)
		}
	}
}
