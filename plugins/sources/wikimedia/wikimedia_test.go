package wikimedia_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/sources/wikimedia"
	"github.com/mzdio/mzd/schema"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const idLine = `id: [{"topic":"eqiad.mediawiki.recentchange","partition":0,"timestamp":1670732822001},{"topic":"codfw.mediawiki.recentchange","partition":0,"offset":-1}]` + "\n"

const cursorThere = `[{"topic":"eqiad.mediawiki.recentchange","partition":0,"timestamp":1670732822000},{"topic":"codfw.mediawiki.recentchange","partition":0,"offset":-1}]`

// event returns a message as the server writes it.
func event(data string) string { return "event: message\n" + idLine + "data: " + data + "\n\n" }

// run runs a source once, against a server, and returns the events and what Run
// returned.
func run(t *testing.T, s wikimedia.Settings, cursor string, handler http.HandlerFunc) (*wikimedia.Source, []core.Event, error) {
	t.Helper()
	source, stop := open(t, s, handler)
	defer stop()
	events, err := collect(t.Context(), source, cursor)
	return source, events, err
}

func open(t *testing.T, s wikimedia.Settings, handler http.HandlerFunc) (*wikimedia.Source, func()) {
	t.Helper()
	srv := httptest.NewServer(handler)
	s.URL = srv.URL + "/v2/stream"
	source, err := wikimedia.New(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	return source, srv.Close
}

func collect(ctx context.Context, source core.Source, cursor string) ([]core.Event, error) {
	var got []core.Event
	err := source.Run(ctx, cursor, func(_ context.Context, events ...core.Event) error {
		for _, e := range events {
			e.Data = bytes.Clone(e.Data)
			got = append(got, e)
		}
		return nil
	})
	return got, err
}

// serve answers with a stream.
func serve(stream string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		io.WriteString(w, stream)
	}
}

