package ike

import (
	"container/heap"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime/debug"
	"time"
)

// world is one simulated life of a tunnel: two hosts, or a hub with two peers,
// the network between them, and what befalls them. All of it follows from the
// seed.
type world struct {
	rand    *rand.Rand // what happens; the endpoints draw from a source of their own
	profile profile
	breaks  mutation

	now    time.Duration // since start
	queue  happenings
	number uint64 // of the next happening

	hosts []*simHost
	pairs []*pair
	air   // the network

	kind bool // the trouble is over
	// troubleUntil: nobody is frozen or crashes before, see [world.trouble].
	troubleUntil time.Duration
	keys         map[string]bool // that ESP packets were sent with

	record bool // keep a trace
	trace  []string
}

// happening is something that will happen.
type happening struct {
	at     time.Duration
	number uint64 // of two at the same time the older comes first
	do     func()
}

type happenings []*happening

func (q happenings) Len() int { return len(q) }
func (q happenings) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].number < q[j].number
}
func (q happenings) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *happenings) Push(x any)   { *q = append(*q, x.(*happening)) }
func (q *happenings) Pop() any {
	last := len(*q) - 1
	h := (*q)[last]
	*q = (*q)[:last]
	return h
}

// after lets something happen in a while.
func (w *world) after(d time.Duration, do func()) {
	w.number++
	heap.Push(&w.queue, &happening{w.now + d, w.number, do})
}

// run lets time pass until a moment, or until enough says so.
func (w *world) run(until time.Duration, enough func() bool) bool {
	for len(w.queue) > 0 && w.queue[0].at <= until {
		next := heap.Pop(&w.queue).(*happening)
		w.now = next.at
		next.do()
		if enough() {
			return true
		}
	}
	w.now = until
	return false
}

// time is the clock of the hosts.
func (w *world) time() time.Time { return start.Add(w.now) }

// chance is true in so many of a hundred cases.
func (w *world) chance(percent int) bool { return w.rand.IntN(100) < percent }

// within draws a duration from 0 to below d.
func (w *world) within(d time.Duration) time.Duration {
	return time.Duration(w.rand.Int64N(int64(max(d, 1))))
}

// note adds a line to the trace. Only a run that failed before is traced.
func (w *world) note(h *simHost, format string, args ...any) {
	if !w.record {
		return
	}
	who := "-"
	if h != nil {
		who = h.name
	}
	w.trace = append(w.trace, fmt.Sprintf("%9.3f %s: %s", w.now.Seconds(), who, fmt.Sprintf(format, args...)))
}

// violation is an invariant that does not hold.
type violation struct {
	seed uint64
	text string
	// trace is what happened last.
	trace []string
}

// fail ends the run.
func (w *world) fail(format string, args ...any) {
	panic(violation{text: fmt.Sprintf("at %.3f s: ", w.now.Seconds()) + fmt.Sprintf(format, args...)})
}

const (
	trouble  = 80 * time.Second // how long a run lets things go wrong
	recovery = 3 * time.Minute  // how long everything may take to be well again
)

// simulate plays one seed, and returns what went wrong; nil: nothing.
func simulate(seed uint64, breaks mutation, record bool) *violation {
	w := &world{rand: rand.New(rand.NewPCG(seed, 1)), breaks: breaks, record: record}
	failed := w.play(rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24), byte(seed >> 32)}))
	if failed != nil {
		failed.seed = seed
	}
	return failed
}

// play is a life from begin to end. It returns what went wrong; nil: nothing.
func (w *world) play(source io.Reader) (failed *violation) {
	defer func() {
		switch p := recover().(type) {
		case nil:
			return
		case violation:
			failed = &p
		default:
			failed = &violation{text: fmt.Sprintf("panic: %v\n%s", p, debug.Stack())}
		}
		w.state()
		failed.trace = w.trace
	}()
	w.begin(source)
	w.run(trouble, func() bool { return false })
	w.calm()
	if !w.run(w.now+recovery, w.settled) {
		w.fail("not well again after %s: %s", recovery, w.unsettled())
	}
	return nil
}
