package websocket_test

import (
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"

	ws "github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStreams(t *testing.T) {
	for transport := range transports {
		t.Run(transport, func(t *testing.T) {
			f := newFeed(t, "top10")
			s := serve(t, websocket.Settings{}, f)
			f.reset(1000, `["Ada",12]`, `["Bob",3]`, `["Bob",3]`)
			c := open(t, s, transport, "/api/stream/top10", "")

			for _, step := range []struct {
				do   func()
				want string
			}{
				{func() {}, `{"type":"base","view":"top10","timestamp":"1000","token":"1000-G","columns":[{"name":"user","type":"text"},{"name":"count","type":"int8"}],"key":["user"],"inserted":[["Ada",12],["Bob",3],["Bob",3]],"deleted":[],"checksum":"fe858ed0cce9a5d0"}`},
				{func() { f.append(1001, change{-1, `["Ada",12]`}, change{1, `["Ada",13]`}) }, `{"type":"delta","view":"top10","from":"1000-G","timestamp":"1001","token":"1001-G","inserted":[["Ada",13]],"deleted":[["Ada",12]],"checksum":"33f1ae4a59db0cef"}`},
				{func() { f.append(1002) }, `{"type":"progress","view":"top10","timestamp":"1002","token":"1002-G","checksum":"33f1ae4a59db0cef"}`},
				{func() { f.append(1003, change{-2, `["Bob",3]`}) }, `{"type":"delta","view":"top10","from":"1002-G","timestamp":"1003","token":"1003-G","inserted":[],"deleted":[["Bob",3],["Bob",3]],"checksum":"c440a0ce91601af7"}`},
			} {
				step.do()
				got, err := c.next()
				if err != nil {
					t.Fatal(err)
				}
				if got = strings.ReplaceAll(got, string(f.token().Generation), "G"); got != step.want {
					t.Errorf("got  %s\nwant %s", got, step.want)
				}
			}
		})
	}
}

func TestSeveralViewsAreOneCut(t *testing.T) {
	for transport := range transports {
		t.Run(transport, func(t *testing.T) {
			a, b := newFeed(t, "a"), newFeed(t, "b", core.Column{Name: "n", Type: "int4"})
			b.view.Key = nil
			s := serve(t, websocket.Settings{}, a, b)
			a.reset(1000, `["x",1]`)
			b.reset(999, `[1]`)
			c := open(t, s, transport, "/api/stream?view=b&view=a", "")
			next := func(want string) {
				t.Helper()
				got, err := c.next()
				if err != nil {
					t.Fatal(err)
				}
				got = strings.ReplaceAll(got, string(a.token().Generation), "A")
				got = strings.ReplaceAll(got, string(b.token().Generation), "B")
				got = strings.ReplaceAll(strings.ReplaceAll(got, a.sum(), "SUM-A"), b.sum(), "SUM-B")
				if got != want {
					t.Errorf("got  %s\nwant %s", got, want)
				}
			}
			// Nothing is known of b at 1000 and of a before it: they wait.
			b.append(1000)
			next(`{"type":"base","timestamp":"1000","token":"1000-B.A","views":{"b":{"columns":[{"name":"n","type":"int4"}],"key":[],"inserted":[[1]],"deleted":[],"checksum":"SUM-B"},"a":{"columns":[{"name":"user","type":"text"},{"name":"count","type":"int8"}],"key":["user"],"inserted":[["x",1]],"deleted":[],"checksum":"SUM-A"}}}`)
			a.append(1001, change{1, `["y",1]`})
			b.append(1001)
			next(`{"type":"delta","from":"1000-B.A","timestamp":"1001","token":"1001-B.A","views":{"b":{"inserted":[],"deleted":[],"checksum":"SUM-B"},"a":{"inserted":[["y",1]],"deleted":[],"checksum":"SUM-A"}}}`)
			a.append(1002)
			b.append(1002)
			next(`{"type":"progress","timestamp":"1002","token":"1002-B.A","views":{"b":{"checksum":"SUM-B"},"a":{"checksum":"SUM-A"}}}`)
		})
	}
}