func TestEvents(t *testing.T) {
	const edit = `{"meta":{"id":"e1","domain":"en.wikipedia.org","dt":"2022-12-11T04:27:02.5Z"},"timestamp":1670732822}`
	at := time.Date(2022, 12, 11, 4, 27, 2, 5e8, time.UTC)
	for _, c := range []struct {
		name, format, stream string
		want                 []core.Event
		rejected             map[string]uint64
	}{
		{name: "an edit", stream: ":ok\n\n" + event(edit),
			want: []core.Event{{ID: "e1", Cursor: cursorThere, Time: at, Data: []byte(edit)}}},
		{name: "an edit, raw", format: "sse", stream: ":ok\n\n" + event(edit),
			want: []core.Event{{ID: "e1", Cursor: cursorThere, Time: at, Data: []byte("data: " + edit)}}},
		{name: "a cut-off tail", stream: event(edit) + "event: message\n" + idLine + `data: {"meta":{"id":"e2"`,
			want: []core.Event{{ID: "e1", Cursor: cursorThere, Time: at, Data: []byte(edit)}}},
		{name: "spaces", stream: event(`{ "meta": {"id" :"x"},` + "\t" + `"a b":" c\n" }`),
			want: []core.Event{{ID: "x", Cursor: cursorThere, Data: []byte(`{"meta":{"id":"x"},"a b":" c\n"}`)}}},
		{name: "spaces, raw", format: "sse", stream: event(`{ "meta": {"id" :"x"} }`),
			want: []core.Event{{ID: "x", Cursor: cursorThere, Data: []byte(`data: { "meta": {"id" :"x"} }`)}}},
		{name: "over two lines", stream: event("{\"meta\":\ndata: {\"id\":\"x\"}}"),
			want: []core.Event{{ID: "x", Cursor: cursorThere, Data: []byte(`{"meta":{"id":"x"}}`)}}},
		{name: "over two lines, raw", format: "sse", stream: event("{\"meta\":\ndata: {\"id\":\"x\"}}"),
			want: []core.Event{{ID: "x", Cursor: cursorThere, Data: []byte(`data: {"meta":{"id":"x"}}`)}}},
		{name: "only a timestamp, no id", stream: event(`{"timestamp":1670732822}`),
			want: []core.Event{{Cursor: cursorThere, Time: time.Unix(1670732822, 0), Data: []byte(`{"timestamp":1670732822}`)}}},
		{name: "not UTF-8", stream: event("{\"meta\":{\"id\":\"x\"},\"a\":\"\xff\xfe\"}"),
			want: []core.Event{{ID: "x", Cursor: cursorThere, Data: []byte("{\"meta\":{\"id\":\"x\"},\"a\":\"\uFFFD\"}")}}},
		{name: "a canary", stream: event(`{"meta":{"id":"c","domain":"canary"}}`) + event(edit),
			want:     []core.Event{{ID: "e1", Cursor: cursorThere, Time: at, Data: []byte(edit)}},
			rejected: map[string]uint64{"canary": 1}},
		{name: "no JSON", stream: event(`{"meta":`) + event("") + event("null") + event("[]") + event(edit) + event(edit+"}"),
			want:     []core.Event{{ID: "e1", Cursor: cursorThere, Time: at, Data: []byte(edit)}},
			rejected: map[string]uint64{"invalid": 5}},
		{name: "huge", stream: event(`{"a":"`+strings.Repeat("x", 4096)+`"}`) + event(edit),
			want:     []core.Event{{ID: "e1", Cursor: cursorThere, Time: at, Data: []byte(edit)}},
			rejected: map[string]uint64{"too_large": 1}},
		{name: "an error on the stream", stream: "event: error\ndata: {\"message\":\"oh\"}\n\n" + event(edit),
			want:     []core.Event{{ID: "e1", Cursor: cursorThere, Time: at, Data: []byte(edit)}},
			rejected: map[string]uint64{"not_message": 1}},
		{name: "an ID that says nothing", stream: "id: 77\ndata: {\"meta\":{\"id\":\"x\"}}\n\n",
			want: []core.Event{{ID: "x", Data: []byte(`{"meta":{"id":"x"}}`)}}},
	} {
		source, got, err := run(t, wikimedia.Settings{Format: c.format, MaxEvent: 2048}, "", serve(c.stream))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if !slices.EqualFunc(got, c.want, func(a, b core.Event) bool {
			return a.ID == b.ID && a.Cursor == b.Cursor && a.Time.Equal(b.Time) && bytes.Equal(a.Data, b.Data)
		}) {
			t.Errorf("%s:\n got %+v\nwant %+v", c.name, got, c.want)
		}
		for _, e := range got {
			if id := source.Identify(e.Data); id != e.ID {
				t.Errorf("%s: the landed line has ID %q, want %q", c.name, id, e.ID)
			}
		}
		rejected := source.Rejected()
		if len(rejected) != 4 {
			t.Errorf("%s: the reasons %v are not there from the start", c.name, rejected)
		}
		maps.DeleteFunc(rejected, func(_ string, n uint64) bool { return n == 0 })
		if !maps.Equal(rejected, c.rejected) {
			t.Errorf("%s: rejected %v, want %v", c.name, rejected, c.rejected)
		}
	}
}

