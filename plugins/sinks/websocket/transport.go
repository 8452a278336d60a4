package websocket

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"

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
	out := &responseSender{w: w, rc: http.NewResponseController(w)}
	st.out = s.metrics.counting(out)
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
	events bool // server-sent events, otherwise JSON lines
	inside bool // a message that is not complete
}

func (o *responseSender) send(m message) error {
	begins, ends := !o.inside, !m.unfinished
	o.inside = m.unfinished
	var before, after []byte
	if o.events && begins {
		if m.token != "" {
			before = append(append(before, "id: "...), m.token+"\n"...)
		}
		before = append(before, "data: "...)
	}
	if ends {
		after = append(after, '\n')
		if o.events {
			after = append(after, '\n')
		}
	}
	return o.write(before, m.data, after)
}

func (o *responseSender) idle() error {
	if !o.events {
		return nil
	}
	return o.write([]byte(":\n\n"))
}

// write writes and flushes.
func (o *responseSender) write(parts ...[]byte) error {
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
	out := &websocketSender{}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // origins.check has looked
		OnPingReceived: func(_ context.Context, payload []byte) bool {
			out.pong(payload)
			return false // the library must not
		},
	})
	if err != nil {
		return // Accept has answered
	}
	defer conn.CloseNow()
	out.conn = conn
	out.raw = connOf(r)
	counted := s.metrics.counting(out)

	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	left := make(chan websocket.StatusCode, 1)
	go func() {
		left <- discard(conn)
		cancel()
	}()
	end := endRefused
	if problem != nil {
		counted.send(problem.asMessage())
	} else {
		st.out = counted
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

// websocketSender sends text messages.
//
// The library answers pings from the goroutine that reads, and closes the
// connection if that takes seconds, as it does behind a message that a slow
// client has not taken yet. So pings are answered here: at once while nothing
// is being sent, otherwise when the message is complete. What is written past
// the library are whole control frames, in one piece each, and never while the
// library is inside a message.
type websocketSender struct {
	conn *websocket.Conn
	raw  net.Conn
	text io.WriteCloser // the message that is not complete, if there is one

	// mu guards sending, ping, the payload of the last ping that came meanwhile
	// (nil if none did), and writes of control frames.
	mu      sync.Mutex
	sending bool
	ping    []byte
}

// The first bytes of control frames (RFC 6455, 5.2), which a server does not
// mask. The length of the payload follows.
const (
	framePing = 0x89
	framePong = 0x8a
)

func (o *websocketSender) send(m message) error {
	o.mu.Lock()
	o.sending = true
	o.mu.Unlock()
	if err := o.write(m); err != nil || m.unfinished {
		return err // a control frame would break into what is half sent
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	ping := o.ping
	o.sending, o.ping = false, nil
	if ping == nil {
		return nil
	}
	return o.control(framePong, ping)
}

// write writes a message as one frame, or a piece of one as a frame of it.
func (o *websocketSender) write(m message) (err error) {
	if o.text == nil {
		if !m.unfinished {
			return o.conn.Write(context.Background(), websocket.MessageText, m.data)
		}
		if o.text, err = o.conn.Writer(context.Background(), websocket.MessageText); err != nil {
			return err
		}
	}
	if _, err = o.text.Write(m.data); err != nil || m.unfinished {
		return err
	}
	err = o.text.Close()
	o.text = nil
	return err
}

// idle sends a ping; the answer is of no interest.
func (o *websocketSender) idle() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.control(framePing, nil)
}

// pong answers a ping, now or after what is being sent.
func (o *websocketSender) pong(ping []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sending {
		o.ping = append([]byte{}, ping...)
		return
	}
	o.control(framePong, ping) // whoever sends next learns of an error
}

// control writes a control frame. The caller holds mu.
func (o *websocketSender) control(first byte, payload []byte) error {
	_, err := o.raw.Write(append([]byte{first, byte(len(payload))}, payload...))
	return err
}
