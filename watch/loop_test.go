package watch

import (
	"errors"
	"strings"
	"testing"
	"time"

	"ipsec-quick/apply"
)

// pair brings two hosts up, each with its end of one tunnel.
func pair(t *testing.T, change func(a, b *site)) (ha, hb *host, ra, rb *running) {
	t.Helper()
	a, b := sites(t)
	if change != nil {
		change(&a, &b)
	}
	ha, hb = newHost(t), newHost(t)
	rb = hb.start(loadTunnel(t, b.name, b.text()))
	ra = ha.start(loadTunnel(t, a.name, a.text()))
	eventually(t, "established", func() bool { return ha.established("left") && hb.established("right") })
	return ha, hb, ra, rb
}

func TestEstablishAndDown(t *testing.T) {
	ha, hb, ra, rb := pair(t, nil)
	for _, h := range []*host{ha, hb} {
		if got := len(h.dp.SAs()); got != 2 {
			t.Errorf("%d SAs", got)
		}
		var guards, protects int
		for _, p := range h.dp.Policies() {
			switch {
			case p.Guard && p.Action == apply.Block:
				guards++
			case p.Action == apply.Protect:
				protects++
			}
		}
		if guards != 1 || protects != 1 {
			t.Errorf("%d guards, %d Protect policies: %v", guards, protects, h.dp.Policies())
		}
	}
	in, out := ha.status("left").Children[0], hb.status("right").Children[0]
	if in.SPIIn != out.SPIOut || in.SPIOut != out.SPIIn {
		t.Errorf("the ends disagree: %+v, %+v", in, out)
	}
	if in.LocalTS[0] != "10.1.0.0/16" || in.RemoteTS[0] != "10.2.0.0/16" || in.Mode != "tunnel" {
		t.Errorf("%+v", in)
	}
	ra.down()
	eventually(t, "the peer's SAs are gone", func() bool { return len(hb.dp.SAs()) == 0 })
	ha.clean()
	rb.down()
	hb.clean()
	ha.correct()
	hb.correct()
}

func TestGuardBeforeNegotiation(t *testing.T) {
	ha, _, _, _ := pair(t, nil)
	allocated := false
	for _, line := range ha.dp.Log() {
		switch {
		case strings.HasPrefix(line, "SetPolicy block"):
			if allocated {
				t.Errorf("the guard came late")
			}
			return
		case strings.HasPrefix(line, "AllocSPI") && strings.Contains(line, "127.0.0.1"):
			allocated = true
		}
	}
	t.Error("no guard")
}

func TestRekeyOnExpire(t *testing.T) {
	ha, hb, _, _ := pair(t, nil)
	before := ha.status("left").live()[0]
	for _, sa := range ha.dp.SAs() {
		if sa.Direction == apply.Out {
			ha.dp.Expire(sa.ID(), false)
		}
	}
	eventually(t, "rekeyed", func() bool {
		now := ha.status("left")
		return now.Rekeys.Child == 1 && len(now.live()) == 1 && now.live()[0].SPIIn != before.SPIIn && ha.established("left")
	})
	eventually(t, "rekeyed at the other end", func() bool { return hb.status("right").Rekeys.Child == 1 })
	now := ha.status("left")
	if now.Expires.Soft != 1 || now.Expires.Hard != 0 || now.Rekeys.Failed != 0 {
		t.Errorf("%+v %+v", now.Expires, now.Rekeys)
	}
	for _, p := range ha.dp.Policies() {
		if p.Action == apply.Protect && spiString(p.SPI) != now.live()[0].SPIOut {
			t.Errorf("the policy sends on %08x, not on %s", p.SPI, now.live()[0].SPIOut)
		}
	}
	ha.correct()
	hb.correct()
}

func TestHardExpireStartsOver(t *testing.T) {
	ha, hb, _, _ := pair(t, nil)
	before := ha.status("left").live()[0]
	for _, sa := range ha.dp.SAs() {
		if sa.Direction == apply.Out {
			ha.dp.Expire(sa.ID(), true)
		}
	}
	eventually(t, "back", func() bool {
		return ha.replaced("left", before) && hb.established("right")
	})
	if got := ha.status("left").Expires.Hard; got != 1 {
		t.Errorf("%d hard expires", got)
	}
	ha.correct()
}

func TestOverrunFindsWhatWasLost(t *testing.T) {
	ha, _, _, _ := pair(t, nil)
	before := ha.status("left").live()[0]
	for _, sa := range ha.dp.SAs() {
		if sa.Direction == apply.Out {
			// Gone without an event, as when the queue was full.
			if err := ha.dp.RemoveSA(sa.ID()); err != nil {
				t.Fatal(err)
			}
		}
	}
	ha.dp.Inject(apply.Overrun{})
	eventually(t, "back", func() bool { return ha.replaced("left", before) })
}