func TestRequest(t *testing.T) {
	for _, c := range []struct {
		settings     wikimedia.Settings
		cursor       string
		url, resumed string
	}{
		{wikimedia.Settings{}, "", "/v2/stream/recentchange", ""},
		{wikimedia.Settings{Stream: "page-create,page-delete"}, "", "/v2/stream/page-create,page-delete", ""},
		{wikimedia.Settings{Since: "2026-01-31T00:00:00+01:00"}, "", "/v2/stream/recentchange?since=2026-01-31T00%3A00%3A00%2B01%3A00", ""},
		{wikimedia.Settings{Since: "2026-01-31T00:00:00+01:00"}, cursorThere, "/v2/stream/recentchange", cursorThere},
	} {
		c.settings.Contact = "someone@example.org"
		_, _, err := run(t, c.settings, c.cursor, func(w http.ResponseWriter, r *http.Request) {
			if got := r.URL.String(); got != c.url {
				t.Errorf("got the address %s, want %s", got, c.url)
			}
			if got := r.Header.Get("Last-Event-ID"); got != c.resumed {
				t.Errorf("got Last-Event-ID %s, want %s", got, c.resumed)
			}
			if got := r.Header.Get("User-Agent"); !strings.HasPrefix(got, "mzd/") || !strings.HasSuffix(got, " (someone@example.org)") {
				t.Errorf("got User-Agent %s", got)
			}
			if r.Header.Get("Accept") != "text/event-stream" || r.Header.Get("Accept-Encoding") != "" {
				t.Errorf("got headers %v", r.Header)
			}
			serve("")(w, r)
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestRefusedRequest(t *testing.T) {
	for _, c := range []struct {
		status      int
		header      string
		body        string
		reason      string
		after       time.Duration
		contentType string
		want        string // in the error
	}{
		{404, "", "no such thing\nat all", "refused", time.Minute, "", `404 Not Found: there is no stream "recentchange" at this url; the server says "no such thing"`},
		{403, "", "", "refused", time.Minute, "", "the setting contact"},
		{407, "", "", "refused", time.Minute, "", "proxy"},
		{418, "", "", "refused", time.Minute, "", "no stream begins"},
		{400, "300", "", "refused", 5 * time.Minute, "", "position"},
		{408, "", "", "refused", 0, "", "408"},
		{429, "7", "", "refused", 7 * time.Second, "", "429"},
		{429, "soon", "", "refused", 0, "", "429"},
		{503, "100000", "", "refused", time.Hour, "", "503"},
		{500, time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat), "", "refused", 0, "", "500"},
		{200, "", "<html>", "refused", time.Minute, "text/html", `"text/html", not an event stream`},
		{204, "", "", "refused", time.Minute, "text/event-stream", "204"},
	} {
		_, _, err := run(t, wikimedia.Settings{}, "", func(w http.ResponseWriter, _ *http.Request) {
			if c.header != "" {
				w.Header().Set("Retry-After", c.header)
			}
			w.Header().Set("Content-Type", c.contentType)
			w.WriteHeader(c.status)
			io.WriteString(w, c.body)
		})
		var why interface {
			Reason() string
			RetryAfter() time.Duration
		}
		if !errors.As(err, &why) {
			t.Errorf("status %d: got %v, want an error with a reason", c.status, err)
			continue
		}
		if why.Reason() != c.reason || why.RetryAfter() != c.after || !strings.Contains(err.Error(), c.want) || errors.Is(err, core.ErrPermanent) {
			t.Errorf("status %d: got %s, %s, %v; want %s, %s, %s", c.status, why.Reason(), why.RetryAfter(), err, c.reason, c.after, c.want)
		}
	}
}

func reasonOf(err error) string {
	var why interface{ Reason() string }
	if errors.As(err, &why) {
		return why.Reason()
	}
	return ""
}

// TestStall has a server that keeps the connection and says nothing, before the
// answer, or after some.
func TestStall(t *testing.T) {
	for name, begin := range map[string]string{"no answer": "", "no comment": event(`{"meta":{"id":"x"}}`)} {
		_, got, err := run(t, wikimedia.Settings{StallTimeout: schema.Duration(50 * time.Millisecond)}, "", func(w http.ResponseWriter, r *http.Request) {
			if begin != "" {
				serve(begin)(w, r)
				http.NewResponseController(w).Flush()
			}
			<-r.Context().Done()
		})
		if reasonOf(err) != "stalled" || !strings.Contains(err.Error(), "nothing arrives for 50ms") {
			t.Errorf("%s: got %v", name, err)
		}
		if want := min(len(begin), 1); len(got) != want {
			t.Errorf("%s: got %d events, want %d", name, len(got), want)
		}
	}
}

// TestOldConnection ends connections on either side of the age at which their
// end is routine. A stall is none at any age.
func TestOldConnection(t *testing.T) {
	for _, c := range []struct {
		name   string
		age    time.Duration
		reset  bool // by the other side; otherwise it falls silent
		reason string
	}{
		{"young, silent", time.Minute, false, "stalled"},
		{"old, silent", 11 * time.Minute, false, "stalled"},
		{"young, reset", time.Minute, true, "network"},
		{"old, reset", 11 * time.Minute, true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				source := openPipe(t, func(w http.ResponseWriter, r *http.Request) {
					begun := time.Now()
					serve("")(w, r)
					for time.Since(begun) < c.age {
						io.WriteString(w, ":ok\n")
						http.NewResponseController(w).Flush()
						time.Sleep(20 * time.Second)
					}
					if c.reset {
						panic(http.ErrAbortHandler)
					}
					<-r.Context().Done()
				})
				begun := time.Now()
				_, err := collect(t.Context(), source, "")
				if reasonOf(err) != c.reason || (err == nil) != (c.reason == "") {
					t.Errorf("got %v, want the reason %q", err, c.reason)
				}
				if ran := time.Since(begun); ran < c.age || ran > c.age+2*time.Minute {
					t.Errorf("ran for %s", ran)
				}
			})
		})
	}
}

