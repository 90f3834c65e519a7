package xfrm

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
)

// eventBuffer is how many octets of events the kernel may queue: some thousand
// expires, for a loop that is busy or not scheduled for a while.
const eventBuffer = 4 << 20

// eventReader turns multicast messages into events, in a goroutine of its own.
type eventReader struct {
	sock   *socket
	out    chan apply.Event
	filter func(apply.Event) (apply.Event, bool)
	stop   chan struct{}
	once   sync.Once
	done   chan struct{}
}

func startEvents(filter func(apply.Event) (apply.Event, bool)) (*eventReader, error) {
	sock, err := openSocket(groupAcquire, groupExpire, groupMapping)
	if err != nil {
		return nil, err
	}
	// SO_RCVBUFFORCE passes net.core.rmem_max; it needs the capability in the
	// initial user namespace, so within a container it may be refused.
	_ = sock.raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, eventBuffer) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, eventBuffer)
		}
	})
	e := &eventReader{
		sock:   sock,
		out:    make(chan apply.Event, 64),
		filter: filter,
		stop:   make(chan struct{}),
		done:   make(chan struct{}),
	}
	go e.run()
	return e, nil
}

// run reads until the socket is closed.
func (e *eventReader) run() {
	defer close(e.done)
	defer close(e.out)
	buf := make([]byte, maxMessage)
	overrun := false
	for {
		// Once the queue has overrun the kernel drops everything until it has
		// been emptied. Only then is a look at the SAs complete, so the Overrun
		// is sent when there is nothing left to read.
		n, err := e.sock.receive(buf, !overrun)
		switch {
		case err == nil:
			if !e.deliver(buf[:n]) {
				return
			}
		case errors.Is(err, unix.ENOBUFS):
			overrun = true
		case overrun && errors.Is(err, unix.EAGAIN):
			overrun = false
			if !e.emit(apply.Overrun{}) {
				return
			}
		default:
			return // closed
		}
	}
}

// deliver emits the events in a datagram; false: the reader is being closed.
// What cannot be read is dropped.
func (e *eventReader) deliver(datagram []byte) bool {
	open := true
	_ = eachMessage(datagram, func(h header, body []byte) {
		ev := decodeEvent(h.kind, body)
		if ev == nil || !open {
			return
		}
		if ev, pass := e.filter(ev); pass {
			open = e.emit(ev)
		}
	})
	return open
}

// emit waits for the consumer; meanwhile the kernel queues, and overruns.
func (e *eventReader) emit(ev apply.Event) bool {
	select {
	case e.out <- ev:
		return true
	case <-e.stop:
		return false
	}
}

func (e *eventReader) close() error {
	var err error
	e.once.Do(func() {
		close(e.stop)
		err = e.sock.close()
		<-e.done
	})
	return err
}
