package websocket_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	ws "github.com/coder/websocket"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

// A site is a sink that is being served.
type site struct {
	*websocket.Sink
	url    string
	client *http.Client
	stop   func() error
	dial   func(context.Context) (net.Conn, error) // of pipes
}

// serve serves views on a port of its own until the test ends.
func serve(t *testing.T, s websocket.Settings, views ...core.Reader) *site {
	t.Helper()
	if s.Listen == "" {
		s.Listen = "127.0.0.1:0"
	}
	sink, err := websocket.New(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return start(t, sink, &http.Transport{}, views)
}

// servePipes serves views over pipes in memory, which have no buffers: what the
// client does not read stops the stream. It works in a synctest bubble.
func servePipes(t *testing.T, s websocket.Settings, views ...core.Reader) *site {
	t.Helper()
	pipes := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return pipes.dial(ctx) }}
	st := start(t, websocket.NewOn(t.Context(), s, pipes), transport, views)
	st.dial = pipes.dial
	return st
}

func start(t *testing.T, sink *websocket.Sink, transport *http.Transport, views []core.Reader) *site {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sink.Serve(ctx, views) }()
	stopped := false
	st := &site{Sink: sink, url: strings.TrimSuffix(sink.URL(), "/"), client: &http.Client{Transport: transport}}
	st.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := st.stop(); err != nil {
			t.Errorf("Serve returned %v", err)
		}
	})
	return st
}

// startOn serves views on a listener.
func startOn(t *testing.T, ctx context.Context, s websocket.Settings, ln net.Listener, views ...core.Reader) *site {
	st := start(t, websocket.NewOn(ctx, s, ln), &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, actual(ln).Addr().String())
		},
	}, views)
	return st
}

func actual(ln net.Listener) net.Listener {
	if public, ok := ln.(publicListener); ok {
		return public.Listener
	}
	return ln
}

// get returns the answer to a request and its body.
func (s *site) get(t *testing.T, path string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
	}
	response, err := s.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

// pipeListener hands out pipes.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8875} }

// A message is any message of a stream.
type message struct {
	Type, View, From, Timestamp, Token, Code, Message string

	More bool
	shape
	Views map[string]shape
}

type shape struct {
	Columns           []core.Column
	Key               []string
	Inserted, Deleted []json.RawMessage
	Checksum          string
}

// A conn is a stream as a client sees it.
type conn struct {
	// next returns the next message as text. After the end of the stream the
	// error is io.EOF, or a ws.CloseError.
	next  func() (string, error)
	close func()
}

// transports open a stream each in its way.
var transports = map[string]func(ctx context.Context, s *site, path, since string) (*conn, error){
	"websocket": openWebsocket,
	"sse":       openSSE,
	"ndjson":    openNDJSON,
}

func openWebsocket(ctx context.Context, s *site, path, since string) (*conn, error) {
	c, response, err := ws.Dial(ctx, s.url+withSince(path, since), &ws.DialOptions{HTTPClient: s.client})
	if err != nil {
		if response != nil {
			return nil, fmt.Errorf("status %d: %w", response.StatusCode, err)
		}
		return nil, err
	}
	c.SetReadLimit(-1)
	return &conn{
		next: conforming(func() (string, error) {
			_, data, err := c.Read(ctx)
			return string(data), err
		}),
		close: func() { c.CloseNow() },
	}, nil
}

func openSSE(ctx context.Context, s *site, path, since string) (*conn, error) {
	lines, stop, err := s.lines(ctx, path, "Accept", "text/event-stream", "Last-Event-ID", since)
	if err != nil {
		return nil, err
	}
	return &conn{close: stop, next: conforming(func() (string, error) {
		id, data := "", ""
		for {
			line, err := lines()
			switch {
			case err != nil:
				return "", err
			case strings.HasPrefix(line, "id: "):
				id = line[len("id: "):]
			case strings.HasPrefix(line, "data: "):
				data = line[len("data: "):]
			case line == "" && data != "":
				var m message
				if json.Unmarshal([]byte(data), &m); !m.More && id != m.Token {
					return "", fmt.Errorf("id %q of message %s", id, data)
				} else if m.More && id != "" {
					return "", fmt.Errorf("id %q of part %s", id, data)
				}
				return data, nil
			}
		}
	})}, nil
}

func openNDJSON(ctx context.Context, s *site, path, since string) (*conn, error) {
	lines, stop, err := s.lines(ctx, withSince(path, since))
	if err != nil {
		return nil, err
	}
	return &conn{next: conforming(lines), close: stop}, nil
}

func withSince(path, since string) string {
	if since == "" {
		return path
	}
	if strings.Contains(path, "?") {
		return path + "&since=" + since
	}
	return path + "?since=" + since
}

// lines returns the lines of a response that does not end.
func (s *site) lines(ctx context.Context, path string, header ...string) (next func() (string, error), stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := s.client.Do(r)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	stop = func() {
		cancel()
		response.Body.Close()
	}
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(response.Body)
		stop()
		return nil, nil, fmt.Errorf("status %d: %s", response.StatusCode, body)
	}
	body := bufio.NewReader(response.Body)
	return func() (string, error) {
		line, err := body.ReadString('\n')
		return strings.TrimSuffix(line, "\n"), err
	}, stop, nil
}

