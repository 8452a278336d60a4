package websocket

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A door lets connections in as wires. Nearly all who come ask for a stream with
// the first bytes they send, and get it without the goroutine and the buffers
// that net/http has for each connection. Whatever else comes goes on to net/http
// with what was read of it. So the door refuses nothing by itself, and knows
// nothing of HTTP but the plainest request.
type door interface {
	// accept waits for connections, until close is called. After a [passingError]
	// there may be more.
	accept() ([]arrival, error)
	close()
}

// A passingError is that a connection could not be accepted.
type passingError struct{ error }

// passesWithin is how long is waited after one.
const passesWithin = 10 * time.Millisecond

// An arrival is a connection that has just been accepted.
type arrival struct {
	wire wire
	from netip.Addr
}

// serveDoor lets in whom the gate admits, until the door is closed.
func (s *server) serveDoor(g *gate) error {
	said := false // of the trouble since a connection was last accepted
	for {
		arrivals, err := s.door.accept()
		now := time.Now()
		var conns []*conn
		for _, a := range arrivals {
			switch seat, refused, ok := g.admit(a.from); {
			case !ok:
				a.wire.close()
			case refused != nil:
				s.lobby.enter(guest{wire: a.wire, seat: seat, since: now, refused: refused})
			default:
				conns = append(conns, &conn{wire: a.wire, seat: seat, out: &delivery{marked: now}})
			}
		}
		if len(conns) > 0 {
			s.waiter.hand(conns...)
		}
		said = said && len(arrivals) == 0
		if _, passes := err.(passingError); passes {
			if !said {
				s.log.Warn("cannot accept connections; trying again", "err", err)
				said = true
			}
			time.Sleep(passesWithin)
			continue
		}
		if err != nil {
			return err
		}
	}
}

// answer answers the first request of a connection, and what came with it.
func (w *waiter) answer(c *conn, r *http.Request, early []byte) {
	a := &w.answered
	clear(a.header)
	*a = answer{header: a.header, body: a.body[:0]}
	w.srv.serveHTTP(a, r)
	if a.sub == nil {
		c.sub, c.out = noStream, &delivery{rest: a.bytes(), parting: told}
		return
	}
	c.sub, c.out = a.sub, a.out
	a.sub, a.out = nil, nil // what it holds is the connection's
	w.head = appendHead(w.head[:0], a.status, a.header)
	w.srv.begin(c, w.head, early)
}

// serveHTTP answers a request. A handler that panics is answered for, as net/http
// does: it is the fault of one request.
func (s *server) serveHTTP(a *answer, r *http.Request) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("a request failed", "request", r.RequestURI, "panic", p, "stack", string(debug.Stack()))
			*a = answer{header: make(http.Header)}
			writeError(a, errInternal)
		}
	}()
	s.handler.ServeHTTP(a, r)
}

// noStream is what there is on a connection that is answered, and then closed.
// What its client goes on to say is of no interest.
var noStream = &subscription{subscriptionKey: subscriptionKey{form: form{transport: overNDJSON}}}

// streamPaths are where streams are.
var streamPaths = []string{"/api/stream", "/api/v1/stream"}

// A requestReader reads requests, one at a time.
type requestReader struct {
	input []byte
	bytes *bytes.Reader
	lines *bufio.Reader
}

const (
	// maxRequest is how much is read of a connection to find a request there.
	maxRequest = 16 << 10
	// maxPlainFields and maxPlainTarget are more than a request for a stream has:
	// thousands of fields take a millisecond, for which all others on the waiter
	// would wait.
	maxPlainFields = 64
	maxPlainTarget = 2 << 10
)

func newRequestReader() requestReader {
	r := bytes.NewReader(nil)
	return requestReader{make([]byte, maxRequest), r, bufio.NewReader(r)}
}

// read returns what has come on a wire. It is good until the next call.
func (q *requestReader) read(w wire) ([]byte, error) {
	n, err := w.read(q.input)
	return q.input[:n], err
}

// plain returns the request for a stream that the bytes are, and what came after
// it; nil if they are anything else, or anything that takes a second look.
func (q *requestReader) plain(p []byte) (*http.Request, []byte) {
	head, early, whole := bytes.Cut(p, []byte("\r\n\r\n"))
	if !whole || bytes.Count(head, []byte("\r\n")) > maxPlainFields || !bytes.HasPrefix(head, []byte("GET /api/")) || !isText(head) {
		return nil, nil
	}
	q.bytes.Reset(p[:len(p)-len(early)])
	q.lines.Reset(q.bytes)
	lines := textproto.NewReader(q.lines)
	line, err := lines.ReadLine()
	if err != nil {
		return nil, nil
	}
	target, plain := strings.CutSuffix(strings.TrimPrefix(line, "GET "), " HTTP/1.1")
	if !plain || len(target) > maxPlainTarget || strings.Contains(target, " ") {
		return nil, nil
	}
	u, err := url.ParseRequestURI(target)
	if err != nil || !isStreamPath(u.Path) {
		return nil, nil
	}
	header, err := lines.ReadMIMEHeader()
	if err != nil || !isPlain(header) {
		return nil, nil
	}
	host := header.Get("Host")
	header.Del("Host") // as net/http has it
	return &http.Request{
		Method: http.MethodGet, URL: u, RequestURI: target,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header(header), Host: host,
	}, early
}