func TestOverrunFindsSoftLimit(t *testing.T) {
	head := "[lifetime]\nbytes = { soft = \"1GiB\", hard = \"2GiB\" }\njitter = \"0%\"\n"
	ha, _, _, _ := pair(t, func(a, b *site) { a.head, b.head = head, head })
	for _, sa := range ha.dp.SAs() {
		if sa.Direction == apply.Out {
			ha.dp.SetUsage(sa.ID(), apply.Usage{Bytes: 1 << 30, Packets: 9})
		}
	}
	ha.dp.Inject(apply.Overrun{})
	eventually(t, "rekeyed", func() bool { return ha.status("left").Rekeys.Child == 1 })
}

func TestRekeyCommand(t *testing.T) {
	ha, hb, _, _ := pair(t, nil)
	before := ha.status("left")
	if err := Rekey(ha.root, "left", "", false); err != nil {
		t.Fatal(err)
	}
	if err := Rekey(ha.root, "left", "other", true); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one IKE SA is left", func() bool {
		now := ha.status("left")
		return now.State == "established" && now.IKE.SPIi != before.IKE.SPIi && now.Rekeys == RekeyCount{Child: 1, IKE: 1, Last: now.Rekeys.Last} && now.Rekeys.Last != ""
	})
	if err := Rekey(ha.root, "left", "nobody", false); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("a peer that is not there: %v", err)
	}
	eventually(t, "the other end has counted", func() bool { return hb.status("right").Rekeys.IKE == 1 })
}

func TestOnDemand(t *testing.T) {
	a, b := sites(t)
	a.extra = `start = "on-demand"`
	ha, hb := newHost(t), newHost(t)
	hb.start(loadTunnel(t, b.name, b.text()))
	ra := ha.start(loadTunnel(t, a.name, a.text()))
	var trap apply.Policy
	for _, p := range ha.dp.Policies() {
		if p.Action == apply.Trap {
			trap = p
		}
	}
	if !trap.Guard || trap.ReqID == 0 {
		t.Fatalf("no trap: %v", ha.dp.Policies())
	}
	if s := ha.status("left").State; s != "idle" {
		t.Errorf("%s before the first packet", s)
	}
	ha.dp.Inject(apply.Acquire{ReqID: trap.ReqID, Local: trap.Local, Remote: trap.Remote, Packet: trap.Selector})
	eventually(t, "established", func() bool { return ha.established("left") })
	ra.down()
	ha.clean()
}

func TestInstallFailure(t *testing.T) {
	a, b := sites(t)
	ha, hb := newHost(t), newHost(t)
	hb.start(loadTunnel(t, b.name, b.text()))
	ha.dp.Fail("InstallSA", errors.New("out of memory"))
	ha.start(loadTunnel(t, a.name, a.text()))
	// The first attempt fails at the first SA, the next one goes through.
	eventually(t, "established", func() bool { return ha.established("left") })
	if got := len(ha.dp.SAs()); got != 2 {
		t.Errorf("%d SAs", got)
	}
	ha.correct()
}

func TestCrashAndRecover(t *testing.T) {
	ha, hb, ra, rb := pair(t, nil)
	before := ha.status("left")
	policies := len(ha.dp.Policies())
	tunnel := ra.tunnel
	ra.crash()
	if got := len(ha.dp.Policies()); got != policies {
		t.Errorf("%d of %d policies are left: not fail closed", got, policies)
	}
	dead, err := Get(ha.root, "left", ha.opener)
	if err != nil || dead.WatchPID != 0 || len(dead.Peers[0].Children) != 1 {
		t.Errorf("status of a dead loop: %+v, %v", dead, err)
	}
	if err := Rekey(ha.root, "left", "", false); !errors.Is(err, ErrNoLoop) {
		t.Errorf("rekey of a dead loop: %v", err)
	}
	r2 := ha.start(tunnel)
	if !r2.u.revived {
		t.Error("it was not taken for a revival")
	}
	after := ha.status("left")
	if after.State != "established" || after.IKE.SPIi != before.IKE.SPIi || len(after.Children) != 1 || after.Children[0].SPIIn != before.Children[0].SPIIn {
		t.Errorf("not the same SAs:\n%+v\n%+v", before, after)
	}
	if got := len(ha.dp.SAs()); got != 2 {
		t.Errorf("%d SAs", got)
	}
	// It goes on where it was: both ends can still talk.
	if err := Rekey(ha.root, "left", "", false); err != nil {
		t.Error(err)
	}
	if err := Rekey(hb.root, "right", "", false); err != nil {
		t.Error(err)
	}
	r2.down()
	ha.clean()
	rb.down()
	hb.clean()
	ha.correct()
}

func TestRecoverAfterHardExpire(t *testing.T) {
	ha, _, ra, _ := pair(t, nil)
	before := ha.status("left").Children[0]
	tunnel := ra.tunnel
	ra.crash()
	for _, sa := range ha.dp.SAs() {
		ha.dp.Expire(sa.ID(), true)
	}
	ha.start(tunnel)
	eventually(t, "a new Child SA", func() bool { return ha.replaced("left", before) })
}

