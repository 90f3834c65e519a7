package ike

import (
	"net/netip"
	"slices"
	"time"

	"ipsec-quick/ike/wire"
)

// Message IDs, the window of one request each way, retransmission and the
// response cache (RFC 7296, Sections 2.1 to 2.3).

const (
	// A request is sent again after firstTimeout, then after timeoutFactor
	// times as long each, up to maxTimeout. With maxTries that makes 36 s: a
	// peer that was frozen hears from us within maxTimeout of its return.
	firstTimeout  = time.Second
	timeoutFactor = 1.8
	maxTimeout    = 8 * time.Second
	maxTries      = 7
	// hurriedTries is the same for IKE_SA_INIT while the peer has other addresses:
	// 6 s.
	hurriedTries = 3
	// patience is how long a peer may leave a request unanswered that sends
	// requests itself all the while.
	patience = 2 * time.Minute
)

// outgoing is the exchanges that we initiate.
type outgoing struct {
	NextID  uint32
	Active  task     // the one that runs
	Queue   []task   // those that wait for it
	Request *request // the request of Active that waits for its response
}

// tasks are all that run or wait.
func (o *outgoing) tasks() []task {
	if o.Active == nil {
		return o.Queue
	}
	return append([]task{o.Active}, o.Queue...)
}

// request is a request on its way.
type request struct {
	ID        uint32
	Exchange  wire.ExchangeType
	Datagrams [][]byte // one, or the fragments
	Tries     int
	First     time.Time // when it was sent
	Last      time.Time // and the last time
	At        time.Time // of the next retransmission
}

// incoming is the exchanges that the peer initiates.
type incoming struct {
	ExpectID  uint32
	Responses [][]byte // to the request before ExpectID; sent again when that comes again
}

// progress is what a task made of being asked for its request or given an answer.
type progress uint8

const (
	waiting  progress = iota // for the data plane; it goes on with its event
	sending                  // the payloads go out
	finished                 // nothing is left to do
)

// task is one exchange that we initiate. Its exported fields survive a restart.
type task interface {
	exchange() wire.ExchangeType
	// request makes the payloads of the request.
	request(e *Endpoint, sa *ikeSA) ([]wire.Payload, progress)
	// response takes those of the response: finished, or waiting.
	response(e *Endpoint, sa *ikeSA, ps payloads) progress
	// abort ends it when the IKE SA goes.
	abort(e *Endpoint, sa *ikeSA)
}

// submit queues a task and starts it when it is its turn.
func (e *Endpoint) submit(sa *ikeSA, t task) {
	sa.Send.Queue = append(sa.Send.Queue, t)
	e.pump(sa)
}

// submitFirst queues a task before all others.
func (e *Endpoint) submitFirst(sa *ikeSA, t task) {
	sa.Send.Queue = append([]task{t}, sa.Send.Queue...)
	e.pump(sa)
}

// pump starts the next task when none is running.
func (e *Endpoint) pump(sa *ikeSA) {
	for sa.Send.Active == nil && len(sa.Send.Queue) > 0 && e.state.SAs[sa.local()] == sa {
		if !e.mayBegin(sa) {
			return
		}
		sa.Send.Active = sa.Send.Queue[0]
		sa.Send.Queue = slices.Delete(sa.Send.Queue, 0, 1)
		e.begin(sa)
	}
}

// begin asks the active task for its request and sends it.
func (e *Endpoint) begin(sa *ikeSA) {
	t := sa.Send.Active
	ps, p := t.request(e, sa)
	switch p {
	case waiting:
	case finished:
		sa.Send.Active = nil
	case sending:
		m := sa.message(t.exchange(), sa.Send.NextID, false, ps)
		datagrams, err := e.sealed(sa, m)
		if err != nil {
			e.dismiss(sa, err)
			return
		}
		e.sendRequest(sa, m, datagrams)
	}
}

// finish ends the active task and starts the next.
func (e *Endpoint) finish(sa *ikeSA) {
	sa.Send.Active = nil
	e.pump(sa)
}

