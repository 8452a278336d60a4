package websocket

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// An ending is why a stream ended: the close code of a websocket and its
// reason. The other transports have no codes on the wire; they are counted
// under the same ones.
type ending struct {
	code   websocket.StatusCode
	reason string
}

const codeStalled websocket.StatusCode = 4000 // counted; the peer, who reads nothing, is not told

var (
	endStopping   = ending{websocket.StatusServiceRestart, "mzd is stopping; come back in a moment with your token"}
	endNewHistory = ending{websocket.StatusServiceRestart, errNewHistory.Error()}
	endRefused    = ending{websocket.StatusPolicyViolation, "see the error message"}
	endInternal   = ending{websocket.StatusInternalError, "internal error"}
	endGone       = ending{code: websocket.StatusAbnormalClosure}
	endStalled    = ending{code: codeStalled}
)

// serveStream serves /api/stream.
func (s *server) serveStream(w http.ResponseWriter, r *http.Request) {
	st, problem := s.streamOf(r)
	if accepts(r.Header, "Upgrade", "websocket") {
		s.serveWebsocket(w, r, st, problem)
		return
	}
	s.serveHTTP(w, r, st, problem)
}

// serveV1 serves /api/v1/stream.
func (s *server) serveV1(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("view")
	readers, problem := s.readers([]string{name})
	st := &stream{readers: readers, views: name, encoding: encoding{v1: true}}
	if problem == nil && accepts(r.Header, "Upgrade", "websocket") {
		s.serveWebsocket(w, r, st, nil)
		return
	}
	s.serveHTTP(w, r, st, problem)
}

// follow runs a stream and says why it ended.
func (s *server) follow(ctx context.Context, transport string, st *stream) ending {
	defer s.metrics.joined(transport)()
	err := st.run(ctx, s)
	switch {
	case errors.Is(err, errNewHistory):
		return endNewHistory
	case errors.Is(context.Cause(ctx), errStopped):
		return endStopping
	case errors.Is(err, os.ErrDeadlineExceeded):
		return endStalled
	case errors.As(err, new(readError)):
		s.log.Error("a stream ended", "err", err)
		return endInternal
	}
	return endGone // the client left or the connection broke
}

// serveHTTP streams server-sent events or JSON lines.
func (s *server) serveHTTP(w http.ResponseWriter, r *http.Request, st *stream, problem *apiError) {
	if problem != nil {
		writeError(w, *problem)
		return
	}
	out := &responseSender{w: w, rc: http.NewResponseController(w), stall: time.Duration(s.settings.StallTimeout)}
	st.out = out
	transport, media := "ndjson", "application/x-ndjson"
	if accepts(r.Header, "Accept", "text/event-stream") {
		transport, media = "sse", "text/event-stream"
		out.events = true
	}
	h := w.Header()
	h.Set("Content-Type", media)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx
	h.Add("Vary", "Accept")
	if r.Method == http.MethodHead || out.rc.Flush() != nil {
		return
	}
	end := s.follow(r.Context(), transport, st)
	s.metrics.closed(end.code)
}

// responseSender sends on the body of a response.
type responseSender struct {
	w      http.ResponseWriter
	rc     *http.ResponseController
	stall  time.Duration
	events bool // server-sent events, otherwise JSON lines
}

func (o *responseSender) send(m message) error {
	if !o.events {
		return o.write(m.data, newline)
	}
	if m.token == "" {
		return o.write(eventData, m.data, eventEnd)
	}
	return o.write(eventID, []byte(m.token), newline, eventData, m.data, eventEnd)
}

func (o *responseSender) idle() error {
	if !o.events {
		return nil
	}
	return o.write([]byte(":\n\n"))
}

var (
	newline   = []byte("\n")
	eventID   = []byte("id: ")
	eventData = []byte("data: ")
	eventEnd  = []byte("\n\n")
)