// openPipe returns a source whose server it reaches without a network, for the
// bubbles of synctest.
func openPipe(t *testing.T, handler http.HandlerFunc) *wikimedia.Source {
	t.Helper()
	l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	srv := &http.Server{Handler: handler}
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(l) })
	before := http.DefaultTransport
	http.DefaultTransport = &http.Transport{DialContext: l.dial} // the source has its settings from there
	t.Cleanup(func() {
		http.DefaultTransport = before
		srv.Close()
		wg.Wait()
	})
	source, err := wikimedia.New(t.Context(), wikimedia.Settings{URL: "http://wikimedia.invalid/v2/stream"})
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// pipeListener accepts connections that are pipes.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return resetConn{client}, nil
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

func (l *pipeListener) Close() error   { close(l.closed); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// resetConn is a connection that the other side does not end politely.
type resetConn struct{ net.Conn }

func (c resetConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == io.EOF {
		err = syscall.ECONNRESET
	}
	return n, err
}

func TestUnreachable(t *testing.T) {
	source, stop := open(t, wikimedia.Settings{}, serve(""))
	stop()
	if _, err := collect(t.Context(), source, ""); reasonOf(err) != "network" || !strings.Contains(err.Error(), "refused") {
		t.Errorf("got %v, want a refused connection", err)
	}
}

func TestRedirect(t *testing.T) {
	_, got, err := run(t, wikimedia.Settings{}, cursorThere, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/elsewhere" {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
			return
		}
		if r.Header.Get("Last-Event-ID") != cursorThere {
			t.Error("the cursor is lost on the way")
		}
		serve(event(`{"meta":{"id":"x"}}`))(w, r)
	})
	if err != nil || len(got) != 1 {
		t.Errorf("got %d events, %v; want 1", len(got), err)
	}
}

// TestEnds checks what Run returns when it is told to stop, when its events are
// not taken, and when the server breaks the connection.
func TestEnds(t *testing.T) {
	source, stop := open(t, wikimedia.Settings{}, func(w http.ResponseWriter, r *http.Request) {
		serve(event(`{"meta":{"id":"x"}}`))(w, r)
		http.NewResponseController(w).Flush()
		if r.Header.Get("Last-Event-ID") != "" {
			panic(http.ErrAbortHandler)
		}
		<-r.Context().Done()
	})
	defer stop()

	ctx, cancel := context.WithCancel(t.Context())
	err := source.Run(ctx, "", func(_ context.Context, events ...core.Event) error {
		if len(events) > 0 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: got %v", err)
	}

	full := errors.New("full")
	err = source.Run(t.Context(), "", func(_ context.Context, events ...core.Event) error {
		if len(events) > 0 {
			return full
		}
		return nil
	})
	if !errors.Is(err, full) {
		t.Errorf("not taken: got %v", err)
	}

	if _, err := collect(t.Context(), source, cursorThere); err != nil {
		t.Errorf("broken off: got %v, want nil", err)
	}
	if _, err := collect(t.Context(), source, "garbage"); !errors.Is(err, core.ErrPermanent) {
		t.Errorf("a cursor that is garbage: got %v", err)
	}
}

// TestHTTP2 speaks HTTP/2, as the real server does.
func TestHTTP2(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only there the test can add to the system's certificates")
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("got %s", r.Proto)
		}
		serve(event(`{"meta":{"id":"x"}}`))(w, r)
		http.NewResponseController(w).Flush()
		if r.URL.Query().Get("since") == "1" {
			panic(http.ErrAbortHandler)
		}
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", roots) // read at the first use of TLS, which is here
	for since, reason := range map[string]string{"0": "", "1": "network"} {
		source, err := wikimedia.New(t.Context(), wikimedia.Settings{URL: srv.URL, Since: since})
		if err != nil {
			t.Fatal(err)
		}
		got, err := collect(t.Context(), source, "")
		if len(got) != 1 || reasonOf(err) != reason || (err == nil) != (reason == "") {
			t.Errorf("since %s: got %d events, %v", since, len(got), err)
		}
	}
}