// A model is what a client holds. It applies messages by the rules and reports
// everything that breaks one.
type model struct {
	token, timestamp string
	views            map[string]contents
	columns          map[string][]core.Column
	parts            []message
	deltas, bases    int
}

func newModel() *model {
	return &model{views: make(map[string]contents), columns: make(map[string][]core.Column)}
}

// receive applies the next message and returns it; of one in parts, the last.
func (m *model) receive(c *conn) (message, error) {
	for {
		text, err := c.next()
		if err != nil {
			return message{}, err
		}
		var msg message
		if err := json.Unmarshal([]byte(text), &msg); err != nil {
			return message{}, fmt.Errorf("%w: %.200s", err, text)
		}
		if len(text) > 2*websocket.MaxMessageBytes {
			return message{}, fmt.Errorf("message of %d bytes", len(text))
		}
		if err := m.apply(msg); err != nil {
			return message{}, fmt.Errorf("%w: %.500s", err, text)
		}
		if !msg.More {
			return msg, nil
		}
	}
}

func (m *model) apply(msg message) error {
	switch msg.Type {
	case "error":
		return errors.New("error message")
	case "progress":
		if m.token == "" {
			return errors.New("progress before anything")
		}
	case "delta":
		if msg.From != m.token {
			return fmt.Errorf("a delta from %q for a client at %q", msg.From, m.token)
		}
	case "base":
		if msg.From != "" {
			return errors.New("a base with from")
		}
	default:
		return errors.New("unknown type")
	}
	if n := len(m.parts); n > 0 && (m.parts[n-1].Type != msg.Type || m.parts[n-1].Token != msg.Token) {
		return errors.New("a part of another message")
	}
	m.parts = append(m.parts, msg)
	if msg.More {
		return nil
	}
	for i, part := range m.parts {
		views := part.Views
		if views == nil {
			views = map[string]shape{part.View: part.shape}
		}
		for name, s := range views {
			if (s.Inserted == nil || s.Deleted == nil) != (msg.Type == "progress") {
				return errors.New("a list is missing, or too many")
			}
			if first := msg.Type == "base" && i == 0; first != (s.Columns != nil) || first != (s.Key != nil) {
				return errors.New("columns or key are missing, or too many")
			} else if first {
				m.columns[name], m.views[name] = s.Columns, contents{}
			}
			if part.More != (s.Checksum == "") {
				return errors.New("the checksum is missing, or one too many")
			}
			for _, row := range s.Inserted {
				m.views[name][core.Row(row)]++
			}
			for _, row := range s.Deleted {
				m.views[name][core.Row(row)]--
			}
		}
	}
	for name, view := range m.views {
		for row, n := range view {
			if n < 0 {
				return fmt.Errorf("%s has %d copies of %s", name, n, row)
			}
			if n == 0 {
				delete(view, row)
			}
		}
	}
	for name, view := range m.views {
		s := msg.shape
		if msg.Views != nil {
			s = msg.Views[name]
		}
		if got := view.checksum(m.columns[name]); s.Checksum != got {
			return fmt.Errorf("%s has the checksum %s, not %q", name, got, s.Checksum)
		}
	}
	m.parts = nil
	m.token, m.timestamp = msg.Token, msg.Timestamp
	switch msg.Type {
	case "base":
		m.bases++
	case "delta":
		m.deltas++
	}
	return nil
}

// follow receives until the client has seen a time.
func (m *model) follow(c *conn, until core.Time) error {
	for m.timestamp != until.String() {
		if _, err := m.receive(c); err != nil {
			return err
		}
	}
	return nil
}

// open opens a stream, which is closed when the test ends.
func open(t *testing.T, s *site, transport, path, since string) *conn {
	t.Helper()
	c, err := transports[transport](t.Context(), s, path, since)
	if err != nil {
		t.Fatalf("%s: %v", transport, err)
	}
	t.Cleanup(c.close)
	return c
}

// openRaw returns the bytes of what the server sends: of a websocket those of
// its messages, otherwise the body of the response.
func openRaw(t *testing.T, s *site, path, accept string) io.Reader {
	t.Helper()
	if accept == "websocket" {
		c, _, err := ws.Dial(t.Context(), s.url+path, &ws.DialOptions{HTTPClient: s.client})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.CloseNow() })
		c.SetReadLimit(-1)
		return &messageReader{t: t, conn: c}
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", accept)
	response, err := s.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	return response.Body
}

// messageReader reads the messages of a websocket, one after the other.
type messageReader struct {
	t    *testing.T
	conn *ws.Conn
	now  io.Reader
}

func (r *messageReader) Read(p []byte) (n int, err error) {
	for n == 0 && err == nil {
		if r.now == nil {
			if _, r.now, err = r.conn.Reader(r.t.Context()); err != nil {
				return 0, err
			}
		}
		if n, err = r.now.Read(p); err == io.EOF {
			r.now, err = nil, nil
		}
	}
	return n, err
}
