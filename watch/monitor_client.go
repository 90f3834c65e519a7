package watch

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"syscall"
	"time"
)

// monitorPause is between two looks for a loop that has died.
const monitorPause = 200 * time.Millisecond

// Monitor passes on what happens to a tunnel until it is taken down, the context
// ends, or emit fails. It goes on with another loop of the same tunnel, and says
// so. The error is ErrNotUp if there is no such tunnel.
func Monitor(ctx context.Context, root, name string, emit func(*MonitorEvent) error) error {
	if root == "" {
		root = RunDir
	}
	d := newDir(root, name)
	for was, lost := false, false; ; {
		said, err := listenTo(ctx, d, emit)
		lost = lost && !said
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil, was && errors.Is(err, ErrNotUp):
			return emit(&MonitorEvent{Time: eventTime(), Tunnel: name, Event: EventDown})
		case !errors.Is(err, ErrNoLoop) && !errors.Is(err, errEnded) && !errors.Is(err, errLagging):
			return err
		case !lost:
			lost = true
			if err := emit(&MonitorEvent{Time: eventTime(), Tunnel: name, Event: EventInterrupted, Error: err.Error()}); err != nil {
				return err
			}
		}
		was = true
		select {
		case <-ctx.Done():
		case <-time.After(monitorPause):
		}
	}
}

// listenTo passes on what one loop says; said: it said something. There is no
// error if the tunnel was taken down.
func listenTo(ctx context.Context, d *dir, emit func(*MonitorEvent) error) (said bool, err error) {
	conn, err := dial(d, askTimeout)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := json.NewEncoder(conn).Encode(request{Verb: verbMonitor}); err != nil {
		return false, errEnded
	}
	in := json.NewDecoder(conn)
	for {
		r := new(response)
		if err := in.Decode(r); err != nil {
			if hungUp(err) {
				err = errEnded
			}
			return said, err
		}
		said = true
		switch {
		case r.Event != nil:
			if err := emit(r.Event); err != nil {
				return said, err
			}
		case r.Done && r.Error == errLagging.Error():
			return said, errLagging
		case r.Done && r.Error != "":
			return said, errors.New(r.Error)
		case r.Done:
			return said, nil
		}
	}
}

// hungUp reports whether the other end of a connection has gone.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