// TestBatches checks that what has arrived together is emitted together, and
// that a part of an event does not hold up those before it.
func TestBatches(t *testing.T) {
	const n = 100
	proceed := make(chan struct{})
	source, stop := open(t, wikimedia.Settings{}, func(w http.ResponseWriter, r *http.Request) {
		var all strings.Builder
		for i := range n {
			all.WriteString(event(fmt.Sprintf(`{"meta":{"id":"%d"}}`, i)))
		}
		last := event(`{"meta":{"id":"last"}}`)
		serve(all.String()+last[:len(last)-1])(w, r)
		http.NewResponseController(w).Flush()
		<-proceed
		io.WriteString(w, "\n")
	})
	defer stop()
	emits, got := 0, 0
	err := source.Run(t.Context(), "", func(_ context.Context, events ...core.Event) error {
		emits++
		if got += len(events); got == n {
			close(proceed)
		}
		return nil
	})
	if err != nil || got != n+1 {
		t.Errorf("got %d events, %v; want %d", got, err, n+1)
	}
	if emits > n/2 {
		t.Errorf("%d events in %d batches", got, emits)
	}
}

// TestLog checks that a stream of nonsense is reported, but not line by line.
func TestLog(t *testing.T) {
	var log bytes.Buffer
	srv := httptest.NewServer(serve(strings.Repeat(event("nonsense"), 1000)))
	defer srv.Close()
	ctx := plugins.WithEnv(t.Context(), plugins.Env{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	source, err := wikimedia.New(ctx, wikimedia.Settings{URL: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := collect(t.Context(), source, ""); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "\n"); n != 10 {
		t.Errorf("got %d lines, want 10:\n%s", n, &log)
	}
	if !strings.Contains(log.String(), "data=nonsense") {
		t.Errorf("the log does not show the data:\n%s", &log)
	}
}

func TestSettings(t *testing.T) {
	for field, s := range map[string]wikimedia.Settings{
		"stream":                     {Stream: "../recentchange"},
		"url":                        {URL: "stream.wikimedia.org"},
		"settings of wikimedia: url": {URL: "https://me:hunter2@stream.wikimedia.org/v2/stream"},
		"contact":                    {Contact: "me\r\nX: y"},
		"format":                     {Format: "xml"},
		"since":                      {Since: "yesterday"},
		"max_event":                  {MaxEvent: 1},
	} {
		_, err := wikimedia.New(t.Context(), s)
		var refused *plugins.SettingsError
		if !errors.As(err, &refused) || !errors.Is(err, core.ErrPermanent) || !strings.Contains(err.Error(), field+":") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v", field, err)
		}
	}
	for _, since := range []string{"", "1700000000000", "2026-01-31T00:00:00Z", "2026-01-31T00:00:00.5+02:00"} {
		if _, err := wikimedia.New(t.Context(), wikimedia.Settings{Since: since}); err != nil {
			t.Errorf("since %q: %v", since, err)
		}
	}
	// The defaults of the tags and those of New are the same.
	given, err := schema.Decode[wikimedia.Settings]([]byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if want := (wikimedia.Settings{}).WithDefaults(); given != want {
		t.Errorf("defaults: got %+v, want %+v", given, want)
	}
}
