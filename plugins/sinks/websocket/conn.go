package websocket

import (
	"errors"
	"sync"
	"time"
)

// A conn is the connection of a stream. It belongs to one loop at a time, whose
// goroutine alone touches it:
//
//	request ──> waiter ──────────> shard <── what happens to the view
//	              ^   up to date     │
//	              └──────────────────┘ no room to write, much to write, or the end
//
// On a shard it has nothing to be sent and stands in a cohort, which has its
// position. On the waiter it has a delivery.
type conn struct {
	wire   wire
	sub    *subscription // nil: nothing has been asked for
	cohort *cohort
	out    *delivery
	home   *shard // nil: it is no stream
	slot   int32  // in its loop, or unwatched
	room   bool   // it is watched for room to write, too
	index  int32  // in its cohort
	seat   seat
	heard  frameParser
}

// asks reports whether the client has not yet said what it wants.
func (c *conn) asks() bool { return c.sub == nil }

// standing is where a stream stands.
type standing struct {
	at    position  // up to where the client has everything
	begun bool      // it has had a message, not counting errors
	said  bool      // or was told something
	named bool      // it knows that a view has failed
	quiet time.Time // since when it has had no message
	idle  time.Time // since when it has had nothing at all
}

// sent is where a stream stands when it has been sent frames.
func (s *standing) sent(f *frames, now time.Time) {
	s.idle = now
	if f.kind == "" {
		return
	}
	s.quiet, s.said, s.named = now, true, f.failed
	s.begun = s.begun || f.kind != kindError
	if f.upper != nil {
		s.at = f.upper
	}
}

// unwatched is the slot of a connection that no poller watches.
const unwatched = -1

// A delivery is what a connection is being sent while it stands in no cohort.
// Whatever else is to be sent (the answer to a ping, a goodbye) waits until the
// part is complete, so that nothing breaks into a frame.
type delivery struct {
	standing      // before the frames, if there are any
	owed     bool // it gets everything there is before it goes to its cohort
	frames   *frames
	number   int    // of the part that comes after rest
	part     *part  // the part that rest is of; nil: rest is none
	rest     []byte // what has not been written

	blocked bool // there is no room to write
	pong    []byte
	end     *ended // nil: the stream goes on
	parting parting
	// marked is when the client last took enough, and taken what it took since;
	// when parting, when that began.
	marked time.Time
	taken  int
}

// goesOn reports whether there is something to write after rest.
func (d *delivery) goesOn() bool {
	return d.frames != nil && (d.part == nil || !d.part.last)
}

// parting is how far the end of a stream has come.
type parting uint8

const (
	staying  parting = iota
	told             // the goodbye is in rest
	lingered         // it has been written: the client has a moment to close
)

// minimumTaken is what a client must make room for within the stall timeout. It
// is far less than a message, so that a slow client is not taken for one that
// has stalled.
const minimumTaken = 16 << 10

// took says that the client took bytes, or has nothing more to take.
func (d *delivery) took(n int, now time.Time) {
	if d.taken += n; d.taken >= minimumTaken || len(d.rest) == 0 && !d.blocked {
		d.marked, d.taken = now, 0
	}
}

// A loop owns connections and waits for them. Other goroutines hand it further
// ones; everything else is for the goroutine that runs it.
type loop struct {
	poller poller
	conns  []*conn // by slot
	free   []int
	input  []byte

	// mu guards what follows.
	mu      sync.Mutex
	inbox   []*conn
	stopped bool // it ends its streams
	closed  bool // it takes no connections any more
}

const inputBytes = 4 << 10

func (l *loop) init(b backend) (err error) {
	l.input = make([]byte, inputBytes)
	l.poller, err = b.newPoller()
	return err
}

// hand gives connections to the loop, which the caller must not touch any more,
// unless it reports that it takes none.
func (l *loop) hand(cs ...*conn) bool {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return false
	}
	first := len(l.inbox) == 0
	l.inbox = append(l.inbox, cs...)
	l.mu.Unlock()
	if first {
		l.poller.wake()
	}
	return true
}

// stop has the loop end its streams.
func (l *loop) stop() {
	l.mu.Lock()
	l.stopped = true
	l.mu.Unlock()
	l.poller.wake()
}

// turnConns is how many connections arrive in one turn, so that a crowd does not
// delay those who are there.
const turnConns = 256

// arrived returns connections that have come, and whether to stop.
func (l *loop) arrived() ([]*conn, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	cs := l.inbox
	if l.inbox = nil; len(cs) > turnConns {
		cs, l.inbox = cs[:turnConns:turnConns], cs[turnConns:]
		l.poller.wake() // for the others
	}
	return cs, l.stopped
}

// close lets no connections in any more, and returns those that have come.
func (l *loop) close() []*conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	cs := l.inbox
	l.inbox = nil
	l.poller.close()
	return cs
}

// adopt watches a connection.
func (l *loop) adopt(c *conn, room bool) error {
	c.room = room
	if n := len(l.free); n > 0 {
		c.slot = int32(l.free[n-1])
		l.free = l.free[:n-1]
	} else {
		c.slot = int32(len(l.conns))
		l.conns = append(l.conns, nil)
	}
	l.conns[c.slot] = c
	return l.poller.watch(c.wire, int(c.slot), room)
}

// release watches a connection no longer.
func (l *loop) release(c *conn) {
	l.poller.forget(c.wire)
	l.conns[c.slot] = nil
	l.free = append(l.free, int(c.slot))
}

// reads bounds how much of what a client sends is looked at in one turn, so that
// one who floods delays nobody.
const reads = 4

// hear takes what has come from a client.
func (l *loop) hear(c *conn) (h heard) {
	for range reads {
		n, err := c.wire.read(l.input)
		if errors.Is(err, errNothing) {
			return h
		}
		if err != nil {
			h.end = endGone
			return h
		}
		if !h.add(c.parse(l.input[:n])) {
			return h
		}
	}
	return h
}

// add adds what came later, and reports whether more may come.
func (h *heard) add(later heard) bool {
	if later.ping != nil {
		h.ping = later.ping
	}
	h.end = later.end
	return h.end == nil
}

// pong returns the answer to a ping, nil if there was none.
func (h heard) pong() []byte {
	if h.ping == nil {
		return nil
	}
	return controlFrame(framePong, h.ping)
}

// parse looks at bytes of the client, which it may change.
func (c *conn) parse(p []byte) heard {
	if c.sub.form.transport != overWebsocket {
		return heard{}
	}
	return c.heard.parse(p, c.sub.form.deflate)
}
