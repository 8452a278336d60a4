package websocket

import (
	"errors"
	"net"
	"sync"
	"time"
)

// A wire is the connection to a client without anything around it. Nothing it
// does waits: whoever owns the connection learns from a [poller] when to go on.
// All methods are the owner's, who is one goroutine at a time.
type wire interface {
	// read returns what has come, or errNothing.
	read(p []byte) (int, error)

	// write takes as much as there is room for, and reports whether there is no
	// more of it: then the poller says when there is. It may be called again
	// before, and with nothing, to see. What it was given must not be changed
	// until there is room again. With more, the caller goes on writing at once, and
	// the end of p may wait for that.
	write(p []byte, more bool) (n int, blocked bool, err error)

	// finish says that nothing more will be written.
	finish()
	close()
}

// errNothing says that nothing has come. It is a temporary [net.Error], so that
// a TLS connection that meets it can go on later.
var errNothing error = nothing{}

type nothing struct{}

func (nothing) Error() string   { return "nothing to read" }
func (nothing) Timeout() bool   { return true }
func (nothing) Temporary() bool { return true }

// A poller watches the wires of one loop. Each has a slot, a small number that
// the loop chooses. All methods but wake belong to the loop.
type poller interface {
	// watch begins to watch a wire for what comes and, if asked to, for room to
	// write. rewatch changes the latter.
	watch(w wire, slot int, room bool) error
	rewatch(w wire, slot int, room bool) error
	forget(w wire)

	// wait waits until there is an event, somebody calls wake, or it is time; a
	// zero time never comes. What it returns is good until the next call.
	wait(until time.Time) []event
	wake()
	close()
}

// An event is that something has come, or that there is room to write, or both.
type event struct {
	slot       int
	data, room bool
}

// A backend is what there is to make wires and pollers of.
type backend interface {
	// take takes a connection over, which the caller must not use again.
	take(net.Conn) (wire, error)
	newPoller() (poller, error)

	// open returns a door for a listener, which stays open itself; nil if there is
	// no better way in than net/http's.
	open(net.Listener) (door, error)
	// giveBack returns a connection for a wire that came through the door. The
	// wire must not be used again, also if there is an error.
	giveBack(wire) (net.Conn, error)
}

// base returns the wire that a poller can watch.
func base(w wire) wire {
	if t, ok := w.(*tlsWire); ok {
		return t.wire
	}
	return w
}

// A goWire is a wire where the system gives nothing better than connections that
// block: one goroutine reads, and there is one more while something is written.
type goWire struct {
	conn     net.Conn
	consumed chan struct{} // what was read has been taken
	closed   chan struct{}

	mu       sync.Mutex // guards what follows
	poller   *goPoller  // nil: nobody watches
	slot     int
	came     []byte
	readErr  error
	writing  bool
	writeErr error
}

// goReadBytes is the size of the buffer that each of these connections has.
const goReadBytes = 512

// goroutines is the backend of everything that has no better one.
type goroutines struct{}

func (goroutines) newPoller() (poller, error) { return newGoPoller(), nil }

func (goroutines) open(net.Listener) (door, error) { return nil, nil }

func (goroutines) giveBack(wire) (net.Conn, error) { return nil, errors.ErrUnsupported }

func (goroutines) take(c net.Conn) (wire, error) {
	w := &goWire{conn: c, consumed: make(chan struct{}, 1), closed: make(chan struct{})}
	c.SetDeadline(time.Time{})
	go w.readAll()
	return w, nil
}

func (w *goWire) readAll() {
	buf := make([]byte, goReadBytes)
	for {
		n, err := w.conn.Read(buf)
		w.mu.Lock()
		w.came, w.readErr = buf[:n], err
		w.tell()
		w.mu.Unlock()
		if err != nil {
			return
		}
		select {
		case <-w.consumed:
		case <-w.closed:
			return
		}
	}
}

// tell has the poller report an event. The caller holds mu.
func (w *goWire) tell() {
	if w.poller != nil {
		w.poller.report(w.slot)
	}
}

func (w *goWire) read(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.came) == 0 {
		if w.readErr != nil {
			return 0, w.readErr
		}
		return 0, errNothing
	}
	n := copy(p, w.came)
	if w.came = w.came[n:]; len(w.came) == 0 && w.readErr == nil {
		w.consumed <- struct{}{}
	} else {
		w.tell()
	}
	return n, nil
}

// goWritePiece is how much is written at once, so that a slow client is seen to
// go on.
const goWritePiece = 16 << 10

func (w *goWire) write(p []byte, _ bool) (int, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.writing || w.writeErr != nil || len(p) == 0 {
		return 0, w.writing, w.writeErr
	}
	p = p[:min(len(p), goWritePiece)]
	w.writing = true
	go func() {
		_, err := w.conn.Write(p)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.writing, w.writeErr = false, err
		w.tell()
	}()
	return len(p), true, nil
}

func (w *goWire) finish() {
	if c, ok := w.conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite()
	}
}

func (w *goWire) close() {
	close(w.closed)
	w.conn.Close()
}

// goPoller is the poller of goWires.
type goPoller struct {
	news chan struct{} // holds one if there is any

	mu       sync.Mutex // guards reported
	reported map[int]struct{}
	events   []event
}

func newGoPoller() *goPoller {
	return &goPoller{news: make(chan struct{}, 1), reported: make(map[int]struct{})}
}

func (p *goPoller) watch(w wire, slot int, _ bool) error {
	g, ok := base(w).(*goWire)
	if !ok {
		return errors.ErrUnsupported
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.poller, g.slot = p, slot
	g.tell() // what has happened while nobody watched
	return nil
}

func (p *goPoller) rewatch(wire, int, bool) error { return nil }

func (p *goPoller) forget(w wire) {
	g := base(w).(*goWire)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.poller = nil
}

func (p *goPoller) report(slot int) {
	p.mu.Lock()
	p.reported[slot] = struct{}{}
	p.mu.Unlock()
	p.wake()
}

func (p *goPoller) wake() {
	select {
	case p.news <- struct{}{}:
	default:
	}
}

func (p *goPoller) wait(until time.Time) []event {
	if until.IsZero() {
		<-p.news
	} else {
		timer := time.NewTimer(time.Until(until))
		select {
		case <-p.news:
		case <-timer.C:
		}
		timer.Stop()
	}
	p.events = p.events[:0]
	p.mu.Lock()
	defer p.mu.Unlock()
	for slot := range p.reported {
		p.events = append(p.events, event{slot, true, true})
	}
	clear(p.reported)
	return p.events
}

func (p *goPoller) close() {}