func TestOneViewBeginsANewHistory(t *testing.T) {
	a, b := newFeed(t, "a"), newFeed(t, "b")
	s := serve(t, websocket.Settings{}, a, b)
	a.reset(1000, `["x",1]`)
	b.reset(1000, `["x",1]`)
	c, m := open(t, s, "websocket", "/api/stream?view=a&view=b", ""), newModel()
	if err := m.follow(c, 1000); err != nil {
		t.Fatal(err)
	}
	b.reset(1005, `["z",9]`)
	a.append(1005, change{1, `["y",1]`})
	if err := m.follow(c, 1005); err != nil {
		t.Fatal(err)
	}
	if got, want := m.bases, 2; got != want {
		t.Errorf("%d bases, want %d", got, want)
	}
	for _, f := range []*feed{a, b} {
		if got, want := m.views[f.view.Name].String(), f.now.String(); got != want {
			t.Errorf("%s: got %s, want %s", f.view.Name, got, want)
		}
	}
}

func TestResume(t *testing.T) {
	f, other := newFeed(t, "top10"), newFeed(t, "counter")
	s := serve(t, websocket.Settings{}, f, other)
	other.reset(1001, `["n",1]`)
	f.reset(900, `["Ada",1]`)
	before := f.token()
	f.reset(1000, `["Ada",12]`)
	f.append(1001, change{1, `["Bob",1]`})
	held := f.token()
	f.append(1002, change{1, `["Cleo",1]`}, change{-1, `["Bob",1]`})
	now := f.token()

	for _, tt := range []struct {
		name, since, want string
	}{
		{"known", held.String(), "delta"},
		{"none", "", "base"},
		{"earlier history", before.String(), "base"},
		{"unknown history", "1001-abcd", "base"},
		{"another view's", other.token().String(), "base"},
		{"future", "1003-" + string(now.Generation), "base"},
		{"end of time", core.EndOfTime.String() + "-" + string(now.Generation), "base"},
		{"several views", held.String() + "." + string(other.token().Generation), "base"},
		{"garbage", "garbage", "bad_token"},
		{"empty generation", "1001-", "bad_token"},
		{"negative", "-1-abcd", "bad_token"},
		{"too large", "99999999999999999999-abcd", "bad_token"},
		{"markup", "1001-%3Cb%3E", "bad_token"},
		{"long", strings.Repeat("1", 5_000), "bad_token"},
	} {
		for transport := range transports {
			t.Run(tt.name+"/"+transport, func(t *testing.T) {
				c, err := transports[transport](t.Context(), s, "/api/stream/top10", tt.since)
				if tt.want == "bad_token" && transport != "websocket" {
					if err == nil || !strings.Contains(err.Error(), "status 400") || !strings.Contains(err.Error(), `"code":"bad_token"`) {
						t.Fatalf("got %v, want status 400 with bad_token", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				defer c.close()
				text, err := c.next()
				if err != nil {
					t.Fatal(err)
				}
				if tt.want == "bad_token" {
					if !strings.Contains(text, `"type":"error","code":"bad_token"`) {
						t.Errorf("got %s, want the error bad_token", text)
					}
					if _, err := c.next(); ws.CloseStatus(err) != ws.StatusPolicyViolation {
						t.Errorf("got %v, want close code 1008", err)
					}
					return
				}
				want := strings.NewReplacer("G", string(now.Generation), "SUM", f.sum()).Replace(map[string]string{
					"base":  `{"type":"base","view":"top10","timestamp":"1002","token":"1002-G","columns":[{"name":"user","type":"text"},{"name":"count","type":"int8"}],"key":["user"],"inserted":[["Ada",12],["Cleo",1]],"deleted":[],"checksum":"SUM"}`,
					"delta": `{"type":"delta","view":"top10","from":"1001-G","timestamp":"1002","token":"1002-G","inserted":[["Cleo",1]],"deleted":[["Bob",1]],"checksum":"SUM"}`,
				}[tt.want])
				if text != want {
					t.Errorf("got  %s\nwant %s", text, want)
				}
			})
		}
	}
}

func TestResumeSeveralViews(t *testing.T) {
	a, b := newFeed(t, "a"), newFeed(t, "b")
	s := serve(t, websocket.Settings{}, a, b)
	a.reset(1000, `["x",1]`)
	b.reset(1000, `["y",1]`)
	genA, genB := string(a.token().Generation), string(b.token().Generation)
	a.append(1001, change{1, `["z",1]`})
	b.append(1001)
	for _, tt := range []struct{ since, want string }{
		{"1000-" + genA + "." + genB, "delta"},
		{"1000-" + genB + "." + genA, "base"},
		{"1000-" + genA + ".abcd", "base"},
		{"1000-abcd." + genB, "base"},
		{"1000-" + genA, "base"},
	} {
		c, m := open(t, s, "ndjson", "/api/stream?view=a&view=b", tt.since), newModel()
		if tt.want == "delta" {
			m.token = tt.since
			m.views = map[string]contents{"a": {`["x",1]`: 1}, "b": {`["y",1]`: 1}}
		}
		msg, err := m.receive(c)
		if err != nil {
			t.Fatalf("%s: %v", tt.since, err)
		}
		if msg.Type != tt.want {
			t.Errorf("since %s: got a %s, want a %s", tt.since, msg.Type, tt.want)
		}
		for _, f := range []*feed{a, b} {
			if got, want := m.views[f.view.Name].String(), f.now.String(); got != want {
				t.Errorf("since %s: %s is %s, want %s", tt.since, f.view.Name, got, want)
			}
		}
	}
}

func TestLargeMessagesComeInParts(t *testing.T) {
	const seed = 1
	rng := rand.New(rand.NewPCG(seed, seed))
	f, g := newFeed(t, "big"), newFeed(t, "small")
	s := serve(t, websocket.Settings{}, f, g)
	var rows []core.Row
	for i := range 2000 {
		rows = append(rows, row(`["%s%d",%d]`, strings.Repeat("x", rng.IntN(3000)), i, i))
	}
	rows = append(rows, rows[0], rows[0])
	giant := row(`["%s",0]`, strings.Repeat("y", 3*websocket.MaxMessageBytes/2))
	f.reset(1000, append(rows, giant)...)
	g.reset(1000, `["a",1]`)
	before := f.now.String()
	var changes []change
	for i, r := range rows[:1000] {
		changes = append(changes, change{-1, r}, change{1, row(`["%s",%d]`, strings.Repeat("z", rng.IntN(3000)), i)})
	}
	for transport := range transports {
		paths := []string{"/api/stream/big", "/api/stream/big?numbers=string", "/api/stream?view=small&view=big", "/api/stream?view=big&view=small"}
		if transport != "ndjson" {
			paths = paths[:1] // the transports have the same messages
		}
		for _, path := range paths {
			t.Run(transport+path, func(t *testing.T) {
				parts := 0
				c := open(t, s, transport, path, "")
				counted := &conn{next: func() (string, error) {
					text, err := c.next()
					if len(text) > websocket.MaxMessageBytes && !strings.Contains(text, "yyy") {
						t.Errorf("a part has %d bytes", len(text))
					}
					parts++
					return text, err
				}}
				m := newModel()
				if err := m.follow(counted, 1000); err != nil {
					t.Fatal(err)
				}
				if parts < 4 || parts > 7 {
					t.Errorf("%d parts of %d bytes", parts, len(before))
				}
				if !strings.Contains(path, "numbers") && m.views["big"].String() != before {
					t.Error("the parts do not add up to the view")
				}
			})
		}
	}
	token := f.token().String()
	f.append(1001, changes...)
	c, m := open(t, s, "ndjson", "/api/stream/big", token), newModel()
	m.token, m.views["big"] = token, contents{}
	for r, n := range f.now {
		m.views["big"][r] = n
	}
	for _, c := range changes {
		m.views["big"][c.row] -= c.diff
	}
	if err := m.follow(c, 1001); err != nil {
		t.Fatal(err)
	}
	if m.deltas != 1 || m.views["big"].String() != f.now.String() {
		t.Errorf("%d deltas do not lead to the view", m.deltas)
	}
}

// However the bytes of rows and of what is around them add up, no part is too
// large, and none has room for its successor's first row.
func TestPartsAreFull(t *testing.T) {
	view := &core.View{Name: `a "view"`, Columns: []core.Column{{Name: "n", Type: "int8"}, {Name: "s", Type: "text"}}}
	for n := range 30 {
		var rows []core.Update
		for size := 0; size < 3*websocket.MaxMessageBytes; {
			r := row(`[%d,"%s"]`, len(rows), strings.Repeat("x", 40_000+n*117))
			rows = append(rows, core.Update{Diff: 1, Row: r})
			size += len(r)
		}
		upper := core.Token{Time: 1000, Generation: "g"}
		b := core.Batch{View: view, Upper: upper, Updates: core.UpdatesOf(rows)}
		parts := websocket.Messages([]core.Batch{b}, n%2 == 0)
		for i, part := range parts {
			if !json.Valid(part) || len(part) > websocket.MaxMessageBytes || i < len(parts)-1 && len(part) < websocket.MaxMessageBytes-len(rows[0].Row)-1000 {
				t.Errorf("rows of %d bytes: part %d of %d has %d", len(rows[0].Row), i, len(parts), len(part))
			}
		}
	}
}

func TestErrors(t *testing.T) {
	f, g := newFeed(t, "counter"), newFeed(t, "top10")
	f.reset(1000, `["n",1]`)
	g.reset(1000, `["n",1]`)
	s := serve(t, websocket.Settings{}, f, g)
	for _, tt := range []struct {
		path   string
		status int
		want   string
	}{
		{"/api/stream/top11", 404, `{"type":"error","code":"unknown_view","message":"no view \"top11\"; views: counter, top10"}`},
		{"/api/stream?view=top10&view=top11", 404, `{"type":"error","code":"unknown_view","message":"no view \"top11\"; views: counter, top10"}`},
		{"/api/stream", 400, `{"type":"error","code":"bad_request","message":"no view named: ask for /api/stream/NAME or /api/stream?view=NAME&view=NAME; views: counter, top10"}`},
		{"/api/stream?view=top10&view=top10", 400, `{"type":"error","code":"bad_request","message":"view \"top10\" asked for twice"}`},
		{"/api/stream/top10?interval=often", 400, `{"type":"error","code":"bad_interval","message":"interval \"often\": want a duration from 0s to 1h0m0s, as in 500ms"}`},
		{"/api/stream/top10?interval=-1s", 400, `{"type":"error","code":"bad_interval","message":"interval \"-1s\": want a duration from 0s to 1h0m0s, as in 500ms"}`},
		{"/api/stream/top10?numbers=words", 400, `{"type":"error","code":"bad_request","message":"numbers \"words\": only string is known"}`},
		{"/api/stream/top10?a;b", 400, `{"type":"error","code":"bad_request","message":"query: invalid semicolon separator in query"}`},
		{"/api/stream?" + strings.Repeat("view=x&", 40), 400, `{"type":"error","code":"too_many_views","message":"40 views in one stream; 32 are allowed"}`},
		{"/api/stream/%3Cb%3E%0A", 404, `{"type":"error","code":"unknown_view","message":"no view \"\u003cb\u003e\\n\"; views: counter, top10"}`},
	} {
		response, body := s.get(t, tt.path)
		if response.StatusCode != tt.status || strings.TrimSpace(body) != tt.want {
			t.Errorf("%s: got %d %s\nwant %d %s", tt.path, response.StatusCode, body, tt.status, tt.want)
		}
		c := open(t, s, "websocket", tt.path, "")
		if got, err := c.next(); got != tt.want {
			t.Errorf("%s: got %s %v\nwant %s", tt.path, got, err, tt.want)
		}
		if _, err := c.next(); ws.CloseStatus(err) != ws.StatusPolicyViolation {
			t.Errorf("%s: got %v, want close code 1008", tt.path, err)
		}
	}
	for _, path := range []string{"/api/v1/stream/top11", "/nothing", "/api/nothing"} {
		if response, body := s.get(t, path); response.StatusCode != 404 || !strings.HasPrefix(body, `{"type":"error"`) {
			t.Errorf("%s: got %d %s, want 404 and an error", path, response.StatusCode, body)
		}
	}
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/api/stream/top10", nil)
	response, err := s.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if got, want := response.StatusCode, http.StatusMethodNotAllowed; got != want {
		t.Errorf("POST: status %d, want %d", got, want)
	}
}

func TestShutdown(t *testing.T) {
	f := newFeed(t, "top10")
	f.reset(1000, `["Ada",1]`)
	s := serve(t, websocket.Settings{}, f)
	conns := map[string]*conn{}
	for transport := range transports {
		conns[transport] = open(t, s, transport, "/api/stream/top10", "")
		if _, err := conns[transport].next(); err != nil {
			t.Fatal(err)
		}
	}
	stopped := make(chan error, 1)
	go func() { stopped <- s.stop() }()
	for transport, c := range conns {
		if text, err := c.next(); err != nil || !strings.Contains(text, `"code":"stopping"`) || !strings.Contains(text, `"retry_ms":`) {
			t.Errorf("%s: got %s, %v, want the error stopping with retry_ms", transport, text, err)
		}
		_, err := c.next()
		var closed ws.CloseError
		switch {
		case transport != "websocket":
			if err != io.EOF {
				t.Errorf("%s ended with %v, want %v", transport, err, io.EOF)
			}
		case !errors.As(err, &closed) || closed.Code != ws.StatusServiceRestart || closed.Reason == "":
			t.Errorf("websocket ended with %v, want 1012 and a reason", err)
		}
	}
	if err := <-stopped; err != nil {
		t.Errorf("Serve returned %v", err)
	}
	if _, err := net.Dial("tcp", s.Addr().String()); err == nil {
		t.Error("the port is still open")
	}
}

// Browsers come back to server-sent events by themselves: they are told when.
func TestServerSentEventsSayWhenToComeBack(t *testing.T) {
	f := newFeed(t, "top10")
	f.reset(1000, `["Ada",1]`)
	s := serve(t, websocket.Settings{}, f)
	next, stop, err := s.lines(t.Context(), "/api/stream/top10", "Accept", "text/event-stream")
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	var lines []string
	stopped := make(chan error, 1)
	for line, err := next(); err == nil; line, err = next() {
		if lines = append(lines, line); line == "" && len(lines) == 3 { // the base
			go func() { stopped <- s.stop() }()
		}
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if len(lines) != 6 || !strings.HasPrefix(lines[3], "retry: ") || !strings.Contains(lines[4], `"retry_ms":`+lines[3][len("retry: "):]+"}") {
		t.Errorf("got %q, want retry: and the same in the message", lines)
	}
}

// brokenReader is a log that cannot be read.
type brokenReader struct{ core.CutReader }

func (brokenReader) Read(core.Token, core.Time) (core.Batch, error) {
	return core.Batch{}, errors.New("disk on fire")
}

func TestALogThatFails(t *testing.T) {
	f := newFeed(t, "top10")
	f.reset(1000, `["Ada",1]`)
	s := serve(t, websocket.Settings{}, brokenReader{f})
	c := open(t, s, "websocket", "/api/stream/top10", "")
	if text, err := c.next(); err != nil || !strings.Contains(text, `"code":"internal"`) || strings.Contains(text, "fire") {
		t.Errorf("got %s, %v, want the error internal without details", text, err)
	}
	if _, err := c.next(); ws.CloseStatus(err) != ws.StatusInternalError || strings.Contains(err.Error(), "fire") {
		t.Errorf("got %v, want close code 1011 without details", err)
	}
}

func TestWhatClientsSayIsIgnored(t *testing.T) {
	f := newFeed(t, "top10")
	f.reset(1000, `["Ada",1]`)
	s := serve(t, websocket.Settings{}, f)
	c, _, err := ws.Dial(t.Context(), s.url+"/api/stream/top10", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	for range 100 {
		if err := c.Write(t.Context(), ws.MessageText, []byte(strings.Repeat("x", 1000))); err != nil {
			t.Fatal(err)
		}
	}
	if _, data, err := c.Read(t.Context()); err != nil || !strings.Contains(string(data), `"base"`) {
		t.Fatalf("got %s, %v, want the base", data, err)
	}
	c.Write(t.Context(), ws.MessageBinary, make([]byte, 10_000)) // the answer may come before it is written
	if _, _, err := c.Read(t.Context()); ws.CloseStatus(err) != ws.StatusMessageTooBig {
		t.Errorf("after a large message: got %v, want close code 1009", err)
	}
}

func TestStreamsOverHEAD(t *testing.T) {
	f := newFeed(t, "top10")
	f.reset(1000, `["Ada",1]`)
	s := serve(t, websocket.Settings{}, f)
	for _, path := range []string{"/api/stream/top10", "/api/v1/stream/top10", "/api/views/top10", "/api/views", "/"} {
		response, err := s.client.Head(s.url + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != 200 {
			t.Errorf("HEAD %s: status %d", path, response.StatusCode)
		}
	}
}

func TestServeAgain(t *testing.T) {
	f := newFeed(t, "top10")
	f.reset(1000, `["Ada",1]`)
	sink, err := websocket.New(t.Context(), websocket.Settings{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s := start(t, sink, &http.Transport{}, []core.Reader{f})
		for t.Context().Err() == nil { // until Serve has bound the address again
			if c, err := net.Dial("tcp", sink.Addr().String()); err == nil {
				c.Close()
				break
			}
		}
		if response, _ := s.get(t, "/api/views/top10"); response.StatusCode != 200 {
			t.Errorf("status %d", response.StatusCode)
		}
		s.client.CloseIdleConnections()
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNew(t *testing.T) {
	sink, err := websocket.New(t.Context(), websocket.Settings{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = websocket.New(t.Context(), websocket.Settings{Listen: sink.Addr().String()})
	if err == nil || !strings.Contains(err.Error(), sink.Addr().String()) || !strings.Contains(err.Error(), "listen") {
		t.Errorf("taken port: got %v, want an error that names it and the setting", err)
	}
	if err := sink.Write(t.Context(), nil); !errors.Is(err, core.ErrPermanent) {
		t.Errorf("Write returned %v, want a permanent error", err)
	}
	for range 2 {
		if err := sink.Close(); err != nil {
			t.Errorf("Close returned %v", err)
		}
	}
	if _, err = websocket.New(t.Context(), websocket.Settings{Origins: []string{"https://ok.example", "example.com"}}); !errors.Is(err, core.ErrPermanent) || !strings.Contains(err.Error(), "origins[1]") {
		t.Errorf("bad origin: got %v, want a permanent error about origins[1]", err)
	}
	if _, err = websocket.New(t.Context(), websocket.Settings{StallTimeout: -1}); !errors.Is(err, core.ErrPermanent) || !strings.Contains(err.Error(), "stall_timeout") {
		t.Errorf("negative timeout: got %v, want a permanent error about stall_timeout", err)
	}
	if err := sink.Serve(t.Context(), []core.Reader{plainReader{newFeed(t, "x").Log}}); !errors.Is(err, core.ErrPermanent) {
		t.Errorf("a reader without cuts: Serve returned %v, want a permanent error", err)
	}
}

// plainReader hides that a log can be read at a chosen time.
type plainReader struct{ core.Reader }