// sendRequest sends a request for the first time.
func (e *Endpoint) sendRequest(sa *ikeSA, m *wire.Message, datagrams [][]byte) {
	sa.Send.NextID = m.MessageID + 1
	sa.Send.Request = &request{ID: m.MessageID, Exchange: m.Exchange, Datagrams: datagrams, First: e.now, Last: e.now, At: e.now.Add(firstTimeout)}
	e.persist(sa)
	e.transmit(sa, datagrams)
	e.reportMessage(sa, m, "to", sa.Remote)
}

// persist comes before what depends on the state of an IKE SA. A handshake does
// not survive a restart: a new one costs no more than its rest.
func (e *Endpoint) persist(sa *ikeSA) {
	if sa.authenticated() {
		e.save(sa.Peer)
	}
}

// authenticated reports whether both ends are.
func (sa *ikeSA) authenticated() bool { return sa.State != initSent && sa.State != halfOpen }

// retransmit sends the request again or gives up (RFC 7296, Section 2.4).
func (e *Endpoint) retransmit(sa *ikeSA) {
	r := sa.Send.Request
	r.Tries++
	if r.Tries >= maxTries || sa.State == initSent && sa.Init.Others && r.Tries >= hurriedTries {
		e.dismiss(sa, &TimeoutError{Exchange: r.Exchange, Remote: sa.Remote})
		return
	}
	wait := firstTimeout
	for range r.Tries {
		wait = min(time.Duration(float64(wait)*timeoutFactor), maxTimeout)
	}
	r.Last, r.At = e.now, e.now.Add(wait)
	e.transmit(sa, r.Datagrams)
}

// heard says that the peer made a new request: it lives. It may have been away
// each time that ours came (a process that is restarted again and again), so ours
// goes out once more now, and the peer has all the time again.
func (e *Endpoint) heard(sa *ikeSA) {
	r := sa.Send.Request
	if r == nil || r.Tries == 0 || e.now.Sub(r.First) > patience {
		return
	}
	r.Tries = 0
	if at := r.Last.Add(firstTimeout); at.Before(r.At) {
		r.At = at
	}
}

// respond answers the request that is being processed and remembers the answer.
func (e *Endpoint) respond(sa *ikeSA, exchange wire.ExchangeType, ps ...wire.Payload) {
	m := sa.message(exchange, sa.Recv.ExpectID, true, ps)
	datagrams, err := e.sealed(sa, m)
	if err != nil {
		e.dismiss(sa, err)
		return
	}
	sa.Recv.ExpectID++
	sa.Recv.Responses = datagrams
	e.persist(sa)
	e.transmit(sa, datagrams)
	e.reportMessage(sa, m, "to", sa.Remote)
}

// transmit sends datagrams of an IKE SA.
func (e *Endpoint) transmit(sa *ikeSA, datagrams [][]byte) {
	for _, d := range datagrams {
		e.emit(Send{Local: sa.Local, Remote: sa.Remote, NATT: sa.NATT, Data: d})
	}
	sa.LastSent = e.now
}

// message is a message of ours.
func (sa *ikeSA) message(exchange wire.ExchangeType, id uint32, response bool, ps []wire.Payload) *wire.Message {
	return &wire.Message{
		SPIi: sa.SPIi, SPIr: sa.SPIr, Exchange: exchange,
		Initiator: sa.Original, Response: response, MessageID: id, Payloads: ps,
	}
}

// sealed encrypts a message, in fragments where that is needed and agreed on.
func (e *Endpoint) sealed(sa *ikeSA, m *wire.Message) ([][]byte, error) {
	c, err := sa.seal()
	if err != nil {
		return nil, err
	}
	limit := 0
	if p := e.peers[sa.Peer]; p != nil && sa.Fragmentation && p.Fragment > 0 {
		limit = p.Fragment - ipUDPHeader(sa.Remote.Addr(), sa.NATT)
	}
	return c.Seal(m, limit, e.cfg.Rand)
}

// ipUDPHeader is the length of what goes before an IKE message in an IP packet.
func ipUDPHeader(a netip.Addr, natt bool) int {
	n := 40 + 8
	if a.Is4() {
		n = 20 + 8
	}
	if natt {
		n += 4
	}
	return n
}