func TestDownOfDeadLoop(t *testing.T) {
	ha, hb, ra, _ := pair(t, nil)
	ra.crash()
	var changes []string
	err := Down(DownOptions{
		Name: "left", Log: ha.log(), Dir: ha.root, Dataplane: ha.opener,
		Change: func(s string) { changes = append(changes, s) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ha.clean()
	if len(changes) == 0 {
		t.Error("nothing was said")
	}
	eventually(t, "the peer was told", func() bool { return len(hb.dp.SAs()) == 0 })
	if err := Down(DownOptions{Name: "left", Log: ha.log(), Dir: ha.root, Dataplane: ha.opener}); !errors.Is(err, ErrNotUp) {
		t.Errorf("down again: %v", err)
	}
	ha.clean()
}

func TestUpTwice(t *testing.T) {
	ha, _, ra, _ := pair(t, nil)
	log := len(ha.dp.Log())
	_, err := ha.tryStart(ra.tunnel)
	var running *Running
	if !errors.As(err, &running) || running.PID == 0 || running.Starting {
		t.Errorf("%v", err)
	}
	if len(ha.dp.Log()) != log || !ha.established("left") {
		t.Error("it changed something")
	}
}

func TestConflictOfTwoTunnels(t *testing.T) {
	a, _ := sites(t)
	h := newHost(t)
	r := h.start(loadTunnel(t, "one", a.text()))
	policies := len(h.dp.Policies())
	_, err := h.tryStart(loadTunnel(t, "two", a.text()))
	var conflict *Conflict
	if !errors.As(err, &conflict) || conflict.Tunnel != "one" {
		t.Fatalf("%v", err)
	}
	if got := len(h.dp.Policies()); got != policies {
		t.Errorf("%d of %d policies are left", got, policies)
	}
	r.down()
	h.clean()
}

// TestNoSecretInOutput looks through everything that is said at debug level.
func TestNoSecretInOutput(t *testing.T) {
	ha, hb, ra, rb := pair(t, nil)
	if err := Rekey(ha.root, "left", "", false); err != nil {
		t.Fatal(err)
	}
	if err := Rekey(ha.root, "left", "", true); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, h := range []*host{ha, hb} {
		for _, sa := range h.dp.SAs() {
			keys = append(keys, string(sa.Encryption.Key), string(sa.Integrity.Key))
		}
	}
	keys = append(keys, testKey)
	ra.down()
	rb.down()
	said := ha.rec.text() + ha.logs.String() + hb.rec.text() + hb.logs.String()
	if !strings.Contains(said, "<hidden>") || !strings.Contains(said, "level=DEBUG") {
		t.Fatal("nothing was said")
	}
	for _, k := range keys {
		if k == "" {
			continue
		}
		for _, form := range spellings(k) {
			if strings.Contains(said, form) {
				t.Errorf("a key was printed as %q", form[:min(len(form), 8)]+"...")
			}
		}
	}
}

func TestReconcileForgetsLapsedReservations(t *testing.T) {
	ha, _, ra, _ := pair(t, nil)
	if !ra.call(func() {
		p := ra.peers["other"]
		if _, err := ra.journal.AllocSPI(p.reqID, p.remote, p.local, apply.Tunnel); err != nil {
			t.Error(err)
		}
		ha.dp.Lapse()
		if got := len(ra.journal.SAs()); got != 3 {
			t.Errorf("%d SAs in the journal", got)
		}
		ra.reconcile()
		if got := len(ra.journal.SAs()); got != 2 {
			t.Errorf("%d SAs in the journal after all", got)
		}
	}) {
		t.Fatal("the loop has ended")
	}
}

func TestOverSoft(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for _, c := range []struct {
		name string
		u    apply.Usage
		want bool
	}{
		{"no limits", apply.Usage{Bytes: 9, Added: now.Add(-time.Hour)}, false},
		{"bytes", apply.Usage{Bytes: 9, Soft: apply.Limits{Bytes: 9}}, true},
		{"fewer bytes", apply.Usage{Bytes: 8, Soft: apply.Limits{Bytes: 9}}, false},
		{"packets", apply.Usage{Packets: 9, Soft: apply.Limits{Packets: 9}}, true},
		{"time", apply.Usage{Added: now.Add(-time.Hour), Soft: apply.Limits{Time: time.Minute}}, true},
		{"just now", apply.Usage{Added: now.Add(-time.Minute), Soft: apply.Limits{Time: time.Minute}}, false},
		{"use", apply.Usage{Used: now.Add(-time.Hour), Soft: apply.Limits{Use: time.Minute}}, true},
		{"never used", apply.Usage{Soft: apply.Limits{Use: time.Minute}}, false},
	} {
		if got := overSoft(c.u, now); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
