package watch

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/conf"
)

// The control socket takes one request a connection, a JSON value, and answers
// with one or more of them; the last has Done set.

// Verbs of a request.
const (
	verbStatus = "status"
	verbRekey  = "rekey"
	verbClose  = "close" // what `down` asks for
	verbOffer  = "offer" // of a negotiation, by another tunnel's loop
	// verbRestart is answered in the end only if no other program took over.
	verbRestart = "restart"
	verbMonitor = "monitor" // answered with events
	verbReload  = "reload"
)

type request struct {
	Verb  string `json:"verb"`
	Peer  string `json:"peer,omitempty"` // rekey: empty for all
	IKE   bool   `json:"ike,omitempty"`  // rekey: the IKE SA too
	Claim []byte `json:"claim,omitempty"`
}

type response struct {
	Change   string        `json:"change,omitempty"` // a change to this host as it was made, or a hook's command
	Output   string        `json:"output,omitempty"` // a line that a hook has printed
	Event    *MonitorEvent `json:"event,omitempty"`
	Status   *Status       `json:"status,omitempty"`
	Accepted bool          `json:"accepted,omitempty"`
	Reloaded *Reloaded     `json:"reloaded,omitempty"`
	Wrong    conf.Errors   `json:"wrong,omitempty"` // with the tunnel file
	Error    string        `json:"error,omitempty"`
	TimedOut bool          `json:"timed_out,omitempty"` // the kind of Error
	Done     bool          `json:"done,omitempty"`
}

const (
	// maxRequest bounds a request: an offer holds a datagram and a half-open IKE
	// SA with two more of them, in base64.
	maxRequest = 1 << 20
	// requestTimeout is how long a client may take to send its request.
	requestTimeout = 5 * time.Second
	// finishTimeout is how long a loop that ends waits for its clients.
	finishTimeout = time.Second
	// maxClients bounds the connections being served.
	maxClients = 64
)

// control serves the control socket.
type control struct {
	listener *net.UnixListener
	clients  chan struct{} // a token for each
	accept   sync.WaitGroup
	serving  sync.WaitGroup
}

func listenControl(path string) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false) // the path may be another process's by then
	return listener, os.Chmod(path, 0o600)
}

func newControl(listener *net.UnixListener) *control {
	return &control{listener: listener, clients: make(chan struct{}, maxClients)}
}

// serve answers until the listener has a deadline or is closed.
func (c *control) serve(l *loop) {
	c.accept.Go(func() {
		for {
			conn, err := c.listener.AcceptUnix()
			if err != nil {
				if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
					return
				}
				time.Sleep(leastWait) // no descriptors left, perhaps
				continue
			}
			select {
			case c.clients <- struct{}{}:
			default:
				_ = conn.Close()
				continue
			}
			c.serving.Go(func() {
				defer func() { _ = conn.Close(); <-c.clients }()
				if allowed(conn) {
					l.serve(conn)
				}
			})
		}
	})
}

// stopServing leaves new connections to whoever has the listener next.
func (c *control) stopServing() {
	_ = c.listener.SetDeadline(time.Unix(1, 0))
	c.accept.Wait()
}

// resume lets serve begin again.
func (c *control) resume() { _ = c.listener.SetDeadline(time.Time{}) }

// finish closes the listener, and gives those who wait for an answer that is
// there the time to get it.
func (c *control) finish() {
	_ = c.listener.Close()
	c.accept.Wait()
	served := make(chan struct{})
	go func() { c.serving.Wait(); close(served) }()
	select {
	case <-served:
	case <-time.After(finishTimeout):
	}
}

// allowed: root, or the owner of this process. The directory keeps others out
// already.
func allowed(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	var cred *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return err == nil && failed == nil && (cred.Uid == 0 || int(cred.Uid) == os.Geteuid())
}

