package websocket

import (
	"bytes"
	"errors"
	"net/http"
	"time"
)

// The waiter has the connections that wait for room to write, and those that
// need more than a shard may give them: the base of a stream that begins, a large
// change, what a slow client has missed. Each takes its own time; nobody waits
// for it. When it has what it is owed it goes to its shard. Behind a door it also
// has those who have not yet said what they want.
type waiter struct {
	loop
	srv     *server
	pinned  map[*frames]int    // frames that are being sent, and to how many
	bytes   int                // of those frames
	ready   map[*shard][]*conn // go to their shards at the end of the turn
	due     time.Time          // when a connection may have to be given up; zero: never
	swept   time.Time          // when it was last looked who has to be
	closeBy time.Time          // when all have to be gone; zero: the server runs

	// For requests, one at a time.
	requests requestReader
	answered answer
	head     []byte

	last bool // no further connections will be handed over; guarded by mu
}

const (
	// turnBytes is how much one connection is written before it is the turn of
	// the others.
	turnBytes = 256 << 10
	// partingTime is how long a client may take to close after the goodbye.
	partingTime = 2 * time.Second
	// sweepEvery is how often it is looked who has to be given up, at most: it is
	// looked at all, and strangers who say nothing may come by the thousand.
	sweepEvery = 100 * time.Millisecond
	// keptRest is how much of a frame is copied to let go of all the others.
	keptRest = 16 << 10
)

func newWaiter(srv *server) (*waiter, error) {
	w := &waiter{
		srv:      srv,
		pinned:   make(map[*frames]int),
		ready:    make(map[*shard][]*conn),
		requests: newRequestReader(),
		answered: answer{header: make(http.Header)},
	}
	if err := w.init(srv.backend); err != nil {
		return nil, err
	}
	return w, nil
}

// run runs the waiter until it is finished.
func (w *waiter) run() {
	for {
		events := w.poller.wait(w.due)
		now := time.Now()
		for _, e := range events {
			if c := w.conns[e.slot]; c != nil {
				w.turn(c, e, now)
			}
		}
		arrived, stopped := w.arrived()
		if stopped && w.closeBy.IsZero() {
			w.closeBy = now.Add(shutdownGrace)
			w.endAll(now)
		}
		for _, c := range arrived {
			w.arrive(c, now)
		}
		if !w.due.IsZero() && !now.Before(w.due) {
			w.giveUp(now)
		}
		w.handOver(now)
		if len(w.free) == len(w.conns) && w.finished() {
			w.close()
			return
		}
	}
}

// finish lets run return when the connections it has are closed. No further ones
// may be handed to it.
func (w *waiter) finish() {
	w.mu.Lock()
	w.last = true
	w.mu.Unlock()
	w.poller.wake()
}

func (w *waiter) finished() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last && len(w.inbox) == 0
}

// An outcome is what becomes of a connection after its turn.
type outcome uint8

const (
	goesOn   outcome = iota // there may be room for more
	waits                   // for room, or for the client
	upToDate                // it goes to its shard
	strays                  // it goes to net/http
	ends                    // it is closed
)

// arrive begins with a connection.
func (w *waiter) arrive(c *conn, now time.Time) {
	d := c.out
	if d.marked.IsZero() {
		d.marked = now
	}
	if d.quiet.IsZero() { // it is new
		d.quiet, d.idle = now, now
	}
	if d.frames != nil {
		w.pin(d.frames)
	}
	c.slot = unwatched
	if c.asks() {
		w.settle(c, w.ask(c, now), now)
		return
	}
	if d.end == nil && !w.closeBy.IsZero() {
		d.end = w.srv.stopping()
	}
	w.settle(c, w.begin(c, now), now)
}

// ask answers the request of a connection, if it has come.
func (w *waiter) ask(c *conn, now time.Time) outcome {
	if !w.closeBy.IsZero() {
		return ends
	}
	p, err := w.requests.read(c.wire)
	switch {
	case errors.Is(err, errNothing):
		return waits
	case err != nil:
		return ends
	}
	r, early := w.requests.plain(p)
	if r == nil {
		w.unwatch(c)
		w.srv.lobby.enter(guest{wire: c.wire, seat: c.seat, since: c.out.marked, said: bytes.Clone(p)})
		return strays
	}
	w.answer(c, r, early)
	d := c.out
	d.marked, d.quiet, d.idle = now, now, now
	o := w.begin(c, now)
	if d.part == nil { // what has not been written is not w.head's any more
		d.rest = bytes.Clone(d.rest)
	}
	return o
}