// write writes and flushes. The deadline is for peers that take nothing at all;
// it is lifted again, as the next write may be hours away.
func (o *responseSender) write(parts ...[]byte) error {
	o.rc.SetWriteDeadline(time.Now().Add(o.stall))
	defer o.rc.SetWriteDeadline(time.Time{})
	for _, p := range parts {
		if _, err := o.w.Write(p); err != nil {
			return err
		}
	}
	return o.rc.Flush()
}

// maxFrameRead bounds what a client may send in a message; nothing it sends
// means anything.
const maxFrameRead = 4 << 10

// serveWebsocket upgrades the request and streams, or sends the problem as a
// message, because browsers show nothing of a refused upgrade.
func (s *server) serveWebsocket(w http.ResponseWriter, r *http.Request, st *stream, problem *apiError) {
	out := &websocketSender{stall: time.Duration(s.settings.StallTimeout)}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // origins.check has looked
		OnPingReceived:     func(_ context.Context, payload []byte) bool { return out.mayPong(payload) },
	})
	if err != nil {
		return // Accept has answered
	}
	defer conn.CloseNow()
	out.conn = conn
	out.raw = connOf(r)

	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	left := make(chan websocket.StatusCode, 1)
	go func() {
		left <- discard(conn)
		cancel()
	}()
	end := endRefused
	if problem != nil {
		m := message{kind: kindError, data: problem.data()}
		if out.send(m) == nil {
			s.metrics.sent(m)
		}
	} else {
		st.out = out
		end = s.follow(ctx, "websocket", st)
	}
	if end == endGone || end == endStalled {
		conn.CloseNow()
	} else {
		conn.Close(end.code, end.reason)
	}
	if code := <-left; end == endGone {
		end.code = code
	}
	s.metrics.closed(end.code)
}

// discard reads until the connection ends and returns the code it ended with.
// Reading is what answers pings and notices that a client has left.
func discard(conn *websocket.Conn) websocket.StatusCode {
	conn.SetReadLimit(maxFrameRead)
	for {
		_, r, err := conn.Reader(context.Background())
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		switch {
		case err == nil:
		case errors.Is(err, websocket.ErrMessageTooBig):
			return websocket.StatusMessageTooBig
		case websocket.CloseStatus(err) != -1:
			return websocket.CloseStatus(err)
		default:
			return websocket.StatusAbnormalClosure
		}
	}
}

// websocketSender sends text frames.
//
// The library writes pongs from the goroutine that reads, and closes the
// connection if that takes seconds, as it does behind a message that a slow
// client has not taken yet. So while something is being sent the sender answers
// pings itself, afterwards. What it writes past the library are whole control
// frames, in one piece each; the only frames that the library writes in several
// pieces are those of send.
type websocketSender struct {
	conn  *websocket.Conn
	raw   net.Conn
	stall time.Duration

	// mu guards sending, and ping: the payload of the last ping that came
	// meanwhile, nil if none did.
	mu      sync.Mutex
	sending bool
	ping    []byte
}

func (o *websocketSender) send(m message) error {
	defer o.begin()()
	return o.conn.Write(context.Background(), websocket.MessageText, m.data)
}

// The first bytes of control frames (RFC 6455, 5.2), which a server does not
// mask. The length of the payload follows.
const (
	framePing = 0x89
	framePong = 0x8a
)

// idle sends a ping; the answer is of no interest.
func (o *websocketSender) idle() error {
	defer o.begin()()
	_, err := o.raw.Write([]byte{framePing, 0})
	return err
}

// begin begins to send, with the deadline for peers that take nothing at all.
func (o *websocketSender) begin() (end func()) {
	o.mu.Lock()
	o.sending = true
	o.mu.Unlock()
	o.raw.SetWriteDeadline(time.Now().Add(o.stall))
	return func() {
		o.mu.Lock()
		ping := o.ping
		o.sending, o.ping = false, nil
		o.mu.Unlock()
		if ping != nil {
			o.raw.Write(append([]byte{framePong, byte(len(ping))}, ping...))
		}
		o.raw.SetWriteDeadline(time.Time{})
	}
}

// mayPong reports whether the library may answer a ping.
func (o *websocketSender) mayPong(ping []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sending {
		o.ping = append([]byte{}, ping...)
	}
	return !o.sending
}