// receiveProtected takes a message with an SK or SKF payload.
func (e *Endpoint) receiveProtected(sa *ikeSA, d Datagram, m *wire.Message) {
	if m.Response && (sa.Send.Request == nil || m.MessageID != sa.Send.Request.ID || m.Exchange != sa.Send.Request.Exchange) {
		e.stats.BadMessageID++
		return
	}
	again := !m.Response && m.MessageID+1 == sa.Recv.ExpectID
	if !m.Response && !again && m.MessageID != sa.Recv.ExpectID {
		e.stats.BadMessageID++
		return
	}
	inner, whole := e.decrypt(sa, d, m)
	if inner == nil {
		return // not authentic
	}
	sa.LastHeard = e.now
	if whole && !again {
		e.follow(sa, d) // a replayed message must not lead us astray
	}
	switch {
	case !whole || !again && !m.Response && sa.pending != nil:
		// Fragments are missing, or the same request waits for the data plane.
	case again:
		// The peer did not get our answer (RFC 7296, Section 2.1). Of a request in
		// fragments the first one asks for it (RFC 7383, Section 2.6.1).
		// The answer goes where the request came from (RFC 7296, Section 2.11).
		e.stats.Replayed++
		for _, r := range sa.Recv.Responses {
			e.emit(Send{Local: d.Local, Remote: d.Remote, NATT: d.NATT, Data: r})
		}
	case m.Response || e.mayAsk(sa):
		e.process(sa, d, m, inner)
	}
}

// process takes a decrypted message that is the next of its kind.
func (e *Endpoint) process(sa *ikeSA, d Datagram, m *wire.Message, inner *plaintext) {
	list, err := wire.ParsePayloads(inner.first, inner.data)
	m.Payloads = list
	e.reportMessage(sa, m, "from", d.Remote)
	ps := payloads(list)
	if err == nil {
		err = ps.legal(m.Exchange, m.Response)
	}
	switch {
	case err != nil && m.Response:
		// The peer does not speak the protocol: nothing it holds can be relied on.
		e.dismiss(sa, err)
	case err != nil:
		e.stats.Malformed++
		e.respond(sa, m.Exchange, syntaxNotify(err))
		if !sa.authenticated() {
			e.dismiss(sa, err)
		}
	case m.Response:
		sa.Send.Request = nil
		if sa.Send.Active.response(e, sa, ps) == finished && e.state.SAs[sa.local()] == sa {
			e.finish(sa)
		}
	default:
		e.heard(sa)
		e.request(sa, d, m, ps)
	}
}

// request takes a request of the peer to the exchange that it belongs to.
func (e *Endpoint) request(sa *ikeSA, d Datagram, m *wire.Message, ps payloads) {
	authenticated := sa.authenticated()
	switch {
	case m.Exchange == wire.IKEAuth && !authenticated && !sa.Original:
		e.respondAuth(sa, d, ps)
	case m.Exchange == wire.CreateChildSA && authenticated:
		e.preferred(sa)
		e.respondCreateChild(sa, ps)
	case m.Exchange == wire.Informational && authenticated:
		e.respondInformational(sa, ps)
	case m.Exchange == wire.Informational && ps.notify(wire.NotifyAuthenticationFailed) != nil:
		e.respond(sa, m.Exchange)
		e.dismiss(sa, &PeerError{Exchange: wire.IKEAuth, Kind: wire.NotifyAuthenticationFailed})
	default:
		e.stats.Unexpected++
	}
}

// follow takes the address that an authentic message came from as the peer's,
// when the peer is behind a NAT and we are not (RFC 7296, Section 2.23).
func (e *Endpoint) follow(sa *ikeSA, d Datagram) {
	if sa.Remote == d.Remote || !sa.NATThere || sa.NATHere || !d.NATT || sa.State == halfOpen {
		return
	}
	e.move(sa, d.Remote)
}

// move gives an IKE SA and its Child SAs another address of the peer.
func (e *Endpoint) move(sa *ikeSA, remote netip.AddrPort) {
	e.report(sa, nil, "the peer moved from %s to %s", sa.Remote, remote)
	sa.Remote = remote
	for _, c := range sa.sorted() {
		old := c.ChildSA
		c.Remote = remote
		e.emit(UpdateChild{Old: old, New: c.ChildSA})
	}
	e.save(sa.Peer)
}