// begin begins to write. What a connection is owed is taken before the rest is
// written, so that the head of a response goes out with what follows it.
func (w *waiter) begin(c *conn, now time.Time) outcome {
	if d := c.out; d.owed && d.frames == nil && d.end == nil {
		d.owed = w.take(c) == upToDate
	}
	return w.push(c, now)
}

// turn goes on with a connection after an event.
func (w *waiter) turn(c *conn, e event, now time.Time) {
	if c.asks() {
		w.settle(c, w.ask(c, now), now)
		return
	}
	if e.data {
		h := w.hear(c)
		if pong := h.pong(); pong != nil {
			c.out.pong = pong
		}
		switch {
		case h.end == nil:
		case h.end == endGone, c.out.parting != staying:
			w.settle(c, ends, now)
			return
		case c.out.end == nil:
			c.out.end = h.end
		}
	}
	w.settle(c, w.push(c, now), now)
}

// settle puts a connection where the outcome says.
func (w *waiter) settle(c *conn, o outcome, now time.Time) {
	switch o {
	case upToDate:
		w.unwatch(c)
		w.ready[c.home] = append(w.ready[c.home], c)
		return
	case ends:
		w.drop(c)
		return
	case strays:
		return
	}
	var err error
	switch room := !c.asks() && c.out.parting != lingered; {
	case c.slot == unwatched:
		err = w.adopt(c, room)
	case c.room != room:
		c.room = room
		err = w.poller.rewatch(c.wire, int(c.slot), room)
	}
	if err != nil {
		w.srv.log.Warn("lost a connection", "err", err)
		w.drop(c)
		return
	}
	at := w.deadline(c)
	if next := w.swept.Add(sweepEvery); at.Before(next) {
		at = next
	}
	if w.due.IsZero() || at.Before(w.due) {
		w.due = at
	}
}

// handOver gives connections to their shards. Those of a shard that has ended
// end, too.
func (w *waiter) handOver(now time.Time) {
	for s, cs := range w.ready {
		if len(cs) > 0 && !s.hand(cs...) {
			for _, c := range cs {
				c.out.end = w.srv.stopping()
				w.settle(c, w.push(c, now), now)
			}
		}
		clear(cs)
		w.ready[s] = cs[:0]
	}
}

// push writes until there is no more room, nothing more to write, or it is the
// turn of others.
func (w *waiter) push(c *conn, now time.Time) outcome {
	d := c.out
	if d.end == endGone {
		return ends
	}
	for budget := turnBytes; budget > 0 && d.parting != lingered; {
		n, blocked, err := c.wire.write(d.rest, d.goesOn())
		if err != nil {
			return ends
		}
		d.rest, d.blocked, budget = d.rest[n:], blocked, budget-n
		d.took(n, now)
		if blocked || len(d.rest) > 0 {
			return waits
		}
		if o := w.refill(c, now); o != goesOn {
			return o
		}
	}
	return waits
}

// refill decides what comes after rest, which has been written.
func (w *waiter) refill(c *conn, now time.Time) outcome {
	d := c.out
	d.rest = nil
	if d.part != nil {
		w.sent(d, now)
	}
	switch {
	case d.parting == told:
		c.wire.finish()
		d.parting, d.marked = lingered, now
		return waits
	case d.pong != nil:
		d.rest, d.pong = d.pong, nil
	case d.end != nil:
		d.rest, d.parting = w.goodbye(c), told
	case d.frames != nil:
		d.part = d.frames.part(d.number)
		d.rest = d.part.data
		d.number++
	case d.owed:
		d.owed = false
		return w.take(c)
	default:
		return upToDate
	}
	return goesOn
}

// sent notes that a part has been written as a whole.
func (w *waiter) sent(d *delivery, now time.Time) {
	w.srv.metrics.sent(d.frames.kind, d.part, 1)
	last := d.part.last
	d.part = nil
	if !last {
		return
	}
	f := d.frames
	d.frames = nil
	w.unpin(f)
	d.standing.sent(f, now)
}

// take gives a connection everything that has happened since its position.
func (w *waiter) take(c *conn) outcome {
	d := c.out
	f := w.base(c)
	if f == nil {
		cut, err := c.sub.next(d.at)
		switch {
		case errors.Is(err, errNothingNew):
			return upToDate
		case err != nil:
			w.srv.log.Error("a stream ended", "err", err)
			d.end = endInternal
			return goesOn
		case c.sub.breaksOff(cut, d.begun):
			d.end = endNewHistory
			return goesOn
		}
		if f = w.srv.cache.cut(c.sub, cut); f.kind == kindDelta && d.begun {
			w.srv.metrics.netted.Inc()
		}
	}
	w.pin(f)
	d.frames, d.number = f, 0
	return goesOn
}

