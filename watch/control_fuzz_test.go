package watch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"ipsec-quick/apply"
	"ipsec-quick/apply/fake"
	"ipsec-quick/conf"
	"ipsec-quick/ike"
)

// FuzzControl says anything to the control socket of a tunnel with one peer. The
// answer is nothing or whole JSON values, of which the last one is marked, or a
// monitor's events; and the loop goes on, unless it was told to close.
func FuzzControl(f *testing.F) {
	root := filepath.Join(f.TempDir(), "run")
	f.Fuzz(func(t *testing.T, said []byte) {
		l := quietLoop(t, root)
		ended := make(chan error, 1)
		go func() { ended <- l.run(l.ctx, forever) }()
		client := &client{said: bytes.NewReader(said)}
		l.serve(client)
		var answers []response
		for in := json.NewDecoder(&client.heard); in.More(); {
			var r response
			if err := in.Decode(&r); err != nil {
				t.Fatalf("an answer: %v", err)
			}
			answers = append(answers, r)
		}
		for i, r := range answers {
			if r.Event == nil && r.Done != (i == len(answers)-1) {
				t.Errorf("answer %d of %d: %+v", i+1, len(answers), r)
			}
		}
		l.cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) && !errors.Is(err, errClosed) {
			t.Error(err)
		}
		_ = l.journal.Close()
	})
}

// client is a connection that says what it has to say and hears what it gets.
type client struct {
	net.Conn
	said  io.Reader
	heard bytes.Buffer
}

func (c *client) Read(b []byte) (int, error)       { return c.said.Read(b) }
func (c *client) Write(b []byte) (int, error)      { return c.heard.Write(b) }
func (c *client) SetReadDeadline(time.Time) error  { return nil }
func (c *client) SetWriteDeadline(time.Time) error { return nil }

// quietLoop is a loop without sockets, whose peer is not connected.
func quietLoop(t *testing.T, root string) *loop {
	t.Helper()
	tunnel := &conf.Tunnel{Name: "quiet", Peers: []conf.Peer{{Name: "other"}}}
	d := newDir(root, tunnel.Name)
	l := &loop{
		tunnel: tunnel, dir: d, facts: &facts{ReqIDs: map[string]uint32{"other": 7}}, dp: fake.New(),
		obs: &recorder{}, log: slog.New(slog.DiscardHandler), now: bootTime, reconcileAt: bootTime().Add(reconcileEvery),
		calls: make(chan func()), answers: make(chan answer), hand: &handover{}, listening: true,
		peers: map[string]*peer{"other": {conf: &tunnel.Peers[0], reqID: 7}}, byReqID: map[uint32]*peer{},
		protect: map[apply.Selector]apply.Policy{}, in: newInbox(), unsaved: map[string]bool{}, monitors: map[*monitor]bool{},
		core: ike.New(coreConfig(tunnel, false)),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	var err error
	if l.journal, err = apply.OpenJournal(d.file(fileJournal), l.dp, l.changed); err != nil {
		t.Fatal(err)
	}
	return l
}
