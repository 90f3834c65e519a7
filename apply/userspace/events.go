package userspace

import (
	"sync"

	"ipsec-quick/apply"
)

// eventQueue is how many events wait for the consumer: those of some hundred SAs
// that expire at the same time.
const eventQueue = 1024

// events are what is told to the consumer. Nobody who tells waits for it: the
// last place in the queue is for an Overrun.
type events struct {
	mu     sync.Mutex
	out    chan apply.Event
	closed bool
}

func newEvents() *events { return &events{out: make(chan apply.Event, eventQueue)} }

// tell queues an event. If there is no room an Overrun is behind those that wait,
// and the consumer looks for itself when it gets there.
func (e *events) tell(ev apply.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch room := cap(e.out) - len(e.out); {
	case e.closed || room == 0:
	case room == 1:
		e.out <- apply.Overrun{}
	default:
		e.out <- ev
	}
}

func (e *events) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed {
		e.closed = true
		close(e.out)
	}
}