// serve answers one request. If the loop ends over it there is no answer: the
// client asks whoever runs the loop then.
func (l *loop) serve(conn net.Conn) {
	_ = conn.SetReadDeadline(time.Now().Add(requestTimeout))
	var req request
	if err := json.NewDecoder(io.LimitReader(conn, maxRequest)).Decode(&req); err != nil {
		return
	}
	out := json.NewEncoder(conn)
	answer := func(r response, err error) {
		if err != nil {
			r.Error = err.Error()
			var late *NoAnswer
			r.TimedOut = errors.As(err, &late)
		}
		r.Done = true
		_ = conn.SetWriteDeadline(time.Now().Add(requestTimeout))
		_ = out.Encode(r) // a client that has gone does not want it
	}
	switch req.Verb {
	case verbStatus:
		var status *Status
		if l.call(func() { status = l.status() }) {
			answer(response{Status: status}, nil)
		}
	case verbRekey:
		done := make(chan error, 1)
		if l.call(func() { l.rekey(req.Peer, req.IKE, done) }) {
			select {
			case err := <-done:
				answer(response{}, err)
			case <-l.ctx.Done():
			}
		}
	case verbClose:
		l.serveClose(conn, out, answer)
	case verbOffer:
		var accepted bool
		var err error
		if l.call(func() { accepted, err = l.offered(req.Claim) }) {
			answer(response{Accepted: accepted}, err)
		}
	case verbRestart:
		l.serveRestart(out, answer)
	case verbMonitor:
		l.serveMonitor(conn, out, answer)
	case verbReload:
		l.serveReload(out, answer)
	default:
		answer(response{}, errors.New("unknown verb"))
	}
}

// serveClose closes the tunnel and reports each change that is undone.
func (l *loop) serveClose(conn net.Conn, out *json.Encoder, answer func(response, error)) {
	changes, done := make(chan response, 64), make(chan error, 1)
	if !l.call(func() { l.close(func(r response) { changes <- r }, func(err error) { done <- err }) }) {
		return // the loop has ended or is another process's by now: the client asks again
	}
	gone := false // the client; the channel is emptied nevertheless, so that the loop never waits
	tell := func(r response) {
		if !gone {
			_ = conn.SetWriteDeadline(time.Now().Add(requestTimeout))
			gone = out.Encode(r) != nil
		}
	}
	for {
		select {
		case r := <-changes:
			tell(r)
		case err := <-done:
			for len(changes) > 0 {
				tell(<-changes)
			}
			answer(response{}, err)
			return
		}
	}
}

// ask sends a request to a tunnel's loop and waits for its last answer. before
// gets those before it, if it is not nil. The error is ErrNotUp or ErrNoLoop if there is none, and
// os.ErrDeadlineExceeded if it says nothing for the timeout.
func ask(d *dir, req *request, timeout time.Duration, before func(*response)) (*response, error) {
	raw, err := dial(d, timeout)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	if err := raw.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	if err := json.NewEncoder(raw).Encode(req); hungUp(err) {
		return nil, ErrNoLoop // it died before
	} else if err != nil {
		return nil, err
	}
	in := json.NewDecoder(raw)
	for {
		r := new(response)
		if err := in.Decode(r); err != nil {
			if hungUp(err) {
				return nil, ErrNoLoop // it died over it
			}
			return nil, err
		}
		if r.Done {
			return r, nil
		}
		if before != nil {
			before(r)
		}
		if err := raw.SetDeadline(time.Now().Add(timeout)); err != nil {
			return nil, err
		}
	}
}

// dial connects to a tunnel's loop. The error is ErrNotUp or ErrNoLoop if there
// is none.
func dial(d *dir, timeout time.Duration) (net.Conn, error) {
	conn, err := net.DialTimeout("unix", d.file(fileControl), timeout)
	switch {
	case errors.Is(err, syscall.ENOENT):
		if _, err := os.Lstat(d.path); err != nil {
			return nil, ErrNotUp
		}
		return nil, ErrNoLoop
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, ErrNoLoop
	}
	return conn, err
}