// base returns the base for a connection without a position that others are
// being sent, if there is one and it can be continued.
func (w *waiter) base(c *conn) *frames {
	if c.out.at != nil || c.sub.form.v1 && c.out.begun {
		return nil
	}
	if f := w.srv.cache.base(c.sub); f != nil && c.sub.knows(f.upper) {
		return f
	}
	return nil
}

// goodbye returns what ends a stream: first in words, if clients of the stream
// know those.
func (w *waiter) goodbye(c *conn) []byte {
	e, form := c.out.end, c.sub.form
	var bye []byte
	if e.problem != nil && !form.v1 {
		f := form.say(e.problem.asMessage())
		bye = append(bye, f.kept[0].data...)
		w.srv.metrics.sent(f.kind, f.kept[0], 1)
	}
	return append(bye, form.goodbye(e.code, e.reason)...)
}

// pin keeps frames in memory for one more connection. If that is more than there
// may be, the streams end that have been at theirs for longest.
func (w *waiter) pin(f *frames) {
	if w.pinned[f]++; w.pinned[f] == 1 {
		w.bytes += f.size
	}
	for w.bytes > int(w.srv.settings.MaxPinnedBytes) && len(w.pinned) > 1 {
		oldest := f
		for other := range w.pinned {
			if other != f && (oldest == f || other.born.Before(oldest.born)) {
				oldest = other
			}
		}
		w.evict(oldest)
	}
}

func (w *waiter) unpin(f *frames) {
	if w.pinned[f]--; w.pinned[f] == 0 {
		delete(w.pinned, f)
		w.bytes -= f.size
	}
}

// evict ends the streams that are being sent frames.
func (w *waiter) evict(f *frames) {
	for _, c := range w.conns {
		if c == nil || c.out.frames != f {
			continue
		}
		d := c.out
		w.unpin(f)
		d.frames, d.part = nil, nil
		if d.end == nil {
			d.end = endBusy
		}
		if len(d.rest) > keptRest {
			w.drop(c)
			continue
		}
		d.rest = bytes.Clone(d.rest)
	}
}

// endAll ends the streams that go on.
func (w *waiter) endAll(now time.Time) {
	for _, c := range w.conns {
		if c == nil {
			continue
		}
		if c.asks() {
			w.drop(c)
			continue
		}
		if c.out.end == nil {
			c.out.end = w.srv.stopping()
		}
		w.settle(c, w.push(c, now), now)
	}
}

// deadline returns when a connection is given up if nothing changes.
func (w *waiter) deadline(c *conn) time.Time {
	patience := time.Duration(w.srv.settings.StallTimeout)
	switch {
	case c.asks():
		patience = w.srv.requestTimeout
	case c.out.parting == lingered:
		patience = partingTime
	}
	at := c.out.marked.Add(patience)
	if !w.closeBy.IsZero() && w.closeBy.Before(at) {
		at = w.closeBy
	}
	return at
}

// giveUp closes the connections whose time is over.
func (w *waiter) giveUp(now time.Time) {
	w.due, w.swept = time.Time{}, now
	for _, c := range w.conns {
		if c == nil {
			continue
		}
		if w.deadline(c).After(now) {
			w.settle(c, waits, now)
			continue
		}
		if o := w.lastTry(c, now); w.deadline(c).After(now) {
			w.settle(c, o, now)
			continue
		}
		if c.out.end == nil {
			c.out.end = endStalled
		}
		w.drop(c)
	}
}

// lastTry writes to a client who seems to have stalled: the poller waits until
// there is more room than [minimumTaken].
func (w *waiter) lastTry(c *conn, now time.Time) outcome {
	if c.asks() || c.out.parting == lingered || !w.closeBy.IsZero() {
		return waits
	}
	return w.push(c, now)
}

// unwatch looks after a connection no longer.
func (w *waiter) unwatch(c *conn) {
	if c.slot != unwatched {
		w.release(c)
		c.slot = unwatched
	}
}

// drop closes a connection.
func (w *waiter) drop(c *conn) {
	w.unwatch(c)
	if f := c.out.frames; f != nil {
		w.unpin(f)
	}
	c.wire.close()
	c.seat.leave()
	if c.out.end == nil {
		c.out.end = endGone
	}
	w.srv.left(c)
}
