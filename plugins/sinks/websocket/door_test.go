package websocket_test

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

// Requests for streams are told from everything else without net/http.
func TestPlainRequests(t *testing.T) {
	const host = "Host: localhost\r\n"
	for _, tt := range []struct {
		name string
		send string
		url  string // "": left to net/http
	}{
		{"a websocket", request("/api/stream/top10", upgradeHeaders), "/api/stream/top10"},
		{"version 1", request("/api/v1/stream/top10", upgradeHeaders), "/api/v1/stream/top10"},
		{"server-sent events", request("/api/stream?view=a&view=b", "Accept: text/event-stream\r\n"), "/api/stream?view=a&view=b"},
		{"lines", request("/api/stream/a%20b?since=1-x"), "/api/stream/a%20b?since=1-x"},
		{"a long value", request("/api/stream/top10", "X: "+strings.Repeat("x", 8<<10)+"\r\n"), "/api/stream/top10"},

		{"nothing", "", ""},
		{"a view", request("/api/views/top10"), ""},
		{"a page", request("/"), ""},
		{"another host's", "GET http://localhost/api/stream/top10 HTTP/1.1\r\n" + host + "\r\n", ""},
		{"HEAD", "HEAD /api/stream/top10 HTTP/1.1\r\n" + host + "\r\n", ""},
		{"HTTP/1.0", "GET /api/stream/top10 HTTP/1.0\r\n" + host + "\r\n", ""},
		{"HTTP/0.9", "GET /api/stream/top10\r\n\r\n", ""},
		{"a request line of four words", "GET /api/stream/top10 x HTTP/1.1\r\n" + host + "\r\n", ""},
		{"two versions", "GET /api/stream/top10 HTTP/1.1 HTTP/1.1\r\n" + host + "\r\n", ""},
		{"two spaces", "GET /api/stream/top10  HTTP/1.1\r\n" + host + "\r\n", ""},
		{"a long target", request("/api/stream/top10?since=" + strings.Repeat("1", 2<<10)), ""},
		{"a hundred fields", request("/api/stream/top10", strings.Repeat("X: y\r\n", 100)), ""},
		{"not the whole head", "GET /api/stream/top10 HTTP/1.1\r\n" + host, ""},
		{"a line feed alone", "GET /api/stream/top10 HTTP/1.1\n" + host + "\r\n", ""},
		{"a head that ends in line feeds", "GET /api/stream/top10 HTTP/1.1\r\n" + host + "\n\r\n\r\n", ""},
		{"no host", "GET /api/stream/top10 HTTP/1.1\r\nX: y\r\n\r\n", ""},
		{"two hosts", "GET /api/stream/top10 HTTP/1.1\r\n" + host + host + "\r\n", ""},
		{"a host with a space", "GET /api/stream/top10 HTTP/1.1\r\nHost: a b\r\n\r\n", ""},
		{"a body", request("/api/stream/top10", "Content-Length: 1\r\n") + "x", ""},
		{"a body in chunks", request("/api/stream/top10", "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", ""},
		{"an expectation", request("/api/stream/top10", "Expect: 100-continue\r\n"), ""},
		{"a control character", request("/api/stream/top10", "X: a\x00b\r\n"), ""},
		{"a name that is none", request("/api/stream/top10", "X(y: z\r\n"), ""},
		{"a letter that is not of ASCII", request("/api/stream/top10", "X: é\r\n"), ""},
		{"a name with a space", request("/api/stream/top10", "X y: z\r\n"), ""},
		{"no name", request("/api/stream/top10", ": z\r\n"), ""},
		{"a path that is none", "GET /api/stream/%zz HTTP/1.1\r\n" + host + "\r\n", ""},
	} {
		const after = "\x81\x80\x00\x00\x00\x00"
		r, early := websocket.PlainRequest([]byte(tt.send + after))
		switch {
		case tt.url == "" && r != nil:
			t.Errorf("%s: taken", tt.name)
		case tt.url == "":
		case r == nil:
			t.Errorf("%s: left to net/http", tt.name)
		case r.URL.String() != tt.url || string(early) != after:
			t.Errorf("%s: got %v with %q after it, want %s and %q", tt.name, r.URL, early, tt.url, after)
		}
	}
}

// FuzzPlainRequest holds what is taken for a request against what net/http takes
// it for.
func FuzzPlainRequest(f *testing.F) {
	f.Add([]byte(request("/api/stream/top10", upgradeHeaders) + "\x81\x80\x00\x00\x00\x00"))
	f.Add([]byte(request("/api/stream/top10", "Pragma: no-cache\r\n")))
	f.Add([]byte(request("/api/stream?view=a&view=b", "Accept: a\r\n", " b\r\n", "Accept: c\r\n")))
	for _, tt := range strangeRequests {
		if len(tt.send) < 2000 {
			f.Add([]byte(tt.send))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, early := websocket.PlainRequest(data)
		if got == nil {
			return
		}
		rest := bufio.NewReader(bytes.NewReader(data))
		want, err := http.ReadRequest(rest)
		if err != nil {
			t.Fatalf("taken, and for net/http it is no request: %v", err)
		}
		if got.Header.Get("Pragma") != "" {
			got.Header.Del("Cache-Control") // net/http adds one
			want.Header.Del("Cache-Control")
		}
		after, _ := rest.Peek(rest.Buffered())
		if got.Method != want.Method || got.Proto != want.Proto || got.RequestURI != want.RequestURI || got.Host != want.Host ||
			!reflect.DeepEqual(got.URL, want.URL) || !reflect.DeepEqual(got.Header, want.Header) || want.ContentLength != 0 {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if len(data) < 4096 && !bytes.Equal(early, after) {
			t.Errorf("%q comes after it, want %q", early, after)
		}
	})
}

// A connection on which something else was asked for before can become a stream.
func TestStreamAfterOtherRequests(t *testing.T) {
	f := newFeed(t, "top10")
	f.reset(1000, `["Ada",0]`)
	s := serve(t, websocket.Settings{}, f)
	for _, headers := range []string{upgradeHeaders, "Accept: text/event-stream\r\n", ""} {
		w := wireTo(t, s)
		for range 2 {
			w.say(request("/api/views/top10"))
			response := w.answer()
			if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK {
				t.Fatalf("status %s, %v", response.Status, err)
			}
		}
		w.say(request("/api/stream/top10", headers))
		if response := w.answer(); response.StatusCode >= 300 {
			t.Fatalf("%q: status %s", headers, response.Status)
		}
	}
}

// Who does not ask for anything is closed, be it in the door or after it.
func TestSilence(t *testing.T) {
	f := newFeed(t, "top10")
	f.reset(1000, `["Ada",0]`)
	sink, err := websocket.New(t.Context(), websocket.Settings{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	sink.SetRequestTimeout(50 * time.Millisecond)
	s := start(t, sink, &http.Transport{}, []core.Reader{f})
	for _, said := range []string{"", "GET /api/stream/top10 HTTP/1.1\r\n", "GET /"} {
		w := wireTo(t, s)
		w.say(said)
		if _, err := io.Copy(io.Discard, w); err != nil {
			t.Errorf("%q: the connection ends with %v", said, err)
		}
	}
}

// A refusal through the door is an answer like any other.
func TestRefusedStream(t *testing.T) {
	f := newFeed(t, "top10")
	f.reset(1000, `["Ada",0]`)
	s := serve(t, websocket.Settings{}, f)
	for _, tt := range []struct {
		path, headers string
		status        int
		code          string
	}{
		{"/api/stream/nosuch", "", http.StatusNotFound, "unknown_view"},
		{"/api/streams", "", http.StatusNotFound, "not_found"},
		{"/api/stream/top10", "Origin: https://example.com\r\n", http.StatusForbidden, "foreign_origin"},
		{"/api/stream/top10", "Connection: Upgrade\r\nUpgrade: websocket\r\n", http.StatusUpgradeRequired, "bad_request"},
	} {
		w := wireTo(t, s)
		w.say(request(tt.path, tt.headers))
		response := w.answer()
		body, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != tt.status || !strings.Contains(string(body), `"code":"`+tt.code+`"`) {
			t.Errorf("%s: got %s, %s, %v, want %d and %s", tt.path, response.Status, body, err, tt.status, tt.code)
		}
		if _, err := w.r.ReadByte(); err != io.EOF {
			t.Errorf("%s: the connection goes on: %v", tt.path, err)
		}
	}
}

// What a client says with its request is heard, also if net/http gets the request.
func TestNothingSaidEarlyIsLost(t *testing.T) {
	f := newFeed(t, "top10")
	f.reset(1000, `["Ada",0]`)
	s := serve(t, websocket.Settings{}, f)
	early := strings.Repeat(frame(textFrame, strings.Repeat("x", 2000)), 4) + frame(pingFrame, "last")
	for name, header := range map[string]string{"through the door": "X: e\r\n", "through net/http": "X: é\r\n"} {
		t.Run(name, func(t *testing.T) {
			w := wireTo(t, s)
			w.say(request("/api/stream/top10", upgradeHeaders, header) + early)
			w.answer()
			w.pong("last")
		})
	}
}