func isStreamPath(path string) bool {
	for _, p := range streamPaths {
		if strings.HasPrefix(path, p) {
			return true
		}
	}
	return false
}

// isText reports whether a head is lines of ASCII, each with the end that it
// should have.
func isText(head []byte) bool {
	for len(head) > 0 {
		line, rest, _ := bytes.Cut(head, []byte("\r\n"))
		for _, b := range line {
			if b < ' ' || b > '~' {
				return false
			}
		}
		head = rest
	}
	return true
}

// isPlain reports whether a header has one host (RFC 9112, 3.2), of the characters
// that hosts are made of, and nothing that changes where the request ends.
func isPlain(header textproto.MIMEHeader) bool {
	for _, name := range []string{"Content-Length", "Transfer-Encoding", "Trailer", "Expect"} {
		if _, ok := header[name]; ok {
			return false
		}
	}
	for name := range header {
		if strings.Contains(name, " ") { // which textproto lets pass
			return false
		}
	}
	hosts := header["Host"]
	return len(hosts) == 1 && !strings.ContainsFunc(hosts[0], func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune(".-_:[]", r))
	})
}

// An answer is the [http.ResponseWriter] of a request that came through the
// door: it is a stream, or what was written.
type answer struct {
	header http.Header
	status int
	body   []byte

	sub *subscription // nil: no stream
	out *delivery
}

// Header implements http.ResponseWriter, like the other methods.
func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) { a.status = status }

func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	a.body = append(a.body, p...)
	return len(p), nil
}

// bytes returns an answer that is no stream. It is the last on its connection.
func (a *answer) bytes() []byte {
	a.header.Set("Connection", "close")
	a.header.Set("Content-Length", strconv.Itoa(len(a.body)))
	return append(appendHead(nil, a.status, a.header), a.body...)
}

// A guest is a connection that came through the door and is for net/http.
type guest struct {
	wire    wire
	seat    seat
	since   time.Time
	said    []byte    // what was read
	refused *apiError // what it is to be told
}

func (g *guest) leave() {
	g.wire.close()
	g.seat.leave()
}

// A lobby is the listener of net/http behind a door.
type lobby struct {
	net.Listener // the one with the door
	srv          *server

	// mu guards what follows. came says that it has changed.
	mu     sync.Mutex
	came   *sync.Cond
	guests []guest
	closed bool
}

func newLobby(srv *server, ln net.Listener) *lobby {
	l := &lobby{Listener: ln, srv: srv}
	l.came = sync.NewCond(&l.mu)
	return l
}

// enter leaves a connection to whoever accepts it.
func (l *lobby) enter(g guest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		g.leave()
		return
	}
	l.guests = append(l.guests, g)
	l.came.Signal()
}

// Accept returns the next connection.
func (l *lobby) Accept() (net.Conn, error) {
	for {
		g, err := l.next()
		if err != nil {
			return nil, err
		}
		c, err := l.srv.backend.giveBack(g.wire)
		if err != nil { // there is no room for it in the process or in the kernel
			l.srv.log.Warn("lost a connection", "err", err)
			g.seat.leave()
			continue
		}
		return &gatedConn{
			Conn: c, stall: time.Duration(l.srv.settings.StallTimeout),
			said: g.said, readBy: g.since.Add(l.srv.requestTimeout), refused: g.refused, seat: g.seat,
		}, nil
	}
}

func (l *lobby) next() (guest, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.guests) == 0 && !l.closed {
		l.came.Wait()
	}
	if l.closed {
		return guest{}, net.ErrClosed
	}
	g := l.guests[0]
	l.guests[0] = guest{} // lets go of what it said
	l.guests = l.guests[1:]
	return g, nil
}

// Close closes the lobby and whoever waits there.
func (l *lobby) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, g := range l.guests {
		g.leave()
	}
	l.guests = nil
	l.came.Broadcast()
	return nil
}

// appendHead appends the head of a response.
func appendHead(dst []byte, status int, h http.Header) []byte {
	dst = fmt.Appendf(slices.Grow(dst, 512), "HTTP/1.1 %d %s\r\nDate: %s\r\n", status, http.StatusText(status), time.Now().UTC().Format(http.TimeFormat))
	fields := bytes.NewBuffer(dst)
	h.Write(fields) // a buffer takes everything
	fields.WriteString("\r\n")
	return fields.Bytes()
}
