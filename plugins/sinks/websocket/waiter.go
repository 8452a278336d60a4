package websocket

import (
	"bytes"
	"errors"
	"time"
)

// The waiter has the connections that wait for room to write, and those that
// need more than a shard may give them: the base of a stream that begins, a large
// change, what a slow client has missed. Each takes its own time; nobody waits
// for it. When it has what it is owed it goes to its shard.
type waiter struct {
	loop
	srv     *server
	pinned  map[*frames]int // frames that are being sent, and to how many
	bytes   int             // of those frames
	due     time.Time       // when a connection may have to be given up; zero: never
	closeBy time.Time       // when all have to be gone; zero: the server runs

	last bool // no further connections will be handed over; guarded by mu
}

const (
	// turnBytes is how much one connection is written before it is the turn of
	// the others.
	turnBytes = 256 << 10
	// partingTime is how long a client may take to close after the goodbye.
	partingTime = 2 * time.Second
	// keptRest is how much of a frame is copied to let go of all the others.
	keptRest = 16 << 10
)

func newWaiter(srv *server) (*waiter, error) {
	w := &waiter{srv: srv, pinned: make(map[*frames]int)}
	return w, w.init(srv.backend)
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
	if d.end == nil && !w.closeBy.IsZero() {
		d.end = w.srv.stopping()
	}
	c.slot = unwatched
	w.settle(c, w.push(c, now), now)
}

// turn goes on with a connection after an event.
func (w *waiter) turn(c *conn, e event, now time.Time) {
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
	if o == upToDate {
		if c.slot != unwatched {
			w.release(c)
			c.slot = unwatched
		}
		if c.home.hand(c) {
			return
		}
		c.out.end = w.srv.stopping()
		o = w.push(c, now)
	}
	if o == ends {
		w.drop(c)
		return
	}
	lingers := c.out.parting == lingered
	var err error
	switch {
	case c.slot == unwatched:
		err = w.adopt(c, !lingers)
	case lingers:
		err = w.poller.rewatch(c.wire, int(c.slot), false)
	}
	if err != nil {
		w.srv.log.Warn("lost a connection", "err", err)
		w.drop(c)
		return
	}
	if at := w.deadline(c); w.due.IsZero() || at.Before(w.due) {
		w.due = at
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
		n, blocked, err := c.wire.write(d.rest)
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
		if c.out.end == nil {
			c.out.end = w.srv.stopping()
		}
		w.settle(c, w.push(c, now), now)
	}
}

// deadline returns when a connection is given up if nothing changes.
func (w *waiter) deadline(c *conn) time.Time {
	at := c.out.marked.Add(time.Duration(w.srv.settings.StallTimeout))
	if c.out.parting == lingered {
		at = c.out.marked.Add(partingTime)
	}
	if !w.closeBy.IsZero() && w.closeBy.Before(at) {
		at = w.closeBy
	}
	return at
}

// giveUp closes the connections whose time is over.
func (w *waiter) giveUp(now time.Time) {
	w.due = time.Time{}
	for _, c := range w.conns {
		if c == nil {
			continue
		}
		at := w.deadline(c)
		if !at.After(now) {
			if c.out.end == nil {
				c.out.end = endStalled
			}
			w.drop(c)
			continue
		}
		if w.due.IsZero() || at.Before(w.due) {
			w.due = at
		}
	}
}

// drop closes a connection.
func (w *waiter) drop(c *conn) {
	if c.slot != unwatched {
		w.release(c)
	}
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
