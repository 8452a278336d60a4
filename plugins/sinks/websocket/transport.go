package websocket

import (
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"
)

// Why streams end.
var (
	endNewHistory = &ended{code: codeRestart, reason: "the view began a new history; connect again"}
	endInternal   = &ended{code: codeInternal, reason: "internal error", problem: &errInternal}
	endBusy       = &ended{code: codeBusy, reason: "slow clients hold all the memory there is for them", problem: &errBusy}
	endGone       = &ended{code: codeGone}
	endStalled    = &ended{code: codeStalled}
)

// serveStream serves /api/stream.
func (s *server) serveStream(w http.ResponseWriter, r *http.Request) {
	sub, at, problem := s.streamOf(r)
	if accepts(r.Header, "Upgrade", "websocket") {
		s.serveWebsocket(w, r, sub, at, problem)
		return
	}
	s.serveBody(w, r, sub, at, problem)
}

// serveV1 serves /api/v1/stream.
func (s *server) serveV1(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("view")
	readers, problem := s.readers([]string{name})
	sub := &subscription{readers: readers}
	sub.views, sub.form.v1 = name, true
	if problem == nil && accepts(r.Header, "Upgrade", "websocket") {
		s.serveWebsocket(w, r, sub, nil, nil)
		return
	}
	s.serveBody(w, r, sub, nil, problem)
}

// serveBody streams server-sent events or JSON lines as the body of the
// response.
func (s *server) serveBody(w http.ResponseWriter, r *http.Request, sub *subscription, at position, problem *apiError) {
	if problem != nil {
		writeError(w, *problem)
		return
	}
	media := "application/x-ndjson"
	sub.form.transport = overNDJSON
	if accepts(r.Header, "Accept", "text/event-stream") {
		media, sub.form.transport = "text/event-stream", overSSE
	}
	h := w.Header()
	h.Set("Content-Type", media)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx
	h.Add("Vary", "Accept")
	if r.Method == http.MethodHead {
		return
	}
	h.Set("Connection", "close")
	if sub.form.chunked = r.ProtoAtLeast(1, 1); sub.form.chunked {
		h.Set("Transfer-Encoding", "chunked")
	}
	s.takeOver(w, r, http.StatusOK, sub, &delivery{standing: standing{at: at}, owed: true})
}

// serveWebsocket upgrades the request (RFC 6455, 4.2) and streams, or sends the
// problem as a message, because browsers show nothing of a refused upgrade.
func (s *server) serveWebsocket(w http.ResponseWriter, r *http.Request, sub *subscription, at position, problem *apiError) {
	key := r.Header.Get("Sec-Websocket-Key")
	decoded, err := base64.StdEncoding.DecodeString(key)
	switch {
	case r.Header.Get("Sec-Websocket-Version") != "13", !r.ProtoAtLeast(1, 1):
		w.Header().Set("Sec-WebSocket-Version", "13")
		writeError(w, apiError{status: http.StatusUpgradeRequired, code: "bad_request", message: "a websocket needs HTTP/1.1 and version 13"})
		return
	case r.Method != http.MethodGet || !accepts(r.Header, "Connection", "upgrade") || err != nil || len(decoded) != 16:
		writeError(w, *badRequest("bad_request", "not the handshake of a websocket: it needs GET, Connection: Upgrade and a Sec-WebSocket-Key of 16 bytes"))
		return
	}
	h := w.Header()
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", "websocket")
	h.Set("Sec-WebSocket-Accept", acceptKey(key))
	d := &delivery{standing: standing{at: at}, owed: true}
	if problem != nil {
		sub = new(subscription)
		d = &delivery{end: &ended{code: codeRefused, reason: "see the error message", problem: problem}}
	}
	if answer, ok := acceptDeflate(r.Header); ok {
		h.Set("Sec-WebSocket-Extensions", answer)
		sub.form.deflate = true
	}
	s.takeOver(w, r, http.StatusSwitchingProtocols, sub, d)
}

// acceptKey answers the key of a handshake.
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// takeOver begins a stream as the answer to a request: it takes the connection
// out of the hands of net/http and, where there is a better way, of the runtime.
func (s *server) takeOver(w http.ResponseWriter, r *http.Request, status int, sub *subscription, d *delivery) {
	if a, ok := w.(*answer); ok {
		a.status, a.sub, a.out = status, sub, d
		return
	}
	hijacked, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		s.log.Error("take over a connection", "err", err)
		return
	}
	gated := connOf(r)
	c := &conn{sub: sub, out: d, seat: gated.takeSeat()}
	if c.wire, err = s.backend.take(gated.Conn); err != nil {
		s.log.Warn("take over a connection", "err", err)
		gated.Conn.Close()
		c.seat.leave()
		return
	}
	if encrypted, ok := hijacked.(*tls.Conn); ok {
		c.wire = newTLSWire(encrypted, gated, c.wire)
	}
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered()) // there are so many
	s.begin(c, appendHead(nil, status, w.Header()), slices.Concat(early, gated.said))
	s.waiter.hand(c) // it takes connections until the last request is done
}

// begin begins the stream of a connection with the head of a response. The client
// has said something already, which may be changed.
func (s *server) begin(c *conn, head, early []byte) {
	c.out.rest = head
	h := c.parse(early)
	c.out.pong = h.pong()
	if h.end != nil && c.out.end == nil {
		c.out.end = h.end
	}
	if c.sub.readers != nil {
		s.metrics.clients.WithLabelValues(c.sub.form.transport.String()).Inc()
	}
	c.home = s.shards[s.turn.Add(1)%uint32(len(s.shards))]
}

// left ends the stream of a connection, which is closed, if there was one.
func (s *server) left(c *conn) {
	if c.home == nil {
		return
	}
	if c.sub.readers != nil {
		s.metrics.clients.WithLabelValues(c.sub.form.transport.String()).Dec()
	}
	s.metrics.closed(c.out.end.code)
}

// comeBack is within how long clients are to come back to a server that stops.
const comeBack = 3 * time.Second

// stopping returns why a stream ends when the server does. Each client is told
// another time, so that a thousand do not come back as one.
func (s *server) stopping() *ended {
	problem := errStopping
	problem.retry = time.Millisecond + rand.N(comeBack)
	return &ended{code: codeRestart, reason: "mzd is stopping; come back with your token in some random time up to 3 s", problem: &problem}
}
